"""What a process of a container is, up to its execve(2): the first one, and those of `exec`."""

from __future__ import annotations

from sysbox.base.frozen import Frozen


class ProcessPlan(Frozen):
    """One process, decided."""

    argv: tuple[str, ...]
    image_env: tuple[str, ...]
    env: tuple[str, ...]
    workdir: str
    user: str  # resolved inside, from the image's own passwd and group
    group_add: tuple[str, ...]
    hostname: str  # "" leaves the host's
    tty: bool
    capabilities: int  # mask: bounding, permitted and effective; inheritable and ambient are empty
    no_new_privileges: bool
    seccomp: str  # default, unconfined, or the path of a profile
    rlimits: tuple[tuple[str, int, int], ...]
    sysctls: tuple[tuple[str, str], ...]  # (path below /proc/sys, value)
    oom_score_adj: int
