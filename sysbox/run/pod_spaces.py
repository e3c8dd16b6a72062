"""The namespaces of a pod: a child makes them, and bind mounts keep them once it has exited.

No process stays. The mounts are in the host's mount namespace, wherever sysbox was called from: there every
start finds them. Removing the file below a mount removes its copies in other mount namespaces too (the kernel
does so since Linux 3.18, detach_mounts()), so that none of them keeps a namespace alive.

  BORN      child -> parent   it is in its user namespace, which has no maps yet (only with one)
  PROCEED   parent -> child   the maps are written
  UNSHARED  child -> parent   all namespaces exist: links can be put into them
  SCOPED    parent -> child   the links exist; the data has their addresses
  WAITING   child -> parent   everything in them is set: they can be kept
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import FAILED, KernelError
from sysbox.base.files import make_private
from sysbox.base.frozen import Frozen
from sysbox.linux import _sys, mount, namespace, process, userns
from sysbox.linux.userns import IdMap
from sysbox.netns import links
from sysbox.netns.topology import NetPlan
from sysbox.run import helper
from sysbox.run.handshake import BORN, PROCEED, SCOPED, UNSHARED, WAITING, Channel
from sysbox.run.init import set_sysctls
from sysbox.run.parent import destroy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn, Self

SHM = "shm"  # beside the namespaces: the tmpfs that is /dev/shm of all containers
_QUIET = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
_HOST = "/proc/1/ns/mnt"


class Spaces(Frozen):
    """What is to be made."""

    directory: str  # where they are kept
    kinds: tuple[str, ...]  # in the order in which they are made
    network: NetPlan
    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()
    hostname: str = ""
    domainname: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0  # bytes; 0 is no shared memory
    options: tuple[tuple[str, str], ...] = ()  # of that: its SELinux label


class Parked:
    """The child that has made them, and waits. A context manager: the child has ended after the block."""

    def __init__(self, spaces: Spaces) -> None:
        """Raises KernelError."""
        self._spaces = spaces
        self._channel, theirs = Channel.pair()
        try:
            self.pid, self._pidfd = _sys.clone3(0)
            if self.pid == 0:
                self._channel.close()
                _child(spaces, theirs)
        except OSError as error:
            self._channel.close()
            raise KernelError.of("fork for the namespaces of the pod", "", error) from None
        finally:
            theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        destroy(self.pid, self._pidfd)
        posix.close(self._pidfd)

    def await_namespaces(self) -> None:
        """Wait until all of them exist. Raises StartError, KernelError."""
        if self._spaces.uids:
            self._channel.receive(BORN)
            userns.write_maps(self.pid, self._spaces.uids, self._spaces.gids)
            self._channel.send(PROCEED)
        self._channel.receive(UNSHARED)

    def configure(self, addresses: tuple[str, ...]) -> None:
        """Have the links inside get their addresses, as in `links.configure_inside`. Raises StartError."""
        self._channel.send(SCOPED, {"addresses": addresses})
        self._channel.receive(WAITING)

    def keep(self) -> None:
        """Mount them where they are kept. Raises KernelError."""
        spaces, pid = self._spaces, self.pid

        def work() -> None:
            for kind in spaces.kinds:
                file = namespace.KINDS[kind][1]
                path = f"{spaces.directory}/{file}"
                _touch(path)
                _mount(f"/proc/{pid}/ns/{file}", path, None, mount.MS_BIND, None)
            if spaces.shm_size:
                path = f"{spaces.directory}/{SHM}"
                make_private(path)
                options = f"mode=1777,size={spaces.shm_size}{mount.appended(spaces.options)}"
                _mount("tmpfs", path, "tmpfs", _QUIET, options)

        _on_host(work)


def are_kept(directory: str, kinds: tuple[str, ...]) -> bool:
    """Whether all of them are there."""
    own = posix.stat("/proc/self/ns/mnt").st_dev
    try:
        return all(_device(directory, kind) == own for kind in kinds)
    except OSError:
        return False


def _device(directory: str, kind: str) -> int:
    return posix.stat(f"{directory}/{namespace.KINDS[kind][1]}").st_dev


def let_go(directory: str) -> None:
    """Unmount all of them; what is not there is success. The caller removes the files. Raises KernelError."""
    kept = [
        f"{directory}/{name}" for name in (SHM, *(file for _, file in namespace.KINDS.values()))
    ]

    def work() -> None:
        for path in kept:
            _unmount(path)

    _on_host(work)
    # here too: with copies of them the files could not be removed
    work()


def _on_host(work: Callable[[], None]) -> None:
    """Call it in the host's mount namespace, in a child where this process is in another one."""
    if namespace.identity(_HOST) == namespace.identity("/proc/self/ns/mnt"):
        work()
        return

    def there() -> tuple[int, ...]:
        fd = posix.open(_HOST, posix.O_RDONLY | posix.O_CLOEXEC)
        _sys.setns(fd, namespace.CLONE_NEWNS)
        work()
        return ()

    helper.have_done("keep the namespaces of the pod", there)


def _touch(path: str) -> None:
    posix.close(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600))


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None) -> None:
    try:
        _sys.mount(source, target, kind, flags, options)
    except OSError as error:
        raise KernelError.of("mount", f"{source} on {target}", error) from None


def _unmount(path: str) -> None:
    while True:
        try:
            _sys.umount2(path, mount.MNT_DETACH)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return  # nothing is mounted there (any more)
            raise KernelError.of("unmount", path, error) from None


def _child(spaces: Spaces, channel: Channel) -> NoReturn:
    """As in run/init.py: nothing is imported, and every way out is `leave`."""
    try:
        process.close_fds_except({channel.fileno()})
        process.reset_signals()
        _die_with_parent()
        if spaces.uids:
            _sys.unshare(namespace.CLONE_NEWUSER)
            channel.send(BORN)
            channel.receive(PROCEED)
            posix.setgroups([])
            posix.setresgid(0, 0, 0)
            posix.setresuid(0, 0, 0)
            _die_with_parent()  # a change of credentials has cleared it (prctl(2))
        _make(spaces)
        channel.send(UNSHARED)
        addresses: list[str] = channel.receive(SCOPED)[0]["addresses"]
        if "network" in spaces.kinds:
            links.configure_inside(spaces.network, tuple(addresses))
        channel.send(WAITING)
        channel.receive(b"")  # until they are kept
    except BaseException as error:  # noqa: BLE001 (a child has no other way to tell)
        channel.report("namespaces", "make the namespaces of the pod", error)
    _sys.leave(FAILED)


def _die_with_parent() -> None:
    _sys.prctl(process.PR_SET_PDEATHSIG, 9)


def _make(spaces: Spaces) -> None:
    flags = 0
    for kind in spaces.kinds:
        flags |= namespace.KINDS[kind][0]
    _sys.unshare(flags & ~namespace.CLONE_NEWUSER)
    procfs = mount.open_procfs()
    if "network" in spaces.kinds and spaces.network.attachments:
        ipv6 = any(one.subnet6 for one in spaces.network.attachments)
        links.prepare_inside(procfs, ipv6=ipv6)
    if "uts" in spaces.kinds:
        _sys.sethostname(spaces.hostname)
        if spaces.domainname:
            _sys.setdomainname(spaces.domainname)
    set_sysctls(procfs, spaces.sysctls)
