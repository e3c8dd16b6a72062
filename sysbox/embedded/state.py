"""Where an embedded host is recorded, and whether it is alive.

On the machine, `/run/sysbox-host/NAME/` holds the leader file and `/var/lib/sysbox-host/NAME/` what
survives a stop. The leader file is one line, "PID START PHASE NETWORK": a pid alone may have been used
again, a pid with its start time (proc_pid_stat(5), field 22) may not.
"""

from __future__ import annotations

import fcntl
import posix

from sysbox import errors
from sysbox.frozen import Frozen
from sysbox.host import read_text

RUN = "/run/sysbox-host"
STATE = "/var/lib/sysbox-host"
DEFAULT = "default"
BOOTING = "booting"
RUNNING = "running"
CLIENTS = "sysbox-clients"  # the cgroup of commands that were brought in from the machine
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
        return self.start != 0 and process_start(self.pid) == self.start


def check_name(name: str) -> str:
    """The name itself; raises SpecError unless it is 1 to 32 letters, digits, '-' and '_'."""
    if 1 <= len(name) <= 32 and name[0] != "-" and _ALPHABET.issuperset(name):
        return name
    raise errors.SpecError(
        f"invalid host name '{name}'", hint="1 to 32 letters, digits, '-' and '_', no '-' in front"
    )


def run_directory(name: str) -> str:
    """What is gone at the machine's boot: the leader file, the notification socket, the stage."""
    return f"{RUN}/{name}"


def state_directory(name: str) -> str:
    """What survives a stop: the journal, the machine id, and for all but the default host its state."""
    return f"{STATE}/{name}"


def cgroup_name(name: str) -> str:
    """The directory that is the host's cgroup root in each hierarchy."""
    return f"sysbox-host-{name}"


def load(name: str) -> Host | None:
    """The host as its leader file has it, dead or alive; None where there is none."""
    fields = read_text(f"{RUN}/{name}/leader", 4096).split()
    if len(fields) != 4 or not fields[0].isdigit() or not fields[1].isdigit():
        return None
    return Host(
        name=name,
        pid=int(fields[0]),
        start=int(fields[1]),
        phase=fields[2],
        private_network=fields[3] == "private",
    )


def running(name: str) -> Host | None:
    """The host, if it is up."""
    host = load(name)
    return host if host is not None and host.phase == RUNNING and host.alive else None


def save(host: Host) -> None:
    """Write the leader file, atomically."""
    network = "private" if host.private_network else "shared"
    path = f"{run_directory(host.name)}/leader"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC
    fd = posix.open(f"{path}.new", flags, 0o600)
    try:
        posix.write(fd, f"{host.pid} {host.start} {host.phase} {network}\n".encode())
    finally:
        posix.close(fd)
    posix.rename(f"{path}.new", path)


def names() -> list[str]:
    """Hosts that have a run directory, alive or not."""
    try:
        found = posix.listdir(RUN)
    except FileNotFoundError:
        return []
    return sorted(name for name in found if not name.endswith(".lock"))


def process_start(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 if the process is gone or a zombie."""
    fields = read_text(f"/proc/{pid}/stat", 4096).rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in ("Z", "X", "x") else 0


def make_directory(path: str, mode: int = 0o700) -> None:
    """Create a directory and those above it; one that exists is left as it is."""
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directory(path.rpartition("/")[0], 0o755)
        make_directory(path, mode)


class Lock:
    """Serialises start and stop of one host; the file is gone when nobody holds or awaits it."""

    def __init__(self, name: str) -> None:
        self._path = f"{RUN}/{name}.lock"
        self._fd = -1

    def __enter__(self) -> Lock:
        make_directory(RUN)
        while True:
            fd = posix.open(self._path, posix.O_RDWR | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX)
            try:
                # the one who held it may have removed the file while we waited
                if posix.stat(self._path).st_ino == posix.fstat(fd).st_ino:
                    self._fd = fd
                    return self
            except FileNotFoundError:
                pass
            posix.close(fd)

    def __exit__(self, *_: object) -> None:
        try:
            posix.unlink(self._path)
        except FileNotFoundError:
            pass
        posix.close(self._fd)
