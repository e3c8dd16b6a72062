"""Who owns the files of a container's root, for a process outside of the container's user namespace.

In the root of a running container with a user namespace of its own the host sees mapped ids: in the status of
a file, in its access control lists (acl(5)), and in its capabilities (capabilities(7), "Namespaced file
capabilities"). `Owners` translates all three. A new file belongs to the effective ids of the process that
makes it, and the kernel refuses ids that the file system cannot store (EOVERFLOW): `Owners.making` lends it
those of the container's root.

The process keeps the host's capabilities, so the kernel does not refuse it what it would refuse root of the
container: to change files of the host, on a bind mount whose ids are not mapped. Since the container chooses
where a symbolic link leads, `check` and `check_parent` refuse that, by the kernel's rule: a capability in a
user namespace counts only for files whose owner and group it maps (capabilities(7), user_namespaces(7),
"Capabilities", and `capable_wrt_inode_uidgid` in the kernel).
"""

from __future__ import annotations

import _stat
import posix
from _struct import Struct

from sysbox.base.errors import Conflict, KernelError
from sysbox.base.frozen import Frozen
from sysbox.linux import _sys, capability, userns
from sysbox.linux.userns import IdMap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Attribute = tuple[str, bytes]
    Translate = Callable[[tuple[IdMap, ...], int], int]

_ACL = "system.posix_acl_"
_ENTRY = Struct("<HHI")  # tag, permissions, id: linux/posix_acl_xattr.h
_VERSION_SIZE = 4
_ACL_USER, _ACL_GROUP = 0x02, 0x08

_CAPABILITY = "security.capability"
_NUMBER = Struct("<I")
_REVISION, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000  # linux/capability.h
_SIZE_2, _SIZE_3 = 20, 24  # bytes; the last number of the third is the root id


class Owners(Frozen):
    """The maps of a container's user namespace; with none, all ids are the host's."""

    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()

    def inside(self, uid: int, gid: int) -> tuple[int, int]:
        """The owner that a process in the container sees; OVERFLOW for an id without a map."""
        return userns.inside(self.uids, uid), userns.inside(self.gids, gid)

    def outside(self, uid: int, gid: int, what: str) -> tuple[int, int]:
        """The host's ids. Raises SpecError, which names the file `what`, for an id without a map."""
        what = f"owner of {what}"
        return userns.outside(self.uids, uid, what), userns.outside(self.gids, gid, what)

    def attributes_inside(self, found: Iterable[Attribute]) -> list[Attribute]:
        """Extended attributes as a process in the container sees them.

        File capabilities for the root of another user namespace are left out. An id in an access control list
        that has no map is left as it is: overlayfs of Linux 6.1 shows there what the layer has.
        """

        def translate(maps: tuple[IdMap, ...], number: int) -> int:
            return userns.inside(maps, number) if userns.is_mapped(maps, number) else number

        return self._translated(found, translate, self._capability_inside)

    def attributes_outside(self, found: Iterable[Attribute], what: str) -> list[Attribute]:
        """The reverse. Raises SpecError as `outside`."""

        def translate(maps: tuple[IdMap, ...], number: int) -> int:
            return userns.outside(maps, number, f"attributes of {what}")

        def capability_outside(value: bytes) -> bytes:
            root = 0 if len(value) == _SIZE_2 else _NUMBER.unpack(value[_SIZE_2:])[0]
            return _third(value, translate(self.uids, root))

        return self._translated(found, translate, capability_outside)

    def making(self) -> _Acting:
        """A context in which new files belong to root of the container. Raises KernelError."""
        return _Acting(self)

    def check_parent(self, directory: int, shown: str) -> None:
        """Whether root of the container may make and remove entries in an open directory.

        Raises Conflict naming the entry `shown`, OSError.
        """
        if self.uids:
            status = posix.fstat(directory)
            if not status.st_mode & _stat.S_IWOTH:
                self.check(status, f"the directory of {shown}")

    def check(self, status: posix.stat_result, what: str) -> None:
        """Whether root of the container may change a file. Raises Conflict naming it as `what`."""
        if not self._owns(status):
            raise Conflict(
                f"{what} belongs to {status.st_uid}:{status.st_gid} on the host, which is not in the"
                " container's user namespace",
                hint="name the file by its path on the host",
            )

    def check_content(self, status: posix.stat_result, what: str) -> None:
        """Whether root of the container may read a file. Raises Conflict naming it as `what`."""
        if not status.st_mode & _stat.S_IROTH:
            self.check(status, what)

    def _owns(self, status: posix.stat_result) -> bool:
        return userns.is_mapped(self.uids, status.st_uid) and userns.is_mapped(
            self.gids, status.st_gid
        )

    def _translated(
        self, found: Iterable[Attribute], ids: Translate, capability: Callable[[bytes], bytes]
    ) -> list[Attribute]:
        if not self.uids:
            return list(found)
        made = []
        for key, value in found:
            if key.startswith(_ACL):
                made.append((key, self._acl(value, ids)))
            elif key != _CAPABILITY or len(value) not in (_SIZE_2, _SIZE_3):
                made.append((key, value))
            elif translated := capability(value):
                made.append((key, translated))
        return made

    def _acl(self, value: bytes, ids: Translate) -> bytes:
        if len(value) % _ENTRY.size != _VERSION_SIZE:
            return value  # the kernel refuses it
        made = [value[:_VERSION_SIZE]]
        for tag, permissions, number in _ENTRY.iter_unpack(value[_VERSION_SIZE:]):
            if tag in (_ACL_USER, _ACL_GROUP):
                number = ids(self.uids if tag == _ACL_USER else self.gids, number)
            made.append(_ENTRY.pack(tag, permissions, number))
        return b"".join(made)

    def _capability_inside(self, value: bytes) -> bytes:
        """b"" for those of a root that has no id inside."""
        if len(value) == _SIZE_2:
            return value
        root = _NUMBER.unpack(value[_SIZE_2:])[0]
        if not userns.is_mapped(self.uids, root):
            return b""
        number = userns.inside(self.uids, root)
        return _third(value, number) if number else _headed(value, _REVISION_2)[:_SIZE_2]


UNMAPPED = Owners()


class Reader(Frozen):
    """The rights with which the files of one side of a copy are read.

    What a file of a pseudo file system shows, and whether it opens, depends on who asks: /proc/kmsg has the
    kernel's log. A container chooses where its links lead and what is mounted on its files, so such a file
    is opened and read as root of the container, without any capability.
    """

    # the host's ids of that root; None: the files are the host's own
    root: tuple[int, int] | None = None

    def rights(self, is_pseudo: Callable[[], bool]) -> _Powerless:
        """A context in which the file may be opened and read. Raises KernelError."""
        return _Powerless(self.root if self.root is not None and is_pseudo() else None)


class _Powerless:
    """This thread has effective ids, no further group and no capability, until the end of the block.

    With None nothing changes.
    """

    def __init__(self, ids: tuple[int, int] | None) -> None:
        self._ids = ids
        self._own = (-1, -1)
        self._groups: list[int] = []
        self._sets = (0, 0, 0)

    def __enter__(self) -> None:
        if self._ids is None:
            return
        self._own, self._groups = (posix.geteuid(), posix.getegid()), posix.getgroups()
        self._sets = _sys.capget()
        try:
            posix.setgroups([])
            capability.act_as(*self._ids)
            _sys.capset(0, *self._sets[1:])
        except OSError as error:
            self.__exit__()
            raise KernelError.of("act as", "root of the container", error) from None

    def __exit__(self, *_: object) -> None:
        if self._ids is not None:
            # the capabilities first: the ids need them
            _sys.capset(*self._sets)
            capability.act_as(*self._own)
            posix.setgroups(self._groups)


class _Acting:
    """The effective ids of this process are those of a container's root, until the end of the block."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners
        self._own = (-1, -1)

    def __enter__(self) -> None:
        if self._owners.uids:
            self._own = posix.geteuid(), posix.getegid()
            capability.act_as(*userns.root_of(self._owners.uids, self._owners.gids))

    def __exit__(self, *_: object) -> None:
        if self._owners.uids:
            capability.act_as(*self._own)


def _third(value: bytes, root: int) -> bytes:
    return _headed(value, _REVISION_3)[:_SIZE_2] + _NUMBER.pack(root)


def _headed(value: bytes, revision: int) -> bytes:
    flags = _NUMBER.unpack(value[:4])[0] & ~_REVISION
    return _NUMBER.pack(flags | revision) + value[4:]
