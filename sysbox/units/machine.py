"""machined's register (org.freedesktop.machine1(5)): machinectl(1), `journalctl -M`, `systemctl -M` and
nss-mymachines(8) know the containers that are in it.

Nothing depends on it, and nothing waits: a process of its own does the talking, since machined asks the bus
who is calling and may have to be started first. An entry that nobody takes out goes with its scope.
"""

from __future__ import annotations

import _signal
import _socket
import posix

from sysbox.errors import SystemdError
from sysbox.frozen import Frozen
from sysbox.host import exists
from sysbox.linux import process
from sysbox.units.bus import SYSTEM_SOCKET, Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import ITIMER_REAL, setitimer
    from typing import NoReturn
else:
    from _signal import ITIMER_REAL, setitimer

_SERVICE = "org.freedesktop.machine1"
_PATH = "/org/freedesktop/machine1"
_MANAGER = f"{_SERVICE}.Manager"
_EXISTS = f"{_SERVICE}.MachineExists"
_ACTIVATED_BY = f"/usr/share/dbus-1/system-services/{_SERVICE}.service"
_MASK = "/etc/systemd/system/systemd-machined.service"
_STATE = "/run/systemd/machines"  # a file for each, and unit:UNIT -> its name
_NAME_MAX = 64  # HOST_NAME_MAX, which is what a machine's name is held to
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.")
_SETTLED = 0.5  # seconds: what is over before that is nobody's machine
_PATIENCE = 2.0  # seconds


class Machine(Frozen):
    """One entry."""

    name: str  # the container's
    id: str  # 64 hex
    leader: int  # its first process
    start_time: int  # of that, field 22 of /proc/PID/stat
    link: str = ""  # the host's end of its network link; "" without one


def present() -> bool:
    """Whether there is a machined, running or to be started on demand, that is not masked."""
    if not exists(_ACTIVATED_BY) or not exists(SYSTEM_SOCKET):
        return False
    try:
        return posix.readlink(_MASK) != "/dev/null"
    except OSError:
        return True


def machine_name(name: str) -> str:
    """The name as machined takes it: a hostname, of letters, digits, and `.` and `-` inside of words."""
    plain = "".join(char if char in _LETTERS else "-" for char in name[:_NAME_MAX])
    labels = [label.strip("-") for label in plain.split(".")]
    return ".".join(filter(None, labels))


def announce(machine: Machine) -> None:
    """Have it entered. Returns at once, and nobody is told if that fails."""
    if not present():
        return
    between = posix.fork()
    if between:
        posix.waitpid(between, 0)
        return
    try:
        # twice, so that it is nobody's child who would have to wait for it
        if posix.fork() == 0:
            _enter_alone(machine)
    finally:
        posix._exit(0)


def announce_later(machine: Machine) -> None:
    """The same, by SIGALRM, for a container that its caller waits for: if it is there for a while."""
    _signal.signal(_signal.SIGALRM, lambda *_: announce(machine))
    setitimer(ITIMER_REAL, _SETTLED)


def cancel() -> None:
    """It is over: no later announcement."""
    setitimer(ITIMER_REAL, 0)


def withdraw(scope: str) -> None:
    """Take the entry of a container out, whose scope this is; none is success."""
    try:
        name = posix.readlink(f"{_STATE}/unit:{scope}")
    except OSError:
        return
    try:
        bus = Bus.broker()
        try:
            bus.call(_PATH, _MANAGER, "UnregisterMachine", "s", (name,), _PATIENCE, to=_SERVICE)
        finally:
            bus.close()
    except SystemdError:
        pass  # ignoring: it goes with the scope


def _enter_alone(machine: Machine) -> NoReturn:
    try:
        process.reset_signals()
        # a stream that it held would not end with the container
        process.close_fds_from(0)
        for _ in range(3):
            posix.open("/dev/null", posix.O_RDWR)
        enter(machine)
    except (OSError, SystemdError):
        pass  # ignoring: machined is not there after all, or the container is not any more
    finally:
        posix._exit(0)


def enter(machine: Machine) -> None:
    """Enter it and wait for the answer; under its id where another has its name. Raises SystemdError."""
    links = [_socket.if_nametoindex(machine.link)] if machine.link else []
    bus = Bus.broker()
    try:
        for name in (machine_name(machine.name), machine.id[:12]):
            entry = (name, bytes.fromhex(machine.id[:32]), "sysbox", "container", machine.leader)
            if not process.alive(machine.leader, machine.start_time):
                return
            try:
                bus.call(
                    _PATH, _MANAGER, "RegisterMachineWithNetwork", "sayssusai",
                    (*entry, "", links), to=_SERVICE,
                )  # fmt: skip
                return
            except SystemdError as error:
                if error.dbus_name != _EXISTS:
                    raise
    finally:
        bus.close()
