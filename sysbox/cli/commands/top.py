"""`sysbox top`: the processes of a container, with the host's pids and the container's users."""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import NOT_FOUND, Conflict, SysboxError, UsageError
from sysbox.cli.output import emit, table
from sysbox.container import store
from sysbox.host import probe, read_text
from sysbox.linux import _sys, mount, namespace, process, userns
from sysbox.run.process import read_database

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sysbox.cli.table.options import Values
    from sysbox.container.records import Record, Runtime
    from sysbox.linux.userns import IdMap

_TITLES = ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")  # of `ps -f`, docker's default
_PTS = range(136, 144)  # major numbers of /dev/pts (the kernel's admin-guide/devices.txt)
_NO_TERMINAL = "?"
_NAME = 32  # characters of a user's name that are shown


def main(values: Values) -> int:
    """0. Raises Conflict if the container does not run."""
    if values.verb.name == "pod top":
        return _pod(values)
    record = store.find(values.container)
    run = _running(record)
    if run is None:
        raise Conflict(f"container {record.name} is not running")
    return _print(((record, run),), list(values.ps_option))


def _pod(values: Values) -> int:
    from sysbox.container import pods

    name = pods.resolve(values.pod)
    runs = [(one, run) for one in pods.records_of(name) if (run := _running(one))]
    if not runs:
        raise Conflict(f"no container of pod {name} runs")
    return _print(runs, list(values.ps_option))


def _running(record: Record) -> Runtime | None:
    run = store.runtime(record.id)
    return run if run is not None and run.started_ns and run.alive() else None


def _print(runs: Sequence[tuple[Record, Runtime]], options: list[str]) -> int:
    """Those of containers in one user namespace."""
    hierarchy = probe().controllers["name=systemd"]
    pids = [_pids(f"{hierarchy}{run.cgroup}") for _, run in runs]
    if options:
        record, run = runs[0]
        emit(_ps(options, set().union(*pids), run if record.uids else None))
        return 0
    rows = []
    for (record, run), some in zip(runs, pids, strict=True):
        users = _users(_own_passwd(run) if record.uids else read_text("/etc/passwd"))
        rows += [row for pid in sorted(some) if (row := _row(pid, users, record.uids))]
    emit(table([_TITLES, *rows]))
    return 0


def _pids(directory: str) -> set[int]:
    """The pids in a cgroup and in all cgroups below it."""
    found: set[int] = set()
    waiting = [directory]
    while waiting:
        one = waiting.pop()
        found.update(int(line) for line in read_text(f"{one}/cgroup.procs").split())
        try:
            with posix.scandir(one) as entries:
                waiting += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # the cgroup was just removed, or its path is longer than PATH_MAX
    return found - {0}  # 0 stands for a process outside of this pid namespace


def _own_passwd(run: Runtime) -> str:
    """The accounts of a container with a user namespace of its own; "" if it has just ended."""
    flags = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
    try:
        root = posix.open(f"/proc/{run.pid}/root", flags)
    except (FileNotFoundError, ProcessLookupError):
        return ""
    procfs = mount.open_procfs()
    try:
        if not run.alive():
            return ""  # another process has the pid by now
        return read_database(root, procfs, "/etc/passwd").decode("utf-8", "surrogateescape")
    finally:
        posix.close(root)
        posix.close(procfs)


def _users(passwd: str) -> dict[int, str]:
    """Uid -> name, the first of each. A container in the host's user namespace has the host's accounts."""
    found: dict[int, str] = {}
    for fields in (line.split(":") for line in passwd.split("\n")):
        # an image may have any file there: a name that would break the columns is none
        if len(fields) > 3 and len(fields[0].split()) == 1 and _is_id(fields[2]):
            found.setdefault(int(fields[2]), fields[0][:_NAME])
    return found


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 10


def _row(pid: int, users: dict[int, str], uids: tuple[IdMap, ...]) -> tuple[str, ...] | None:
    """One line of ps(1), from proc_pid_stat(5); None if the process has just ended."""
    head, _, rest = read_text(f"/proc/{pid}/stat").rpartition(")")
    fields = rest.split()  # the first is the state, field 3
    try:
        uid = userns.inside(uids, posix.stat(f"/proc/{pid}").st_uid)
    except FileNotFoundError:
        return None
    if not fields:
        return None
    hertz = posix.sysconf("SC_CLK_TCK")
    used = (int(fields[11]) + int(fields[12])) / hertz
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + int(fields[19]) / hertz
    elapsed = time.time() - started
    seconds = int(used)
    command = read_text(f"/proc/{pid}/cmdline").rstrip("\0").replace("\0", " ")
    return (
        users.get(uid, str(uid)),
        str(pid),
        fields[1],
        str(min(int(100 * used / elapsed), 99) if elapsed > 0 else 0),
        _started(started),
        _terminal(int(fields[4])),
        f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
        (command or f"[{head.partition('(')[2]}]").replace("\n", " "),
    )


def _started(moment: float) -> str:
    """As ps(1) prints it: the time if today, the date if this year, else the year."""
    then, now = time.localtime(moment), time.localtime()
    if then.tm_year != now.tm_year:
        return time.strftime("%Y", then)
    return time.strftime("%H:%M" if then.tm_yday == now.tm_yday else "%b%d", then)


def _terminal(number: int) -> str:
    """The terminal of a device number; the minor's upper bits are above the major (proc_pid_stat(5))."""
    major, minor = number >> 8 & 0xFFF, number & 0xFF | number >> 12 & 0xFFF00
    if major in _PTS:
        return f"pts/{(major - _PTS[0]) * 256 + minor}"
    return f"tty{minor}" if major == 4 else _NO_TERMINAL


def _ps(options: list[str], pids: Iterable[int], mapped: Runtime | None) -> str:
    """The output of the host's ps(1) with these options, for these processes only.

    For a container with a user namespace of its own, `mapped`, ps runs there: the kernel shows each process
    the ids of its user namespace. Options such as -e select more than -p names, so the lines are filtered
    too, as docker does.
    """
    wanted = ",".join(map(str, sorted(pids)))
    words = ["ps", *options, "-p", wanted]
    status, output = _spawn_mapped(words, mapped) if mapped else process.spawn(words)
    lines = output.decode("utf-8", "surrogateescape").splitlines()
    if status or not lines:
        raise SysboxError(f"ps {' '.join(options)}: failed with status {status}", status=1)
    titles = lines[0].split()
    if "PID" not in titles:
        raise UsageError(
            "ps prints no column PID with these options", hint="add it: `-o pid,args` for example"
        )
    at = titles.index("PID")
    texts = {str(pid) for pid in pids}
    kept = [line for line in lines[1:] if line.split()[at : at + 1] and line.split()[at] in texts]
    return "".join(f"{line}\n" for line in [lines[0], *kept])


def _spawn_mapped(words: list[str], run: Runtime) -> tuple[int, bytes]:
    """`process.spawn` in the user namespace of a container, outside of all its other namespaces.

    Nothing in the container can see the process. Raises Conflict, KernelError.
    """
    program = process.find_program(words[0])
    init = process.pidfd(run.pid)
    if not run.alive():
        raise Conflict("the container has just ended")
    output, end = posix.pipe()
    pid, pidfd = _sys.clone3(0)
    if pid == 0:
        try:
            _sys.setns(init, namespace.CLONE_NEWUSER)
            # root there, which can see its processes with hidepid= too (proc(5))
            posix.setgroups([])
            posix.setresgid(0, 0, 0)
            posix.setresuid(0, 0, 0)
            posix.dup2(posix.open("/dev/null", posix.O_RDONLY), 0)
            posix.dup2(end, 1)
            process.reset_signals()
            posix.execve(program, words, process.CLEAN_ENVIRONMENT)
        except OSError as error:
            posix.write(2, f"sysbox: {program}: {error.strerror}\n".encode())
        finally:
            posix._exit(NOT_FOUND)
    for fd in (end, init, pidfd):
        posix.close(fd)
    with open(output, "rb") as file:
        data = file.read()
    return process.shell_status(posix.waitpid(pid, 0)[1]), data
