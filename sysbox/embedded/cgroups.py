"""The embedded host's subtree in every cgroup hierarchy of the machine: made, filled, removed.

Each hierarchy is reached through a detached mount of its own, so that it does not matter which of them the
machine has mounted, and where (cgroups(7), "Mounting v1 controllers").
"""

from __future__ import annotations

import errno
import os
import time

from sysbox.base import errors, files
from sysbox.base.frozen import Frozen
from sysbox.base.wait import until
from sysbox.embedded import state
from sysbox.host import read_text
from sysbox.linux import cgroup, mount

_GOING = 1.0  # seconds for the kernel to remove a hierarchy of a host that was just stopped


class Hierarchy(Frozen):
    """One cgroup hierarchy and its directory below /sys/fs/cgroup."""

    fstype: str  # cgroup or cgroup2
    options: tuple[tuple[str, str | None], ...]
    directory: str  # "memory", "cpu,cpuacct", "systemd", "unified"; "" for a lone unified tree

    @property
    def data(self) -> str:
        """The options as mount(2) takes them."""
        return ",".join(key if value is None else f"{key}={value}" for key, value in self.options)


def _v1(directory: str, *options: tuple[str, str | None]) -> Hierarchy:
    return Hierarchy(fstype="cgroup", options=options, directory=directory)


def hierarchies(self_cgroup: str, proc_cgroups: str) -> tuple[Hierarchy, ...]:
    """What to mount, from the texts of /proc/self/cgroup and /proc/cgroups.

    If no controller is bound to a v1 hierarchy, the unified tree alone. Otherwise what systemd calls hybrid:
    each v1 hierarchy as it is, one for each controller that is bound nowhere, systemd's named one, and the
    unified tree.
    """
    found = []
    for line in self_cgroup.splitlines():
        number, _, rest = line.partition(":")
        controllers = rest.partition(":")[0]
        if number != "0" and controllers and not controllers.startswith("name="):
            found.append(_v1(controllers, *((name, None) for name in controllers.split(","))))
    if not found:
        return (Hierarchy(fstype="cgroup2", options=(), directory=""),)
    for line in proc_cgroups.splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[1] == "0" and fields[3] == "1":
            found.append(_v1(fields[0], (fields[0], None)))
    found.append(_v1("systemd", ("none", None), ("name", "systemd")))
    found.append(Hierarchy(fstype="cgroup2", options=(), directory="unified"))
    return tuple(found)


def machine_hierarchies() -> tuple[Hierarchy, ...]:
    """The machine's hierarchies."""
    return hierarchies(read_text("/proc/self/cgroup"), read_text("/proc/cgroups"))


def open_root(hierarchy: Hierarchy) -> int | None:
    """A detached mount of the hierarchy; None if the kernel refuses it. Raises KernelError.

    The kernel refuses a controller that the unified tree uses (EBUSY), and in a cgroup namespace one that is
    bound nowhere (EPERM): the host does without it. While the kernel removes a hierarchy that is mounted
    nowhere any more it restarts fsconfig(2), which then fails with EBUSY too: so EBUSY is tried again.
    """
    deadline = time.monotonic() + _GOING
    while True:
        try:
            return mount.new_filesystem(hierarchy.fstype, hierarchy.options, 0)
        except errors.KernelError as error:
            if error.errno in (errno.EPERM, errno.ENODEV, errno.EINVAL, errno.ENOENT):
                return None
            if error.errno != errno.EBUSY:
                raise
            if time.monotonic() > deadline:
                return None
        time.sleep(0.02)


def create(name: str) -> dict[Hierarchy, int]:
    """Make the host's directory in each hierarchy. Raises KernelError, Unsupported.

    Returns the detached mounts, which keep hierarchies that nothing else uses alive until the host has
    mounted them itself; the caller closes them.
    """
    roots: dict[Hierarchy, int] = {}
    for hierarchy in machine_hierarchies():
        root = open_root(hierarchy)
        if root is None:
            continue
        roots[hierarchy] = root
        if not hierarchy.directory:
            _enable_controllers(root)
        _make_directory(root, state.cgroup_name(name), hierarchy)
    if not any(hierarchy.directory in ("", "systemd") for hierarchy in roots):
        close(roots)
        raise errors.Unsupported(
            "the embedded host needs a cgroup hierarchy for systemd, and none can be mounted",
            hint="this needs root with permission to mount; a container needs --privileged",
        )
    return roots


def _make_directory(root: int, path: str, hierarchy: Hierarchy) -> None:
    try:
        cgroup.make(path, root)
    except FileExistsError:
        pass
    except OSError as error:
        raise errors.KernelError.of(
            "mkdir", f"cgroup {hierarchy.directory}/{path}", error
        ) from None
    if ("cpuset", None) in hierarchy.options:
        # a cpuset accepts no process before both are set; clone_children copies them to its children
        for file in ("cpuset.cpus", "cpuset.mems"):
            _write(root, f"{path}/{file}", _read(root, file))
        _write(root, f"{path}/cgroup.clone_children", "1")


def _enable_controllers(root: int) -> None:
    """Enable every controller of the unified tree for its children, so that the host can use it.

    In a cgroup namespace whose root holds processes the kernel refuses that (the "no internal processes"
    rule of cgroups(7)): the processes are moved to a leaf cgroup first, as a nested manager must do.
    """
    wanted = set(_read(root, "cgroup.controllers").split())
    wanted -= set(_read(root, "cgroup.subtree_control").split())
    for controller in sorted(wanted):
        try:
            _write(root, "cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            if error.errno != errno.EBUSY:
                continue  # ignoring: it is not available here, and the host does without it
            _empty_root(root)
            _write(root, "cgroup.subtree_control", f"+{controller}")


def _empty_root(root: int) -> None:
    try:
        cgroup.make("sysbox-machine", root)
    except FileExistsError:
        pass
    for pid in _read(root, "cgroup.procs").split():
        try:
            _write(root, "sysbox-machine/cgroup.procs", pid)
        except OSError:
            pass  # ignoring: it has ended, or it is a kernel thread


def join(roots: dict[Hierarchy, int], name: str, pid: int) -> None:
    """Move a process to the host's own cgroup in each hierarchy."""
    for hierarchy, root in roots.items():
        path = f"{state.cgroup_name(name)}/cgroup.procs"
        try:
            _write(root, path, str(pid))
        except OSError as error:
            where = f"cgroup {hierarchy.directory}/{path}"
            raise errors.KernelError.of("write", where, error) from None


def close(roots: dict[Hierarchy, int]) -> None:
    """Close what `create` opened."""
    for root in roots.values():
        os.close(root)


def client_pids(name: str) -> list[int]:
    """The pids of commands that joined the host from the machine, and of their waiting parents."""
    found: set[int] = set()
    for hierarchy in machine_hierarchies():
        root = open_root(hierarchy) if hierarchy.directory in ("", "unified", "systemd") else None
        if root is None:
            continue
        try:
            text = _read(root, f"{state.cgroup_name(name)}/{state.CLIENTS}/cgroup.procs")
            found.update(int(pid) for pid in text.split())
        except FileNotFoundError:
            pass  # ignoring: no command has joined yet
        finally:
            os.close(root)
    return sorted(found)


def remove(name: str, timeout: float = 5.0) -> None:
    """Remove the host's cgroups in every hierarchy; its PID 1 is dead, its processes are dying.

    A process that is outside the host's pid namespace but in its cgroups is moved back to the root cgroup.
    Raises SysboxError if a cgroup stays busy for `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    path = state.cgroup_name(name)
    # without the controllers that are bound nowhere: the host has no cgroup there, and to open one would bind
    # it to a new hierarchy, which the kernel removes only after a while: the next start would find it busy
    for hierarchy in hierarchies(read_text("/proc/self/cgroup"), ""):
        root = open_root(hierarchy)
        if root is None:
            continue
        try:
            if not until(lambda: _removed(root, path), deadline - time.monotonic(), 0.02):  # noqa: B023
                raise errors.SysboxError(
                    f"the cgroup {hierarchy.directory}/{path} is still in use",
                    hint="`sysbox host stop` can be repeated",
                )
        finally:
            os.close(root)


def _removed(root: int, path: str) -> bool:
    if _remove(root, root, path):
        return True
    _empty(root, path)
    return _remove(root, root, path)


def _remove(root: int, above: int, name: str | bytes) -> bool:
    """Move a cgroup's processes to the root, and remove it; False if it is still busy or has children."""
    for emptied in (False, True):
        try:
            if emptied:
                _expel_from(root, above, name)
            os.rmdir(name, dir_fd=above)
        except (FileNotFoundError, NotADirectoryError):
            return True  # gone; or one of the kernel's files
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.ENODEV):
                raise errors.KernelError.of("rmdir", f"cgroup {name!r}", error) from None
        else:
            return True
    return False


def _empty(root: int, path: str) -> None:
    """Remove the cgroups below a cgroup, at any depth, as far as possible."""
    try:
        files.empty_at(root, path, lambda above, name: _remove(root, above, name))
    except FileNotFoundError:
        pass  # it has just gone


def _expel_from(root: int, above: int, name: str | bytes) -> None:
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    try:
        _expel(root, directory)
    finally:
        os.close(directory)


def _expel(root: int, directory: int) -> None:
    """Move the processes left in a cgroup to the root: a waiting parent (`join.call`), or a stray process."""
    for pid in _read(directory, "cgroup.procs").split():
        try:
            _write(root, "cgroup.procs", pid)
        except OSError:
            pass  # ignoring: it has ended


def _read(root: int, path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    try:
        return os.read(fd, 1 << 16).decode().strip()
    finally:
        os.close(fd)


def _write(root: int, path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC, dir_fd=root)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
