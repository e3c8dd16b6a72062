"""Register containers with machined (org.freedesktop.machine1(5)): machinectl(1), `journalctl -M`,
`systemctl -M` and nss-mymachines(8) then know them.

Nothing depends on it, and sysbox waits for no reply: it sends the message and keeps the connection open for a
while, since machined may have to be started first, and asks the bus who the caller was. machined removes an
entry with its scope at the latest.
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
    from collections.abc import Callable
    from signal import ITIMER_REAL, setitimer
else:
    from _signal import ITIMER_REAL, setitimer

_SERVICE = "org.freedesktop.machine1"
_PATH = "/org/freedesktop/machine1"
_MANAGER = f"{_SERVICE}.Manager"
_ACTIVATED_BY = f"/usr/share/dbus-1/system-services/{_SERVICE}.service"
_MASK = "/etc/systemd/system/systemd-machined.service"
_STATE = "/run/systemd/machines"  # a file for each machine, and links unit:UNIT -> machine
_NAME_MAX = 64  # HOST_NAME_MAX: machined takes no longer name
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.")
_SETTLED = 0.5  # seconds: a shorter run is not registered
_PATIENCE = 2.0  # seconds
_AT_MOST = 0.1  # seconds that a broker may delay a start
HOLD = 5.0  # seconds to keep the connection open; machined has been started by then


class Machine(Frozen):
    """A container as machined's entry."""

    name: str  # the container's
    id: str  # 64 hex
    leader: int  # the pid of its first process
    start_time: int  # of the leader, field 22 of /proc/PID/stat
    link: str = ""  # the host's end of its network link; "" without one


def is_available() -> bool:
    """Whether machined runs or can be started on demand, and is not masked."""
    if not exists(_ACTIVATED_BY) or not exists(SYSTEM_SOCKET):
        return False
    try:
        return posix.readlink(_MASK) != "/dev/null"
    except OSError:
        return True


def machine_name(name: str) -> str:
    """The name as machined accepts it: a hostname of letters and digits, with `.` and `-` between them."""
    plain = "".join(char if char in _LETTERS else "-" for char in name[:_NAME_MAX])
    labels = [label.strip("-") for label in plain.split(".")]
    return ".".join(filter(None, labels))


def register(machine: Machine) -> int:
    """Ask machined to register it, under its id if its name is taken; a failure is ignored.

    Returns at once: a descriptor that the caller keeps open for HOLD seconds, or -1.
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
        return -1  # ignoring: machined cannot be reached, or the container has ended


def register_later(machine: Machine) -> None:
    """Register a foreground container by SIGALRM, once it has run for half a second."""

    def enter(*_: object) -> None:
        held = register(machine)
        if held >= 0:
            _signal.signal(_signal.SIGALRM, lambda *_: posix.close(held))
            setitimer(ITIMER_REAL, HOLD)

    _signal.signal(_signal.SIGALRM, enter)
    setitimer(ITIMER_REAL, _SETTLED)


def cancel_register() -> None:
    """Cancel `register_later`, since the container has ended."""
    setitimer(ITIMER_REAL, 0)


def begin_unregister(scope: str) -> Callable[[], None]:
    """Ask machined to remove the entry of the container with this scope; no entry is success.

    Returns a function that waits until that is done: machined and the broker need some milliseconds.
    """
    try:
        name = posix.readlink(f"{_STATE}/unit:{scope}")
        bus = Bus.broker()
        serial = bus.send(_PATH, _MANAGER, "UnregisterMachine", "s", (name,), to=_SERVICE)
    except (OSError, SystemdError):
        return lambda: None  # ignoring: there is no entry, or machined removes it with the scope

    def wait() -> None:
        try:
            with bus:
                bus.reply(serial, _PATIENCE)
        except SystemdError:
            pass  # ignoring: machined removes the entry with the scope

    return wait
