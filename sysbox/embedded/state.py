"""The record of an embedded host, and whether it is alive.

On the machine, `/run/sysbox-host/NAME/` holds the leader file and `/var/lib/sysbox-host/NAME/` what
survives a stop. The leader file is one line, "PID START PHASE NETWORK": the kernel reuses a pid, but not
with the same start time (proc_pid_stat(5), field 22).
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base import errors, files, paths
from sysbox.base.frozen import Frozen
from sysbox.host import read_text
from sysbox.linux import process

RUN = "/run/sysbox-host"
STATE = "/var/lib/sysbox-host"
OWN_NAME = "/run/host/sysbox-host"  # on the host: a file with its name
DEFAULT = "default"
BOOTING = "booting"
RUNNING = "running"
CLIENTS = "sysbox-clients"  # the cgroup of commands that have joined from the machine
_LEADER_LIMIT = 4096  # bytes
_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")


class Host(Frozen):
    """An embedded host that has been started."""

    name: str
    pid: int  # its PID 1, in the machine's pid namespace
    start: int  # when that process was started: clock ticks since the machine's boot
    phase: str  # BOOTING or RUNNING
    private_network: bool

    @property
    def alive(self) -> bool:
        """Whether its PID 1 is still that process, and not a zombie."""
        return self.start != 0 and process.alive(self.pid, self.start)


def check_name(name: str) -> str:
    """The name itself; raises SpecError unless it is 1 to 32 letters, digits, '-' and '_'."""
    if 1 <= len(name) <= 32 and name[0] != "-" and _ALPHABET.issuperset(name):
        return name
    raise errors.SpecError(
        f"invalid host name '{name}'", hint="1 to 32 letters, digits, '-' and '_', no '-' in front"
    )


def run_directory(name: str) -> str:
    """The directory that is empty after the machine's boot: leader file, notification socket, stage."""
    return f"{RUN}/{name}"


def state_directory(name: str) -> str:
    """The directory that survives a stop: journal, machine id, and for all but the default host its state."""
    return f"{STATE}/{name}"


def sysbox_directory(name: str) -> str:
    """The real directory that is /var/lib/sysbox on the host: the machine's own on the default host."""
    return paths.STATE if name == DEFAULT else f"{state_directory(name)}/state"


def cgroup_name(name: str) -> str:
    """The directory that is the host's cgroup root in each hierarchy."""
    return f"sysbox-host-{name}"


def load(name: str) -> Host | None:
    """The host as recorded in its leader file, dead or alive; None without a valid one.

    Raises FormatError where the file cannot be read now.
    """
    path = f"{RUN}/{name}/leader"
    try:
        fields = (files.read_file(path, _LEADER_LIMIT) or b"").split()
    except errors.FormatError:
        if _may_be_leader(path):
            raise
        return None
    if len(fields) != 4 or not fields[0].isdigit() or not fields[1].isdigit():
        return None
    if int(fields[0]) >= process.PID_LIMIT:
        return None
    return Host(
        name=name,
        pid=int(fields[0]),
        start=int(fields[1]),
        phase=fields[2].decode("ascii", "replace"),
        private_network=fields[3] == b"private",
    )


def _may_be_leader(path: str) -> bool:
    """Whether a file that cannot be read may be one: a directory, a link or a large file is none."""
    try:
        status = posix.lstat(path)
    except OSError:
        return True
    return _stat.S_ISREG(status.st_mode) and status.st_size <= _LEADER_LIMIT


def load_running(name: str) -> Host | None:
    """The host, if it is up."""
    host = load(name)
    return host if host is not None and host.phase == RUNNING and host.alive else None


def save(host: Host) -> None:
    """Write the host's leader file, atomically."""
    network = "private" if host.private_network else "shared"
    line = f"{host.pid} {host.start} {host.phase} {network}\n"
    files.write_file(f"{run_directory(host.name)}/leader", line.encode())


def names() -> list[str]:
    """Hosts that have a run directory, alive or not."""
    return sorted(name for name in _list(RUN) if not name.endswith(".lock"))


def all_names() -> list[str]:
    """All hosts: those that have state or a run directory."""
    return sorted({*names(), *_list(STATE)})


def _list(directory: str) -> list[str]:
    try:
        return posix.listdir(directory)
    except FileNotFoundError:
        return []


def own_name() -> str:
    """The embedded host that this process is on; "" on the machine itself."""
    return read_text(OWN_NAME).strip()


def wish_from_environment() -> tuple[str, str]:
    """SYSBOX_HOST: (auto, system or embedded; the name of the embedded host or ""). Raises UsageError."""
    wish = posix.environ.get(b"SYSBOX_HOST", b"").decode("utf-8", "replace") or "auto"
    kind, colon, name = wish.partition(":")
    if kind not in ("auto", "system", "embedded") or (colon and kind != "embedded"):
        raise errors.UsageError(
            f"SYSBOX_HOST={wish} is not valid", hint="auto, system, embedded or embedded:NAME"
        )
    return kind, name


def name_from_environment() -> str:
    """The host that SYSBOX_HOST=embedded:NAME names, up or not, else the default one.

    Raises SpecError, UsageError for an invalid value.
    """
    kind, name = wish_from_environment()
    return check_name(name) if kind == "embedded" and name else DEFAULT
