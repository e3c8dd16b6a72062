"""What the monitor makes of messages to a container's /dev/log, with a journald of the test's."""

from __future__ import annotations

import array
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forked import in_child
from monitored import finish, start

from sysbox.linux import _sys
from sysbox.linux.namespace import CLONE_NEWNS

ADDRESS = "/run/systemd/journal/dev-log"


def passed_on(
    tmp_path: Path, send: Callable[[socket.socket], None], rate: int = 0, burst: int = 0
) -> list[tuple[bytes, int, int]]:
    """What journald gets of what a container's process sends before it ends: message, pid, number of
    descriptors. The pid is 1 for that of the process, else 0.
    """

    def inside() -> list[tuple[bytes, int, int]]:
        _sys.mount("tmpfs", "/run", "tmpfs", 0, None)
        os.makedirs(os.path.dirname(ADDRESS))
        journald = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        journald.bind(ADDRESS)
        journald.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        log.bind(str(tmp_path / "log"))
        peer, lines = socket.socketpair(type=socket.SOCK_DGRAM)
        peer.close()
        begin, end = os.pipe()
        for fd in (log.fileno(), lines.fileno()):
            os.set_inheritable(fd, True)

        def payload() -> None:
            os.write(end, b"%d" % os.getpid())
            sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sender.connect(str(tmp_path / "log"))
            send(sender)
            os._exit(0)

        words = ("--journal", lines.fileno(), "payload", rate, burst, "--syslog", log.fileno())
        monitor = start(tmp_path, payload, *words)
        found = []
        while True:
            text, control, _, _ = journald.recvmsg(1 << 17, 1024)
            if not text:
                break  # the last one, by which the monitor learns that all is read
            kinds = {kind: data for _, kind, data in control}
            (pid,) = struct.unpack_from("i", kinds[socket.SCM_CREDENTIALS])
            fds = len(kinds.get(socket.SCM_RIGHTS, b"")) // 4
            found.append((text, pid, fds))
        journald.close()
        assert finish(monitor, tmp_path)[0] == 0
        own = int(os.read(begin, 16))
        return [(text, int(pid == own), fds) for text, pid, fds in found]

    answer: Any = in_child(inside, CLONE_NEWNS)
    return [tuple(one) for one in answer]


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (b"<13>Oct 11 22:14:15 name[7]: text", b"<13>Oct 11 22:14:15 name[7]: text"),
        (b"<191>x", b"<191>x"),
        (b"no priority", b"<14>no priority"),
        # level 0 is shown to everybody who is logged in
        (b"<0>all", b"<9>all"),
        (b"<8>all", b"<9>all"),
        (b" \t\n\r<000>all", b"<9>all"),
        # facilities of the host's own log files
        (b"<37>sshd[1]: Accepted", b"<13>sshd[1]: Accepted"),
        (b"<86>sudo: root", b"<14>sudo: root"),
        (b"<6>kernel: oops", b"<14>kernel: oops"),
        (b"<46>rsyslogd: x", b"<14>rsyslogd: x"),
        (b"<999>x", b"<15>x"),
        # what journald takes for no priority is text
        (b"<1234>x", b"<14><1234>x"),
        (b"<>x", b"<14><>x"),
        (b"<1", b"<14><1"),
        (b"<", b"<14><"),
        (b"\0<0>x", b"<14>\0<0>x"),
        (b"<13>", b"<13>"),
        (b"<13>two\nlines", b"<13>two\nlines"),
    ],
)
def test_priority(tmp_path: Path, sent: bytes, got: bytes) -> None:
    def send(sender: socket.socket) -> None:
        sender.send(b"")  # nothing
        sender.send(sent)

    assert passed_on(tmp_path, send) == [(got, 1, 0)]


def test_all_that_was_sent_by_its_end(tmp_path: Path) -> None:
    """In order, and each cut after 16 KiB."""

    def send(sender: socket.socket) -> None:
        for number in range(100):
            sender.send(b"<13>%d" % number)
        sender.send(b"<13>" + b"x" * 100_000)

    found = [text for text, _, _ in passed_on(tmp_path, send)]
    assert found[:100] == [b"<13>%d" % number for number in range(100)]
    assert found[100:] == [b"<13>" + b"x" * (16384 - 4)]


def test_descriptors_and_another_pid_are_left_behind(tmp_path: Path) -> None:
    def send(sender: socket.socket) -> None:
        fds = array.array("i", [sender.fileno()] * 250)
        sender.sendmsg([b"<13>x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        forged = struct.pack("iii", 1, 0, 0)
        sender.sendmsg([b"<13>y"], [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, forged)])

    assert passed_on(tmp_path, send) == [(b"<13>x", 1, 0), (b"<13>y", 1, 0)]


def test_the_rate_of_the_container_s_lines(tmp_path: Path) -> None:
    """It is one for both: what is too much is dropped."""

    def send(sender: socket.socket) -> None:
        for number in range(200):
            sender.send(b"<13>%d" % number)

    found = [text for text, _, _ in passed_on(tmp_path, send, 1, 20)]
    assert found[:20] == [b"<13>%d" % number for number in range(20)]
    assert len(found) < 30
