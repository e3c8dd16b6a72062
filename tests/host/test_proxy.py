"""Scale to zero: a container that starts with the first connection, and stops or freezes after the last."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import active_state, eventually, systemctl
from lane import TIMEOUT, Sysbox
from test_units import NAME, SERVICE, Declare, journal, state

SOCKET, PROXY = f"{NAME}.socket", f"{NAME}-proxy.service"
PORT = 18472
SERVER = (
    "sh -c \"trap 'exit 0' TERM; mkdir -p /www; echo hello >/www/index.html; httpd -p 80 -h /www; "
    'while :; do sleep 0.05; done"'
)


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path, image: str) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path, image)
    yield one
    one.remove()
    for unit in (SOCKET, PROXY):
        systemctl("reset-failed", unit, check=False)


def get() -> str:
    """The page, by a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=TIMEOUT)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().read().decode().strip()
    finally:
        connection.close()


def listen(declare: Declare, sysbox: Sysbox, more: str = "", execute: str = SERVER) -> None:
    text = f"ListenStream=127.0.0.1:{PORT}\nProxyPort=80\nExec={execute}\n{more}"
    made = sysbox("unit", "install", declare.file(text), check=True).stdout.split()
    assert made == [SERVICE, PROXY, SOCKET]
    systemctl("start", SOCKET)


def main_of(unit: str) -> int:
    return int(systemctl("show", "-P", "MainPID", unit))


def test_it_starts_with_a_connection_and_stops_without(declare: Declare, sysbox: Sysbox) -> None:
    listen(declare, sysbox, "IdleStop=1")
    assert state() == "inactive"
    for _ in range(2):
        # while a connection is open it does not stop, however long it takes to look
        with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT):
            assert get() == "hello"
            one = declare.container()
            proxy = main_of(PROXY)
            # nobody, in the container's network: it can reach no other
            assert os.readlink(f"/proc/{proxy}/ns/net") == one.namespace("net")
            status = Path(f"/proc/{proxy}/status").read_text()
        assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
        assert "\nCapPrm:\t0000000000000000\n" in status
        eventually(lambda: state() == "inactive", "no connection is left")
        assert not declare.is_there()
    assert active_state(SOCKET) == "active"


def test_it_freezes_and_thaws(declare: Declare, sysbox: Sysbox) -> None:
    listen(declare, sysbox, "IdleFreeze=1")
    assert get() == "hello"
    one = declare.container()
    pid = one.pid
    for _ in range(2):
        eventually(lambda: one.inspect("State.Status") == "paused", "no connection is left")
        assert state() == "active"
        assert get() == "hello"
        assert one.pid == pid, "the same process answers"
    eventually(lambda: one.inspect("State.Status") == "paused", "no connection is left")
    systemctl("stop", SERVICE)
    assert not declare.is_there(), "a frozen one stops, too"
    assert get() == "hello"


def test_connections_during_a_stop_are_answered(
    declare: Declare, sysbox: Sysbox, tmp_path: Path
) -> None:
    """The kernel keeps them, and the next start has them: by idleness and by the administrator."""
    slow = SERVER.replace("exit 0", "while ! test -e /end/now; do sleep 0.05; done; exit 0")
    listen(declare, sysbox, f"IdleStop=1\nVolume={tmp_path}:/end", slow)
    now = tmp_path / "now"
    # while a connection is open it does not stop, however long it takes to look
    with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT):
        assert get() == "hello"
        pid = declare.container().pid
    for stop in ((), ("stop", "--no-block", SERVICE)):
        if stop:
            systemctl(*stop)
        eventually(lambda: state() == "deactivating", "it stops")
        with (
            socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT),
            socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT) as asking,
        ):
            asking.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert state() == "deactivating"
            now.touch()  # only now does it end
            assert asking.recv(100).startswith(b"HTTP/")
            before, pid = pid, declare.container().pid
            assert pid != before
            now.unlink()
    now.touch()


@pytest.mark.parametrize("victim", ["proxy", "monitor", "payload"])
def test_what_is_killed_is_started_again(declare: Declare, sysbox: Sysbox, victim: str) -> None:
    listen(declare, sysbox, "IdleStop=2")
    with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT) as open_one:
        assert get() == "hello"
        one = declare.container()
        pid = {"proxy": main_of(PROXY), "monitor": main_of(SERVICE), "payload": one.pid}
        eventually(
            lambda: " 01 " in one.exec("cat", "/proc/net/tcp", "/proc/net/tcp6"), "it is connected"
        )
        os.kill(pid[victim], signal.SIGKILL)
        assert not received(open_one), "it is closed, and not left open"
    # one that comes before systemd has noticed is closed, too
    eventually(lambda: page() == "hello", "it answers again")
    eventually(lambda: state() in ("inactive", "failed"), "and it stops when it is idle")
    assert not declare.is_there()


def received(connection: socket.socket) -> bytes:
    """What comes until the other end closes."""
    try:
        return connection.recv(100)
    except ConnectionResetError:
        return b""


def page() -> str:
    """The page, or nothing."""
    try:
        return get()
    except (OSError, http.client.HTTPException):
        return ""


def test_many_connections_at_once_start_it_once(declare: Declare, sysbox: Sysbox) -> None:
    listen(declare, sysbox, "IdleStop=2")
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(get())) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["hello"] * 20


def test_an_open_connection_keeps_it(declare: Declare, sysbox: Sysbox) -> None:
    listen(declare, sysbox, "IdleStop=1")
    with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT):
        eventually(lambda: active_state(PROXY) == "active", "it runs")
        time.sleep(2.5)  # longer than it may be idle
        assert (state(), active_state(PROXY)) == ("active", "active")
    eventually(lambda: state() == "inactive", "no connection is left")


def test_one_that_does_not_listen(declare: Declare, sysbox: Sysbox) -> None:
    """`--network none` is refused when the file is read, or when the container runs."""
    text = f"ListenStream={PORT}\nProxyPort=80\nExec=sleep 1\n"
    for more in ("Network=none", "Network=host", "Network=x.container"):
        done = sysbox("unit", "check", declare.file(f"{text}{more}"))
        assert "ProxyPort=: with Network=" in done.stderr
        assert "has no address of its own" in done.stderr
    listen(declare, sysbox, "PodmanArgs=--network=none\nIdleStop=1")
    with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT):
        eventually(lambda: "has no address of its own" in journal(PROXY), "it says why")
        systemctl("stop", SOCKET, PROXY, SERVICE)


def test_a_paused_one_stays_paused(declare: Declare, sysbox: Sysbox) -> None:
    """Only what the proxy has frozen is thawed by a connection."""
    listen(declare, sysbox, "IdleStop=600")
    assert get() == "hello"
    one = declare.container()
    one("pause")
    systemctl("stop", PROXY)
    with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        eventually(lambda: active_state(PROXY) == "active", "the proxy has the connection")
        assert one.inspect("State.Status") == "paused"
        one("unpause")
        assert connection.recv(100).startswith(b"HTTP/")


def test_a_proxy_that_is_killed_while_it_waits(declare: Declare, sysbox: Sysbox) -> None:
    """Its connection waits in the socket, and the next proxy has it."""
    late = SERVER.replace("httpd -p", "while ! test -e /go; do sleep 0.05; done; httpd -p")
    listen(declare, sysbox, "IdleStop=600", late)
    with socket.create_connection(("127.0.0.1", PORT), timeout=TIMEOUT) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        eventually(lambda: active_state(PROXY) == "activating" and main_of(PROXY) > 0, "it waits")
        first = main_of(PROXY)
        os.kill(first, signal.SIGKILL)
        # with the proxy the container has ended as when it is idle, and begins anew
        eventually(
            lambda: active_state(PROXY) == "activating" and main_of(PROXY) not in (0, first),
            "another waits",
        )
        eventually(declare.is_there, "the container is there")
        declare.container().exec("touch", "/go")
        assert connection.recv(100).startswith(b"HTTP/")
