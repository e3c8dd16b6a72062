"""Execute the monitor, the small static program that supervises a detached container (src/monitor.c).

This process executes it, and so stays the container's parent.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.base.frozen import Frozen
from sysbox.base.paths import LIBEXEC
from sysbox.fs.sockets import LOG, NOTIFY
from sysbox.units.machine import HOLD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from sysbox.run.cgroup_watch import OutOfMemory, Reports
    from sysbox.run.stdio import Streams


class Duties(Frozen):
    """What the monitor does besides waiting for its child."""

    name: str  # of the container: what `systemctl status` and ps show first
    pid: int  # of its child
    directory: str  # where it writes `exit`: how the child ended
    stop_signal: int
    stop_timeout: int  # seconds; negative waits for ever
    oom: OutOfMemory | None = None
    oom_policy: str = "continue"  # or kill or stop: what happens to the rest
    reports: Reports | None = None
    thaw: tuple[str, str] = ("", "")  # a file, and what thaws the container when written there
    attach: int = -1  # a listening socket
    wait_for_first: bool = False  # read no output before a client has attached
    # a log file, its size in bytes (0: no bound), the number of files, JSON to add to each line
    json: tuple[str, int, int, str] | None = None
    # launcher and container, of the command that is run when others change its limits
    helper: tuple[str, str] = ("", "")
    drop_ins: tuple[str, ...] = ()  # the directories in which systemd leaves such changes
    listening: tuple[int, ...] = ()  # sockets of systemd's that the payload was given
    # the path of its scope's cgroup, and $NOTIFY_SOCKET of the service
    notify: tuple[str, str] | None = None
    hold: int = -1  # the connection by which machined was told, to be kept open for a while
    # the interval and the start interval in milliseconds, launcher, container
    health: tuple[int, int, str, str] | None = None


def become(duties: Duties, streams: Streams, terminal: int) -> NoReturn:
    """Turn this process into the monitor. Raises KernelError."""
    words = [
        *("--pid", str(duties.pid), "--dir", duties.directory),
        *("--stop-signal", str(duties.stop_signal), "--stop-timeout", str(duties.stop_timeout)),
        *("--thaw", *duties.thaw),
        *("--helper", *duties.helper),
    ]
    for directory in duties.drop_ins:
        words += ["--drop-ins", directory]
    if duties.oom:
        words += ["--oom", _inherited(duties.oom.file), _inherited(duties.oom.event)]
        words += ["--oom-policy", duties.oom_policy]
    if duties.reports:
        words += ["--events", _inherited(duties.reports.event)]
        for name, fd in duties.reports.files.items():
            words += ["--report", name, _inherited(fd)]
    words += _of_streams(streams, terminal)
    if duties.attach >= 0:
        words += ["--attach", _inherited(duties.attach), str(int(duties.wait_for_first))]
    if duties.hold >= 0:
        words += ["--hold", _inherited(duties.hold), str(int(HOLD * 1000))]
    if duties.listening:
        words += ["--listening", *map(_inherited, duties.listening)]
    told = duties.notify and (_inherited(streams.sockets[NOTIFY]), *duties.notify)
    for option, values in (
        ("--json", duties.json),
        ("--health", duties.health),
        ("--notify", told),
    ):
        if values:
            words += [option, *(str(one) for one in values)]
    path = f"{LIBEXEC}/sysbox-monitor"
    try:
        posix.execve(path, ["sysbox-monitor", duties.name, *words], {})
    except OSError as error:
        raise KernelError.of("execute", path, error) from None


def _of_streams(streams: Streams, terminal: int) -> list[str]:
    words: list[str] = []
    for source, *_ in streams.pumps:
        words += ["--pump", _inherited(terminal if source < 0 else source)]
    if streams.log:
        log = streams.log
        words += ["--journal", _inherited(log.fd), log.identifier, str(log.rate), str(log.burst)]
    if LOG in streams.sockets:
        words += ["--syslog", _inherited(streams.sockets[LOG])]
    if terminal >= 0:
        words += ["--terminal", _inherited(terminal)]
    if streams.input >= 0:
        words += ["--input", _inherited(streams.input)]
    return words


def _inherited(fd: int) -> str:
    if fd >= 0:
        posix.set_inheritable(fd, True)
    return str(fd)
