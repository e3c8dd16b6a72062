"""What a container's files on disk hold: what was asked, a run that goes on, how the last one ended."""

from __future__ import annotations

import errno
import posix
import select
import time

from sysbox.base import codec
from sysbox.base.errors import FormatError, KernelError, SpecError
from sysbox.base.files import LIMIT, read_file
from sysbox.base.frozen import Frozen
from sysbox.base.paths import CONTAINERS, RUN_CONTAINERS
from sysbox.container.identity import is_id
from sysbox.linux import process
from sysbox.netns.topology import Attachment
from sysbox.spec import ContainerSpec, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Of record.json; absent is 1. It is raised, and the older one is given a translation here, when the default
# of a field of Record or ContainerSpec, or what that means, changes: an old record has left it out.
FORMAT = 2
_ABOUT_TO_SAY = 0.2  # seconds
_STEP = 0.002
_END_OF_TIME = 1 << 63  # nanoseconds since 1970
_PIDS = 1 << 31


def _is_entry(name: str) -> bool:
    return name != "" and "/" not in name and name[0] != "."


class Resolved(Frozen):
    """What the specification and the image came to when the container was made: no image is asked again."""

    env: tuple[str, ...] = ()  # the image's, "NAME=VALUE"; the specification's goes before it
    # the user's own, else the image's; looked up in the container's files at each start
    user: str = ""
    workdir: str = ""  # "" where neither has one: /
    stop_signal: str = ""  # a name or a number; "" where neither has one
    entrypoint: tuple[str, ...] = ()  # with the command, Record.argv
    command: tuple[str, ...] = ()
    labels: dict[str, str] = {}  # noqa: RUF012 (the image's, and over them the user's)
    volumes: tuple[str, ...] = ()  # the image's, absolute paths
    layers: tuple[str, ...] = ()  # directory names below the store's layers, lowest first
    usr_bind: bool = False  # the host's /usr is bound at /usr (the image `host`)
    driver: str = "overlay"  # that makes its root: see fs/drivers/driver.py


class Record(Frozen):
    """What was asked, and what it was resolved to; changed by `rename` and `update` alone."""

    id: str  # 64 hex
    name: str
    created_ns: int
    spec: ContainerSpec
    image_id: str  # "sha256:<64 hex>"
    image_name: str
    argv: tuple[str, ...]  # entrypoint and command as resolved
    anonymous_volumes: dict[str, str] = {}  # noqa: RUF012 (target -> volume name, removed with the container)
    # property -> value, as in a drop-in of systemd's: what others set on its scope with `systemctl
    # set-property`, kept for the next start; laid over what was asked
    tuned: dict[str, str] = {}  # noqa: RUF012
    updated: dict[str, int] = {}  # noqa: RUF012 (limit or property -> when `update` set it, ns since 1970)
    # what its image exposes, as in 80/tcp, so that `ps` need not look at images; None: an older record
    exposed: tuple[str, ...] | None = None
    # None: an older record, whose image is asked (image/resolved.py)
    resolved: Resolved | None = None

    def wrong(self) -> str:
        if not self.argv or not self.argv[0]:
            return "argv: must name a command"
        if not self.name or "/" in self.name or self.name[0] == ".":
            return "name: must be that of a container"
        if not is_id(self.image_id.removeprefix("sha256:")):
            return "image_id: must be sha256: and 64 hexadecimal digits"
        if self.resolved and not all(_is_entry(name) for name in self.resolved.layers):
            return "resolved.layers: must be names of directories"
        if not all(is_id(name) for name in self.anonymous_volumes.values()):
            return "anonymous_volumes: must have names of 64 hexadecimal digits"
        return "" if 0 <= self.created_ns < _END_OF_TIME else "created_ns: out of range"

    @property
    def volumes(self) -> dict[str, str]:
        """The names of its volumes, by the target."""
        return {
            mount.target: mount.source or self.anonymous_volumes[mount.target]
            for mount in self.spec.mounts
            if mount.kind == "volume"
        }

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        return self.created_ns / 1e9

    @property
    def directory(self) -> str:
        return f"{CONTAINERS}/{self.id}"

    @property
    def log_path(self) -> str:
        """Of the json-file driver."""
        return f"{self.directory}/{self.id}-json.log"

    @property
    def run_directory(self) -> str:
        return f"{RUN_CONTAINERS}/{self.id}"


class Runtime(Frozen):
    """A run that was begun and whose end has not been recorded yet."""

    pid: int  # 0 until the first process is there
    start_time: int  # field 22 of its /proc/PID/stat, against recycled pids
    supervisor: int
    supervisor_start: int
    scope: str
    cgroup: str = ""  # the scope's path in the hierarchies
    started_ns: int = 0  # 0 until its command runs
    networks: tuple[Attachment, ...] = ()
    ports: tuple[Port, ...] = ()
    # what versions before wrote of their one network
    address: str = ""
    mac: str = ""
    restarting: bool = False  # its supervisor waits before it starts it again

    def wrong(self) -> str:
        if not (0 <= self.pid < _PIDS and 0 <= self.supervisor < _PIDS):
            return "pid, supervisor: must be the number of a process, or 0"
        return "" if 0 <= self.started_ns < _END_OF_TIME else "started_ns: out of range"

    def attachments(self) -> tuple[Attachment, ...]:
        """Its ends of networks, also of a run that an older version has begun."""
        if self.networks or not self.address:
            return self.networks
        return (Attachment(network="bridge", address=self.address, mac=self.mac),)

    def alive(self) -> bool:
        """Whether the container's first process is there."""
        return self.pid > 0 and process.alive(self.pid, self.start_time)

    def send(self, signal: int) -> None:
        """Send a signal to its first process. Raises KernelError when it is gone."""
        pidfd = process.pidfd(self.pid)
        try:
            # asked with the handle in hand: the number may have become another's
            if self.alive():
                process.send(pidfd, signal)
        finally:
            posix.close(pidfd)

    def await_end(self, timeout: float | None = None) -> bool:
        """Wait until its first process is gone; False when `timeout` seconds are over. Raises KernelError."""
        if not self.alive():
            return True
        try:
            pidfd = process.pidfd(self.pid)
        except KernelError as error:
            if error.errno != errno.ESRCH:
                raise
            return True
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            # asked again: the number may have become another's
            return not self.alive() or bool(poll.poll(None if timeout is None else timeout * 1000))
        finally:
            posix.close(pidfd)

    def supervised(self) -> bool:
        """Whether the process that waits for it is there."""
        return self.supervisor > 0 and process.alive(self.supervisor, self.supervisor_start)


class Usage(Frozen):
    """What a run has used, read at its end; -1 is not known."""

    cpu_ns: int = -1
    memory_peak: int = -1  # bytes
    read_bytes: int = -1  # from block devices
    written_bytes: int = -1


class Ended(Frozen):
    """How a process ended: the exit status of a shell, and the signal that ended it, or 0."""

    code: int
    signal: int = 0
    oom: bool = False
    oom_told: bool = False  # as an event, when it happened
    timeout: bool = False  # it was killed, since it did not stop in time
    finished_ns: int = 0
    usage: Usage = Usage()
    error: str = ""  # why its supervisor could not go on, and has killed it


class Final(Frozen):
    """How the last run ended."""

    exit_code: int
    started_ns: int  # 0: it never ran
    finished_ns: int
    how: str = "exited"  # exited, signalled, oom, timeout (of its stop), failed (to start), lost
    signal: int = 0
    oom_killed: bool = False
    victims: tuple[str, ...] = ()  # names of those that were killed for lack of memory
    phase: str = ""  # of a start that failed, then or since: how far the first process came
    error: str = ""  # why it did, or that nobody saw how the run ended
    rebooted: bool = False  # systemd inside has asked for a restart, and it is to get one
    quick_ends: int = 0  # how many runs in a row, up to this one, ended within seconds
    usage: Usage = Usage()

    def wrong(self) -> str:
        if not 0 <= self.exit_code < 1 << 32:
            return "exit_code: must be an exit status"
        times = 0 <= self.started_ns < _END_OF_TIME and 0 <= self.finished_ns < _END_OF_TIME
        return "" if times else "started_ns, finished_ns: out of range"


class Status(Frozen):
    """What `ps` and `inspect` say."""

    state: str  # created, running, paused, restarting, exited, dead (ended, and nobody saw how)
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: float = 0.0  # seconds since the epoch; 0 is never
    finished_at: float = 0.0


def to_file(record: Record) -> bytes:
    """What record.json holds: what is a default is left out, and the format says what that was."""
    return codec.dumps({"format": FORMAT, **record.to_data()})


def fitting(record: Record) -> bytes:
    """What is written of a record. Raises SpecError where that could not be read again."""
    data = to_file(record)
    if len(data) > LIMIT:
        raise SpecError(
            f"the settings of the container take {len(data)} bytes, its record may have {LIMIT}",
            hint="its command, environment, labels, published ports and health check count, the image's too",
        )
    return data


def from_file(data: bytes, where: str) -> Record:
    """The record in a file of this version's, or of an older one's, where a default means what it meant then.

    Raises ValueError, FormatError.
    """
    values = codec.loads(data, where)
    number = values.pop("format", 1) if type(values) is dict else 1
    if type(number) is not int or number < 1:
        raise FormatError(f"{where}.format: must be a number from 1 on, not {number!r}")
    if number > FORMAT:
        raise FormatError(
            f"{where} is of a newer sysbox: its format is {number}, this one knows up to {FORMAT}"
        )
    record = Record.from_data(values, where)
    return _of_format_1(record) if number == 1 else record


def _of_format_1(record: Record) -> Record:
    """NET_RAW was a default capability. What its user has asked for, or dropped, goes before that."""
    security = record.spec.security.replace(cap_kept=("NET_RAW",))
    return record.replace(spec=record.spec.replace(security=security))


def just_ended(record: Record, run: Runtime, ask: Callable[[], Runtime | None]) -> Status | None:
    """How a run stands whose first process is gone, and whose supervisor is about to say how it ended.

    `ask` tells which run there is; None where it is another by now, or none.
    """
    started_at = run.started_ns / 1e9
    deadline = time.monotonic() + _ABOUT_TO_SAY
    while time.monotonic() < deadline:
        if ask() != run:
            return None
        try:
            told = codec.loads(read_file(f"{record.run_directory}/exit") or b"null", "exit")
            code, finished_at = int(told["code"]), int(told["finished"]) / 1e9
        except (FormatError, KeyError, TypeError, ValueError):
            time.sleep(_STEP)
            continue
        return Status(
            state="exited", exit_code=code, started_at=started_at, finished_at=finished_at
        )
    return Status(state="dead", started_at=started_at)
