"""Volumes: directories that outlive containers, below paths.VOLUMES/<name>/_data.

A container's record is written before its volumes are made, and the removal of a volume looks for records
that name it while it holds the lock. So no volume of a container that is being made is removed.
"""

from __future__ import annotations

import posix

from sysbox.base import codec, flock
from sysbox.base.errors import FormatError, KernelError, NotFound
from sysbox.base.files import is_directory, make_private, read_file, remove_tree, write_file
from sysbox.base.paths import VOLUMES
from sysbox.container.identity import is_id
from sysbox.linux import lsm
from sysbox.parse.common import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.volume_options import VolumeOptions

# name of the file that tells whether the first mount must fill the volume: see `copyup`
MARK = "copy-up"


class Lock(flock.Lock):
    """The lock on all volumes; a context manager. Raises KernelError."""

    def __init__(self) -> None:
        super().__init__(f"{VOLUMES}/.lock")


def directory(name: str) -> str:
    """The path of a volume's content. The caller has checked the name: it has no slash."""
    return f"{VOLUMES}/{name}/_data"


def ensure(
    name: str, labels: dict[str, str] | None = None, options: VolumeOptions | None = None
) -> bool:
    """Make a volume unless it exists; whether it was made. Raises KernelError."""
    path = directory(name)
    with Lock():
        if is_directory(path):
            return False
        make_private(f"{VOLUMES}/{name}")
        if labels:
            write_file(f"{VOLUMES}/{name}/labels.json", codec.dumps(labels), durable=True)
        if options and options.given:
            write_file(options_file(name), codec.dumps(options.given), durable=True)
        if options is None or options.copy:
            owned = options is not None and (options.uid >= 0 or options.gid >= 0)
            write_file(mark(name), b"new owned" if owned else b"new")
        umask = posix.umask(0)
        try:
            # its directory is made last: then the volume is there
            posix.mkdir(path, 0o755)
            if options and (options.uid >= 0 or options.gid >= 0):
                _give(path, options)
            if lsm.has_selinux():
                from sysbox.fs import relabel  # few hosts have it

                relabel.new_volume(path)
        except FileExistsError:
            pass
        except OSError as error:
            raise KernelError.of("mkdir", path, error) from None
        finally:
            posix.umask(umask)
    return True


def _give(path: str, options: VolumeOptions) -> None:
    fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    try:
        posix.fchown(fd, options.uid, options.gid)
    finally:
        posix.close(fd)


def options_file(name: str) -> str:
    """The path of the file with a volume's options; most volumes have none."""
    return f"{VOLUMES}/{name}/options.json"


def has_options(name: str) -> bool:
    """Whether a volume has options (`volume_options`). Raises OSError."""
    try:
        posix.lstat(options_file(name))
    except FileNotFoundError:
        return False
    return True


def may_be_of_image(target: str) -> bool:
    """Whether an image may declare a volume at `target`: it must not cover /proc, /sys, /dev or the root."""
    kernels = ("/proc/", "/sys/", "/dev/")
    return target != "/" and "\0" not in target and not f"{target}/".startswith(kernels)


def mark(name: str) -> str:
    """The path of the file that tells whether the volume is new."""
    return f"{VOLUMES}/{name}/{MARK}"


def exists(name: str) -> bool:
    """Whether the volume exists. Raises KernelError."""
    return is_directory(directory(name))


def check(name: str) -> None:
    """Raises SpecError for a name that no volume can have, NotFound for one that none has."""
    # the name becomes a path: what could not have been made is not looked for
    check_name(name, "volume")
    if not exists(name):
        raise NotFound(f"no such volume: {name}", hint="`sysbox volume ls` lists them")


def names() -> list[str]:
    """The names of all volumes, sorted. Raises OSError, KernelError."""
    try:
        return sorted(name for name in posix.listdir(VOLUMES) if is_directory(directory(name)))
    except FileNotFoundError:
        return []


def labels(name: str) -> dict[str, str]:
    """The labels of a volume. Raises FormatError for a damaged file."""
    path = f"{VOLUMES}/{name}/labels.json"
    data = read_file(path)
    found = codec.loads(data, path) if data is not None else {}
    if type(found) is not dict or not all(type(value) is str for value in found.values()):
        raise FormatError(f"{path}: labels must be strings by name")
    return found


def created(name: str) -> float:
    """The time of a volume's creation in seconds since 1970: the mtime of its directory, whose entries are
    neither made nor removed later. Raises NotFound.
    """
    try:
        return posix.stat(f"{VOLUMES}/{name}").st_mtime
    except FileNotFoundError:  # removed since it was seen
        raise NotFound(f"no such volume: {name}") from None


def is_anonymous(name: str) -> bool:
    """Whether a name has the form of `new_name`."""
    return is_id(name)


def remove(name: str) -> None:
    """Remove a volume and its content; one that does not exist is success. Raises KernelError."""
    remove_tree(f"{VOLUMES}/{name}")


def new_name() -> str:
    """A new name for an anonymous volume."""
    return posix.urandom(32).hex()
