"""The terminal of whoever calls sysbox: a container types nothing there, and reads nothing."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import subprocess
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from containers import Containers
from lane import SYSBOX, TIMEOUT
from ways import PYTHON, mode

__all__ = ["mode"]

TYPE = """
import fcntl, os
def attempt(name, fd):
    for letter in b"id\\n":
        try:
            fcntl.ioctl(fd, 0x5412, bytes([letter]))  # TIOCSTI, ioctl_tty(2)
            os.write(1, b"typed at %s\\n" % name)
        except OSError:
            pass
for fd in (0, 1, 2):
    attempt(b"%d" % fd, fd)
for path in ("/dev/tty", "/dev/console", "/dev/pts/0", "/proc/1/fd/0"):
    try:
        attempt(path.encode(), os.open(path, os.O_RDWR | os.O_NOCTTY))
    except OSError:
        pass
os.write(1, b"tried\\n")
"""


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(master, slave) of a terminal on which each letter counts at once, and none is repeated."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    yield master, slave
    os.close(master)
    os.close(slave)


def typed(slave: int) -> int:
    """How many letters somebody has typed, and nobody has read."""
    count = array.array("i", [0])
    fcntl.ioctl(slave, termios.FIONREAD, count)
    return count[0]


@pytest.mark.parametrize("flags", [(), ("-i",), ("-t",), ("-i", "-t")], ids=" ".join)
def test_nothing_is_typed_at_the_callers(
    containers: Containers,
    requires: Callable[[object, str], None],
    terminal: tuple[int, int],
    flags: tuple[str, ...],
    mode: tuple[str, ...],
) -> None:
    """CVE-2016-10124: TIOCSTI puts letters where the caller's shell reads them, without a filter too."""
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    master, slave = terminal
    free = ("--network", "none", "--security-opt", "seccomp=unconfined", "--cap-add", "SYS_ADMIN")
    one = containers(*free, *mode, image="host")
    script = (PYTHON, "-I", "-c", TYPE)
    for words in (("run", "--rm", *free, *mode, *flags, "host"), ("exec", *flags, one.id)):
        done = subprocess.run(
            # a session whose terminal it is
            ["setsid", "--ctty", "--wait", SYSBOX, *words, *script],
            stdin=slave, stdout=slave, stderr=slave, check=False, timeout=TIMEOUT,
        )  # fmt: skip
        output = b""
        with suppress(OSError):
            # one read need not return all that was written; the last one fails
            while data := os.read(master, 65536):
                output += data
        assert done.returncode == 0, output
        assert b"tried" in output
        # at a terminal of its own it may, where the kernel lets it
        assert ("-t" in flags) or b"typed" not in output
        assert typed(slave) == 0
