"""The cgroups of one scope: those that systemd makes no directory in, what no unit property reaches, and the
set that `exec` joins.

systemd fills the v1 hierarchies that it has settings for. In the others a container has a directory of its
own too, under the same path, made, filled and removed here; systemd never looks at it, so it stays what it is
across a daemon-reload.
"""

from __future__ import annotations

import errno
import posix
import time

from sysbox.base.errors import KernelError, Unsupported
from sysbox.base.files import empty_at
from sysbox.base.frozen import Frozen
from sysbox.base.wait import until
from sysbox.host import exists
from sysbox.linux import cgroup, freezer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.units.limits.properties import CgroupWrite

# v1 hierarchies in which every container has a directory: to be frozen, counted, and profiled by
_ALWAYS = ("freezer", "cpuacct", "perf_event")
# and those in which it has one once something was asked there
_WHEN_ASKED = ("cpuset", "net_cls", "net_prio", "hugetlb")
# mounted together with one of these (cpu,cpuacct mostly is) a hierarchy is systemd's
_SYSTEMDS = ("cpu", "blkio", "memory", "devices", "pids", "name=systemd")
_SYSTEMD = {"v1": "name=systemd", "v2": cgroup.UNIFIED}
# cpuset(7): a process may join only where both are set
_INHERITED = ("cpuset.cpus", "cpuset.mems")
_DESCENDANTS = "cgroup.max.descendants"
MAX_DESCENDANTS = 1024  # of a container with systemd: a unit has one, a container in it some ten
_PATIENCE = 1.0  # seconds for the last process to be out of a cgroup
_STEP = 0.002
_MOST_ROUNDS = 100  # of moving processes that fork meanwhile


class Placement(Frozen):
    """Where a container's first process goes by itself, before its command runs."""

    path: str  # its scope's: "/system.slice/docker-<id>.scope"
    mounts: tuple[
        tuple[str, bool], ...
    ]  # (mount point of a hierarchy of ours, whether cpuset is in it)
    freezer: str  # the mount point of that one, "" without
    writes: tuple[tuple[str, CgroupWrite], ...]  # (mount point, value)


def own_hierarchies(facts: HostFacts) -> dict[str, str]:
    """The v1 controllers whose hierarchy systemd leaves alone, and where they are mounted."""
    if facts.cgroup_mode == "v2":
        return {}
    filled = {facts.controllers.get(name) for name in _SYSTEMDS}
    return {
        name: facts.controllers[name]
        for name in (*_ALWAYS, *_WHEN_ASKED)
        if facts.controllers.get(name) not in (None, *filled)
    }


def split_writes(
    path: str, writes: tuple[CgroupWrite, ...], facts: HostFacts
) -> tuple[Placement, tuple[CgroupWrite, ...]]:
    """What the first process does for itself (`place`), and the values for the scope that systemd makes."""
    own = own_hierarchies(facts)
    wanted = {*_ALWAYS, *(write.controller for write in writes)}
    placed = tuple((own[write.controller], write) for write in writes if write.controller in own)
    # co-mounted controllers once
    mounts = dict.fromkeys(mount for name, mount in own.items() if name in wanted)
    return (
        Placement(
            path=path,
            mounts=tuple((mount, mount == own.get("cpuset")) for mount in mounts),
            freezer=own.get("freezer", ""),
            writes=placed,
        ),
        tuple(write for write in writes if write.controller not in own),
    )


def place(placement: Placement) -> None:
    """Go into directories of its own in the hierarchies that systemd does not fill: called by the container's
    first process, which has one thread and can do it without a lock that the whole host shares.

    Values come before the process, so that it never runs under a wider set. Raises KernelError, Unsupported.
    """
    for mount, is_cpuset in placement.mounts:
        made = _make(mount, placement.path, fill=is_cpuset)
        if not made and mount == placement.freezer:
            # what an earlier run left frozen would freeze this process
            cgroup.write(mount + placement.path, "freezer.state", "THAWED")
    for mount, write in placement.writes:
        _write(mount + placement.path, write)
    cgroup.enter(tuple(mount + placement.path for mount, _ in placement.mounts))


def cgroup_path(pid: int, facts: HostFacts) -> str:
    """The process's cgroup in systemd's own hierarchy: "/system.slice/docker-<id>.scope".

    Raises KernelError when the process is gone.
    """
    return cgroup.paths_of(pid)[_SYSTEMD[facts.cgroup_mode]]


def expect_move(facts: HostFacts) -> None:
    """Have the kernel prepare for what systemd is about to do: to move a process to another cgroup."""
    try:
        path = cgroup_path(posix.getpid(), facts)
        directory = cgroup.directory(facts, "name=systemd", path)
    except (KernelError, KeyError, Unsupported):
        return  # ignoring: it saves time alone
    if not path.startswith("/.."):  # outside of what can be seen here
        cgroup.expect_move(directory)


def cgroup_dirs(pid: int, facts: HostFacts) -> tuple[str, ...]:
    """The directories, one per hierarchy, that a process must join to be where `pid` is.

    A hierarchy in which `pid` is at the root is left out. Raises KernelError when it is gone.
    """
    paths = cgroup.paths_of(pid)
    own = paths.get(cgroup.UNIFIED, "/")
    if facts.cgroup_mode == "v2":
        return (cgroup.directory(facts, "name=systemd", own),)
    found: dict[str, None] = {}  # in order, and co-mounted controllers once
    for controller in facts.controllers:
        path = paths.get(controller, "/")
        if path != "/":
            found[cgroup.directory(facts, controller, path)] = None
    if own != "/" and exists(f"{freezer.UNIFIED}/cgroup.procs"):
        found[freezer.UNIFIED + own] = None
    return tuple(found)


def open_entry(pid: int, facts: HostFacts, group: str = "") -> tuple[int, tuple[str, ...]]:
    """How a new process gets to where `pid` is: an fd of the unified cgroup for clone3(2), or -1, and the
    directories of the other hierarchies. `group` is a directory right below one of them, to go there instead.

    A process that is cloned into a cgroup is not moved there, which would take a lock that every fork and
    exit on the host shares. Raises KernelError when `pid` is gone.
    """
    unified = freezer.UNIFIED if facts.cgroup_mode == "v1" else facts.controllers["name=systemd"]
    others, fd = [], -1
    for directory in cgroup_dirs(pid, facts):
        if group.rpartition("/")[0] == directory:
            directory = group
        if directory.startswith(unified + "/"):
            try:
                fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
            except OSError as error:
                raise KernelError.of("enter the cgroup", directory, error) from None
        else:
            others.append(directory)
    return fd, tuple(others)


def scope_path(path: str) -> str:
    """The scope's own path, of a process whose container may have made cgroups below it."""
    parts = path.split("/")
    for position, part in enumerate(parts):
        if part.endswith(".scope"):
            return "/".join(parts[: position + 1])
    return path


def apply_writes(writes: tuple[CgroupWrite, ...], pid: int, facts: HostFacts) -> None:
    """Write values for a scope that runs; `pid` is a process that it holds.

    The first value in a hierarchy of ours takes all its processes there. Raises KernelError that names the
    file, or Unsupported where this kernel has no such file.
    """
    if not writes:
        return
    path = scope_path(cgroup_path(pid, facts))
    own = own_hierarchies(facts)
    moved: dict[str, None] = {}
    for write in writes:
        directory = cgroup.directory(facts, write.controller, path)
        if write.controller in own:
            moved[write.controller] = None
            _make(own[write.controller], path, fill=own[write.controller] == own.get("cpuset"))
        elif facts.cgroup_mode == "v2" and not exists(f"{directory}/{write.file}"):
            _hand_down(facts, write.controller, path)
        _write(directory, write)
    # after the values, so that no process runs under a wider set
    for controller in moved:
        move_all(path, controller, facts)


def bound_descendants(path: str, facts: HostFacts) -> None:
    """Bound how many cgroups a container can make below its scope's, where it may make any.

    On v2 and in the unified tree beside v1. The hierarchies of v1 know no such bound: there the kernel
    charges each cgroup to the container's memory (since Linux 6.0), which -m limits. Inside the file is
    read-only. Raises KernelError.
    """
    unified = facts.unified if facts.cgroup_mode == "v1" else facts.controllers["name=systemd"]
    directory = unified + path
    if unified and exists(f"{directory}/{_DESCENDANTS}"):
        cgroup.write(directory, _DESCENDANTS, str(MAX_DESCENDANTS))


def _hand_down(facts: HostFacts, controller: str, path: str) -> None:
    """Switch a controller of v2 on, down to a scope: one that systemd does not know, and so leaves as it is.

    Raises KernelError.
    """
    directory = facts.controllers["name=systemd"]
    for part in path.strip("/").split("/"):
        if controller not in cgroup.read(directory, "cgroup.subtree_control").split():
            cgroup.write(directory, "cgroup.subtree_control", f"+{controller}")
        directory = f"{directory}/{part}"


def adopt(path: str, controller: str, facts: HostFacts) -> None:
    """Give a running scope that lacks it a directory in a hierarchy of ours, with all its processes.

    Raises KernelError.
    """
    own = own_hierarchies(facts)
    if controller in own and not exists(own[controller] + path):
        _make(own[controller], path, fill=own[controller] == own.get("cpuset"))
        move_all(path, controller, facts)


def move_all(path: str, controller: str, facts: HostFacts) -> None:
    """Take all processes of a scope into its directory of a controller.

    A process may fork while its parent is moved, so this goes on until there is none left to move. What is
    below that directory already is where the container wants it. Raises KernelError.
    """
    source = cgroup.directory(facts, "name=systemd", path)
    target = cgroup.directory(facts, controller, path)
    for _ in range(_MOST_ROUNDS):
        left = [pid for pid in cgroup.processes(source) if not _is_below(pid, path, controller)]
        if not left:
            return
        for pid in left:
            try:
                cgroup.join(pid, (target,))
            except KernelError as error:
                if error.errno != errno.ESRCH:
                    raise
    raise KernelError(
        "move the container's processes into", target, errno.EAGAIN, hint="it forks without end"
    )


def _is_below(pid: int, path: str, controller: str) -> bool:
    try:
        paths = cgroup.paths_of(pid)
    except KernelError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):
            raise
        return True  # it has ended
    scope, there = f"{path}/", f"{paths[controller]}/"
    # one that is just ending is shown at the root of every hierarchy, and need not move
    return there.startswith(scope) or not f"{paths['name=systemd']}/".startswith(scope)


def _write(directory: str, write: CgroupWrite) -> None:
    if exists(f"{directory}/{write.file}"):
        parent = directory.rpartition("/")[0]
        value = cgroup.read(parent, write.file).strip() if write.inherit else write.value
        cgroup.write(directory, write.file, value)
    elif not write.optional:
        raise Unsupported(
            f"{write.file}={write.value}: this kernel has no such file",
            hint="it was built or booted without this accounting",
        )


def _make(mount: str, path: str, *, fill: bool) -> bool:
    """Make `path` in a hierarchy of ours, with `fill` each level filled from its parent where it is empty.

    False when it was there.
    """
    made = False
    if not fill:
        try:
            posix.mkdir(mount + path, 0o755)
            return True
        except OSError:
            pass  # its slice is not there yet, or an earlier run left it: as below
    directory = mount
    for part in path.strip("/").split("/"):
        parent, directory = directory, f"{directory}/{part}"
        try:
            posix.mkdir(directory, 0o755)
            made = True
        except FileExistsError:
            made = False
        except OSError as error:
            raise KernelError.of("make the cgroup", directory, error) from None
        for file in _INHERITED if fill else ():
            if not cgroup.read(directory, file).strip():
                cgroup.write(directory, file, cgroup.read(parent, file).strip())
    return made


def left(facts: HostFacts, unit: str = "") -> list[str]:
    """The paths of containers' scopes with a directory in any hierarchy; docker's have the same names.

    `unit` is its name, "" for all.
    """
    found: dict[str, None] = {}
    for mount in _everywhere(facts):
        _search(mount, "", unit, found)
    return list(found)


def _everywhere(facts: HostFacts) -> list[str]:
    """The mount points of all hierarchies, that first by which systemd knows whether a scope is empty."""
    hybrid = facts.cgroup_mode == "v1" and exists(f"{freezer.UNIFIED}/cgroup.procs")
    first = freezer.UNIFIED if hybrid else facts.controllers["name=systemd"]
    return list(dict.fromkeys((first, *facts.controllers.values())))


def _search(mount: str, path: str, unit: str, found: dict[str, None]) -> None:
    try:
        names = [child.rpartition("/")[2] for child in cgroup.children(mount + path)]
    except KernelError as error:
        if error.errno not in cgroup.GONE:
            raise
        return  # it went meanwhile
    for name in names:
        if name.endswith(".slice"):
            _search(mount, f"{path}/{name}", unit, found)
        elif name == unit or (not unit and name[:7] == "docker-" and name[-6:] == ".scope"):
            found[f"{path}/{name}"] = None


def remove_cgroups(path: str, facts: HostFacts) -> None:
    """Remove the scope's directories that systemd does not; already gone is success.

    The parents stay: other scopes share them, and they are as cheap as empty. What a process is still in
    after a while stays too, for `sysbox gc`. Raises KernelError.
    """
    deadline = time.monotonic() + _PATIENCE
    if path.strip("/"):
        for mount in dict.fromkeys(own_hierarchies(facts).values()):
            _remove_tree(mount + path, deadline - time.monotonic())


def remove_if_empty(path: str, facts: HostFacts) -> bool:
    """Remove the scope's directories in all hierarchies, at once and without waiting: False where a process
    is in one of them, or there is none.

    Only of a scope that systemd does not know. Raises KernelError.
    """
    there = [mount + path for mount in _everywhere(facts) if exists(mount + path)]
    for directory in there:
        _remove_tree(directory, 0.0)
        if exists(directory):
            return False
    return there != []


def _removed(parent: int, name: str) -> bool:
    if _rmdir(parent, name):
        return True
    # a container may have made them as deep as it likes
    empty_at(parent, name, _rmdir)
    return _rmdir(parent, name)


def _remove_tree(directory: str, timeout: float) -> None:
    above, _, name = directory.rpartition("/")
    parent = -1
    try:
        parent = posix.open(above, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        until(lambda: _removed(parent, name), timeout, _STEP)
    except OSError as error:
        if error.errno not in cgroup.GONE:
            raise KernelError.of("remove the cgroup", directory, error) from None
    finally:
        if parent >= 0:
            posix.close(parent)


def _rmdir(parent: int, name: str | bytes) -> bool:
    """False while it holds a process, or another cgroup."""
    try:
        posix.rmdir(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        pass  # gone; or one of the kernel's files
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True
