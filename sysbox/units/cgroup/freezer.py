"""Freeze and thaw a scope.

On v2 systemd does it (FreezeUnit), so that `systemctl status` shows it; on v1 systemd cannot freeze a unit.
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

_PATIENCE = 10.0  # seconds for the last process to return from its system call
_STEP = 0.002
_TIMEOUT = "org.freedesktop.DBus.Error.Timeout"
_REFUSED = (  # by a systemd without FreezeUnit (before 246), or where it cannot freeze
    "org.freedesktop.DBus.Error.UnknownMethod",
    "org.freedesktop.DBus.Error.NotSupported",
)


def freeze(unit: str, path: str, facts: HostFacts) -> None:
    """Freeze a scope, whose cgroup is `path`; when this returns, none of its processes runs.

    If it does not freeze in ten seconds it is thawed again. Raises KernelError, SystemdError, Unsupported.
    """
    tree.adopt(path, "freezer", facts)
    try:
        if facts.cgroup_mode == "v2":
            _systemd("FreezeUnit", unit)
        if not freezer.is_requested(facts, path):
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
    """Thaw a scope. Raises Conflict if its slice is frozen too, KernelError, SystemdError."""
    if above := freezer.requested_above(facts, path):
        raise Conflict(f"{above} is frozen, and {unit} with it", hint=_thaw_hint(above, facts))
    try:
        _request_thaw(unit, path, facts)
        _await(lambda: not freezer.is_frozen(facts, path))
    except TimeoutError:
        raise KernelError("thaw", unit, errno.EBUSY) from None


def _request_thaw(unit: str, path: str, facts: HostFacts) -> None:
    if facts.cgroup_mode == "v2":
        _systemd("ThawUnit", unit)
    freezer.release(facts, path)


def check_not_frozen(path: str, facts: HostFacts) -> None:
    """Raise Conflict if a slice above `path` is frozen: a process that enters would freeze at once."""
    if above := freezer.requested_above(facts, path):
        raise Conflict(f"{above} is frozen: nothing in it can start", hint=_thaw_hint(above, facts))


def _thaw_hint(path: str, facts: HostFacts) -> str:
    if facts.cgroup_mode == "v2":
        return f"`systemctl thaw {path.rpartition('/')[2]}` thaws it"
    file, word = freezer.thaw_file(facts, path)
    return f"`echo {word} >{file}` thaws it"


def kill(path: str, facts: HostFacts) -> None:
    """Send SIGKILL to every process of a frozen scope, and thaw it: on v1 a frozen process dies only then.

    All have their signal before the first can run again. Already gone is success. Raises KernelError, and
    Conflict if its slice is frozen too, so that on v1 they cannot die.
    """
    try:
        directory = freezer.directory(facts, path)
        for pid in cgroup.processes(directory):
            _kill(pid)
    except KernelError as error:
        if error.errno not in cgroup.GONE:
            raise
    freezer.release(facts, path, below=True)
    if freezer.is_v1(facts) and (above := freezer.requested_above(facts, path)):
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
        return freezer.is_frozen(facts, path)
    state = cgroup.read(freezer.directory(facts, path), "freezer.state")
    if state == "FREEZING":
        # ask again: the kernel's freeze_cgroup() looks at each process once, and skips one that is about to
        # wait for its child of vfork(2); a shell has such children all the time
        freezer.request(facts, path)
    return state == "FROZEN"


def _systemd(member: str, unit: str) -> None:
    """Call the manager; a systemd that cannot freeze is no error. Raises TimeoutError, SystemdError."""
    with Bus.connect() as bus:
        try:
            bus.retry(lambda: bus.call(MANAGER_PATH, MANAGER, member, "s", (unit,), _PATIENCE))
        except SystemdError as error:
            if error.dbus_name == _TIMEOUT:
                raise TimeoutError from None
            if error.dbus_name not in _REFUSED:
                raise


def _await(condition: Callable[[], bool]) -> None:
    """Wait for the condition. Raises TimeoutError."""
    if not until(condition, _PATIENCE, _STEP):
        raise TimeoutError
