"""Processes: who is still the same one, signals, resource limits, descriptors, running a program."""

from __future__ import annotations

import _signal
import errno
import fcntl
import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys

# with hidepid= (proc(5)) others' processes are as if they were not there
_GONE = (errno.ENOENT, errno.ESRCH, errno.EACCES)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PR_SET_CHILD_SUBREAPER = 36

# getrlimit(2) without RLIMIT_, lower case -> the kernel's number (include/uapi/asm-generic/resource.h)
RLIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8,
    "as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip

CLEAN_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}

_CLOSE_RANGE_CLOEXEC = 4
_LAST_FD = 0xFFFFFFFF
_PIPE_HOLDS = 1 << 16  # bytes, unless it is told otherwise
# Fields 3, 9 and 22 of proc_pid_stat(5), counted behind the command's name.
_STATE, _FLAGS, _START_TIME = 0, 6, 19
_PF_FORKNOEXEC = 0x40  # of the flags (the kernel's include/linux/sched.h)


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the name, which may hold spaces and parentheses; [] if gone.

    Raises KernelError where that cannot be told: what was taken for gone would be removed.
    """
    path = f"/proc/{pid}/stat"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise KernelError.of("open", path, error) from None
    try:
        return posix.read(fd, 4096).rpartition(b") ")[2].split()
    except OSError as error:
        if error.errno in _GONE:  # it went between open and read
            return []
        raise KernelError.of("read", path, error) from None
    finally:
        posix.close(fd)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot: with its pid, its identity. 0 if it is gone."""
    fields = _stat_fields(pid)
    return int(fields[_START_TIME]) if fields else 0


def is_fork(pid: int) -> bool:
    """Whether a process, dead or alive, has called no execve(2) since it was forked; False if it is gone."""
    fields = _stat_fields(pid)
    return bool(fields) and bool(int(fields[_FLAGS]) & _PF_FORKNOEXEC)


def alive(pid: int, start: int) -> bool:
    """Whether the process that was `pid` and started at `start` still runs; a zombie does not."""
    fields = _stat_fields(pid)
    return bool(fields) and int(fields[_START_TIME]) == start and fields[_STATE] not in (b"Z", b"X")


def pidfd(pid: int) -> int:
    """A handle that stays this process, whatever becomes of its number. Raises KernelError (ESRCH)."""
    try:
        return posix.pidfd_open(pid)
    except OSError as error:
        raise KernelError.of("open process", str(pid), error) from None


def send(pidfd: int, signal: int) -> bool:
    """Send a signal; False if the process has ended already. Raises KernelError."""
    try:
        _signal.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise KernelError.of("send signal", str(signal), error) from None
    return True


def set_rlimit(name: str, soft: int, hard: int) -> None:
    """Limit this process; -1 is unlimited. `name` as in RLIMITS. Raises KernelError."""
    try:
        _sys.prlimit(0, RLIMITS[name], (soft, hard))
    except OSError as error:
        target = f"{name} to {soft}:{hard}"
        raise KernelError.of("set the resource limit", target, error) from None


def set_rlimit_of(pid: int, name: str, soft: int, hard: int) -> None:
    """The same for another process; one that has ended is success. Raises KernelError."""
    try:
        _sys.prlimit(pid, RLIMITS[name], (soft, hard))
    except ProcessLookupError:
        return
    except OSError as error:
        target = f"{name} of process {pid} to {soft}:{hard}"
        raise KernelError.of("set the resource limit", target, error) from None


def set_oom_score_adj(pid: int, value: int) -> None:
    """How readily the kernel chooses a process, and what it forks, when memory is short; 0 is oneself.

    proc(5), oom_score_adj: -1000 (never) to 1000. Raises KernelError; 0 is not insisted on: where it is
    refused, somebody without CAP_SYS_RESOURCE would be less likely to be chosen than before.
    """
    path = f"/proc/{pid or 'self'}/oom_score_adj"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, b"%d" % value)
        finally:
            posix.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended
    except OSError as error:
        if value:
            hint = "a number below that of the caller needs CAP_SYS_RESOURCE"
            raise KernelError(
                "set --oom-score-adj", str(value), error.errno or 0, hint=hint
            ) from None


def rlimit_of(pid: int, name: str) -> tuple[int, int] | None:
    """(soft, hard) of a process, -1 for unlimited; None when it is gone or not ours to ask."""
    try:
        return _sys.prlimit(pid, RLIMITS[name], None)
    except OSError:
        return None


def reset_signals() -> None:
    """Default action for every signal, nothing blocked: execve(2) keeps what is ignored or blocked."""
    for number in _signal.valid_signals():
        if number not in (_signal.SIGKILL, _signal.SIGSTOP):
            _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def close_fds_except(keep: set[int]) -> None:
    """Close every descriptor above 2 that is not one of these."""
    first = 3
    for fd in sorted(fd for fd in keep if fd >= first):
        if fd > first:
            _sys.close_range(first, fd - 1, 0)
        first = fd + 1
    _sys.close_range(first, _LAST_FD, 0)


def close_fds_from(first: int, *, cloexec: bool = False) -> None:
    """Close all descriptors from `first` on, at once or (`cloexec`) at the next execve."""
    _sys.close_range(first, _LAST_FD, _CLOSE_RANGE_CLOEXEC if cloexec else 0)


def spawn(
    argv: list[str],
    env: dict[str, str] | None = None,
    stdin: bytes | None = None,
    *,
    merge_stderr: bool = False,
) -> tuple[int, bytes]:
    """Run a program to its end: (exit status as a shell has it, what it wrote to standard output).

    argv[0] is looked for on the administrator's PATH, unless it is a path. `env` None is a clean
    environment; without `stdin` it reads from /dev/null; standard error is ours unless merged.
    Raises KernelError if it cannot be started.
    """
    given = _filled_pipe(stdin) if stdin is not None else posix.open("/dev/null", posix.O_RDONLY)
    output, end = posix.pipe()
    actions = [(posix.POSIX_SPAWN_DUP2, given, 0), (posix.POSIX_SPAWN_DUP2, end, 1)]
    if merge_stderr:
        actions.append((posix.POSIX_SPAWN_DUP2, end, 2))
    try:
        pid = posix.posix_spawn(
            find_program(argv[0]),
            argv,
            CLEAN_ENVIRONMENT if env is None else env,
            file_actions=actions,
            setsigmask=(),
            setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ),  # the interpreter ignores these two
        )
    except OSError as error:
        posix.close(output)
        raise KernelError.of("execute", argv[0], error) from None
    finally:
        posix.close(given)
        posix.close(end)
    chunks = []
    while chunk := posix.read(output, 1 << 16):
        chunks.append(chunk)
    posix.close(output)
    return shell_status(posix.waitpid(pid, 0)[1]), b"".join(chunks)


def find_program(name: str) -> str:
    """The path of a program of the host's; the name itself if there is none, for execve's error."""
    if "/" in name:
        return name
    for directory in CLEAN_ENVIRONMENT["PATH"].split(":"):
        if posix.access(f"{directory}/{name}", posix.X_OK):
            return f"{directory}/{name}"
    return name


def shell_status(wait_status: int) -> int:
    """From waitpid's status: the exit code, or 128 plus the signal."""
    code = posix.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _filled_pipe(content: bytes) -> int:
    """The end to read of a pipe that holds all of `content`.

    Not a file in memory: SELinux lets a confined program such as iptables read its caller's pipe, but not its
    caller's files, and hands it /dev/null instead without an error. Raises KernelError.
    """
    reader, writer = posix.pipe()
    try:
        if len(content) > _PIPE_HOLDS:
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, len(content))
        posix.write(writer, content)
    except OSError as error:
        posix.close(reader)
        raise KernelError.of("fill", "a pipe", error) from None
    finally:
        posix.close(writer)
    return reader
