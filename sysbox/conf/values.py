"""The values of sysbox.conf, and a check whether its files exist."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.embedded import caller_root

FILE = "sysbox.conf"
DROP_INS = "sysbox.conf.d"


class Settings(Frozen):
    """The value of each key of table.py; the defaults are those of a host without the file."""

    bridge: str = "sysbox0"
    subnet: str = ""  # "" is the first of topology.SUBNETS that is free
    firewall: str = "auto"  # the packet filter: see netns/firewall_choice.py
    ports: str = "open"  # open, ask: who reaches published ports, see netns/host_firewall.py
    log_driver: str = "journald"
    rate_limit: int = -1  # lines a second; -1 is the default in units/journal.py
    rate_burst: int = -1  # lines at once; likewise
    userns: str = "auto"  # auto, host: the user namespace of a container that asks for none
    pids_limit: int | None = None  # -1 is no limit; None leaves systemd's DefaultTasksMax=
    context_files: int = 1_000_000  # that one instruction of a build copies of a context, at most
    fetch_size: int = 8 << 30  # bytes that a build takes of one URL, at most
    podman_files: str = "podman"  # podman, sysbox: whose generator makes units of podman's files


def is_there(path: str) -> bool:
    """Whether a path exists, seen from the caller's root. Raises KernelError where that cannot be found out.

    An embedded host has a copy of /etc, which later changes of the caller's /etc do not reach.
    """
    try:
        posix.close(caller_root.open_path(path, posix.O_PATH | posix.O_NOFOLLOW))
    except KernelError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True
