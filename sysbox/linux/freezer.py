"""The cgroup freezer: freezer.state of v1 (freezer-subsystem.rst), cgroup.freeze of v2 (cgroup-v2.rst).

On v1 a frozen process acts on no signal, not even SIGKILL, before it is thawed; on v2 SIGKILL ends it.
"""

from __future__ import annotations

import _signal

from sysbox.base.errors import KernelError, Unsupported
from sysbox.base.look import exists
from sysbox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

UNIFIED = "/sys/fs/cgroup/unified"  # mount point of the v2 tree on a hybrid host


def is_v1(facts: HostFacts) -> bool:
    """Whether sysbox uses the v1 freezer here; without one, a hybrid host uses that of its v2 tree."""
    return facts.cgroup_mode == "v1" and "freezer" in facts.controllers


def directory(facts: HostFacts, path: str) -> str:
    """The directory with the freezer's files of a cgroup ("/system.slice/x.scope"). Raises Unsupported."""
    if is_v1(facts):
        return cgroup.directory(facts, "freezer", path)
    if facts.cgroup_mode == "v2":
        return cgroup.directory(facts, "name=systemd", path)
    if not exists(f"{UNIFIED}/cgroup.procs"):
        raise Unsupported(
            "there is no cgroup freezer here",
            hint="the v1 controller 'freezer' is not mounted, and there is no cgroup v2 tree",
        )
    return UNIFIED + path


def thaw_file(facts: HostFacts, path: str) -> tuple[str, str]:
    """The file that thaws a cgroup, and the value to write; both "" where there is no freezer."""
    try:
        where = directory(facts, path)
    except Unsupported:
        return "", ""
    return (f"{where}/freezer.state", "THAWED") if is_v1(facts) else (f"{where}/cgroup.freeze", "0")


def is_frozen(facts: HostFacts, path: str) -> bool:
    """Whether a cgroup is frozen, itself or with an ancestor; False if it does not exist.

    On v1 FREEZING counts as frozen, since no process in the cgroup acts on a signal any more.
    """
    try:
        where = directory(facts, path)
        if is_v1(facts):
            return cgroup.read(where, "freezer.state") != "THAWED"
        return cgroup.read_keyed(where, "cgroup.events").get("frozen") == 1
    except (KernelError, Unsupported):
        return False


def freezing_file(facts: HostFacts, path: str) -> str:
    """The cgroup.freeze file of the v2 tree that would freeze a process entering the cgroup `path`, or "".

    On the v2 tree of a hybrid host, and below its scope, a container can freeze cgroups of its own. The
    "frozen" state in cgroup.events does not answer this: one process in vfork(2) delays it without end.
    """
    tree = UNIFIED if is_v1(facts) else facts.controllers.get("name=systemd", "")
    directory = tree + path
    try:
        while tree and directory.startswith(f"{tree}/") and directory != f"{tree}/":
            if cgroup.read(directory, "cgroup.freeze") == "1":
                return f"{directory}/cgroup.freeze"
            directory = directory.rpartition("/")[0]
    except KernelError:
        pass  # ignoring: the process has just ended, or there is no v2 tree
    return ""


def is_requested(facts: HostFacts, path: str) -> bool:
    """Whether a freeze of this cgroup itself was requested, even if it is not frozen yet."""
    file = "freezer.self_freezing" if is_v1(facts) else "cgroup.freeze"
    try:
        return cgroup.read(directory(facts, path), file) == "1"
    except (KernelError, Unsupported):
        return False


def requested_above(facts: HostFacts, path: str) -> str:
    """The nearest cgroup above `path` whose freeze was requested, "" where there is none."""
    above = path.rpartition("/")[0]
    while above:
        if is_requested(facts, above):
            return above
        above = above.rpartition("/")[0]
    return ""


def request(facts: HostFacts, path: str) -> None:
    """Ask the kernel to freeze a cgroup; `is_frozen` says when it is. Raises KernelError, Unsupported."""
    file, word = ("freezer.state", "FROZEN") if is_v1(facts) else ("cgroup.freeze", "1")
    cgroup.write(directory(facts, path), file, word)


def release(facts: HostFacts, path: str, *, below: bool = False) -> None:
    """Thaw a cgroup, with `below` its descendants too; a removed cgroup is success.

    It stays frozen while an ancestor is. Raises KernelError, Unsupported.
    """
    file, word = ("freezer.state", "THAWED") if is_v1(facts) else ("cgroup.freeze", "0")
    waiting = [directory(facts, path)]
    while waiting:
        one = waiting.pop()
        try:
            cgroup.write(one, file, word)
            waiting += cgroup.children(one) if below else ()
        except KernelError as error:
            if error.errno not in cgroup.GONE:
                raise


def has_pending_kill(pid: int) -> bool:
    """Whether SIGKILL is pending for a process: on v1 a frozen process cannot act on it."""
    try:
        status = cgroup.read(f"/proc/{pid}", "status")
    except KernelError:
        return False
    lines = (line.split() for line in status.splitlines())
    masks = [int(line[1], 16) for line in lines if line and line[0] in ("SigPnd:", "ShdPnd:")]
    return any(mask & 1 << (_signal.SIGKILL - 1) for mask in masks)
