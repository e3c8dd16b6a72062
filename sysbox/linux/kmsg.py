"""The kernel's log: it alone names the processes that the OOM killer killed."""

from __future__ import annotations

from sysbox.base.errors import KernelError
from sysbox.linux import process

_KIND = "] oom-kill:"


def oom_victims(scope: str, since_us: int) -> tuple[str, ...]:
    """Names of the scope's processes that the OOM killer killed since `since_us`, the latest last.

    `since_us` is CLOCK_MONOTONIC in microseconds; the log's clock starts with it and drifts by some
    milliseconds in hours (dmesg(1), -T). () where dmesg(1) is missing, or the log has dropped the lines.
    """
    try:
        # --syslog: /dev/kmsg does not exist everywhere
        _, output = process.spawn(["dmesg", "--syslog", "--raw"])
    except KernelError:
        return ()
    lines = output.decode("utf-8", "replace").splitlines()
    found = (victim(line, scope, since_us) for line in lines if _KIND in line)
    return tuple(name for name in found if name)


def victim(line: str, scope: str, since_us: int) -> str:
    """The process name in a line about an OOM kill in the scope since `since_us`; "" for any other line.

    <PRIORITY>[SECONDS.MICROSECONDS] oom-kill:...,task_memcg=CGROUP,task=NAME,pid=N,uid=N
    """
    head, _, text = line.partition(_KIND)
    seconds, _, micro = head.rpartition("[")[2].strip().partition(".")
    if not micro.isdigit() or int(seconds) * 1_000_000 + int(micro) < since_us:
        return ""
    # a name may contain a comma, so it ends at the last ",pid="
    path, _, rest = text.partition(",task_memcg=")[2].partition(",task=")
    return rest.rpartition(",pid=")[0] if f"/{scope}/" in f"{path}/" else ""
