"""The embedded host's subtree in every cgroup hierarchy of the machine: made, filled, removed.

Each hierarchy is reached through a mount of our own that is attached nowhere, so that it does not matter
which of them the machine has mounted, and where (cgroups(7), "Mounting v1 controllers").
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
from sysbox.linux import mount

_GOING = 1.0  # seconds for a hierarchy of a host that was just stopped to go


class Hierarchy(Frozen):
    """One cgroup hierarchy and where it goes below /sys/fs/cgroup."""

    fstype: str  # cgroup or cgroup2
    options: tuple[tuple[str, str | None], ...]
    directory: str  # "memory", "cpu,cpuacct", "systemd", "unified"; "" for a lone unified tree

    @property
    def data(self) -> str:
        """The options as mount(2) wants them."""
        return ",".join(key if value is None else f"{key}={value}" for key, value in self.options)


def _v1(directory: str, *options: tuple[str, str | None]) -> Hierarchy:
    return Hierarchy(fstype="cgroup", options=options, directory=directory)


def hierarchies(self_cgroup: str, proc_cgroups: str) -> tuple[Hierarchy, ...]:
    """What to mount, from the texts of /proc/self/cgroup and /proc/cgroups.

    Where no controller is bound to a v1 hierarchy there is the unified tree alone. Otherwise each v1
    hierarchy as it is, those controllers that are bound nowhere on one of their own, systemd's named
    one, and the unified tree beside them: what systemd calls hybrid.
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
    """A detached mount of the hierarchy; None where the kernel will not have it.

    A controller that the unified tree uses (EBUSY), or one bound nowhere when we are in a cgroup
    namespace (EPERM), cannot be had: the host does without it. But while a hierarchy that nobody has mounted
    any more goes away, the kernel has fsconfig(2) start again, which then says EBUSY too: it is asked anew.
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
    """Make the host's directory in each hierarchy.

    Returns the detached mounts, which keep hierarchies that only we use alive until the host has mounted
    them itself; the caller closes them.
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
        os.mkdir(path, 0o755, dir_fd=root)
    except FileExistsError:
        pass
    except OSError as error:
        raise errors.KernelError.of(
            "mkdir", f"cgroup {hierarchy.directory}/{path}", error
        ) from None
    if ("cpuset", None) in hierarchy.options:
        # a cpuset takes no process before it has both; children get them by clone_children
        for file in ("cpuset.cpus", "cpuset.mems"):
            _write(root, f"{path}/{file}", _read(root, file))
        _write(root, f"{path}/cgroup.clone_children", "1")


def _enable_controllers(root: int) -> None:
    """Hand every controller of the unified tree to its children, so that the host may use it.

    In a cgroup namespace whose root holds processes the kernel refuses (the "no internal processes"
    rule of cgroups(7)): they are moved to a leaf of their own first, as a nested manager must.
    """
    wanted = set(_read(root, "cgroup.controllers").split())
    wanted -= set(_read(root, "cgroup.subtree_control").split())
    for controller in sorted(wanted):
        try:
            _write(root, "cgroup.subtree_control", f"+{controller}")
        except OSError as error:
            if error.errno != errno.EBUSY:
                continue  # not available to us: the host does without it
            _empty_root(root)
            _write(root, "cgroup.subtree_control", f"+{controller}")


def _empty_root(root: int) -> None:
    try:
        os.mkdir("sysbox-machine", 0o755, dir_fd=root)
    except FileExistsError:
        pass
    for pid in _read(root, "cgroup.procs").split():
        try:
            _write(root, "sysbox-machine/cgroup.procs", pid)
        except OSError:
            pass  # it has ended, or it is a kernel thread: ignoring


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
    """The processes that were brought into the host's cgroups from outside, waiting sides included."""
    found: set[int] = set()
    for hierarchy in machine_hierarchies():
        root = open_root(hierarchy) if hierarchy.directory in ("", "unified", "systemd") else None
        if root is None:
            continue
        try:
            text = _read(root, f"{state.cgroup_name(name)}/{state.CLIENTS}/cgroup.procs")
            found.update(int(pid) for pid in text.split())
        except FileNotFoundError:
            pass  # nobody ever came in: ignoring
        finally:
            os.close(root)
    return sorted(found)


def remove(name: str, timeout: float = 5.0) -> None:
    """Remove the host's directories in every hierarchy; its PID 1 is dead, its processes are dying.

    A process that is outside the host's pid namespace but in its cgroups is put back to the root.
    Raises SysboxError if a directory stays busy for `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    path = state.cgroup_name(name)
    # without the controllers that are bound nowhere: there is nothing in them, and opening them would bind
    # them to a hierarchy that takes a while to go, for which the next start would find them busy
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
    """Remove a cgroup, its processes put back to the root; False if it is busy still, or has others in it."""
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
    """Remove what is below a cgroup, however deep, as far as it goes."""
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
    """Put what is left in a cgroup back to the root: the waiting side of `enter`, or a stray process."""
    for pid in _read(directory, "cgroup.procs").split():
        try:
            _write(root, "cgroup.procs", pid)
        except OSError:
            pass  # it has ended: ignoring


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
