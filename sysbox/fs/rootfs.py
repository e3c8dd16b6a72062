"""Plan a container's root file system: an ordered list of operations, from its specification.

Pure: the list is data, printed by `run --dry-run` and applied by `fs/ops.py` through a root descriptor.
Targets are paths inside the container; they are never joined to a host path.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.fs import mountoptions
from sysbox.linux.mount import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
)
from sysbox.linux.userns import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.private import Special
    from sysbox.fs.sockets import Socket
    from sysbox.host import HostFacts
    from sysbox.spec import ContainerSpec, Mount

NOTHING = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_ATTRIBUTES = {
    MOUNT_ATTR_RDONLY: "ro",
    MOUNT_ATTR_NOSUID: "nosuid",
    MOUNT_ATTR_NODEV: "nodev",
    MOUNT_ATTR_NOEXEC: "noexec",
    MOUNT_ATTR_STRICTATIME: "strictatime",
}

# path of the --init program: in /dev, which is sysbox's own tmpfs, so the image need not provide a place
INIT = "/dev/sysbox-init"
CGROUPS = "/sys/fs/cgroup"
_TERMINALS = (("gid", "5"), ("max", "1024"))  # tty's; no container takes all of kernel.pty.max


class Filesystem(Frozen):
    """Mount a new file system.

    `ordinary`: the target must be a real directory, not a symbolic link (CVE-2019-19921, CVE-2023-28642).
    """

    fstype: str
    target: str
    options: tuple[tuple[str, str], ...] = ()
    attributes: int = 0
    ordinary: bool = False
    label: str = ""  # of its root directory, where it takes no option for it

    def describe(self) -> str:
        return f"mount {self.fstype} on {self.target}{_shown(self.attributes, self.options)}"


class Bind(Frozen):
    """Bind-mount a host path, a volume, or a mount of another container."""

    source: str
    target: str
    attributes: int = 0
    recursive: bool = True
    propagation: int = MS_PRIVATE
    create: bool = False  # make the source a directory if it is missing
    mark: str = ""  # the file that is not empty while this volume is new
    copy_up: bool = False  # a new volume starts with the image's content at the target
    of_image: bool = False  # the source is a part of the image
    owner: str = ""  # path of the mount namespace that has the source; "" is the host's
    kind: str = "tmpfs"  # with `owner`: the file system that the source must be, tmpfs or proc
    ordinary: bool = False  # as in Filesystem
    made: bool = False  # the source is in the tree that `RootPlan.outside` makes
    mapped: bool = True  # ids are mapped where the container has a user namespace
    # asked for by name, so that it is an error where it cannot be done: idmap, idmap=..., U
    ids: str = ""
    uids: tuple[IdMap, ...] = ()  # maps that are not the container's own (`mapped.own_maps`)
    gids: tuple[IdMap, ...] = ()
    node: bool = False  # a device node in place of one that only the host's root may make
    optional: bool = False  # left out where its target is missing and no file can be made there

    def describe(self) -> str:
        source = f"{self.source} of {self.owner}" if self.owner else self.source
        ids = f", {self.ids}" if self.ids else ""
        return f"bind {source} on {self.target}{_shown(self.attributes, ())}{ids}"


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
    """Make a directory and its parents unless it exists."""

    target: str
    mode: int = 0o755

    def describe(self) -> str:
        return f"mkdir {self.target} mode {self.mode:04o}"


class Mask(Frozen):
    """Cover a path of procfs or sysfs: a file by /dev/null, a directory by an empty read-only tmpfs."""

    target: str

    def describe(self) -> str:
        return f"mask {self.target}"


class ReadOnly(Frozen):
    """Make a path read-only; if `recursive`, with all mounts below it."""

    target: str
    recursive: bool = True

    def describe(self) -> str:
        return f"read-only {self.target}"


class Cgroups(Frozen):
    """Mount the container's own cgroup subtree, once it is in its scope and cgroup namespace."""

    target: str
    # last component of the mount point -> options of the v1 hierarchy, "" for v2; {} means v2 only
    controllers: dict[str, str]
    writable: bool = False
    delegated: tuple[str, ...] = ()  # keys of `controllers` that are writable in any case
    bounded: bool = False  # the container cannot change cgroup.max.descendants
    flags: tuple[str, ...] = ()  # of cgroup v2 on the host, which every mount must repeat

    def describe(self) -> str:
        what = (
            "cgroup2" if not self.controllers else f"cgroup ({', '.join(sorted(self.controllers))})"
        )
        but = f", {', '.join(self.delegated)} rw" if self.delegated else ""
        return f"mount {what} on {self.target}{'' if self.writable else f' (ro{but})'}"


if TYPE_CHECKING:
    Operation = Filesystem | Bind | Node | Special | Link | Directory | Mask | ReadOnly | Cgroups


class RootPlan(Frozen):
    """The root of one container: its layers, the writable layer, and the operations on top."""

    driver: str  # name of the storage driver
    layers: tuple[str, ...]  # directory names below the image store's layers, lowest first
    directory: str  # the container's own directory: upper/, work/, merged/
    volatile: bool  # the writable layer need not survive a crash: it is removed with the container
    operations: tuple[Operation, ...]  # applied before the container is in its scope
    late: tuple[Operation, ...]  # applied after that
    booted: bool = False  # its first process is systemd
    sockets: tuple[str, ...] = ()  # paths of those of its supervisor
    # with a user namespace: applied with the host's rights to a tree beside the root, before `operations`
    outside: tuple[Operation, ...] = ()
    # mount options of its file systems: the SELinux label of their files
    options: tuple[tuple[str, str], ...] = ()

    def marks(self) -> tuple[str, ...]:
        """The files that tell whether the container's volumes are new."""
        return tuple(one.mark for one in self.operations if isinstance(one, Bind) and one.mark)


def _shown(attributes: int, options: tuple[tuple[str, str], ...]) -> str:
    words = [word for bit, word in _ATTRIBUTES.items() if attributes & bit == bit]
    words += [f"{key}={value}" if value else key for key, value in options]
    return f" ({','.join(words)})" if words else ""


class Protection(Frozen):
    """The security plan for the root (see `security/paths.py`, `security/devices.py`)."""

    masked: tuple[str, ...]
    read_only: tuple[str, ...]
    directories: tuple[Directory, ...]  # the parents of nodes below /dev
    nodes: tuple[Node | Bind, ...]
    links: tuple[Link, ...]
    proc_options: tuple[tuple[str, str], ...] = ()  # of procfs, in mount(2)'s words
    syslog: tuple[Socket, ...] = ()


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
    """All operations except the cgroup file systems, in the order of applying. Raises SpecError.

    `volumes` maps a volume mount's target to its host directory, `marks` to the file that tells whether it is
    new. `ipc_owner` and `proc_owner` are the paths of the mount namespaces of the containers whose IPC or pid
    namespace is shared. `before` and `after` are placed around the user's mounts.
    """
    operations: list[Operation] = [_usr()] if usr_bind else []
    operations += _kernel(spec, protect, ipc_owner, proc_owner)
    operations += before
    operations += _mounts(spec, volumes, marks)
    operations += after
    # after the mounts, since one of them may cover /etc
    operations += _identity(spec, directory)
    # a user's mount on a protected path is wanted and stays visible; an image's volume is covered
    chosen = {mount.target for mount in spec.mounts if not mount.from_image} | {"/sys"}
    operations += [Mask(target=path) for path in protect.masked if path not in chosen]
    operations += [ReadOnly(target=path) for path in protect.read_only if path not in chosen]
    if spec.read_only:
        operations.append(ReadOnly(target="/", recursive=False))
    return tuple(operations)


def _usr() -> Bind:
    """The host's /usr, which is a part of the image `host`."""
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV
    return Bind(source="/usr", target="/usr", attributes=attributes, of_image=True)


def _kernel(
    spec: ContainerSpec, protect: Protection, ipc_owner: str, proc_owner: str
) -> list[Operation]:
    """procfs, /dev and its content, and sysfs, which is read-only unless `protect` leaves it out."""
    sys_attributes = MOUNT_ATTR_RDONLY if "/sys" in protect.read_only else 0
    return [
        _proc(proc_owner, protect.proc_options),
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
            options=(("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), *_TERMINALS),
            attributes=MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
        ),
        *_shared_memory(spec, ipc_owner),
        *protect.directories,
        *protect.nodes,
        *protect.links,
        *protect.syslog,
        Filesystem(
            fstype="sysfs", target="/sys", attributes=NOTHING | sys_attributes, ordinary=True
        ),
    ]


def _proc(owner: str, options: tuple[tuple[str, str], ...]) -> Operation:
    """A new procfs, or the procfs of the container whose pid namespace is shared, without its masks."""
    if owner:
        return Bind(source="/proc", target="/proc", attributes=NOTHING, recursive=False,
                    owner=owner, kind="proc", ordinary=True)  # fmt: skip
    return Filesystem(
        fstype="proc", target="/proc", options=options, attributes=NOTHING, ordinary=True
    )


def _shared_memory(spec: ContainerSpec, owner: str) -> list[Operation]:
    """POSIX message queues and shared memory; they belong to the container that owns the IPC namespace.

    A new mount of mqueue shows the queues of the mounter's IPC namespace, but shared memory is an ordinary
    tmpfs. A container that joins an IPC namespace by path shares only the namespace, not /dev/shm; that of a
    pod has its tmpfs beside it.
    """
    if spec.namespaces.ipc == "none":
        return [
            Directory(target="/dev/mqueue"),
            Filesystem(fstype="mqueue", target="/dev/mqueue", attributes=NOTHING),
        ]
    shm: Operation
    if spec.pod and spec.namespaces.ipc.startswith("ns:"):
        of_pod = spec.namespaces.ipc.removeprefix("ns:").rpartition("/")[0]
        # as it is: the ids of its files are those of the pod's user namespace
        shm = Bind(source=f"{of_pod}/shm", target="/dev/shm", attributes=NOTHING,
                   recursive=False, mapped=False)  # fmt: skip
    elif owner or spec.namespaces.ipc == "host":
        shm = Bind(source="/dev/shm", target="/dev/shm", recursive=False, owner=owner)
    else:
        size = (("mode", "1777"), ("size", str(spec.shm_size)))
        shm = Filesystem(fstype="tmpfs", target="/dev/shm", options=size, attributes=NOTHING)
    return [
        Directory(target="/dev/mqueue"),
        Directory(target="/dev/shm"),
        Filesystem(fstype="mqueue", target="/dev/mqueue", attributes=NOTHING),
        shm,
    ]


def _identity(spec: ContainerSpec, directory: str) -> list[Operation]:
    """/etc/hosts, /etc/hostname and /etc/resolv.conf, from files beside the container's record.

    A read-only mount of the user's at /etc that has no such file stays as it is.
    """
    chosen = {mount.target for mount in spec.mounts}
    attributes = MOUNT_ATTR_RDONLY if spec.read_only else 0
    one = Bind(source=directory, target="/etc", attributes=attributes, recursive=False)
    one = one.replace(optional="/etc" in chosen)
    return [
        one.replace(source=f"{directory}/{name}", target=f"/etc/{name}")
        for name in ("hosts", "hostname", "resolv.conf")
        if f"/etc/{name}" not in chosen
    ]


def _mounts(spec: ContainerSpec, volumes: dict[str, str], marks: dict[str, str]) -> list[Operation]:
    """The mounts of the user and the image, parents before mounts below them; first the --init program."""
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
    mountoptions.check_depth(mount.target, "mount target")
    attributes, propagation, options = mountoptions.parse_options(mount)
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
        mapped="noidmap" not in mount.options,
        ids=mountoptions.ids_of(mount),
    )


def plan_cgroups(
    spec: ContainerSpec, facts: HostFacts, *, systemd: bool = False
) -> tuple[Operation, ...]:
    """The cgroup file systems of a container: its own subtree, read-only unless it is privileged.

    On v1 there is one mount per hierarchy, as on the host. With `systemd` as PID 1 the hierarchies of its
    units are writable: v2, or on v1 name=systemd and the unified tree beside it, but no controller.
    """
    target, writable = CGROUPS, spec.security.privileged
    if facts.cgroup_mode == "v2":
        return (
            Cgroups(target=target, controllers={}, writable=writable or systemd, bounded=systemd,
                    flags=facts.cgroup2_flags),
        )  # fmt: skip
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
        Cgroups(target=target, controllers=options, writable=writable, delegated=delegated,
                bounded=systemd, flags=facts.cgroup2_flags),
    )  # fmt: skip
