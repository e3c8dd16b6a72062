"""Processes: identity by pid and start time, signals, resource limits, descriptors, running a program."""

from __future__ import annotations

import _signal
import errno
import fcntl
import posix

from sysbox.base.errors import KernelError
from sysbox.linux import _sys

# EACCES: with hidepid= (proc(5)) a process of another user looks as if it did not exist
_GONE = (errno.ENOENT, errno.ESRCH, errno.EACCES)

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PID_LIMIT = 1 << 31  # pid_t: every pid is smaller

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
_PIPE_HOLDS = 1 << 16  # bytes, by default (pipe(7))
# Fields 3, 9 and 22 of proc_pid_stat(5), counted after the command's name.
_STATE, _FLAGS, _START_TIME = 0, 6, 19
_PF_FORKNOEXEC = 0x40  # of the flags (the kernel's include/linux/sched.h)


def _stat_fields(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat after the name, which may hold spaces and parentheses; [] if it has ended.

    Raises KernelError for other errors: callers clean up after a process that has ended.
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
        if error.errno in _GONE:  # it ended between open and read
            return []
        raise KernelError.of("read", path, error) from None
    finally:
        posix.close(fd)


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot; 0 if it has ended. Raises KernelError.

    Together with the pid it identifies a process, since the kernel reuses pids.
    """
    fields = _stat_fields(pid)
    return int(fields[_START_TIME]) if fields else 0


def is_fork(pid: int) -> bool:
    """Whether a process, or a zombie, was forked and has not called execve(2); False if it does not exist."""
    fields = _stat_fields(pid)
    return bool(fields) and bool(int(fields[_FLAGS]) & _PF_FORKNOEXEC)


def alive(pid: int, start: int) -> bool:
    """Whether the process that was `pid` and started at `start` still runs; a zombie does not."""
    fields = _stat_fields(pid)
    return bool(fields) and int(fields[_START_TIME]) == start and fields[_STATE] not in (b"Z", b"X")


# pid -> its pid namespace, in which it stays, but not its children; `ps` asks once for each container
_pid_namespaces: dict[int, int] = {}


def pid_namespace() -> int:
    """The inode of the caller's pid namespace (pid_namespaces(7)). Raises KernelError."""
    path, pid = "/proc/self/ns/pid", posix.getpid()
    if pid not in _pid_namespaces:
        try:
            _pid_namespaces[pid] = posix.stat(path).st_ino
        except OSError as error:
            raise KernelError.of("look at", path, error) from None
    return _pid_namespaces[pid]


def pidfd(pid: int) -> int:
    """A pidfd, which refers to this process even if its pid is reused. Raises KernelError (ESRCH)."""
    try:
        return posix.pidfd_open(pid)
    except OSError as error:
        raise KernelError.of("open process", str(pid), error) from None


def send(pidfd: int, signal: int) -> bool:
    """Send a signal; False if the process has ended. Raises KernelError."""
    try:
        _signal.pidfd_send_signal(pidfd, signal)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise KernelError.of("send signal", str(signal), error) from None
    return True


def set_rlimit(name: str, soft: int, hard: int) -> None:
    """Set a resource limit of this process; -1 is unlimited. `name` as in RLIMITS. Raises KernelError."""
    try:
        _sys.prlimit(0, RLIMITS[name], (soft, hard))
    except OSError as error:
        target = f"{name} to {soft}:{hard}"
        raise KernelError.of("set the resource limit", target, error) from None


def raise_limits(limits: tuple[tuple[str, int, int], ...]) -> None:
    """Raise this process's hard limits to those of (name, soft, hard), where they are lower.

    A process of another user namespace may lower them only. Raises KernelError.
    """
    for name, asked, hard in limits:
        soft, most = _sys.prlimit(0, RLIMITS[name], None)
        if most == -1 or -1 < hard <= most:
            continue
        try:
            _sys.prlimit(0, RLIMITS[name], (soft, hard))
        except OSError as error:
            target = f"{name} to {asked}:{hard}"
            hint = f"more than {most} takes CAP_SYS_RESOURCE, nofile no more than fs.nr_open in any case"
            number = error.errno or errno.EIO
            hint = hint if number == errno.EPERM else ""
            raise KernelError("set the resource limit", target, number, hint=hint) from None


def set_rlimit_of(pid: int, name: str, soft: int, hard: int) -> None:
    """`set_rlimit` for another process; one that has ended is success. Raises KernelError."""
    try:
        _sys.prlimit(pid, RLIMITS[name], (soft, hard))
    except ProcessLookupError:
        return
    except OSError as error:
        target = f"{name} of process {pid} to {soft}:{hard}"
        raise KernelError.of("set the resource limit", target, error) from None


def set_oom_score_adj(pid: int, value: int) -> None:
    """Set oom_score_adj (proc(5)) of a process and its future children; `pid` 0 is this process.

    -1000 (never killed for lack of memory) to 1000. Raises KernelError unless `value` is 0: the kernel
    refuses 0 only where the process has a higher number and the caller lacks CAP_SYS_RESOURCE; it stays.
    """
    path = f"/proc/{pid or 'self'}/oom_score_adj"
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            posix.write(fd, b"%d" % value)
        finally:
            posix.close(fd)
    except (FileNotFoundError, ProcessLookupError):
        return  # the process has ended
    except OSError as error:
        if value:
            hint = "a value below the caller's own needs CAP_SYS_RESOURCE"
            raise KernelError(
                "set --oom-score-adj", str(value), error.errno or 0, hint=hint
            ) from None


def rlimit_of(pid: int, name: str) -> tuple[int, int] | None:
    """(soft, hard) of a process, -1 for unlimited; None if it has ended or the kernel denies it."""
    try:
        return _sys.prlimit(pid, RLIMITS[name], None)
    except OSError:
        return None


def reset_signals() -> None:
    """Set every signal to its default action and unblock all: execve(2) keeps ignored and blocked ones.

    For a child before its execve(2) or its end: the interpreter is not told.
    """
    _sys.default_signals()


def close_fds_except(keep: set[int]) -> None:
    """Close every descriptor above 2 except `keep`."""
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
    stderr: int = -1,
) -> tuple[int, bytes]:
    """Run a program to its end. Returns (exit status as a shell has it, its standard output).

    argv[0] is searched for on the PATH of CLEAN_ENVIRONMENT, unless it is a path. `env` None is
    CLEAN_ENVIRONMENT; without `stdin` the program reads /dev/null; its standard error is the caller's unless
    merged, or the descriptor `stderr` is given. Raises KernelError if it cannot be started.
    """
    given = _filled_pipe(stdin) if stdin is not None else posix.open("/dev/null", posix.O_RDONLY)
    output, end = posix.pipe()
    actions = [(posix.POSIX_SPAWN_DUP2, given, 0), (posix.POSIX_SPAWN_DUP2, end, 1)]
    errors = end if merge_stderr else stderr
    actions += [(posix.POSIX_SPAWN_DUP2, errors, 2)] * (errors >= 0)
    try:
        pid = posix.posix_spawn(
            find_program(argv[0]),
            argv,
            CLEAN_ENVIRONMENT if env is None else env,
            file_actions=actions,
            setsigmask=(),
            # Python ignores these two, and the program would inherit that
            setsigdef=(_signal.SIGPIPE, _signal.SIGXFSZ),
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
    """The path of a program of the host; the name itself if there is none, so that execve reports it."""
    if "/" in name:
        return name
    for directory in CLEAN_ENVIRONMENT["PATH"].split(":"):
        if posix.access(f"{directory}/{name}", posix.X_OK):
            return f"{directory}/{name}"
    return name


def shell_status(wait_status: int) -> int:
    """The exit code in a wait status of waitpid(2), or 128 plus the signal."""
    code = posix.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def _filled_pipe(content: bytes) -> int:
    """The read end of a pipe that holds all of `content`. Raises KernelError.

    A pipe and not a memfd: SELinux lets a confined program such as iptables read its caller's pipe, but not
    its caller's files; in place of a file it silently gets /dev/null.
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
