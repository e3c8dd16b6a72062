"""The cgroup files of one scope: what no unit property reaches, and the set that `exec` joins.

On v1 systemd makes no cpuset cgroup for a unit, so the scope's directory in that hierarchy is made,
filled from its parents and removed here (cpuset(7): a process may join only where cpus and mems are
set).
"""

from __future__ import annotations

import posix

from sysbox.errors import KernelError, Unsupported
from sysbox.host import exists
from sysbox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.units.properties import CgroupWrite

# v1 hierarchies in which systemd makes no directory for a unit: ours to make and to remove
_OURS = ("cpuset",)
_HYBRID = "/sys/fs/cgroup/unified"
_SYSTEMD = {"v1": "name=systemd", "v2": cgroup.UNIFIED}
_INHERITED = {"cpuset": ("cpuset.cpus", "cpuset.mems")}


def cgroup_path(pid: int, facts: HostFacts) -> str:
    """The process's cgroup in systemd's own hierarchy: "/system.slice/docker-<id>.scope".

    Raises KernelError when the process is gone.
    """
    return cgroup.paths_of(pid)[_SYSTEMD[facts.cgroup_mode]]


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
    if own != "/" and exists(f"{_HYBRID}/cgroup.procs"):
        found[_HYBRID + own] = None
    return tuple(found)


def to_enter(pid: int, facts: HostFacts) -> tuple[int, tuple[str, ...]]:
    """How a new process gets to where `pid` is: an fd of the unified cgroup for clone3(2), or -1, and the
    directories of the other hierarchies.

    A process that is cloned into a cgroup is not moved there, which would take a lock that every fork and
    exit on the host shares. Raises KernelError when `pid` is gone.
    """
    unified = _HYBRID if facts.cgroup_mode == "v1" else facts.controllers["name=systemd"]
    others, fd = [], -1
    for directory in cgroup_dirs(pid, facts):
        if directory.startswith(unified + "/"):
            fd = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
        else:
            others.append(directory)
    return fd, tuple(others)


def apply_writes(writes: tuple[CgroupWrite, ...], pid: int, facts: HostFacts) -> None:
    """Write the scope's values; `pid` is a process that the scope already holds.

    A value that belongs to a hierarchy of ours moves `pid` there. Raises KernelError that names
    the file, or Unsupported where this kernel has no such file.
    """
    if not writes:
        return
    path = cgroup_path(pid, facts)
    made: dict[str, None] = {}
    for write in writes:
        directory = cgroup.directory(facts, write.controller, path)
        if write.controller in _OURS and directory not in made:
            _make(cgroup.directory(facts, write.controller, "/"), path, write.controller)
            made[directory] = None
        if exists(f"{directory}/{write.file}"):
            cgroup.write(directory, write.file, write.value)
        elif not write.optional:
            raise Unsupported(
                f"{write.file}={write.value}: this kernel has no such file",
                hint="it was built or booted without this accounting",
            )
    # joined last, so that the process never runs under a wider set
    cgroup.join(pid, tuple(made))


def _make(mount: str, path: str, controller: str) -> None:
    """Make `path` in a hierarchy of ours, each level filled from its parent where it is empty."""
    directory = mount
    for part in path.strip("/").split("/"):
        parent, directory = directory, f"{directory}/{part}"
        try:
            posix.mkdir(directory, 0o755)
        except FileExistsError:
            pass
        except OSError as error:
            raise KernelError.of("make the cgroup", directory, error) from None
        for file in _INHERITED.get(controller, ()):
            if not cgroup.read(directory, file).strip():
                cgroup.write(directory, file, cgroup.read(parent, file).strip())


def remove_cgroups(path: str, facts: HostFacts) -> None:
    """Remove the scope's directories that systemd does not; already gone is success.

    The parents stay: other scopes share them, and they are as cheap as empty.
    """
    if facts.cgroup_mode == "v2":
        return
    for controller in _OURS:
        if controller in facts.controllers and path.strip("/"):
            _remove_tree(cgroup.directory(facts, controller, path))


def _remove_tree(directory: str) -> None:
    try:
        with posix.scandir(directory) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        for child in below:
            _remove_tree(child)
        posix.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise KernelError.of("remove the cgroup", directory, error) from None
