"""What the kernel counts for each user: a container cannot take what the host's root may have."""

from __future__ import annotations

import posix
from collections.abc import Callable

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


def test_inotify_instances(containers: Containers, requires: Callable[[object, str], None]) -> None:
    """Charged to the user who made the user namespace, and to each above (user_namespaces(7), ucounts)."""
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    flags = ("--userns", "auto", "--network", "none")
    one = containers(*flags, image="host", command=(PYTHON, "-I", "-c", ALL_OF_THEM))
    eventually(lambda: "no more" in one("logs"), "it has all that it can get")
    # `logs -f` and `events` of the host's root need one
    posix.close(inotify.watch("/run", inotify.IN_MOVED_TO))
