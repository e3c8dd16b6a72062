"""Stopping every process of a scope where it is, and letting it go on.

On v2 systemd does it (FreezeUnit), so that `systemctl status` says so; it has no such thing on v1.
"""

from __future__ import annotations

import _signal
import errno
import posix

from sysbox.base.errors import Conflict, KernelError, SystemdError
from sysbox.base.wait import until
from sysbox.linux import cgroup, freezer
from sysbox.units.bus import MANAGER, MANAGER_PATH, Bus
from sysbox.units.cgroup import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.host import HostFacts

_PATIENCE = 10.0  # seconds for the last process to come out of the kernel
_STEP = 0.002
_TIMEOUT = "org.freedesktop.DBus.Error.Timeout"
_REFUSED = (  # by a systemd without FreezeUnit (before 246), and where it cannot do it
    "org.freedesktop.DBus.Error.UnknownMethod",
    "org.freedesktop.DBus.Error.NotSupported",
)


def freeze(unit: str, path: str, facts: HostFacts) -> None:
    """Freeze a scope, whose cgroup is `path`; nothing in it runs any more when this returns.

    What does not stop in ten seconds is thawed again. Raises KernelError, SystemdError, Unsupported.
    """
    tree.adopt(path, "freezer", facts)
    try:
        if facts.cgroup_mode == "v2":
            _systemd("FreezeUnit", unit)
        if not freezer.asked(facts, path):
            freezer.request(facts, path)
        _await(lambda: _has_frozen(facts, path))
    except TimeoutError:
        _request_thaw(unit, path, facts)
        raise KernelError(
            "freeze",
            unit,
            errno.EBUSY,
            hint="one of its processes waits for a device or a file system: state D in ps(1)",
        ) from None
    except BaseException:
        _request_thaw(unit, path, facts)
        raise


def thaw(unit: str, path: str, facts: HostFacts) -> None:
    """Let a scope go on. Raises Conflict where it is frozen with its slice, KernelError, SystemdError."""
    if above := freezer.asked_above(facts, path):
        raise Conflict(f"{above} is frozen, and {unit} with it", hint=_thaw_hint(above, facts))
    try:
        _request_thaw(unit, path, facts)
        _await(lambda: not freezer.frozen(facts, path))
    except TimeoutError:
        raise KernelError("thaw", unit, errno.EBUSY) from None


def _request_thaw(unit: str, path: str, facts: HostFacts) -> None:
    if facts.cgroup_mode == "v2":
        _systemd("ThawUnit", unit)
    freezer.release(facts, path)


def check_not_frozen(path: str, facts: HostFacts) -> None:
    """Raises Conflict where a process that comes to `path` would be frozen at once, with its slice."""
    if above := freezer.asked_above(facts, path):
        raise Conflict(f"{above} is frozen: nothing in it can start", hint=_thaw_hint(above, facts))


def _thaw_hint(path: str, facts: HostFacts) -> str:
    if facts.cgroup_mode == "v2":
        return f"`systemctl thaw {path.rpartition('/')[2]}` thaws it"
    file, word = freezer.thaw_file(facts, path)
    return f"`echo {word} >{file}` thaws it"


def kill(path: str, facts: HostFacts) -> None:
    """SIGKILL to everything in a frozen scope, and thaw it: a frozen process of v1 dies only then.

    All have their signal before the first can run again. Gone already is success. Raises KernelError, and
    Conflict where it is frozen with its slice, and cannot die.
    """
    try:
        directory = freezer.directory(facts, path)
        for pid in cgroup.processes(directory):
            _kill(pid)
    except KernelError as error:
        if error.errno not in cgroup.GONE:
            raise
    freezer.release(facts, path, below=True)
    if freezer.is_v1(facts) and (above := freezer.asked_above(facts, path)):
        raise Conflict(
            f"{above} is frozen: the processes below it have got SIGKILL and end when it is thawed",
            hint=_thaw_hint(above, facts),
        )


def _kill(pid: int) -> None:
    try:
        posix.kill(pid, _signal.SIGKILL)
    except ProcessLookupError:
        pass


def _has_frozen(facts: HostFacts, path: str) -> bool:
    if not freezer.is_v1(facts):
        return freezer.frozen(facts, path)
    state = cgroup.read(freezer.directory(facts, path), "freezer.state")
    if state == "FREEZING":
        # the kernel's freeze_cgroup() looks at each process once, and passes over one that is about to wait
        # for its child of vfork(2); a shell has such children all the time
        freezer.request(facts, path)
    return state == "FROZEN"


def _systemd(member: str, unit: str) -> None:
    """Does nothing where this systemd cannot do it. Raises TimeoutError, SystemdError."""
    with Bus.connect() as bus:
        try:
            bus.retry(lambda: bus.call(MANAGER_PATH, MANAGER, member, "s", (unit,), _PATIENCE))
        except SystemdError as error:
            if error.dbus_name == _TIMEOUT:
                raise TimeoutError from None
            if error.dbus_name not in _REFUSED:
                raise


def _await(condition: Callable[[], bool]) -> None:
    """Raises TimeoutError."""
    if not until(condition, _PATIENCE, _STEP):
        raise TimeoutError
