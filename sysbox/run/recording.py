"""Record the system calls of a container, for a profile that allows these alone (`seccomp=record:FILE`).

A filter that comes before the container's own asks a process beside the container, the recorder
(src/recorder.c), about each call that its own would allow; the recorder notes the call, and it goes on. So
none is missed. What it notes is a table in a file beside the record, which outlives the recorder: when the
container has ended, whoever records that end makes the profile.
"""

from __future__ import annotations

import _signal
import _socket
import _stat
import errno
import posix
import sys

from sysbox.base import codec
from sysbox.base.errors import FormatError, KernelError, SpecError, StartError, SysboxError
from sysbox.base.files import identity, read_file, unlink, write_all, write_file
from sysbox.base.paths import LIBEXEC
from sysbox.linux import unix
from sysbox.spec import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.records import Final, Record

WORDS = 16384  # of 64 bits, as in src/recorder.c
SIZE = WORDS * 8
_HINT = "stop it: without the recorder, its system calls fail with ENOSYS"


def check(path: str) -> tuple[int, int]:
    """The (device, inode) of the directory of FILE. Raises SpecError where no profile could be written."""
    where = f"seccomp={RECORD}{path}"
    try:
        directory = _open_directory(path)
    except OSError as error:
        raise SpecError(f"{where}: its directory: {posix.strerror(error.errno or 0)}") from None
    try:
        if not posix.access(".", posix.W_OK, dir_fd=directory):
            raise SpecError(f"{where}: its directory cannot be written")
        found = posix.stat(path.rpartition("/")[2], dir_fd=directory, follow_symlinks=False)
        if not _stat.S_ISREG(found.st_mode) and not _stat.S_ISLNK(found.st_mode):
            raise SpecError(f"{where}: not a regular file")
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise SpecError(f"{where}: {posix.strerror(error.errno or 0)}") from None
    finally:
        posix.close(directory)
    return _identity(path)


def begin(record: Record) -> Callable[[int, int], None]:
    """Start the recorder of a container that is about to start; `Parked.on_listener` for it.

    Raises SpecError, KernelError.
    """
    device, inode = check(record.spec.security.recorded)
    write_file(_beside(record), codec.dumps([device, inode]))
    path = _socket_of(record)
    unlink(path)
    fds: list[int] = []
    try:
        table = posix.open(
            _table(record), posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC, 0o600
        )
        fds.append(table)
        posix.ftruncate(table, SIZE)
        fds.append(unix.bind(path, _socket.SOCK_DGRAM).detach())
        _spawn(fds[1], table)
    except OSError as error:
        raise KernelError.of("start", "the recorder of system calls", error) from None
    finally:
        for fd in fds:
            posix.close(fd)
    return join(record)


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
    """`Parked.on_listener` for a process of `exec`, which the container's recorder records too."""

    def pass_on(fd: int, _pid: int) -> None:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
        socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            socket.sendmsg([b"L"], [rights], _socket.MSG_NOSIGNAL, _socket_of(record))
        except OSError as error:
            raise StartError(
                f"the recorder of its system calls has ended: {posix.strerror(error.errno or 0)}",
                phase="process",
                hint=_HINT,
            ) from None
        finally:
            socket.close()

    return pass_on


def finish(record: Record, final: Final) -> Final:
    """Write the profile of a container that has ended; the end, with why that failed if it did."""
    wrong = _finish(record)
    return final.replace(error=final.error or wrong)


def _finish(record: Record) -> str:
    """Why the profile could not be written, "" if it was.

    A container that starts again goes on with its table, so its profile has the calls of all its runs.
    """
    path = record.spec.security.recorded
    try:
        words = read_file(_table(record), SIZE)
        if words is None:
            return ""  # it has not come so far
        from sysbox.security import recorded

        calls = {(word >> 32, word & 0xFFFFFFFF) for word in memoryview(words).cast("Q") if word}
        if not calls:
            return ""
        text = recorded.profile_of(calls, privileged=record.spec.security.privileged)
        device, inode = codec.loads(read_file(_beside(record)) or b"null", "calls.json")
        _put(path, text, (device, inode))
    except OSError as error:
        return f"cannot write the profile {path}: {posix.strerror(error.errno or 0)}"
    except (SysboxError, TypeError, ValueError) as error:
        return f"cannot write the profile {path}: {error}"
    return ""


def _put(path: str, text: bytes, expected: tuple[int, int]) -> None:
    """Replace the file as a whole, in the directory that it was at the start: a container may share that."""
    directory = _open_directory(path)
    try:
        if identity(directory) != expected:
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
        except OSError:
            posix.unlink(temporary, dir_fd=directory)
            raise
        finally:
            posix.close(fd)
    finally:
        posix.close(directory)


def _open_directory(path: str) -> int:
    above = path.rpartition("/")[0] or "/"
    return posix.open(above, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)


def _identity(path: str) -> tuple[int, int]:
    directory = _open_directory(path)
    try:
        return identity(directory)
    finally:
        posix.close(directory)


def _table(record: Record) -> str:
    return f"{record.directory}/calls"


def _beside(record: Record) -> str:
    """Which directory the file was in at the start."""
    return f"{record.directory}/calls.json"


def _socket_of(record: Record) -> str:
    return f"{record.run_directory}/recorder"
