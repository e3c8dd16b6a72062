"""Record the system calls of a container, for a profile that allows these alone (`seccomp=record:FILE`).

A filter that comes before the container's own asks a process beside the container, the recorder
(src/recorder.c), about each call that its own would allow; the recorder notes the call, and it goes on. So
none is missed. What it notes is a table in a file beside the record, which outlives the recorder: when the
container has ended, whoever records that end makes the profile. A recorder that ends since nobody has the
filter any more cuts the mark off the table; it is left by one that was killed.
"""

from __future__ import annotations

import _signal
import _socket
import _stat
import errno
import posix
import sys

from sysbox.base import codec
from sysbox.base.errors import (
    Conflict,
    FormatError,
    KernelError,
    SpecError,
    StartError,
    SysboxError,
)
from sysbox.base.files import identity, read_file, unlink, write_all, write_file
from sysbox.base.paths import LIBEXEC, RUN_CONTAINERS
from sysbox.container import events, store
from sysbox.linux import _sys, unix
from sysbox.spec import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from sysbox.container.records import Final, Record

WORDS = 16384  # of 64 bits, as in src/recorder.c
SIZE = WORDS * 8
_MARK = 8  # bytes behind the words
_SOCKET = "recorder"  # in a container's directory below /run


def check(path: str) -> list[Any]:
    """What the directory of FILE is known by later, see `_place`. Raises SpecError where no profile could be
    written.
    """
    where = f"seccomp={RECORD}{path}"
    try:
        directory = _open_directory(path)
    except OSError as error:
        raise SpecError(f"{where}: its directory: {posix.strerror(error.errno or 0)}") from None
    try:
        _check_directory(directory, path.rpartition("/")[2], where)
        return _place(directory)
    finally:
        posix.close(directory)


def _check_directory(directory: int, name: str, where: str) -> None:
    from sysbox.base import tree

    try:
        if tree.is_kernels(directory):
            raise SpecError(f"{where}: its directory is in a file system of the kernel")
        if not posix.access(".", posix.W_OK, dir_fd=directory):
            raise SpecError(f"{where}: its directory cannot be written")
        found = posix.stat(name, dir_fd=directory, follow_symlinks=False)
        if not _stat.S_ISREG(found.st_mode) and not _stat.S_ISLNK(found.st_mode):
            raise SpecError(f"{where}: not a regular file")
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise SpecError(f"{where}: {posix.strerror(error.errno or 0)}") from None


def check_free(path: str, own: str = "") -> None:
    """Refuse a FILE that a container is recorded to now, but the one with the id `own`.

    Of both profiles only that of the later end would be kept. Raises Conflict; SpecError as `check`.
    """
    place, name = check(path), path.rpartition("/")[2]
    for other, directory in _recorded_now(own):
        if directory == place and other.spec.security.recorded.rpartition("/")[2] == name:
            raise Conflict(
                f"seccomp={RECORD}{path}: container {other.name} is recorded to this file",
                hint=f"choose another file, or wait until {other.name} has ended",
            )


def _recorded_now(own: str) -> Iterator[tuple[Record, Any]]:
    """(record, the directory of its FILE as `check` has found it) of each other container with a recorder."""
    try:
        ids = posix.listdir(RUN_CONTAINERS)
    except OSError:
        return  # ignoring: no container has ever run
    for one in ids:
        if one != own and not unix.unheard(f"{RUN_CONTAINERS}/{one}/{_SOCKET}"):
            try:
                found = store.load(one)
                yield found, _place_at_start(found)
            except SysboxError:
                pass  # ignoring: it is going, or damaged


def begin(record: Record) -> Callable[[int, int], None]:
    """Start the recorder of a container that is about to start; `Parked.on_listener` for it.

    Raises SpecError, KernelError, Conflict.
    """
    path = record.spec.security.recorded
    write_file(_beside(record), codec.dumps(check(path)))
    socket = _socket_of(record)
    unlink(socket)
    fds: list[int] = []
    try:
        fds.append(unix.bind(socket, _socket.SOCK_DGRAM).detach())
        # of two that start at once, one at least sees the socket of the other
        check_free(path, record.id)
        fds.append(_open_table(_table(record)))
        _spawn(*fds)
    except OSError as error:
        raise KernelError.of("start", "the recorder of system calls", error) from None
    finally:
        for fd in fds:
            posix.close(fd)
    return join(record)


def _open_table(path: str) -> int:
    """The table, with what an earlier run has noted in it. Raises KernelError.

    Its blocks are allocated now: the recorder, which has it mapped, would be killed where the disk is full
    later. posix_fallocate(3) writes where the file system cannot do it otherwise.
    """
    flags = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = -1
    try:
        fd = posix.open(path, flags, 0o600)
        posix.posix_fallocate(fd, 0, SIZE + _MARK)
    except OSError as error:
        if fd >= 0:
            posix.close(fd)
        hint = ""
        if error.errno == errno.EFBIG:
            hint = f"it has {SIZE + _MARK} bytes: raise `ulimit -f`, or LimitFSIZE= of a service"
        number = error.errno or errno.EIO
        raise KernelError("make the recorder's table", path, number, hint=hint) from None
    return fd


def _spawn(socket: int, table: int) -> None:
    """Execute the recorder, which has nothing of the caller's: neither its streams nor its signals."""
    for fd in (socket, table):
        posix.set_inheritable(fd, True)
    program = f"{LIBEXEC}/sysbox-recorder"
    null = [(posix.POSIX_SPAWN_OPEN, 0, "/dev/null", posix.O_RDWR, 0)]
    posix.posix_spawn(
        program,
        ["sysbox-recorder", str(socket), str(table), str(posix.getpid())],
        {},
        file_actions=[*null, (posix.POSIX_SPAWN_DUP2, 0, 1), (posix.POSIX_SPAWN_DUP2, 0, 2)],
        setsigmask=(),
        setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ),
    )


def join(record: Record) -> Callable[[int, int], None]:
    """`Parked.on_listener` for a process of `exec`, which the container's recorder records too.

    It raises StartError where the recorder has ended.
    """

    def pass_on(fd: int, _pid: int) -> None:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            socket.sendmsg([b"L"], [rights], _socket.MSG_NOSIGNAL, _socket_of(record))
        except OSError as error:
            raise StartError(
                f"the recorder of its system calls has ended: {posix.strerror(error.errno or 0)}",
                phase="process",
                hint=f"`sysbox stop {record.name}`: without the recorder its system calls fail with ENOSYS",
            ) from None
        finally:
            socket.close()

    return pass_on


def is_gone(record: Record) -> bool:
    """Whether the recorder has ended; for who sees the container end. `unrecorded` of src/monitor.c."""
    return unix.unheard(_socket_of(record)) == errno.ECONNREFUSED


def finish(record: Record, final: Final, *, lacking: bool) -> Final:
    """Write the profile of a container that has ended; the end, with why that failed if it did.

    `lacking` is whether the recorder was gone by then. What is wrong goes to the journal too: with --rm
    nobody can ask for the end.
    """
    wrong = _finish(record)
    if not wrong and lacking and _is_marked(record):
        path = record.spec.security.recorded
        wrong = f"the recorder ended before the container: {path} is incomplete"
    if wrong:
        events.warn(f"container {record.name}: {wrong}", record)
    return final.replace(error="; ".join(one for one in (final.error, wrong) if one))


def _is_marked(record: Record) -> bool:
    """Whether the recorder was killed."""
    try:
        return posix.stat(_table(record)).st_size > SIZE
    except OSError:
        return False  # the start has not come so far


def _finish(record: Record) -> str:
    """Why the profile could not be written, "" if it was.

    A container that starts again goes on with its table, so its profile has the calls of all its runs.
    """
    path = record.spec.security.recorded
    try:
        words = read_file(_table(record), SIZE + _MARK)
        if words is None:
            return ""  # it has not come so far
        from sysbox.security import recorded

        calls = {(word >> 32, word & 0xFFFFFFFF) for word in memoryview(words).cast("Q") if word}
        if not calls:
            return ""
        text = recorded.profile_of(calls, privileged=record.spec.security.privileged)
        _put(path, text, _place_at_start(record))
    except OSError as error:
        return f"cannot write the profile {path}: {posix.strerror(error.errno or 0)}"
    except (SysboxError, TypeError, ValueError) as error:
        return f"cannot write the profile {path}: {error}"
    return ""


def _put(path: str, text: bytes, expected: list[Any]) -> None:
    """Replace the file as a whole, in the directory that it was at the start: a container may share that."""
    directory = _open_directory(path)
    try:
        # two numbers are of a container that an older version has started
        if not expected or _place(directory)[: len(expected)] != expected:
            raise FormatError("its directory is not the one of the start any more")
        temporary = f".sysbox-{posix.urandom(8).hex()}"
        fd = posix.open(
            temporary,
            posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC,
            0o600,
            dir_fd=directory,
        )
        try:
            write_all(fd, text)
            posix.fchmod(fd, 0o644)
            posix.rename(
                temporary, path.rpartition("/")[2], src_dir_fd=directory, dst_dir_fd=directory
            )
        except BaseException:
            posix.unlink(temporary, dir_fd=directory)
            raise
        finally:
            posix.close(fd)
    finally:
        posix.close(directory)


def _open_directory(path: str) -> int:
    above = path.rpartition("/")[0] or "/"
    return posix.open(above, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)


def _place(directory: int) -> list[Any]:
    """Device, inode, handle and time of birth (nanoseconds, 0 is unknown) of a directory.

    Another gets the inode once it is removed: the handle has a generation too (open_by_handle_at(2)), but not
    every file system has handles.
    """
    return [*identity(directory), _handle(directory), _sys.birth_time(directory)]


def _place_at_start(record: Record) -> Any:
    """What `begin` has noted; None where it has not. Raises FormatError."""
    return codec.loads(read_file(_beside(record)) or b"null", "calls.json")


def _handle(directory: int) -> str:
    try:
        return _sys.file_handle(directory).hex()
    except OSError:
        return ""  # ignoring: the file system has none


def _table(record: Record) -> str:
    return f"{record.directory}/calls"


def _beside(record: Record) -> str:
    """Which directory the file was in at the start."""
    return f"{record.directory}/calls.json"


def _socket_of(record: Record) -> str:
    return f"{record.run_directory}/{_SOCKET}"
