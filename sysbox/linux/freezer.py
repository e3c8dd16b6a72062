"""The cgroup freezer: freezer.state of v1 (freezer-subsystem.rst), cgroup.freeze of v2 (cgroup-v2.rst).

A frozen process of v1 takes no signal, not even SIGKILL, before it is thawed; one of v2 dies of SIGKILL.
"""

from __future__ import annotations

import _signal
import posix

from sysbox.base.errors import KernelError, Unsupported
from sysbox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

UNIFIED = "/sys/fs/cgroup/unified"  # where a hybrid host has the v2 tree


def is_v1(facts: HostFacts) -> bool:
    """Whether the v1 freezer is what there is; a v2 tree beside v1 controllers has one of its own."""
    return facts.cgroup_mode == "v1" and "freezer" in facts.controllers


def directory(facts: HostFacts, path: str) -> str:
    """The directory of a cgroup ("/system.slice/x.scope") where it is frozen. Raises Unsupported."""
    if is_v1(facts):
        return cgroup.directory(facts, "freezer", path)
    if facts.cgroup_mode == "v2":
        return cgroup.directory(facts, "name=systemd", path)
    if not _exists(f"{UNIFIED}/cgroup.procs"):
        raise Unsupported(
            "there is no cgroup freezer here",
            hint="the v1 controller 'freezer' is not mounted, and there is no cgroup v2 tree",
        )
    return UNIFIED + path


def thaw_file(facts: HostFacts, path: str) -> tuple[str, str]:
    """The file that thaws a cgroup, and what to write into it; both "" where there is no freezer."""
    try:
        where = directory(facts, path)
    except Unsupported:
        return "", ""
    return (f"{where}/freezer.state", "THAWED") if is_v1(facts) else (f"{where}/cgroup.freeze", "0")


def frozen(facts: HostFacts, path: str) -> bool:
    """Whether a cgroup is frozen, by itself or with one above it; one that is not there is not.

    One that is only on its way there counts on v1, where no process in it takes a signal any more.
    """
    try:
        where = directory(facts, path)
        if is_v1(facts):
            return cgroup.read(where, "freezer.state") != "THAWED"
        return cgroup.read_keyed(where, "cgroup.events").get("frozen") == 1
    except (KernelError, Unsupported):
        return False


def holding(facts: HostFacts, pid: int) -> str:
    """The file of the v2 tree by which whoever comes to where `pid` is stops at once, "" where there is none.

    Beside v1 controllers and below its scope a container can freeze what it likes of its own. Whether all
    that is there has stopped already says nothing: one process in a vfork(2) puts that off for ever.
    """
    tree = UNIFIED if is_v1(facts) else facts.controllers.get("name=systemd", "")
    try:
        directory = tree + cgroup.paths_of(pid).get(cgroup.UNIFIED, "/")
        while tree and directory.startswith(f"{tree}/") and directory != f"{tree}/":
            if cgroup.read(directory, "cgroup.freeze") == "1":
                return f"{directory}/cgroup.freeze"
            directory = directory.rpartition("/")[0]
    except KernelError:
        pass  # it has just ended, or there is no such tree
    return ""


def asked(facts: HostFacts, path: str) -> bool:
    """Whether somebody wants this very cgroup frozen, whether it is yet or not."""
    file = "freezer.self_freezing" if is_v1(facts) else "cgroup.freeze"
    try:
        return cgroup.read(directory(facts, path), file) == "1"
    except (KernelError, Unsupported):
        return False


def asked_above(facts: HostFacts, path: str) -> str:
    """The nearest cgroup above `path` that somebody wants frozen, "" where there is none."""
    above = path.rpartition("/")[0]
    while above:
        if asked(facts, above):
            return above
        above = above.rpartition("/")[0]
    return ""


def request(facts: HostFacts, path: str) -> None:
    """Ask the kernel to freeze a cgroup; `frozen` says when it is. Raises KernelError, Unsupported."""
    file, word = ("freezer.state", "FROZEN") if is_v1(facts) else ("cgroup.freeze", "1")
    cgroup.write(directory(facts, path), file, word)


def release(facts: HostFacts, path: str, *, below: bool = False) -> None:
    """Thaw a cgroup, with `below` all those too that a container has made in it; gone already is success.

    One above it that is frozen still holds it. Raises KernelError, Unsupported.
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


def doomed(pid: int) -> bool:
    """Whether a process has a SIGKILL that it cannot die of, as one that is frozen on v1 cannot."""
    try:
        status = cgroup.read(f"/proc/{pid}", "status")
    except KernelError:
        return False
    lines = (line.split() for line in status.splitlines())
    masks = [int(line[1], 16) for line in lines if line and line[0] in ("SigPnd:", "ShdPnd:")]
    return any(mask & 1 << (_signal.SIGKILL - 1) for mask in masks)


def _exists(path: str) -> bool:
    try:
        posix.lstat(path)
    except OSError:
        return False
    return True
