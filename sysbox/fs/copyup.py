"""Fill a new volume with the image's content at its mount point, once, as docker does.

A file beside the volume's content (`volumes.MARK`) tells whether the volume is new; the first mount locks and
empties it. A volume without this file, from an early version 0.1, counts as used.

Both trees are walked by descriptor, without following a symbolic link, so an image cannot redirect a read or
a write (CVE-2018-15664).
"""

from __future__ import annotations

import posix

from sysbox.base import tree
from sysbox.base.errors import KernelError
from sysbox.base.files import read_file
from sysbox.base.flock import Held
from sysbox.base.paths import IMAGES
from sysbox.base.tree import TreeEntry
from sysbox.fs.treecopy import Copier, Rules
from sysbox.linux import mount, userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.rootfs import Bind, RootPlan
    from sysbox.linux.userns import IdMap

    Maps = tuple[IdMap, ...]

_MARK = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_CLOEXEC
# content of the mark while the volume is not filled
NEW, BEGUN = b"new", b"begun"
# the same, of a volume whose directory was given an owner: it keeps it
NEW_OWNED, BEGUN_OWNED = b"new owned", b"begun owned"
_UNFILLED = (NEW, BEGUN, NEW_OWNED, BEGUN_OWNED)


def first_mount(mark: str, image: int, volume: int, owner: tuple[int, int] | None = None) -> None:
    """Copy the directory `image` into the directory `volume` (O_PATH descriptors) if it is new and empty.

    `image` -1 copies nothing. All copies belong to `owner`, None: each as in the image. `mark` is the path of
    the volume's mark, whose lock makes containers that start at the same time wait for each other. Raises
    KernelError, FormatError for a tree that is too deep; then the next start copies again.
    """
    try:
        fd = posix.open(mark, _MARK)
    except FileNotFoundError:
        return
    try:
        with Held(fd):
            written = posix.pread(fd, 16, 0)
            if written in _UNFILLED and image >= 0:
                owned = written in (NEW_OWNED, BEGUN_OWNED)
                posix.pwrite(fd, BEGUN_OWNED if owned else BEGUN, 0)
                # set-user-ID bits and capabilities go with an owner, as with chown(2)
                rules = Rules(owner=owner, privileged=owner is None)
                begun = written in (BEGUN, BEGUN_OWNED)
                _fill(image, volume, rules, begun=begun, whole=not owned)
            # truncated, not removed: the mtime of its directory is the volume's time of creation
            posix.ftruncate(fd, 0)
    except OSError as error:
        raise KernelError.of("copy the image's content into the volume", "", error) from None


def check_owners(root: int, bind: Bind, plan: RootPlan, maps: tuple[Maps, Maps]) -> None:
    """Refuse what the container's user namespace cannot copy into a new volume: files of ids that it lacks.

    `root` is the container's, with the ids `maps`, as a process with the host's rights sees it: inside, such
    a file is shown as 65534's, as files of that user are. Raises SpecError naming the file, KernelError.
    """
    if not bind.copy_up or read_file(bind.mark, 16) not in _UNFILLED:
        return
    try:
        image = mount.open_in_root(root, bind.target, tree.DIRECTORY)
    except KernelError:
        return  # ignoring: the image has no such directory
    procfs = mount.open_procfs()
    try:
        whole = TreeEntry("", posix.dup(image))
        _check_owner(whole, root, procfs, bind, plan, maps)
        whole.close()
        for one in tree.walk(image):
            _check_owner(one, root, procfs, bind, plan, maps)
    except OSError as error:
        raise KernelError.of("look at the image's", bind.target, error) from None
    finally:
        posix.close(procfs)
        posix.close(image)


def _check_owner(
    found: TreeEntry, root: int, procfs: int, bind: Bind, plan: RootPlan, maps: tuple[Maps, Maps]
) -> None:
    owner = found.status.st_uid, found.status.st_gid
    if all(userns.is_mapped(own, number) for own, number in zip(maps, owner, strict=True)):
        return
    path = mount.path_of(procfs, found.fd).removeprefix(mount.path_of(procfs, root)) or "/"
    uid, gid = _in_layers(plan, path)
    for own, number in zip(maps, (uid, gid), strict=True):
        userns.outside(
            own, number, f"volume {bind.target}: owner of the image's {tree.printable(path)}"
        )


def _in_layers(plan: RootPlan, path: str) -> tuple[int, int]:
    """The owner of a file of the root, as it is on disk."""
    layers = [f"{IMAGES}/layers/{name}" for name in reversed(plan.layers)]
    for layer in (f"{plan.directory}/upper", *layers):
        top = posix.open(layer, tree.DIRECTORY)
        try:
            found = mount.open_in_root(top, path, posix.O_PATH | posix.O_NOFOLLOW)
        except KernelError:
            continue  # it is in a layer below
        finally:
            posix.close(top)
        status = posix.fstat(found)
        posix.close(found)
        return status.st_uid, status.st_gid
    return userns.OVERFLOW, userns.OVERFLOW


def _fill(image: int, volume: int, rules: Rules, *, begun: bool, whole: bool) -> None:
    source = TreeEntry("", posix.dup(image))
    destination = -1
    try:
        destination = posix.open(".", tree.DIRECTORY, dir_fd=volume)
        if begun or not posix.listdir(destination):
            Copier(rules, lambda _name, _why: None).merge(source, destination, whole=whole)
    finally:
        source.close()
        if destination >= 0:
            posix.close(destination)
