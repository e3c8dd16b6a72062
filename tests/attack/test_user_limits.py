"""What the kernel counts for each user: a container cannot take what the host's root may have."""

from __future__ import annotations

import posix
from collections.abc import Callable

import pytest
from containers import Containers, eventually
from ways import PYTHON

from sysbox.linux import inotify

ALL_OF_THEM = """
import ctypes, time
libc = ctypes.CDLL(None)
while libc.inotify_init1(0) >= 0:
    pass
print("no more", flush=True)
time.sleep(600)
"""


TERMINALS = """
import os, resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (5000, 5000))
try:
    while True:
        os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
except OSError as error:
    print("no more:", error, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("userns", ["auto", "host"])
def test_terminals(
    containers: Containers, requires: Callable[[object, str], None], userns: str
) -> None:
    """The kernel has kernel.pty.max for all; kernel.pty.reserve of them are for the host's own devpts."""
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    flags = ("--userns", userns, "--network", "none", "--ulimit", "nofile=5000")
    one = containers(*flags, image="host", command=(PYTHON, "-I", "-c", TERMINALS))
    eventually(lambda: "no more: [Errno 28]" in one("logs"), "it has all that it can get")
    # one that the host has for other containers, and for `host shell`
    other = containers("-t", "--network", "none", command=("sleep", "1000"))
    assert other.exec("ls", "/dev/pts") == "0\nptmx"


def test_inotify_instances(containers: Containers, requires: Callable[[object, str], None]) -> None:
    """Charged to the user who made the user namespace, and to each above (user_namespaces(7), ucounts)."""
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    flags = ("--userns", "auto", "--network", "none")
    one = containers(*flags, image="host", command=(PYTHON, "-I", "-c", ALL_OF_THEM))
    eventually(lambda: "no more" in one("logs"), "it has all that it can get")
    # `logs -f` and `events` of the host's root need one
    posix.close(inotify.watch("/run", inotify.IN_MOVED_TO))
