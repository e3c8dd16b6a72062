"""The kernel's log, for what it alone says: whom it killed for lack of memory."""

from __future__ import annotations

from sysbox.base.errors import KernelError
from sysbox.linux import process

_KIND = "] oom-kill:"


def oom_victims(scope: str, since_us: int) -> tuple[str, ...]:
    """The names of the processes of a scope that were killed since then, a moment of CLOCK_MONOTONIC in
    microseconds; the latest last. () where dmesg(1) is missing, or the log has lost them.

    The log's own clock starts with that one, and is some milliseconds beside it after hours (dmesg(1), -T).
    """
    try:
        # by syslog(2): /dev/kmsg is not everywhere
        _, output = process.spawn(["dmesg", "--syslog", "--raw"])
    except KernelError:
        return ()
    lines = output.decode("utf-8", "replace").splitlines()
    found = (victim(line, scope, since_us) for line in lines if _KIND in line)
    return tuple(name for name in found if name)


def victim(line: str, scope: str, since_us: int) -> str:
    """The name in the line of such a kill that is later than that, "" in any other.

    <PRIORITY>[SECONDS.MICROSECONDS] oom-kill:...,task_memcg=CGROUP,task=NAME,pid=N,uid=N
    """
    head, _, text = line.partition(_KIND)
    seconds, _, micro = head.rpartition("[")[2].strip().partition(".")
    if not micro.isdigit() or int(seconds) * 1_000_000 + int(micro) < since_us:
        return ""
    # a name may hold a comma: it ends where ",pid=" begins, for the last time
    path, _, rest = text.partition(",task_memcg=")[2].partition(",task=")
    return rest.rpartition(",pid=")[0] if f"/{scope}/" in f"{path}/" else ""
