"""Cgroup work that systemd does not do: v1 hierarchies that it leaves alone, files without a unit property,
and the cgroups that `exec` joins.

systemd makes a scope's cgroup in the v1 hierarchies that it has settings for. In the others, sysbox's own
hierarchies, sysbox makes, fills and removes it, under the same path; systemd never looks at it, so that a
daemon-reload changes nothing there.
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

# v1 hierarchies in which every container has a cgroup: to freeze it, count its CPU time, and profile it
_ALWAYS = ("freezer", "cpuacct", "perf_event")
# v1 hierarchies in which a container has a cgroup once a limit there was asked for
_WHEN_ASKED = ("cpuset", "net_cls", "net_prio", "hugetlb")
# a hierarchy with one of these is systemd's, also if another is mounted with it (as in cpu,cpuacct)
_SYSTEMDS = ("cpu", "blkio", "memory", "devices", "pids", "name=systemd")
_SYSTEMD = {"v1": "name=systemd", "v2": cgroup.UNIFIED}
# cpuset(7): a process may join only where both are set
_INHERITED = ("cpuset.cpus", "cpuset.mems")
_PATIENCE = 1.0  # seconds for the last process to leave a cgroup
_STEP = 0.002
_MOST_ROUNDS = 100  # of moving processes that fork meanwhile


class Placement(Frozen):
    """The cgroups that a container's first process enters by itself, before its command runs."""

    path: str  # its scope's: "/system.slice/docker-<id>.scope"
    # (mount point of an own hierarchy, whether cpuset is in it)
    mounts: tuple[tuple[str, bool], ...]
    freezer: str  # the mount point of the freezer's own hierarchy, "" if there is none
    writes: tuple[tuple[str, CgroupWrite], ...]  # (mount point, value)


def own_hierarchies(facts: HostFacts) -> dict[str, str]:
    """The v1 controllers whose hierarchy systemd leaves alone -> their mount point."""
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
    """Split the writes: those that the first process makes (`place`), and those to cgroups of systemd's."""
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
    """Make the container's cgroups in the own hierarchies, and enter them. Raises KernelError, Unsupported.

    The container's first process calls this: it has one thread, and so can move itself without a lock that
    the whole host shares. Values are written before it enters, so that it never runs without its limits.
    """
    for mount, is_cpuset in placement.mounts:
        made = _make(mount, placement.path, fill=is_cpuset)
        if not made and mount == placement.freezer:
            # a cgroup that an earlier run left frozen would freeze this process
            cgroup.write(mount + placement.path, "freezer.state", "THAWED")
    for mount, write in placement.writes:
        _write(mount + placement.path, write)
    cgroup.enter(tuple(mount + placement.path for mount, _ in placement.mounts))


def cgroup_path(pid: int, facts: HostFacts) -> str:
    """The process's cgroup in systemd's own hierarchy; "/" for an exiting one on v1.

    So /proc shows it in every hierarchy of v1 (proc_cgroup_show() of the kernel's source). Raises
    KernelError when the process is gone.
    """
    return cgroup.paths_of(pid)[_SYSTEMD[facts.cgroup_mode]]


def scope_of(pid: int, facts: HostFacts) -> str:
    """The cgroup of the scope that a process is in: "/system.slice/docker-<id>.scope".

    The container may have made cgroups below it. Raises KernelError when the process is gone, or exits.
    """
    parts = cgroup_path(pid, facts).split("/")
    for position, part in enumerate(parts):
        if part.endswith(".scope"):
            return "/".join(parts[: position + 1])
    raise KernelError("find the scope of", f"/proc/{pid}", errno.ESRCH)


def expect_move(facts: HostFacts) -> None:
    """Have the kernel prepare for systemd's move of a process to another cgroup."""
    try:
        path = cgroup_path(posix.getpid(), facts)
        directory = cgroup.directory(facts, "name=systemd", path)
    except (KernelError, KeyError, Unsupported):
        return  # ignoring: the preparation only saves time
    if not path.startswith("/.."):  # outside of this cgroup namespace
        cgroup.expect_move(directory)


def cgroup_dirs(paths: dict[str, str], facts: HostFacts) -> tuple[str, ...]:
    """The directories, one per hierarchy, that a process must join to be at `paths` (cgroup.paths_of).

    A hierarchy in which that is the root is left out.
    """
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


def open_entry(
    paths: dict[str, str], facts: HostFacts, group: str = ""
) -> tuple[int, tuple[str, ...]]:
    """What puts a new process into cgroups (`paths` as of cgroup.paths_of): an fd of the unified cgroup for
    clone3(2), or -1, and the directories of the other hierarchies. `group` is a directory right below one,
    to use instead.

    clone3(2) makes the process in that cgroup: to move it there would take a lock that every fork and exit
    on the host shares. Raises KernelError when the cgroup is gone, or the process with these paths exits.
    """
    if paths.get(_SYSTEMD[facts.cgroup_mode], "/") == "/":
        raise KernelError("enter the cgroup", "of a process that exits", errno.ESRCH)
    unified = freezer.UNIFIED if facts.cgroup_mode == "v1" else facts.controllers["name=systemd"]
    others, fd = [], -1
    for directory in cgroup_dirs(paths, facts):
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


def apply_writes(writes: tuple[CgroupWrite, ...], path: str, facts: HostFacts) -> None:
    """Write values for a running scope, whose cgroup is `path`; none of its processes need be there still.

    A value in an own hierarchy makes the scope's cgroup there, and moves all its processes into it. Raises
    KernelError that names the file, or Unsupported if this kernel has no such file.
    """
    if not writes:
        return
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
    # after the values, so that no process runs without them
    for controller in moved:
        move_all(path, controller, facts)


def _hand_down(facts: HostFacts, controller: str, path: str) -> None:
    """Enable down to a scope a v2 controller that systemd does not know, and so leaves enabled.

    Raises KernelError.
    """
    directory = facts.controllers["name=systemd"]
    for part in path.strip("/").split("/"):
        if controller not in cgroup.read(directory, "cgroup.subtree_control").split():
            cgroup.write(directory, "cgroup.subtree_control", f"+{controller}")
        directory = f"{directory}/{part}"


def adopt(path: str, controller: str, facts: HostFacts) -> None:
    """Make a running scope's cgroup in an own hierarchy if it is missing, and move all its processes there.

    Raises KernelError.
    """
    own = own_hierarchies(facts)
    if controller in own and not exists(own[controller] + path):
        _make(own[controller], path, fill=own[controller] == own.get("cpuset"))
        move_all(path, controller, facts)


def move_all(path: str, controller: str, facts: HostFacts) -> None:
    """Move all processes of a scope into its cgroup in a controller's hierarchy.

    A process may fork while its parent is moved, so this repeats until there is none left to move. Processes
    already below that cgroup stay where the container put them. Raises KernelError.
    """
    source = cgroup.directory(facts, "name=systemd", path)
    target = cgroup.directory(facts, controller, path)
    for _ in range(_MOST_ROUNDS):
        others = [pid for pid in cgroup.processes(source) if not _is_below(pid, path, controller)]
        if not others:
            return
        for pid in others:
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
    # /proc shows an exiting process at the root of every hierarchy; it need not move
    return there.startswith(scope) or not f"{paths['name=systemd']}/".startswith(scope)


def _write(directory: str, write: CgroupWrite) -> None:
    if exists(f"{directory}/{write.file}"):
        parent = directory.rpartition("/")[0]
        value = cgroup.read(parent, write.file).strip() if write.inherit else write.value
        cgroup.write(directory, write.file, value)
    elif not exists(directory):
        raise KernelError("find the cgroup", directory, errno.ENOENT)
    elif not write.optional:
        raise Unsupported(
            f"{write.file}={write.value}: this kernel has no such file",
            hint="it was built or booted without this accounting",
        )


def _make(mount: str, path: str, *, fill: bool) -> bool:
    """Make the cgroup `path` in an own hierarchy; `fill` copies a cpuset's values down to empty levels.

    False if the cgroup existed.
    """
    made = False
    if not fill:
        try:
            cgroup.make(mount + path)
            return True
        except OSError:
            pass  # its slice's cgroup is missing, or an earlier run left this one: make each level
    directory = mount
    for part in path.strip("/").split("/"):
        parent, directory = directory, f"{directory}/{part}"
        try:
            cgroup.make(directory)
            made = True
        except FileExistsError:
            made = False
        except OSError as error:
            raise KernelError.of("make the cgroup", directory, error) from None
        for file in _INHERITED if fill else ():
            if not cgroup.read(directory, file).strip():
                cgroup.write(directory, file, cgroup.read(parent, file).strip())
    return made


def find_scope_cgroups(facts: HostFacts, unit: str = "") -> list[str]:
    """The paths of containers' scopes that have a cgroup in any hierarchy; docker's have the same names.

    `unit` is the name of the one to look for, "" for all.
    """
    found: dict[str, None] = {}
    for mount in _everywhere(facts):
        _search(mount, "", unit, found)
    return list(found)


def _everywhere(facts: HostFacts) -> list[str]:
    """The mount points of all hierarchies; first the one by which systemd sees that a scope is empty."""
    hybrid = facts.cgroup_mode == "v1" and exists(f"{freezer.UNIFIED}/cgroup.procs")
    first = freezer.UNIFIED if hybrid else facts.controllers["name=systemd"]
    return list(dict.fromkeys((first, *facts.controllers.values())))


def _search(mount: str, path: str, unit: str, found: dict[str, None]) -> None:
    try:
        names = [child.rpartition("/")[2] for child in cgroup.children(mount + path)]
    except KernelError as error:
        if error.errno not in cgroup.GONE:
            raise
        return  # it was removed meanwhile
    for name in names:
        if name.endswith(".slice"):
            _search(mount, f"{path}/{name}", unit, found)
        elif name == unit or (not unit and name[:7] == "docker-" and name[-6:] == ".scope"):
            found[f"{path}/{name}"] = None


def remove_cgroups(path: str, facts: HostFacts) -> None:
    """Remove the scope's cgroups in the own hierarchies; already gone is success. Raises KernelError.

    Their parents stay: other scopes share them, and an empty cgroup costs little. A cgroup that still has a
    process after a second stays too, for `sysbox gc`.
    """
    deadline = time.monotonic() + _PATIENCE
    if path.strip("/"):
        for mount in dict.fromkeys(own_hierarchies(facts).values()):
            _remove_tree(mount + path, deadline - time.monotonic())


def remove_if_empty(path: str, facts: HostFacts) -> bool:
    """Remove the scope's cgroups in all hierarchies, without waiting: False if one of them has a process, or
    there is none.

    Only for a scope that systemd does not know. Raises KernelError.
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
    # a container may have nested cgroups as deep as it likes
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
    """Remove a cgroup; False while it has a process, or another cgroup."""
    try:
        posix.rmdir(name, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        pass  # gone; or one of the kernel's files
    except OSError as error:
        if error.errno == errno.EBUSY:
            return False
        raise
    return True
