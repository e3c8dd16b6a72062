"""The content of a container's files on disk: its record, its current run, the end of the last one."""

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
from sysbox.linux.userns import IdMap
from sysbox.netns.attachment import Attachment
from sysbox.spec import ContainerSpec, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.spec import Namespaces

# Of record.json; absent is 1. A record leaves out defaults: when the default of a field of Record or
# ContainerSpec changes, or its meaning, raise this number and translate the older format below.
FORMAT = 4
_ABOUT_TO_SAY = 0.2  # seconds for the supervisor to write how a run ended
_STEP = 0.002  # seconds
_END_OF_TIME = 1 << 63  # nanoseconds since 1970


def _is_entry(name: str) -> bool:
    return name != "" and "/" not in name and name[0] != "."


class Resolved(Frozen):
    """The specification merged with the image when the container was made; the image is not read again."""

    env: tuple[str, ...] = ()  # the image's, "NAME=VALUE"; the specification's takes precedence
    # that of --user, else the image's; looked up in the container's files at each start
    user: str = ""
    workdir: str = ""  # "" where neither has one: /
    stop_signal: str = ""  # a name or a number; "" where neither has one
    entrypoint: tuple[str, ...] = ()  # Record.argv is this and `command`
    command: tuple[str, ...] = ()
    labels: dict[str, str] = {}  # noqa: RUF012 (the image's, and over them the user's)
    volumes: tuple[str, ...] = ()  # the image's, absolute paths
    layers: tuple[str, ...] = ()  # directory names below the store's layers, lowest first
    usr_bind: bool = False  # the host's /usr is bound at /usr (the image `host`)
    driver: str = "overlay"  # the storage driver of its root: see fs/drivers/driver.py


class Record(Frozen):
    """What was asked, and what it was resolved to; changed by `rename`, `update` and `tuned.harvest` only."""

    id: str  # 64 hex
    name: str
    created_ns: int
    spec: ContainerSpec
    image_id: str  # "sha256:<64 hex>"
    image_name: str
    argv: tuple[str, ...]  # entrypoint and command as resolved
    anonymous_volumes: dict[str, str] = {}  # noqa: RUF012 (target -> volume name, removed with the container)
    # property -> value, as in a drop-in of systemd's: set on the scope with `systemctl set-property`, kept
    # for the next start, where it overrides what was asked
    tuned: dict[str, str] = {}  # noqa: RUF012
    updated: dict[str, int] = {}  # noqa: RUF012 (limit or property -> when `update` set it, ns since 1970)
    # the ports that its image exposes, as in 80/tcp, so that `ps` need not read images; None: an older record
    exposed: tuple[str, ...] | None = None
    # None: an older record, resolved again by its image (image/resolved.py)
    resolved: Resolved | None = None
    # its user namespace, as security/idmap.py decided when it was made: host, auto, keep-id, nomap, mapped,
    # container:ID, ns:PATH; "" is host too
    userns: str = ""
    userns_reason: str = ""  # why it is not the default; a clause
    uids: tuple[IdMap, ...] = ()  # the maps of that namespace; () is the host's
    gids: tuple[IdMap, ...] = ()
    # SELinux: USER:ROLE:TYPE:LEVEL of its processes and of its files; "" where it was made without SELinux
    process_label: str = ""
    mount_label: str = ""

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
        if bool(self.uids) != bool(self.gids) or bool(self.uids) != (
            self.userns not in ("", "host")
        ):
            return "uids, gids: must be the maps of a user namespace"
        if any(one and one.count(":") < 3 for one in (self.process_label, self.mount_label)):
            return "process_label, mount_label: must be USER:ROLE:TYPE:LEVEL"
        return "" if 0 <= self.created_ns < _END_OF_TIME else "created_ns: out of range"

    @property
    def volumes(self) -> dict[str, str]:
        """Target -> name of the container's volumes."""
        return {
            mount.target: mount.source or self.anonymous_volumes[mount.target]
            for mount in self.spec.mounts
            if mount.kind == "volume"
        }

    @property
    def namespaces(self) -> Namespaces:
        """As asked, with the user namespace as it was decided."""
        return self.spec.namespaces.replace(user=self.userns or "host")

    @property
    def created(self) -> float:
        """Seconds since the epoch."""
        return self.created_ns / 1e9

    @property
    def directory(self) -> str:
        return f"{CONTAINERS}/{self.id}"

    @property
    def log_path(self) -> str:
        """The log of the json-file driver."""
        return f"{self.directory}/{self.id}-json.log"

    @property
    def run_directory(self) -> str:
        return f"{RUN_CONTAINERS}/{self.id}"


class Runtime(Frozen):
    """A run that has begun and whose end has not been recorded yet."""

    pid: int  # 0 until the first process exists
    start_time: int  # field 22 of its /proc/PID/stat, against recycled pids
    supervisor: int
    supervisor_start: int
    scope: str
    cgroup: str = ""  # the scope's path in the hierarchies
    started_ns: int = 0  # 0 until its command runs
    networks: tuple[Attachment, ...] = ()
    ports: tuple[Port, ...] = ()
    # written by older versions, for their one network
    address: str = ""
    mac: str = ""
    restarting: bool = False  # the supervisor waits before it starts the container again
    # the inode of the pid namespace in which its pids count; 0: an older run
    pid_namespace: int = 0

    def wrong(self) -> str:
        if not all(0 <= pid < process.PID_LIMIT for pid in (self.pid, self.supervisor)):
            return "pid, supervisor: must be the number of a process, or 0"
        return "" if 0 <= self.started_ns < _END_OF_TIME else "started_ns: out of range"

    def attachments(self) -> tuple[Attachment, ...]:
        """The container's ends of networks, also of a run that an older version has begun."""
        if self.networks or not self.address:
            return self.networks
        return (Attachment(network="bridge", address=self.address, mac=self.mac),)

    def alive(self) -> bool:
        """Whether the container's first process exists."""
        return self.pid > 0 and process.alive(self.pid, self.start_time)

    def send(self, signal: int) -> None:
        """Send a signal to the container's first process. Raises KernelError when it is gone."""
        pidfd = process.pidfd(self.pid)
        try:
            # checked once the pidfd is open: the pid may have been reused before
            if self.alive():
                process.send(pidfd, signal)
        finally:
            posix.close(pidfd)

    def await_end(self, timeout: float | None = None) -> bool:
        """Wait until the first process is gone; False after `timeout` seconds. Raises KernelError."""
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
            # checked once the pidfd is open: the pid may have been reused before
            return not self.alive() or bool(poll.poll(None if timeout is None else timeout * 1000))
        finally:
            posix.close(pidfd)

    def supervised(self) -> bool:
        """Whether the container's supervisor exists."""
        return self.supervisor > 0 and process.alive(self.supervisor, self.supervisor_start)


class Usage(Frozen):
    """What a run has used, read at its end; -1 is unknown."""

    cpu_ns: int = -1
    memory_peak: int = -1  # bytes
    read_bytes: int = -1  # from block devices
    written_bytes: int = -1


class Traffic(Frozen):
    """What the sockets of a scope have exchanged, by IPAccounting=; -1 is unknown, or not counted."""

    received: int = -1  # bytes, with the headers of IP
    received_packets: int = -1
    sent: int = -1
    sent_packets: int = -1


class Ended(Frozen):
    """How a process ended."""

    code: int  # as a shell has it: 128 + `signal` where a signal ended it
    signal: int = 0  # that ended it, or 0
    oom: bool = False
    oom_told: bool = False  # the event `oom` was emitted when it happened
    timeout: bool = False  # it did not stop in time, and was killed
    stopped: bool = False  # systemd had its service stopped before
    finished_ns: int = 0
    usage: Usage = Usage()
    error: str = ""  # why the supervisor could not go on and killed it
    unrecorded: bool = False  # the recorder of its system calls was gone before


class Final(Frozen):
    """How the last run ended."""

    exit_code: int
    started_ns: int  # 0: it never ran
    finished_ns: int
    how: str = "exited"  # exited, signalled, oom, timeout (of its stop), failed (to start), lost
    signal: int = 0
    oom_killed: bool = False
    victims: tuple[str, ...] = ()  # names of the processes that were killed for lack of memory
    phase: str = ""  # of a start that failed, then or since: how far the first process came
    error: str = ""  # why it failed, or that no supervisor saw how the run ended
    rebooted: bool = False  # systemd inside asked for a reboot: start the container again
    quick_ends: int = 0  # how many runs in a row, up to this one, ended within seconds
    usage: Usage = Usage()
    traffic: Traffic = Traffic()

    def wrong(self) -> str:
        if not 0 <= self.exit_code < 1 << 32:
            return "exit_code: must be an exit status"
        times = 0 <= self.started_ns < _END_OF_TIME and 0 <= self.finished_ns < _END_OF_TIME
        return "" if times else "started_ns, finished_ns: out of range"


class Status(Frozen):
    """The state of a container, as `ps` and `inspect` show it."""

    # created, running, paused, restarting, exited, dead (ended, and no supervisor saw how)
    state: str
    pid: int = 0
    exit_code: int = 0
    oom_killed: bool = False
    error: str = ""
    started_at: float = 0.0  # seconds since the epoch; 0 is never
    finished_at: float = 0.0
    # there are files of a run whose end is recorded, or that was to begin: who was to remove them was killed
    left: bool = False


def to_file(record: Record) -> bytes:
    """The content of record.json: defaults are left out, and the format number tells what they were."""
    return codec.dumps({"format": FORMAT, **record.to_data()})


def to_checked_file(record: Record) -> bytes:
    """The content of record.json. Raises SpecError where it is too large to be read again."""
    data = to_file(record)
    if len(data) > LIMIT:
        raise SpecError(
            f"the settings of the container take {len(data)} bytes, its record may have {LIMIT}",
            hint="its command, environment, labels, published ports and health check count, the image's too",
        )
    return data


def from_file(data: bytes, where: str) -> Record:
    """The record in a file of this or an older version; a field left out has that version's default.

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
    if number == 1:
        record = _of_format_1(record)
    if number < 3:
        record = _of_format_2(record)
    return _of_format_3(record) if number < 4 else record


def _of_format_3(record: Record) -> Record:
    """Keep it without an AppArmor profile: there was none."""
    security = record.spec.security.replace(apparmor="unconfined")
    return record.replace(spec=record.spec.replace(security=security))


def _of_format_2(record: Record) -> Record:
    """Keep the host's user namespace and clocks: there were no others; the defaults have changed since."""
    namespaces = record.spec.namespaces.replace(user="host", time="host")
    return record.replace(userns="host", spec=record.spec.replace(namespaces=namespaces))


def _of_format_1(record: Record) -> Record:
    """Keep NET_RAW, a default capability then; --cap-add and --cap-drop take precedence."""
    security = record.spec.security.replace(cap_kept=("NET_RAW",))
    return record.replace(spec=record.spec.replace(security=security))


def await_exit(record: Record, run: Runtime, ask: Callable[[], Runtime | None]) -> Status | None:
    """Wait up to 0.2 s for the supervisor to write how `run` ended, whose first process is gone; else `dead`.

    `ask` reads the current run; None where that is no longer `run`.
    """
    started_at = run.started_ns / 1e9
    deadline = time.monotonic() + _ABOUT_TO_SAY
    while time.monotonic() < deadline:
        if ask() != run:
            return None
        try:
            values = codec.loads(read_file(f"{record.run_directory}/exit") or b"null", "exit")
            code, finished_at = int(values["code"]), int(values["finished"]) / 1e9
            short_of_memory = bool(values["oom"])
        except (FormatError, KeyError, TypeError, ValueError):
            time.sleep(_STEP)
            continue
        return Status(
            state="exited",
            exit_code=code,
            oom_killed=short_of_memory,
            started_at=started_at,
            finished_at=finished_at,
        )
    return Status(state="dead", started_at=started_at)
