"""Give the files of a volume an SELinux label: what `:z` and `:Z` ask for, and what a new volume gets.

By descriptors: no symbolic link is followed, and nothing on another mount is touched. The top directory gets
its label last: one that has it has been labelled as a whole. What must keep its labels is refused
(`relabel_source`).
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import tree
from sysbox.base.errors import KernelError, SpecError
from sysbox.fs import policy_contexts, relabel_source
from sysbox.linux import lsm
from sysbox.security import labels

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.container.records import Record
    from sysbox.fs.rootfs import Operation
    from sysbox.spec import Mount

_HANDLE = posix.O_PATH | posix.O_CLOEXEC
_SHARED, _PRIVATE = "z", "Z"
_KEPT = (
    "an immutable file keeps its label (chattr(1)); for others the policy says who may change it"
)


def asked(one: Mount) -> str:
    """z, Z or "": what the mount asks for; of both the last counts."""
    found = [option for option in one.options if option in (_SHARED, _PRIVATE)]
    return found[-1] if found else ""


def check(mounts: Sequence[Mount]) -> None:
    """Refuse before anything is made what must not be relabelled. Raises SpecError, KernelError."""
    for one in mounts:
        if one.kind == "bind" and asked(one):
            try:
                posix.close(relabel_source.open_source(one.source, asked(one)))
            except OSError:
                continue  # it is made at the start, or that tells that it is missing


def volumes(record: Record, operations: Sequence[Operation], *, fully: bool) -> None:
    """Relabel the sources of a container's mounts, as their options ask.

    Without `fully` one whose top has its label already is left as it is. Raises SpecError, KernelError; then
    no source is left that did not exist.
    """
    from sysbox.fs import rootfs, sources

    binds = {one.target: one for one in operations if isinstance(one, rootfs.Bind)}
    made: list[str] = []
    try:
        for one in record.spec.mounts:
            option = asked(one)
            if not option or one.target not in binds:
                continue
            bind = binds[one.target]
            if bind.create:
                made += sources.make_directories(bind.source)
            label = record.mount_label
            if option == _SHARED:
                label = labels.with_parts(label, {"level": labels.shared_level(label)})
            apply(bind.source, label, option, fully=fully)
    except BaseException:
        sources.remove_directories(made)
        raise


def new_volume(path: str) -> None:
    """Label the directory of a new volume, which every container may be given. Raises KernelError."""
    label = policy_contexts.read().file
    if lsm.is_known(label):
        lsm.set_file_label(path, label)


def layer(path: str) -> None:
    """Give a writable layer that becomes a layer of an image the label of these. Raises KernelError."""
    if label := policy_contexts.of_layers():
        top = posix.open(path, _HANDLE)
        try:
            _all_of(top, label)
        except OSError as error:
            raise KernelError.of("set the SELinux labels of", path, error) from None
        finally:
            posix.close(top)


def apply(path: str, label: str, option: str = _SHARED, *, fully: bool = True) -> None:
    """Give the file or directory `path`, and all that is in it, a label. Raises SpecError, KernelError."""
    try:
        top = relabel_source.open_source(path, option)
    except OSError as error:
        raise KernelError.of("open", path, error) from None
    try:
        if fully or _label_of(top) != label:
            _all_of(top, label)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EROFS):
            raise SpecError(
                f"volume {path}: {option}: its file system keeps no SELinux labels here: {error.strerror}",
                hint=f"leave out {option}: a mount option of it, context=, may give it the label",
            ) from None
        raise KernelError.of("set the SELinux labels of", path, error) from None
    finally:
        posix.close(top)


def _all_of(top: int, label: str) -> None:
    """Label what is in the directory `top`, then `top` itself, which may be a file. Raises OSError."""
    if _stat.S_ISDIR(posix.fstat(top).st_mode):
        for found in tree.walk(top, mounts=False):
            _set(found.fd, label)
    _set(top, label)


def _set(fd: int, label: str) -> None:
    """Of an O_PATH descriptor, by the path that leads to nothing else.

    Raises KernelError, which names the file, for one that must not be changed; OSError.
    """
    if _label_of(fd) == label:
        return
    path = f"/proc/self/fd/{fd}"
    try:
        posix.setxattr(path, lsm.FILE_LABEL, label.encode() + b"\0")
    except PermissionError as error:
        found = KernelError.of("set the SELinux label of", posix.readlink(path), error)
        found.hint = _KEPT
        raise found from None


def _label_of(fd: int) -> str:
    try:
        found = posix.getxattr(f"/proc/self/fd/{fd}", lsm.FILE_LABEL)
    except OSError:
        return ""  # it has none
    return found.rstrip(b"\0").decode("utf-8", "replace")
