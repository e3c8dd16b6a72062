"""From what was asked to an ordered list of operations that make a container's root file system.

Pure: the list is data, printed by `run --dry-run` and applied by `fs/ops.py` through a root fd. Targets
are paths inside the container; no host path is ever made by joining one to something else.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.base.tree import DEPTH
from sysbox.fs import mountoptions
from sysbox.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import ContainerSpec, Mount

_NOTHING = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_ATTRIBUTES = {
    MOUNT_ATTR_RDONLY: "ro",
    MOUNT_ATTR_NOSUID: "nosuid",
    MOUNT_ATTR_NODEV: "nodev",
    MOUNT_ATTR_NOEXEC: "noexec",
    MOUNT_ATTR_STRICTATIME: "strictatime",
}


# where --init puts its program: in our own /dev, so that the image may be anything
INIT = "/dev/sysbox-init"


class Filesystem(Frozen):
    """Mount a new file system. `ordinary`: the target must be a real directory of the image's,
    not a symbolic link (CVE-2019-19921, CVE-2023-28642)."""

    fstype: str
    target: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0
    ordinary: bool = False

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}{_shown(self.attributes, self.options)}"


class Bind(Frozen):
    """Mount a part of the host's tree, or a volume, inside the container."""

    source: str
    target: str
    attributes: int = 0
    recursive: bool = True
    propagation: int = MS_PRIVATE
    create: bool = False  # make the source a directory if it is missing
    mark: str = ""  # the file that has something in it while this volume is new
    copy_up: bool = False  # a new volume takes what the image has at the target
    of_image: bool = False  # a part of the image itself
    owner: str = ""  # of what is in another mount namespace: that namespace's path
    kind: str = "tmpfs"  # what file system that must be: tmpfs or proc
    ordinary: bool = False  # as of Filesystem

    def describe(self) -> str:
        source = f"{self.source} of {self.owner}" if self.owner else self.source
        return f"bind {source} on {self.target}{_shown(self.attributes, ())}"


class Node(Frozen):
    """Make a device node; kind is "c" or "b"."""

    target: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0

    def describe(self) -> str:
        return f"mknod {self.target} {self.kind} {self.major}:{self.minor} mode {self.mode:04o}"


class Link(Frozen):
    """Make a symbolic link."""

    target: str
    text: str

    def describe(self) -> str:
        return f"symlink {self.target} -> {self.text}"


class Directory(Frozen):
    """Make a directory (and those above it) unless it exists."""

    target: str
    mode: int = 0o755

    def describe(self) -> str:
        return f"mkdir {self.target} mode {self.mode:04o}"


class Mask(Frozen):
    """Hide a path of proc or sysfs: /dev/null over a file, an empty read-only tmpfs over a directory."""

    target: str

    def describe(self) -> str:
        return f"mask {self.target}"


class ReadOnly(Frozen):
    """Make a path read-only, with everything mounted below it if `recursive`."""

    target: str
    recursive: bool = True

    def describe(self) -> str:
        return f"read-only {self.target}"


class Cgroups(Frozen):
    """Mount the container's own cgroup subtree, after it is inside its scope and cgroup namespace."""

    target: str
    # mount point's last component -> options of the v1 hierarchy, "" for v2; {} means that v2 is all there is
    controllers: dict[str, str]
    writable: bool = False
    delegated: tuple[str, ...] = ()  # of the controllers, those that are writable in any case
    bounded: bool = False  # how many can be made in it is not for the container to say

    def describe(self) -> str:
        what = (
            "cgroup2" if not self.controllers else f"cgroup ({', '.join(sorted(self.controllers))})"
        )
        but = f", {', '.join(self.delegated)} rw" if self.delegated else ""
        return f"mount {what} on {self.target}{'' if self.writable else f' (ro{but})'}"


if TYPE_CHECKING:
    Operation = Filesystem | Bind | Node | Link | Directory | Mask | ReadOnly | Cgroups


class RootPlan(Frozen):
    """The root of one container: its layers, the writable layer, and the operations on top."""

    driver: str  # that mounts it
    layers: tuple[str, ...]  # directory names below the store's layers, lowest first
    directory: str  # the container's own directory: upper/, work/, merged/
    volatile: bool  # the writable layer need not survive a crash (it is removed with the container)
    operations: tuple[Operation, ...]  # before the container is in its scope
    late: tuple[Operation, ...]  # after
    booted: bool = False  # systemd is its first process

    def marks(self) -> tuple[str, ...]:
        """The files that tell of its volumes whether they are new."""
        return tuple(one.mark for one in self.operations if isinstance(one, Bind) and one.mark)


def _shown(attributes: int, options: tuple[tuple[str, str], ...]) -> str:
    words = [word for bit, word in _ATTRIBUTES.items() if attributes & bit == bit]
    words += [f"{key}={value}" if value else key for key, value in options]
    return f" ({','.join(words)})" if words else ""


class Protection(Frozen):
    """What the security defaults chose for the tree (see `security/paths.py`, `security/devices.py`)."""

    masked: tuple[str, ...]
    read_only: tuple[str, ...]
    directories: tuple[Directory, ...]  # of /dev, for the nodes
    nodes: tuple[Node, ...]
    links: tuple[Link, ...]


def plan_operations(
    spec: ContainerSpec,
    *,
    usr_bind: bool,
    directory: str,
    volumes: dict[str, str],
    marks: dict[str, str],
    protect: Protection,
    ipc_owner: str = "",
    proc_owner: str = "",
    before: tuple[Operation, ...] = (),
    after: tuple[Operation, ...] = (),
) -> tuple[Operation, ...]:
    """Everything but the cgroup file systems, in the order in which it is done.

    `volumes` gives the host directory of each volume mount by its target, `marks` the file that tells whether
    it is new, `ipc_owner` and `proc_owner` the mount namespaces of those whose IPC or pid namespace is
    shared; `before` and `after` go around the user's own mounts.
    """
    operations: list[Operation] = [_usr()] if usr_bind else []
    operations += _kernel(spec, protect, ipc_owner, proc_owner)
    operations += before
    operations += _mounts(spec, volumes, marks)
    operations += after
    # after a volume that is all of /etc
    operations += _identity(spec, directory)
    # a mount of the user's own over one of these is what he asked for; an image's volume is not
    chosen = {mount.target for mount in spec.mounts if not mount.from_image} | {"/sys"}
    operations += [Mask(target=path) for path in protect.masked if path not in chosen]
    operations += [ReadOnly(target=path) for path in protect.read_only if path not in chosen]
    if spec.read_only:
        operations.append(ReadOnly(target="/", recursive=False))
    return tuple(operations)


def _usr() -> Bind:
    """The machine's own /usr, which is a part of the image `host`."""
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV
    return Bind(source="/usr", target="/usr", attributes=attributes, of_image=True)


def check_depth(path: str, what: str) -> None:
    """Raises SpecError for a path in the container that is deeper than what walks there goes."""
    if path.count("/") > DEPTH:
        raise SpecError(f"{what} {path[:60]}...: more than {DEPTH} directories deep")


def _kernel(
    spec: ContainerSpec, protect: Protection, ipc_owner: str, proc_owner: str
) -> list[Operation]:
    """proc, /dev and what is below it, sysfs (read-only unless it is left out of the protection)."""
    sys_attributes = MOUNT_ATTR_RDONLY if "/sys" in protect.read_only else 0
    return [
        _proc(proc_owner),
        Filesystem(
            fstype="tmpfs",
            target="/dev",
            options=(("mode", "755"), ("size", "65536k")),
            attributes=MOUNT_ATTR_NOSUID | MOUNT_ATTR_STRICTATIME,
            ordinary=True,
        ),
        Directory(target="/dev/pts"),
        Filesystem(
            fstype="devpts",
            target="/dev/pts",
            options=(("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")),
            attributes=MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
        ),
        *_shared_memory(spec, ipc_owner),
        *protect.directories,
        *protect.nodes,
        *protect.links,
        Filesystem(
            fstype="sysfs", target="/sys", attributes=_NOTHING | sys_attributes, ordinary=True
        ),
    ]


def _proc(owner: str) -> Operation:
    """A new procfs, or that of the container whose pid namespace is shared, with nothing covered yet."""
    if owner:
        return Bind(source="/proc", target="/proc", attributes=_NOTHING, recursive=False,
                    owner=owner, kind="proc", ordinary=True)  # fmt: skip
    return Filesystem(fstype="proc", target="/proc", attributes=_NOTHING, ordinary=True)


def _shared_memory(spec: ContainerSpec, owner: str) -> list[Operation]:
    """POSIX message queues and shared memory, whose owner is that of the System V objects.

    A new mount of mqueue shows the queues of the mounter's IPC namespace; shared memory is a tmpfs like
    any other. Who joins a namespace by path shares no more than the namespace.
    """
    if spec.namespaces.ipc == "none":
        return [
            Directory(target="/dev/mqueue"),
            Filesystem(fstype="mqueue", target="/dev/mqueue", attributes=_NOTHING),
        ]
    shm: Operation
    if owner or spec.namespaces.ipc == "host":
        shm = Bind(source="/dev/shm", target="/dev/shm", recursive=False, owner=owner)
    else:
        size = (("mode", "1777"), ("size", str(spec.shm_size)))
        shm = Filesystem(fstype="tmpfs", target="/dev/shm", options=size, attributes=_NOTHING)
    return [
        Directory(target="/dev/mqueue"),
        Directory(target="/dev/shm"),
        Filesystem(fstype="mqueue", target="/dev/mqueue", attributes=_NOTHING),
        shm,
    ]


def _identity(spec: ContainerSpec, directory: str) -> list[Operation]:
    """The three files that name the container and its network; they live beside the record."""
    chosen = {mount.target for mount in spec.mounts}
    attributes = MOUNT_ATTR_RDONLY if spec.read_only else 0
    return [
        Bind(
            source=f"{directory}/{name}",
            target=f"/etc/{name}",
            attributes=attributes,
            recursive=False,
        )
        for name in ("hosts", "hostname", "resolv.conf")
        if f"/etc/{name}" not in chosen
    ]


def _mounts(spec: ContainerSpec, volumes: dict[str, str], marks: dict[str, str]) -> list[Operation]:
    """The user's own, parents before what is mounted below them."""
    operations: list[Operation] = []
    if spec.init:
        from sysbox.base.paths import LIBEXEC

        operations.append(
            Bind(source=f"{LIBEXEC}/sysbox-init", target=INIT,
                 attributes=MOUNT_ATTR_RDONLY, recursive=False)
        )  # fmt: skip
    ordered = sorted(spec.mounts, key=lambda one: one.target.count("/"))
    return operations + [_one_mount(mount, volumes, marks) for mount in ordered]


def _one_mount(mount: Mount, volumes: dict[str, str], marks: dict[str, str]) -> Operation:
    check_depth(mount.target, "mount target")
    attributes, propagation, options = mountoptions.of(mount)
    if mount.kind == "tmpfs":
        return Filesystem(
            fstype="tmpfs", target=mount.target, options=options, attributes=attributes
        )
    return Bind(
        source=volumes[mount.target] if mount.kind == "volume" else mount.source,
        target=mount.target,
        attributes=attributes,
        recursive=mount.recursive,
        propagation=propagation,
        create=mount.create,
        mark=marks.get(mount.target, ""),
        copy_up=mount.copy_up,
    )


def plan_cgroups(
    spec: ContainerSpec, facts: HostFacts, *, systemd: bool = False
) -> tuple[Operation, ...]:
    """The cgroup file systems of a container: its own subtree, read-only unless it is privileged.

    On v1 one mount per hierarchy, as on the host. For `systemd` as PID 1 what it keeps its units in is
    writable: all of v2, or on v1 its own hierarchy and the unified one beside it, but no controller.
    """
    target, writable = "/sys/fs/cgroup", spec.security.privileged
    if facts.cgroup_mode == "v2":
        return (
            Cgroups(target=target, controllers={}, writable=writable or systemd, bounded=systemd),
        )
    hierarchies: dict[str, list[str]] = {}
    for name, directory in sorted(facts.controllers.items()):
        hierarchies.setdefault(directory.rpartition("/")[2], []).append(name)
    options = {directory: ",".join(names) for directory, names in hierarchies.items()}
    delegated: tuple[str, ...] = ()
    if systemd:
        delegated = tuple(name for name, text in options.items() if text == "name=systemd")
        if facts.unified:
            options["unified"] = ""
            delegated += ("unified",)
    return (
        Cgroups(
            target=target,
            controllers=options,
            writable=writable,
            delegated=delegated,
            bounded=systemd,
        ),
    )
