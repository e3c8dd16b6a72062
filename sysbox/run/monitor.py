"""The small static program that stands by a detached container: what it is told, and what it wrote down.

See src/monitor.c. This process turns into it, so that it stays the container's parent.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.base.paths import LIBEXEC
from sysbox.units.machine import HOLD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.run.cgroup_watch import OutOfMemory, Reports
    from sysbox.run.stdio import Streams


class Duties(Frozen):
    """What the monitor is to do beside waiting."""

    pid: int  # of its child
    directory: str  # where it writes how that ended
    stop_signal: int
    stop_timeout: int  # seconds; negative is for ever
    oom: OutOfMemory | None = None
    oom_policy: str = "continue"  # kill, stop: what becomes of the rest
    reports: Reports | None = None
    thaw: tuple[str, str] = ("", "")  # a file, and what thaws the container when written there
    attach: int = -1  # a listening socket
    wait_for_first: bool = False  # who attaches, before anything is read
    json: tuple[str, int, int, str] | None = (
        None  # a log file, its size in bytes (0: no bound), how many; JSON beside each line's text
    )
    helper: tuple[str, str] = (
        "",
        "",
    )  # launcher, container: what is run when others change its limits
    drop_ins: str = ""  # the directory where they do
    hold: int = -1  # a connection that is to stay open for a while
    health: tuple[int, int, str, str] | None = (
        None  # intervals in milliseconds, launcher, container
    )


def become(duties: Duties, streams: Streams, terminal: int) -> NoReturn:
    """Turn this process into the monitor. Raises KernelError."""
    words = [
        *("--pid", str(duties.pid), "--dir", duties.directory),
        *("--stop-signal", str(duties.stop_signal), "--stop-timeout", str(duties.stop_timeout)),
        *("--thaw", *duties.thaw),
        *("--helper", *duties.helper, "--drop-ins", duties.drop_ins),
    ]
    if duties.oom:
        words += ["--oom", _inherited(duties.oom.file), _inherited(duties.oom.event)]
        words += ["--oom-policy", duties.oom_policy]
    if duties.reports:
        words += ["--events", _inherited(duties.reports.event)]
        for name, fd in duties.reports.files.items():
            words += ["--report", name, _inherited(fd)]
    for source, *_ in streams.pumps:
        words += ["--pump", _inherited(terminal if source < 0 else source)]
    if streams.log:
        log = streams.log
        words += ["--journal", _inherited(log.fd), log.identifier, str(log.rate), str(log.burst)]
    if terminal >= 0:
        words += ["--terminal", _inherited(terminal)]
    if streams.input >= 0:
        words += ["--input", _inherited(streams.input)]
    if duties.attach >= 0:
        words += ["--attach", _inherited(duties.attach), str(int(duties.wait_for_first))]
    if duties.hold >= 0:
        words += ["--hold", _inherited(duties.hold), str(int(HOLD * 1000))]
    for option, values in (("--json", duties.json), ("--health", duties.health)):
        if values:
            words += [option, *(str(one) for one in values)]
    path = f"{LIBEXEC}/sysbox-monitor"
    try:
        posix.execve(path, ["sysbox-monitor", *words], {})
    except OSError as error:
        raise KernelError.of("execute", path, error) from None


def _inherited(fd: int) -> str:
    if fd >= 0:
        posix.set_inheritable(fd, True)
    return str(fd)
