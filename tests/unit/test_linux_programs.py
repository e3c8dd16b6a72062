"""The three C programs: the monitor beside a container, the init inside one, the launcher on PATH."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pty
import py_compile
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.base.paths import LIBEXEC
from sysbox.base.wait import until

MONITOR, INIT = f"{LIBEXEC}/sysbox-monitor", f"{LIBEXEC}/sysbox-init"
LAUNCHER = Path(sys.executable).parent / "sysbox"


def start(directory: Path, payload: Callable[[], None], *arguments: object) -> int:
    """A process that forks `payload` and becomes its monitor, as sysbox does."""
    monitor = os.fork()
    if monitor:
        return monitor
    # what comes before the monitor listens waits for it
    early = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    signal.pthread_sigmask(signal.SIG_BLOCK, early)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, early)
        try:
            payload()
        finally:
            os._exit(99)
    command = ["sysbox-monitor", "--pid", str(child), "--dir", str(directory), *map(str, arguments)]
    os.execv(MONITOR, command)
    raise AssertionError("execv does not return")


def finish(monitor: int, directory: Path) -> tuple[int, dict[str, object]]:
    """The monitor's own status, and what it wrote down."""
    status = os.waitstatus_to_exitcode(os.waitpid(monitor, 0)[1])
    return status, json.loads((directory / "exit").read_text())


def ready(directory: Path) -> None:
    """Wait until the payload has told that it is set up."""
    deadline = time.monotonic() + 10
    while not (directory / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def settled(monitor: int) -> None:
    """Wait until it is the monitor's own program, and waits itself."""
    deadline = time.monotonic() + 30
    while True:
        status = Path(f"/proc/{monitor}/status").read_text()
        if status.startswith("Name:\tsysbox-monitor\n") and "\nState:\tS" in status:
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.01)


def test_monitor_records_code_and_signal(tmp_path: Path) -> None:
    before = time.time_ns()
    status, ended = finish(start(tmp_path, lambda: os._exit(3)), tmp_path)
    assert (status, ended["code"], ended["signal"], ended["oom"]) == (3, 3, 0, False)
    assert before <= ended["finished"] <= time.time_ns()  # type: ignore[operator]
    status, ended = finish(start(tmp_path, lambda: signal.raise_signal(signal.SIGKILL)), tmp_path)
    assert (status, ended["code"], ended["signal"]) == (137, 137, 9)
    assert sorted(os.listdir(tmp_path)) == ["exit"]


def test_monitor_reports_what_the_files_of_a_cgroup_said_last(tmp_path: Path) -> None:
    """As they are at the end, fit for JSON; without those that cannot be read, and too long ones."""
    begin, end = os.pipe()
    (tmp_path / "cpu.stat").write_text("usage_usec 1\n")
    (tmp_path / "io.stat").write_text("8:0 rbytes=1\n" * 1000)
    flags = ["--report", "memory.peak", str(end)]
    for name in ("cpu.stat", "io.stat"):
        file = os.open(tmp_path / name, os.O_RDONLY)
        os.set_inheritable(file, True)
        flags += ["--report", name, str(file)]
    monitor = start(tmp_path, lambda: os._exit(len(os.read(begin, 1))), *flags)
    (tmp_path / "cpu.stat").write_text('usage_usec 3\nodd "x\\y\t"\n')
    os.write(end, b"x")
    status, ended = finish(monitor, tmp_path)
    assert status == 1
    assert ended["usage"] == {"cpu.stat": "usage_usec 3\nodd xy\n"}


def test_monitor_passes_the_stop_signal_on(tmp_path: Path) -> None:
    def payload() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: os._exit(42))
        (tmp_path / "ready").touch()
        time.sleep(60)

    monitor = start(tmp_path, payload, "--stop-signal", int(signal.SIGUSR1), "--stop-timeout", 30)
    ready(tmp_path)
    for harmless in (signal.SIGHUP, signal.SIGINT):
        os.kill(monitor, harmless)
    os.kill(monitor, signal.SIGTERM)
    status, ended = finish(monitor, tmp_path)
    assert (status, ended["code"]) == (0, 42)  # for the service it is no failure


def test_monitor_kills_after_the_timeout(tmp_path: Path) -> None:
    def payload() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "ready").touch()
        time.sleep(60)

    monitor = start(tmp_path, payload, "--stop-signal", int(signal.SIGTERM), "--stop-timeout", 1)
    ready(tmp_path)
    asked = time.monotonic()
    os.kill(monitor, signal.SIGTERM)
    status, ended = finish(monitor, tmp_path)
    assert (status, ended["code"]) == (0, 137)
    assert 0.9 <= time.monotonic() - asked < 10


def messages(datagram: bytes) -> list[bytes]:
    """The texts of the entries of a datagram of journald's native protocol."""
    found, rest = [], datagram
    while rest and not rest.startswith(b"#"):
        field, _, rest = rest.partition(b"\n")
        if field == b"MESSAGE":
            size = int.from_bytes(rest[:8], "little")
            found.append(rest[8 : 8 + size])
            rest = rest[8 + size + 1 :]
    return found


def test_monitor_copies_a_terminal_to_the_journal(tmp_path: Path) -> None:
    """All of it, through a reader that is slower, and across a moment when nobody has the terminal open."""
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    ours, journal = socket.socketpair(type=socket.SOCK_DGRAM)
    for fd in (master, journal.fileno()):
        os.set_inheritable(fd, True)

    def payload() -> None:
        signal.alarm(60)  # nobody reads what it writes, if the terminal has hung up
        os.close(master)
        os.close(slave)
        os.setsid()
        for _ in range(2):
            terminal = os.open(name, os.O_WRONLY | os.O_NOCTTY)
            for _ in range(500):
                os.write(terminal, b"x" * 99 + b"\n")
            os.close(terminal)
            time.sleep(0.1)
        os._exit(5)

    log = ("--journal", journal.fileno(), "payload", 0, 0)
    monitor = start(tmp_path, payload, "--terminal", master, "--pump", master, *log)
    os.close(slave)
    os.close(master)
    journal.close()
    received: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(ConnectionResetError):  # the other end of a pair has gone
            while not (datagram := ours.recv(1 << 16)).startswith(b"#"):
                received.extend(messages(datagram))

    reader = threading.Thread(target=read)
    reader.start()
    assert finish(monitor, tmp_path)[0] == 5
    reader.join(10)
    assert received == [b"x" * 99 + b"\r"] * 1000
    ours.close()


def test_monitor_outlives_its_journal(tmp_path: Path) -> None:
    ours, journal = socket.socketpair(type=socket.SOCK_DGRAM)
    read_end, write_end = os.pipe()
    for fd in (read_end, journal.fileno()):
        os.set_inheritable(fd, True)
    ours.close()

    def payload() -> None:
        for _ in range(100):
            os.write(write_end, b"y" * 4096)  # more than a pipe holds: this blocks if nobody reads
        os._exit(6)

    log = ("--journal", journal.fileno(), "payload", 0, 0)
    monitor = start(tmp_path, payload, "--pump", read_end, *log)
    os.close(read_end)
    os.close(write_end)
    journal.close()
    assert finish(monitor, tmp_path)[0] == 6


def test_monitor_is_small_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert Path(MONITOR).stat().st_size < 1 << 20
    done = subprocess.run([MONITOR, "--pidd", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 125
    assert "--pidd" in done.stderr
    begin, end = os.pipe()
    monitor = start(tmp_path, lambda: os._exit(len(os.read(begin, 1))))
    settled(monitor)
    with open(f"/proc/{monitor}/smaps_rollup") as file:
        rss = next(int(line.split()[1]) for line in file if line.startswith("Rss:"))
    os.write(end, b"x")
    finish(monitor, tmp_path)
    os.close(begin)
    os.close(end)
    assert rss < 1024, f"{rss} KiB resident"


def run_init(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INIT, "/bin/sh", "-c", script], capture_output=True, text=True, check=False, timeout=30
    )


def test_init_passes_the_status_on() -> None:
    assert run_init("exit 7").returncode == 7
    assert run_init("kill -TERM $$").returncode == 143
    assert subprocess.run([INIT, "/nowhere"], capture_output=True, check=False).returncode == 127
    assert subprocess.run([INIT, "/etc/passwd"], capture_output=True, check=False).returncode == 126
    assert subprocess.run([INIT], capture_output=True, check=False).returncode == 125


def test_init_forwards_signals() -> None:
    script = "trap 'exit 21' USR1; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen([INIT, "/bin/sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(10) == 21
    process.stdout.close()


def test_init_reaps_orphans_as_pid_1() -> None:
    needs_root()
    # nobody else can: its parent has ended, and a zombie that is not reaped stays below /proc
    script = """
        orphan=$(sleep 0.05 >/dev/null & echo $!)
        for _ in $(seq 200); do [ -e /proc/$orphan ] || exit 7; sleep 0.05; done
    """
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", INIT, "/bin/sh", "-c", script],
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A prefix with the launcher, an interpreter of its own, and a package that reports."""
    version = f"python3.{sys.version_info.minor}"
    (tmp_path / "bin").mkdir()
    package = tmp_path / f"lib/{version}/site-packages/sysbox"
    package.mkdir(parents=True)
    (tmp_path / "bin/sysbox").write_bytes(LAUNCHER.read_bytes())
    (tmp_path / "bin/sysbox").chmod(0o755)
    (tmp_path / "bin/python3").symlink_to(os.path.realpath(sys.executable))
    return package / "_main.py"


def launch(main: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    main.write_text(source)
    command = [main.parents[4] / "bin/sysbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_launcher_is_isolated_and_passes_arguments(installation: Path) -> None:
    source = "import sys; f = sys.flags; print([f.isolated, f.no_site, f.utf8_mode, *sys.argv[1:]])"
    done = launch(installation, source, "run", "--x", "a b", "")
    prefix = installation.parents[4]
    assert done.stdout.strip() == str([1, 1, 1, f"{prefix}/bin/sysbox", "run", "--x", "a b", ""])


def test_launcher_prefers_the_compiled_file_of_its_interpreters_version(installation: Path) -> None:
    said = {}
    for minor in (sys.version_info.minor, sys.version_info.minor + 1):
        source = installation.with_name(f"{minor}.py")
        source.write_text(f"print('compiled for {minor}')")
        compiled = installation.with_name(f"_main.cpython-3{minor}.pyc")
        py_compile.compile(str(source), str(compiled), doraise=True)
        said[minor] = launch(installation, "print('source')").stdout
        compiled.unlink()
    assert list(said.values()) == [f"compiled for {sys.version_info.minor}\n", "source\n"]


def test_launcher_names_a_package_that_has_no_first_file(installation: Path) -> None:
    done = subprocess.run(
        [installation.parents[4] / "bin/sysbox"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 125
    assert done.stderr == (
        f"sysbox: cannot read the package's first file in {installation.parent}:"
        " No such file or directory\n"
    )


def test_launcher_follows_a_link_to_itself(installation: Path, tmp_path: Path) -> None:
    installation.write_text("import sys; print(sys.argv[1])")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "bin/sysbox")
    done = subprocess.run([tmp_path / "elsewhere"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tmp_path}/bin/sysbox"


def test_interpreter_cannot_be_overwritten(installation: Path) -> None:
    """CVE-2019-5736: a hostile process keeps /proc/PID/exe open and writes once nobody runs it."""
    needs_root()
    source = (
        "import posix\n"
        "fd = posix.open('/proc/self/exe', posix.O_PATH)\n"
        "posix.set_inheritable(fd, True)\n"
        "code = f'import os; os.open(\"/proc/self/fd/{fd}\", os.O_WRONLY)'\n"
        f"posix.execve({sys.executable!r}, ['python', '-c', code], posix.environ)\n"
    )
    copy = installation.parents[4] / "bin/python3"
    real = Path(os.path.realpath(sys.executable))
    copy.unlink()
    (copy.parent / real.name).write_bytes(real.read_bytes())
    (copy.parent / real.name).chmod(0o755)
    copy.symlink_to(real.name)
    standard_library = Path(os.__file__).parent
    for entry in standard_library.iterdir():
        target = installation.parents[2] / entry.name
        if not target.exists():
            target.symlink_to(entry)
    done = launch(installation, source)
    assert done.returncode == 1
    assert f"[Errno {errno.EROFS}]" in done.stderr, done.stderr


def test_launcher_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sysbox").write_bytes(LAUNCHER.read_bytes())
    (tmp_path / "sysbox").chmod(0o755)
    done = subprocess.run([tmp_path / "sysbox"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 125), "it may find the package that it was built for"
    if done.returncode:
        assert done.stderr.startswith("sysbox: ")


def test_monitor_gives_a_second_stop_no_more_time(tmp_path: Path) -> None:
    """However often it is asked, the first time counts: else it would never be killed."""

    def payload() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "ready").touch()
        time.sleep(60)

    monitor = start(tmp_path, payload, "--stop-signal", int(signal.SIGTERM), "--stop-timeout", 1)
    ready(tmp_path)
    for _ in range(200):
        if os.waitid(os.P_PID, monitor, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            break
        os.kill(monitor, signal.SIGTERM)
        time.sleep(0.1)
    else:
        os.kill(monitor, signal.SIGKILL)
    status, ended = finish(monitor, tmp_path)
    assert (status, ended["code"], ended["timeout"]) == (0, 137, True)


def test_a_health_check_heeds_signals(tmp_path: Path) -> None:
    """The monitor has them blocked, and a child inherits that."""
    begin, end = os.pipe()
    script, mask = tmp_path / "launcher", tmp_path / "mask"
    # no shell: dash unblocks what it has inherited
    script.write_text(
        f"#!{sys.executable} -IS\nimport os, signal\n"
        "blocked = [int(one) for one in signal.pthread_sigmask(signal.SIG_BLOCK, ())]\n"
        f"open('{mask}.new', 'w').write(str(blocked))\nos.rename('{mask}.new', '{mask}')\n"
    )
    script.chmod(0o755)
    health = ("--health", 10, 10, script, "a" * 64)
    monitor = start(tmp_path, lambda: os._exit(len(os.read(begin, 1))), *health)
    assert until(mask.exists, 30, 0.01)
    os.write(end, b"x")
    finish(monitor, tmp_path)
    assert mask.read_text() == "[]"
