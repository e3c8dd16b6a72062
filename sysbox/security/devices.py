"""Device nodes of a container, and the rules of its scope's device controller.

Only devices that are listed here may be opened: the scope has DevicePolicy=strict, so even a process
with CAP_MKNOD that makes a disk's node cannot open it (GO-2022-0396). Making a node is allowed for any
number, since unpacking archives needs it.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import KernelError, SpecError
from sysbox.base.frozen import Frozen
from sysbox.spec import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


class DeviceNode(Frozen):
    """One node in the container's /dev: the arguments of mknod(2), and the owner."""

    path: str  # absolute path inside the container
    kind: str  # c or b
    major: int
    minor: int
    mode: int = 0o666  # permission bits
    uid: int = 0
    gid: int = 0
    access: str = "rwm"  # for the device controller: read, write, mknod
    source: str = ""  # the host's node; "" is the same path


def _standard(name: str, major: int, minor: int) -> DeviceNode:
    return DeviceNode(path=f"/dev/{name}", kind="c", major=major, minor=minor)


# without /dev/console: where the container has a terminal, that is mounted there
DEFAULT_NODES = (
    _standard("null", 1, 3),
    _standard("zero", 1, 5),
    _standard("full", 1, 7),
    _standard("random", 1, 8),
    _standard("urandom", 1, 9),
    _standard("tty", 5, 0),
)

# (path, text of the link); "core" is left out: /proc/kcore is masked
DEFAULT_LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
)

# systemd takes the numbers from these names; the files need not exist (systemd.resource-control(5))
DEFAULT_RULES = (
    ("/dev/char/1:3", "rwm"),  # null
    ("/dev/char/1:5", "rwm"),  # zero
    ("/dev/char/1:7", "rwm"),  # full
    ("/dev/char/1:8", "rwm"),  # random
    ("/dev/char/1:9", "rwm"),  # urandom
    ("/dev/char/5:0", "rwm"),  # tty
    ("/dev/char/5:1", "rwm"),  # console
    ("/dev/char/5:2", "rwm"),  # ptmx
    ("char-pts", "rwm"),
    ("char-*", "m"),
    ("block-*", "m"),
)

# admin-guide/devices.rst of the kernel
_TTY_MAJOR, _VIRTUAL_CONSOLES, _VCS_MAJOR = 4, 64, 7
_KMSG = (1, 11)

_MAX_NODES = 4096  # below one directory, so that a walk always ends
_NOT_THE_HOSTS = ("pts", "shm", "mqueue", "hugepages", "fd", "console", "ptmx", "tty")
# directories of terminals and of others' files, which docker leaves out of any directory too
_NO_DEVICES = ("pts", "shm", "mqueue", "fd")


def rules_of(nodes: tuple[DeviceNode, ...]) -> tuple[tuple[str, str], ...]:
    """The scope's DeviceAllow= rules as (path or group, access): the defaults, and one for each node."""
    asked = (
        (f"/dev/{_DIRECTORY[node.kind]}/{node.major}:{node.minor}", node.access) for node in nodes
    )
    return DEFAULT_RULES + tuple(dict.fromkeys(asked))


_DIRECTORY = {"c": "char", "b": "block"}


def resolve_devices(devices: tuple[Device, ...]) -> tuple[DeviceNode, ...]:
    """The nodes for `--device`; a directory means every device below it, but for terminals.

    Symbolic links to the device are followed. Raises SpecError where there is no device, the target is not
    an absolute path, or the access is not made of r, w and m; KernelError.
    """
    found: list[DeviceNode] = []
    for device in devices:
        access = _access(device)
        target = _target(device)
        if _is_directory(device.source):
            below = list(_walk(device.source.rstrip("/"), target, access, ()))
            if not below:
                raise SpecError(f"--device {device.source}: there is no device in this directory")
            found.extend(below)
        else:
            found.append(resolve_device(device.source, target, access))
    return tuple(found)


def resolve_device(source: str, target: str = "", access: str = "rwm") -> DeviceNode:
    """The node of the device at a host path, to be made at `target` (the same path by default).

    Raises SpecError if the path does not exist or is not a device.
    """
    if not source.startswith("/") or "\0" in source:
        raise SpecError(f"--device {source}: must be an absolute path")
    try:
        status = posix.stat(source)
    except OSError as error:
        raise SpecError(
            f"--device {source}: {posix.strerror(error.errno or 0)}",
            hint="`ls -l` the path on the host",
        ) from None
    node = _node(status, source, target or source, access)
    if node is None:
        raise SpecError(f"--device {source}: not a character or block device")
    return node


def host_nodes() -> tuple[DeviceNode, ...]:
    """Every device of the host's /dev, for `--privileged`, except terminals: the container has its own.

    Raises KernelError, SpecError.
    """
    return tuple(_walk("/dev", "/dev", "rwm", _NOT_THE_HOSTS))


def is_console(node: DeviceNode) -> bool:
    """Whether a node is a virtual console of the host, its screen or the kernel log.

    systemd inside a container would use these.
    """
    vt = node.major == _TTY_MAJOR and node.minor < _VIRTUAL_CONSOLES
    return node.kind == "c" and (
        vt or node.major == _VCS_MAJOR or (node.major, node.minor) == _KMSG
    )


def nodes_of(
    asked: Iterable[DeviceNode], hosts: Iterable[DeviceNode] = ()
) -> tuple[DeviceNode, ...]:
    """All nodes of a container's /dev, in the order of making; each path once.

    `asked` are those of `--device`, `hosts` those of a privileged container.
    """
    found = {node.path: node for node in DEFAULT_NODES}
    found.update((node.path, node) for node in hosts if node.path not in found)
    found.update((node.path, node) for node in asked)
    return tuple(found.values())


def _node(status: posix.stat_result, source: str, path: str, access: str) -> DeviceNode | None:
    if _stat.S_ISCHR(status.st_mode) and status.st_rdev:
        kind = "c"  # but for 0:0, which is no device: an overlay's mark of a removed file
    elif _stat.S_ISBLK(status.st_mode):
        kind = "b"
    else:
        return None
    return DeviceNode(
        path=path,
        source="" if source == path else source,
        kind=kind,
        major=posix.major(status.st_rdev),
        minor=posix.minor(status.st_rdev),
        mode=_stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        access=access,
    )


def _walk(source: str, target: str, access: str, skip: tuple[str, ...]) -> Iterator[DeviceNode]:
    """The devices below a directory, links not followed; `skip` names top-level entries to leave out."""
    pending = [(source, target)]
    count = 0
    while pending:
        directory, inside = pending.pop()
        try:
            names = sorted(posix.listdir(directory))
        except OSError as error:
            if directory != source and error.errno == errno.ENOENT:
                continue  # removed meanwhile, with its devices
            raise KernelError.of("list devices in", directory, error) from None
        for name in names:
            if directory == source and name in skip:
                continue
            try:
                status = posix.lstat(f"{directory}/{name}")
            except OSError:
                continue  # the device was unplugged meanwhile
            if _stat.S_ISDIR(status.st_mode):
                if name in _NO_DEVICES:
                    continue
                pending.append((f"{directory}/{name}", f"{inside}/{name}"))
                continue
            node = _node(status, f"{directory}/{name}", f"{inside}/{name}", access)
            if node is not None:
                count += 1
                if count > _MAX_NODES:
                    raise SpecError(f"--device {source}: more than {_MAX_NODES} devices below it")
                yield node


def _is_directory(path: str) -> bool:
    try:
        return path.startswith("/") and _stat.S_ISDIR(posix.stat(path).st_mode)
    except (OSError, ValueError):
        return False


def _access(device: Device) -> str:
    access = device.access or "rwm"
    if not set(access) <= set("rwm") or len(set(access)) != len(access):
        raise SpecError(f"--device {device.source}: access '{access}' must be made of r, w and m")
    return access


def _target(device: Device) -> str:
    target = device.target or device.source
    parts = target.split("/")
    if not target.startswith("/") or "\0" in target or ".." in parts or target.strip("/") == "":
        raise SpecError(
            f"--device {device.source}: '{target}' must be an absolute path without '..'"
        )
    return target.rstrip("/")
