"""The file of `--cidfile`: the id of the container for which it was written."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError, SysboxError
from sysbox.base.files import is_directory, read_file, unlink
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.base.look import exists
from sysbox.base.paths import CONTAINERS, RUN
from sysbox.container.identity import is_id

_LOCK = f"{RUN}/cidfile.lock"
_MOST = 1024  # bytes; an id has 64


def read(path: str) -> str:
    """The id in a file. Raises NotFound, and SpecError for anything else than an id."""
    try:
        data = read_file(path, _MOST, is_ours=False)
    except FormatError as error:
        raise SpecError(f"--cidfile {error.message}") from None
    if data is None:
        raise NotFound(f"--cidfile {path}: no such file")
    text = data.decode(errors="replace").strip()
    if not is_id(text):
        raise SpecError(
            f"--cidfile {path}: has no container's id", hint="`sysbox run --cidfile` writes one"
        )
    return text


def check(path: str, replaced: str = "") -> None:
    """Raises Conflict where there is a file, unless its container is gone or `replaced`."""
    if exists(path) and not _is_stale(path, replaced):
        raise _taken(path)


class Written:
    """A context manager: the file is written, the block claims the container, and an error there removes it.

    A file whose container is gone is written anew. The lock keeps two commands from taking one file: that of
    a container which is not claimed yet looks like that of one which is gone.
    """

    def __init__(self, path: str, container_id: str) -> None:
        self._path, self._id = path, container_id

    def __enter__(self) -> None:
        """Raises Conflict, SysboxError."""
        self._lock = Lock(_LOCK, timeout=BRIEFLY)
        try:
            _write(self._path, self._id)
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind:
            remove(self._path, self._id)
        self._lock.release()


def remove(path: str, container_id: str) -> None:
    """Remove a container's file, if it still is that."""
    try:
        if read(path) == container_id:
            unlink(path)
    except (NotFound, SpecError):
        pass  # ignoring: somebody else has removed or changed it


def _write(path: str, container_id: str) -> None:
    if _is_stale(path):
        unlink(path)
    try:
        fd = posix.open(
            path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644
        )
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        raise SysboxError(f"--cidfile {path}: {error.strerror}") from None
    posix.write(fd, container_id.encode())
    posix.close(fd)


def _is_stale(path: str, replaced: str = "") -> bool:
    """Whether it has the id of a container that does not exist, as its run with --rm has left it."""
    try:
        found = read(path)
    except (NotFound, SpecError):
        return False
    return found == replaced or not is_directory(f"{CONTAINERS}/{found}")


def _taken(path: str) -> Conflict:
    return Conflict(
        f"--cidfile {path}: the file exists already",
        hint="remove it, if no container belongs to it",
    )
