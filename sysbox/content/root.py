"""The root of a container, running or not, as a descriptor, to copy files in and out.

No program of the container is run, and no path in it is ever looked up from the host's root: callers walk
from the descriptor, with `mount.open_in_root` (CVE-2018-15664, CVE-2019-14271). Of a running container, the
descriptor is the root of its first process, with everything that is mounted there. The root of a stopped one
is mounted by a child in a mount namespace of its own, and is passed back as a detached tree, which the kernel
unmounts with the last descriptor. The container's lock is held meanwhile, so that it cannot start.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, KernelError
from sysbox.base.files import is_directory
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.fs import mapped, ops, rootfs, sources, staging, volumes
from sysbox.fs.drivers import driver
from sysbox.host import exists
from sysbox.image.resolved import resolved_of
from sysbox.linux import _sys, mount, namespace, process, userns
from sysbox.linux.owners import UNMAPPED, Owners, Reader
from sysbox.run import helper, planning
from sysbox.run.process import ids_of_user

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.container.records import Record, Resolved, Runtime

_OPEN = "open the container's root"
_HANDLE = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC


class Root:
    """A container's root while it is used; a context manager.

    `bare` leaves out everything that is mounted in it; `usr` is then a descriptor of `/usr` of the image
    `host`, which belongs to that image (-1 for other images). `owners` says whose ids the root shows: that
    of a stopped container is mounted without a map, so it has the container's own.
    """

    def __init__(self, record: Record, *, bare: bool = False) -> None:
        self.record = record
        self.fd = -1
        self.usr = -1
        self.owners = UNMAPPED
        # of one that does not run: (target, whether it is a tmpfs, which does not exist now)
        self.mounts: tuple[tuple[str, bool], ...] = ()
        self._bare = bare
        self._kept: list[int] = []
        self._lock: Lock | None = None

    def __enter__(self) -> Self:
        try:
            # waits for a start in progress: until its end the first process has the host's root
            self._lock = Lock(self.record.id)
            runtime = store.runtime(self.record.id)
            if runtime is not None and runtime.alive():
                self._release()
                self.owners = Owners(uids=self.record.uids, gids=self.record.gids)
                self._open_running(runtime)
            else:
                self.mounts = tuple(
                    (one.target, one.kind == "tmpfs") for one in self.record.spec.mounts
                )
                self._open_stopped(resolved_of(self.record))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for fd in (self.fd, self.usr, *self._kept):
            if fd >= 0:
                posix.close(fd)
        self.fd = self.usr = -1
        self._kept = []
        self._release()

    @property
    def reader(self) -> Reader:
        """With which rights files of the kernel are read in it: those of its root, whichever is mounted."""
        uids, gids = self.record.uids, self.record.gids
        return Reader(root=userns.root_of(uids, gids) if uids else (0, 0))

    def owners_of_usr(self) -> Owners:
        """Whose ids `usr` shows: the host's where the kernel could not map those of its file system."""
        is_mapped = userns.is_mapped(self.owners.uids, posix.fstat(self.usr).st_uid)
        return self.owners if is_mapped else UNMAPPED

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _open_running(self, runtime: Runtime) -> None:
        try:
            init = process.pidfd(runtime.pid)
            self._kept.append(init)
            # an open mount namespace keeps its mounts, even if the process ends meanwhile
            there = namespace.open_ns(runtime.pid, "mount")
            self._kept.append(there)
            self.fd = posix.open(f"/proc/{runtime.pid}/root", _HANDLE)
        except (OSError, KernelError):
            if runtime.alive():
                raise
        if not runtime.alive():
            # the pid may have been that of another process above
            raise Conflict(f"container {self.record.name} has just ended")
        if self._bare:
            posix.close(self.fd)
            self.fd = -1
            usr = resolved_of(self.record).usr_bind
            self.fd, self.usr = helper.have_done(_OPEN, lambda: _copies(there, usr=usr), 2)

    def _open_stopped(self, resolved: Resolved) -> None:
        inside: tuple[rootfs.Bind, ...] = ()
        beside: tuple[rootfs.Bind, ...] = ()
        if not self._bare:
            inside = _binds(self.record, resolved)
        elif resolved.usr_bind:
            beside = tuple(one for one in _binds(self.record, resolved) if one.target == "/usr")
        self.fd, self.usr = helper.have_done(
            _OPEN, lambda: _mounted(self.record, resolved, inside, beside), 2
        )


def _binds(record: Record, resolved: Resolved) -> tuple[rootfs.Bind, ...]:
    """The mounts that a container has while it does not run: files, directories and volumes."""
    empty = rootfs.Protection(masked=(), read_only=(), directories=(), nodes=(), links=())
    planned = rootfs.plan_operations(
        planning.with_volume_options(record).spec,
        usr_bind=resolved.usr_bind,
        directory=record.directory,
        volumes={target: volumes.directory(name) for target, name in record.volumes.items()},
        marks={target: volumes.mark(name) for target, name in record.volumes.items()},
        protect=empty,
    )
    operations = mapped.own_maps(planned, record.uids, record.gids, inside=True)
    binds = [one for one in operations if isinstance(one, rootfs.Bind)]
    planning.import_for_mounts(binds)
    # what is mounted without mapped ids is the host's, where the container's root may not be the host's
    foreign = mount.MOUNT_ATTR_RDONLY if record.uids else 0
    return tuple(
        one.replace(
            # neither these mounts nor their removal may propagate to the host
            propagation=mount.MS_PRIVATE,
            attributes=one.attributes | (0 if one.mapped else foreign),
        )
        for one in binds
        if not one.target.startswith("/dev/")
        and (exists(one.source) or not one.source.startswith(f"{record.directory}/"))
    )


def _mounted(
    record: Record,
    resolved: Resolved,
    operations: tuple[rootfs.Bind, ...],
    beside: tuple[rootfs.Bind, ...],
) -> tuple[int, int]:
    """In the child: the root with `operations` applied, and the source of `beside` (-1 for none)."""
    _sys.unshare(namespace.CLONE_NEWNS)
    copies = sources.clone((*operations, *beside))
    _sys.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE, None)
    plan = rootfs.RootPlan(
        driver=resolved.driver,
        layers=resolved.layers,
        directory=record.directory,
        volatile=False,  # a second mount of a volatile layer is refused
        operations=operations,
        late=(),
    )
    root = driver.by_name(resolved.driver).mount_root(plan)
    usr = copies.pop(id(beside[0])) if beside else -1
    tree = ops.Tree(root, copies, mount.open_procfs())
    if mapped.is_owned(operations):
        tree.user = ids_of_user(root, resolved.user)
    staging.map_own(operations, copies, root, lambda _: tree.user)
    tree.apply(operations)
    made = mount.clone_tree("", recursive=True, dirfd=root)
    if record.spec.read_only:
        mount.set_attributes(made, set=mount.MOUNT_ATTR_RDONLY)
    return made, usr


def _copies(there: int, *, usr: bool) -> tuple[int, int]:
    """In the child: copies of the mount of `/` in a mount namespace, and of those of `/usr` (-1 for none)."""
    _sys.setns(there, namespace.CLONE_NEWNS)
    root = mount.clone_tree("/", recursive=False)
    return root, mount.clone_tree("/usr", recursive=True) if usr and is_directory("/usr") else -1
