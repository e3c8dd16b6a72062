"""machined's register (org.freedesktop.machine1(5)): machinectl(1), `journalctl -M`, `systemctl -M` and
nss-mymachines(8) know the containers that are in it.

Nothing depends on it, and nothing waits: the message is sent, and the connection held for a while, since
machined may have to be started first and asks the bus who was calling. An entry that nobody takes out goes
with its scope.
"""

from __future__ import annotations

import _signal
import _socket
import posix

from sysbox.base.errors import SystemdError
from sysbox.base.frozen import Frozen
from sysbox.host import exists
from sysbox.linux import process
from sysbox.units.bus import SYSTEM_SOCKET, Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from signal import ITIMER_REAL, setitimer
else:
    from _signal import ITIMER_REAL, setitimer

_SERVICE = "org.freedesktop.machine1"
_PATH = "/org/freedesktop/machine1"
_MANAGER = f"{_SERVICE}.Manager"
_ACTIVATED_BY = f"/usr/share/dbus-1/system-services/{_SERVICE}.service"
_MASK = "/etc/systemd/system/systemd-machined.service"
_STATE = "/run/systemd/machines"  # a file for each, and unit:UNIT -> its name
_NAME_MAX = 64  # HOST_NAME_MAX, which is what a machine's name is held to
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.")
_SETTLED = 0.5  # seconds: what is over before that is nobody's machine
_PATIENCE = 2.0  # seconds
_AT_MOST = 0.1  # seconds that a broker may hold up a start
HOLD = 5.0  # seconds, in which machined has been started


class Machine(Frozen):
    """One entry."""

    name: str  # the container's
    id: str  # 64 hex
    leader: int  # its first process
    start_time: int  # of that, field 22 of /proc/PID/stat
    link: str = ""  # the host's end of its network link; "" without one


def is_available() -> bool:
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


def register(machine: Machine) -> int:
    """Have it entered, under its id where another has its name; nobody is told if that fails.

    Returns at once: a descriptor to be held for HOLD seconds, or -1.
    """
    if not is_available() or not process.alive(machine.leader, machine.start_time):
        return -1
    name = machine_name(machine.name)
    if exists(f"{_STATE}/{name}"):
        name = machine.id[:12]
    try:
        links = [_socket.if_nametoindex(machine.link)] if machine.link else []
        with Bus.broker(_AT_MOST) as bus:
            bus.send(
                _PATH, _MANAGER, "RegisterMachineWithNetwork", "sayssusai",
                (name, bytes.fromhex(machine.id[:32]), "sysbox", "container", machine.leader, "", links),
                to=_SERVICE,
            )  # fmt: skip
            return bus.detach()
    except (OSError, SystemdError):
        return -1  # ignoring: machined is not there after all, or the container is not any more


def register_later(machine: Machine) -> None:
    """The same, by SIGALRM, for a container that its caller waits for: if it is there for a while."""

    def enter(*_: object) -> None:
        held = register(machine)
        if held >= 0:
            _signal.signal(_signal.SIGALRM, lambda *_: posix.close(held))
            setitimer(ITIMER_REAL, HOLD)

    _signal.signal(_signal.SIGALRM, enter)
    setitimer(ITIMER_REAL, _SETTLED)


def cancel_register() -> None:
    """It is over: no later announcement."""
    setitimer(ITIMER_REAL, 0)


def unregister(scope: str) -> None:
    """Take the entry of a container out, whose scope this is; none is success."""
    try:
        name = posix.readlink(f"{_STATE}/unit:{scope}")
    except OSError:
        return
    try:
        with Bus.broker() as bus:
            bus.call(_PATH, _MANAGER, "UnregisterMachine", "s", (name,), _PATIENCE, to=_SERVICE)
    except SystemdError:
        pass  # ignoring: it goes with the scope
