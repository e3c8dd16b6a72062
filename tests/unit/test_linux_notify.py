"""What the monitor passes on of what a container tells systemd, with a systemd of the test's."""

from __future__ import annotations

import array
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from monitored import finish, start

BURST, COST = 64, 0.025  # messages at once, and seconds for each in the long run (src/notify.c)


def own_cgroup() -> str:
    """The path of the test's cgroup in one hierarchy."""
    return Path("/proc/self/cgroup").read_text().splitlines()[0].split(":", 2)[2]


def passed_on(
    tmp_path: Path,
    send: Callable[[socket.socket], None],
    cgroup: str = "",
    read: Callable[[socket.socket], list[bytes]] | None = None,
) -> list[bytes]:
    """What systemd gets of what a container's process sends before it ends."""
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(tmp_path / "systemd"))
    inside = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    inside.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    inside.bind(str(tmp_path / "notify"))
    os.set_inheritable(inside.fileno(), True)

    def payload() -> None:
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        sender.connect(str(tmp_path / "notify"))
        send(sender)
        os._exit(0)

    words = ("--notify", inside.fileno(), cgroup or own_cgroup(), tmp_path / "systemd")
    monitor = start(tmp_path, payload, *words)
    inside.close()
    found = read(systemd) if read else []
    assert finish(monitor, tmp_path)[0] == 0
    systemd.setblocking(False)
    while True:
        try:
            found.append(systemd.recv(1 << 16))
        except BlockingIOError:
            return found


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (b"READY=1", b"READY=1\n"),
        (b"READY=1\nSTATUS=up\n", b"READY=1\nSTATUS=up\n"),
        (b"STOPPING=1", b"STOPPING=1\n"),
        (b"RELOADING=1", b"RELOADING=1\n"),
        (b"WATCHDOG=1\nWATCHDOG=trigger", b"WATCHDOG=1\nWATCHDOG=trigger\n"),
        (b"EXTEND_TIMEOUT_USEC=5000000\nERRNO=2", b"EXTEND_TIMEOUT_USEC=5000000\nERRNO=2\n"),
        # more time is for a start
        (b"EXTEND_TIMEOUT_USEC=5\nREADY=1", b"READY=1\n"),
        (b"STATUS=", b"STATUS=\n"),
        # the service is not the container's to hand over, and its settings are not the container's
        (b"MAINPID=1\nREADY=1", b"READY=1\n"),
        (b"MAINPID=1", None),
        (b"FDSTORE=1\nFDNAME=x\nFDPOLL=0", None),
        (b"WATCHDOG_USEC=0", None),
        (b"BUSERROR=x\nNOTIFYACCESS=all\nX_OTHER=1", None),
        # near misses
        (b"READY=0", None),
        (b"READY=10", None),
        (b" READY=1", None),
        (b"XREADY=1", None),
        (b"READY=1\0", None),
        (b"ERRNO=-1\nERRNO=\nERRNO=1x\nERRNO=99999999999999999999", None),
        (b"MONOTONIC_USEC=7", None),
        (b"\n\n\n", None),
        # to a terminal: no control characters, no half of a character, a bounded length
        (b"STATUS=a\x1b[2Jb\x7f\t\r\xc2\x9bc", b"STATUS=a?[2Jb?????c\n"),
        (b"STATUS=\xff\xc3(\xe2\x82", b"STATUS=??(??\n"),
        ("STATUS=größe \U0001f600".encode(), "STATUS=größe \U0001f600\n".encode()),
        (b"STATUS=\xed\xa0\x80\xf5\xe0\x80\xaf", b"STATUS=???????\n"),
        (b"STATUS=" + b"x" * 4000, b"STATUS=" + b"x" * 512 + b"\n"),
        (("STATUS=x" + "ä" * 300).encode(), ("STATUS=x" + "ä" * 255 + "\n").encode()),
        # longer than systemd reads
        (b"READY=1\n" + b"x" * 4096, None),
    ],
    ids=[
        "ready", "two", "stopping", "reloading", "watchdog", "numbers", "time-and-ready", "empty-status",
        "main-pid-and-ready", "main-pid", "descriptors", "watchdog-time", "unknown",
        "not-ready", "longer", "space", "prefix", "null", "no-numbers", "moment-alone", "empty-lines",
        "control", "half", "characters", "no-characters", "long", "cut", "too-long",
    ],
)  # fmt: skip
def test_what_is_passed_on(tmp_path: Path, sent: bytes, got: bytes | None) -> None:
    assert passed_on(tmp_path, lambda sender: sender.sendall(sent)) == ([got] if got else [])


def test_who_is_ready_gets_no_more_time(tmp_path: Path) -> None:
    """Else one that says STOPPING=1 could have a stop of its service wait for ever."""

    def send(sender: socket.socket) -> None:
        for text in (
            b"EXTEND_TIMEOUT_USEC=1",
            b"READY=1",
            b"STOPPING=1\nEXTEND_TIMEOUT_USEC=2\nERRNO=3",
        ):
            sender.sendall(text)

    assert passed_on(tmp_path, send) == [
        b"EXTEND_TIMEOUT_USEC=1\n",
        b"READY=1\n",
        b"STOPPING=1\nERRNO=3\n",
    ]


def test_the_moment_of_a_reload_is_that_of_the_host(tmp_path: Path) -> None:
    """The container's clock may be another (time_namespaces(7))."""
    before = time.monotonic_ns() // 1000
    (text,) = passed_on(tmp_path, lambda one: one.sendall(b"RELOADING=1\nMONOTONIC_USEC=7"))
    first, second = text.decode().splitlines()
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert before <= int(second.partition("=")[2]) <= time.monotonic_ns() // 1000


def test_only_processes_of_the_container_are_heard(tmp_path: Path) -> None:
    """The first process is one by itself: as a zombie it may be in no cgroup any more."""

    def send(sender: socket.socket) -> None:
        if (pid := os.fork()) == 0:
            sender.send(b"STATUS=stranger")
            os._exit(0)
        os.waitpid(pid, 0)
        sender.send(b"STATUS=own")

    below = own_cgroup().rstrip("/") + "/docker-x.scope"
    assert passed_on(tmp_path, send, below) == [b"STATUS=own\n"]


def test_a_process_of_the_container_is_heard(tmp_path: Path) -> None:
    def send(sender: socket.socket) -> None:
        ours, theirs = socket.socketpair(type=socket.SOCK_DGRAM)
        if os.fork() == 0:
            sender.send(b"STATUS=child")
            # it lives until the message was passed on: BARRIER=1 of sd_notify_barrier(3)
            reading, writing = os.pipe()
            fds = array.array("i", [writing])
            sender.sendmsg([b"BARRIER=1"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            os.close(writing)
            os.read(reading, 1)
            theirs.send(b"done")
            os._exit(0)
        ours.recv(10)

    assert passed_on(tmp_path, send) == [b"STATUS=child\n"]


def test_a_flood_waits_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    """systemd gets so many at once, and then one in a while; READY=1 after them is not lost."""
    count = BURST + 20
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())

    def send(sender: socket.socket) -> None:
        for number in range(count):
            sender.send(b"STATUS=%d" % number)
        sender.send(b"READY=1")
        time.sleep(COST * (20 + min(queue, 20)))  # alive while its messages wait

    def read(systemd: socket.socket) -> list[bytes]:
        found = [systemd.recv(4096)]
        begin = time.monotonic()
        while found[-1] != b"READY=1\n":
            found.append(systemd.recv(4096))
        assert time.monotonic() - begin >= COST * 20 * 0.9, "no faster than the rate"
        return found

    found = passed_on(tmp_path, send, read=read)
    assert found == [*(b"STATUS=%d\n" % number for number in range(count)), b"READY=1\n"]


def test_a_systemd_that_does_not_read_holds_nobody_up(tmp_path: Path) -> None:
    """Its queue is full: the container ends, and so does its monitor."""

    def send(sender: socket.socket) -> None:
        sender.settimeout(1)
        try:
            for _ in range(3000):
                sender.send(b"STATUS=x")
        except TimeoutError:
            pass

    found = passed_on(tmp_path, send)
    assert found
    assert set(found) == {b"STATUS=x\n"}


def test_nobody_listens(tmp_path: Path) -> None:
    def send(sender: socket.socket) -> None:
        (tmp_path / "systemd").unlink()
        sender.send(b"READY=1")

    assert passed_on(tmp_path, send) == []
