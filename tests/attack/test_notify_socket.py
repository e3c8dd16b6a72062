"""A container and the socket by which it tells systemd that it is ready: floods, lies, and strangers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers, eventually, systemctl
from lane import Sysbox
from test_units import SERVICE, Declare, state

IMAGE = "host"  # it has Python
SOCKET = "/run/host/notify"
BURST, RATE = 64, 40  # messages at once, and in a second (src/notify.c)
PYTHON = Path(sys.executable).resolve()
# sends messages until its time is over, and prints how many it could send
FLOOD = """
import socket, sys, time
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("/run/host/notify")
begin, count = time.monotonic(), 0
while time.monotonic() - begin < 3:
    sender.send(sys.argv[1].encode() + b"%d" % count)
    count += 1
print(count, time.monotonic() - begin)
"""
STRANGER = """
import socket, sys
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect(sys.argv[1])
sender.send(b"STATUS=stranger\\nREADY=1")
sender.close()
import time; time.sleep(0.5)
"""


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path, IMAGE)
    yield one
    one.remove()


def status() -> str:
    return systemctl("show", "-P", "StatusText", SERVICE)


@pytest.mark.parametrize("text", ["STATUS=", "junk "], ids=["status", "junk"])
def test_a_flood_is_slowed_down(declare: Declare, sysbox: Sysbox, text: str) -> None:
    """systemd hears no more than it can bear, and what matters comes through behind it."""
    one = declare.begin("Exec=sleep 1000")
    count, seconds = one.exec(str(PYTHON), "-c", FLOOD, text).split()
    queue = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
    # what waits in the socket was sent, too
    assert int(count) <= BURST + RATE * (float(seconds) + 1) + queue + 2
    one.exec("systemd-notify", "--ready", "--status=through")
    eventually(lambda: state() == "active", "it is started")
    assert status() == "through"


def test_no_message_takes_the_service_over(declare: Declare, sysbox: Sysbox) -> None:
    one = declare.begin("Exec=sleep 1000")
    main = systemctl("show", "-P", "MainPID", SERVICE)
    lies = (
        "MAINPID=1",
        "FDSTORE=1",
        "FDSTOREREMOVE=1",
        "WATCHDOG_USEC=1",
        "NOTIFYACCESS=all",
        "BUSERROR=x",
    )
    for lie in lies:
        one.exec("systemd-notify", lie)
        one.exec("systemd-notify", f"STATUS=told {lie}", lie)
    eventually(lambda: status() == f"told {lies[-1]}", "all was read")
    properties = systemctl(
        "show", "-p", "MainPID,NFileDescriptorStore,WatchdogUSec,NotifyAccess,BusErrorName", SERVICE
    )
    assert dict(line.split("=", 1) for line in properties.splitlines()) == {
        "MainPID": main, "NFileDescriptorStore": "0", "WatchdogUSec": "0", "NotifyAccess": "main",
    }  # fmt: skip


def test_a_container_that_says_it_stops_and_goes_on_is_stopped(declare: Declare) -> None:
    """It asks for as much time as there is: systemd waits no longer than the file says."""
    one = declare.begin("Exec=sleep 1000", "TimeoutStopSec=4s\nRuntimeMaxSec=1h")
    # by one `exec`, and asked at once: from STOPPING=1 on it has the time of the file
    one.sh(
        "systemd-notify --ready; systemd-notify STOPPING=1;"
        " systemd-notify EXTEND_TIMEOUT_USEC=9223372036854775807; systemd-notify 'STATUS=going on'"
    )
    asked = ("show", "-P", "StatusText", "-P", "ActiveState", SERVICE)
    eventually(
        lambda: set(systemctl(*asked).split("\n")) == {"deactivating", "going on"}, "all was read"
    )
    systemctl("stop", SERVICE)
    assert state() == "failed", "it was killed: it has not stopped in time"
    assert not declare.is_there()


def test_strangers_are_not_heard(
    declare: Declare, sysbox: Sysbox, containers: Containers, tmp_path: Path
) -> None:
    """Another container that has got at the socket, since it sees the processes, and the host's own root."""
    one = declare.begin("Exec=sleep 1000\nUserNS=host\nAddCapability=ALL")
    path = f"/proc/{one.pid}/root{SOCKET}"
    subprocess.run([PYTHON, "-c", STRANGER, path], check=True)
    other = containers(
        *("--pid", f"container:{one.id}", "--userns", "host", "--privileged"), image=IMAGE
    )
    other.exec(str(PYTHON), "-c", STRANGER, f"/proc/1/root{SOCKET}")
    # the messages above were read before this one
    one.exec("systemd-notify", "STATUS=own")
    eventually(lambda: status() == "own", "its own message is heard")
    assert state() == "activating"


def test_the_socket_is_in_no_shared_directory(
    declare: Declare, sysbox: Sysbox, containers: Containers, tmp_path: Path
) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    one = declare.begin(f"Exec=sleep 1000\nVolume={shared}:/run:noidmap\nUserNS=host")
    other = containers("-v", f"{shared}:/run", "--userns", "host")
    assert other.sh(f"ls {SOCKET.rpartition('/')[0]}") == ""
    assert one.sh(f"test -S {SOCKET} && echo there") == "there"


def test_a_flood_does_not_hold_up_a_stop(declare: Declare, sysbox: Sysbox) -> None:
    one = declare.begin("Exec=sleep 1000")
    script = "while :; do systemd-notify STATUS=x --no-block & systemd-notify STATUS=y; done"
    sysbox("exec", "-d", one.id, "sh", "-c", script, check=True)
    eventually(lambda: status() in ("x", "y"), "it floods")
    systemctl("stop", SERVICE)
    assert (state(), systemctl("show", "-P", "Result", SERVICE)) == ("inactive", "success")
    assert not declare.is_there()
