"""Whether ids can be mapped here: by the kernel, by a storage driver on its file system, by that of a volume.

There is no way to ask the kernel but to try (mount_setattr(2), "ID-mapped mounts"). What works is noted in
/run, and not tried again until the next boot. A failure is not noted: its reason may be gone the next time.
Nearly every start finds its answers noted, and so does not import what tries (`mapping_attempts.py`).
"""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError, Unsupported
from sysbox.base.files import make_private, read_file, write_file
from sysbox.base.paths import CONTAINERS, IMAGES, RUN
from sysbox.host import exists, read_text
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Attempt = Callable[[Any], None]  # given the module mapping_attempts

# where sysbox runs in a user namespace itself: a file system can be mapped only in the one that it belongs to
INSIDE = "sysbox is in one already, in which the kernel maps no ids of layers"
_KEPT = f"{RUN}/idmap"


# All raise KernelError where the host lacks memory, processes or descriptors, so that nothing is learned.


def why_not_kernel() -> str:
    """Why a container with a user namespace of its own cannot be made here at all; "" where it can.

    The kernel lets such a namespace mount procfs and sysfs only where the caller's are not partly covered, as
    they are inside a container (mount_too_revealing() of the kernel's source).
    """
    return _unless_known("kernel", lambda attempts: attempts.kernel())


def why_not_root(name: str, layers: tuple[str, ...]) -> str:
    """Why the storage driver `name` cannot map the ids of its layers on this host; "" where it can."""
    make_private(CONTAINERS)
    key = "-".join((name, *map(_file_system_of, (CONTAINERS, f"{IMAGES}/layers"))))
    return _unless_known(key, lambda attempts: attempts.root(name, layers[:1]))


def why_not(path: str, *, recursive: bool = True) -> str:
    """Why the kernel cannot map the ids of a directory or file; "" where it can.

    With `recursive`, what is mounted below counts. A path that does not exist yet has the file system of the
    directory above it.
    """
    asked = path
    while not exists(path):
        path = path.rstrip("/").rpartition("/")[0] or "/"
    # one look at the path: a link on it may lead elsewhere the next moment, and the note is kept until a boot
    fd = _open(path)
    try:
        if recursive and path == asked and _has_mounts_below(fd):
            return _answer(lambda attempts: attempts.path(path, fd, recursive=True))
        return _unless_known(
            _file_system(fd), lambda attempts: attempts.path(path, fd, recursive=False)
        )
    finally:
        posix.close(fd)


def _file_system(fd: int) -> str:
    """What tells file systems apart: the number of one alone serves another after an umount."""
    return f"{posix.fstat(fd).st_dev}:{_sys.fstatfs_type(fd):x}"


def _file_system_of(path: str) -> str:
    fd = _open(path)
    try:
        return _file_system(fd)
    finally:
        posix.close(fd)


def _open(path: str) -> int:
    try:
        return posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    except OSError as error:
        raise KernelError.of("look at", path, error) from None


def _unless_known(key: str, attempt: Attempt) -> str:
    note = f"{_KEPT}/{key}"
    # early versions noted reasons too
    if read_file(note) == b"":
        return ""
    answer = _answer(attempt)
    if not answer:
        make_private(_KEPT)
        write_file(note, b"")
    return answer


def _answer(attempt: Attempt) -> str:
    try:
        from sysbox.fs import mapping_attempts
    except OSError as error:
        raise KernelError.of("load", "sysbox.fs.mapping_attempts", error) from None
    try:
        attempt(mapping_attempts)
    except Unsupported as error:
        return error.message
    except KernelError as error:
        if error.errno in mapping_attempts.BUSY:
            raise
        return error.message
    return ""


def _has_mounts_below(fd: int) -> bool:
    place = posix.readlink(f"/proc/self/fd/{fd}").rstrip("/") + "/"
    for one in "\\ \t\n":  # as proc_pid_mountinfo(5) writes them
        place = place.replace(one, f"\\{ord(one):03o}")
    lines = read_text("/proc/self/mountinfo", 1 << 24).splitlines()
    targets = (line.split(" ", 5)[4] for line in lines)
    return any(one.startswith(place) and one != place for one in targets)
