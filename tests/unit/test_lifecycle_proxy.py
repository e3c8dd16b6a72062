"""How a proxy finds out whether a container listens; which descriptors systemd has passed."""

from __future__ import annotations

import fcntl
import os
import posix
import socket
import struct
from pathlib import Path

import pytest
from forked import in_child

from sysbox.base.errors import SpecError
from sysbox.lifecycle import proxy
from sysbox.linux.namespace import CLONE_NEWNET
from sysbox.run import listen


def tables(port: int) -> tuple[set[str], set[str]]:
    return (
        proxy.listening(Path("/proc/net/tcp").read_text(), port),
        proxy.listening(Path("/proc/net/tcp6").read_text(), port),
    )


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "127.1.2.3"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "::"),
    ],
    ids=["four", "another", "any", "six", "any-six"],
)
def test_who_listens(family: socket.AddressFamily, address: str) -> None:
    def inside() -> list[bool]:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(
                control, 0x8914, struct.pack("16sH", b"lo", 1) + bytes(22)
            )  # SIOCSIFFLAGS, up
        before = tables(80)
        with socket.socket(family) as server:
            server.bind((address, 80))
            bound = tables(80)
            server.listen()
            four, six = tables(80)
        return [
            before == bound == (set(), set()),
            proxy._hex(family, address) in (four if family == socket.AF_INET else six),
            tables(81) == (set(), set()),
        ]

    assert in_child(inside, CLONE_NEWNET) == [True] * 3


def test_descriptors_that_were_not_passed() -> None:
    """LISTEN_FDS is wrong: what is there is a file of sysbox's own."""

    def inside() -> list[object]:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 3, inheritable=False)
        posix.environ.update({b"LISTEN_FDS": b"1", b"LISTEN_PID": b"%d" % os.getpid()})
        try:
            listen.fds()
        except SpecError as error:
            refused = "descriptor 3 was not passed on" in str(error)
        os.set_inheritable(3, True)
        found = list(listen.fds())
        return [refused, found, list(listen.fds()), os.get_inheritable(3)]

    assert in_child(inside) == [True, [3], [3], False]
