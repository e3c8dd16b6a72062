"""The monitor beside a detached container: the C program, on processes of a test's own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from forked import in_child
from monitored import MONITOR, finish, ready, settled, start

from sysbox.base.wait import until
from sysbox.linux import _sys
from sysbox.linux.namespace import CLONE_NEWNS


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


def test_monitor_has_told_of_a_kill_only_if_its_helper_has(tmp_path: Path) -> None:
    """The cgroup is gone before its counters are read: its eventfd alone tells of a kill, at the end."""
    gone, _ = os.pipe()  # pread(2) fails
    event = os.eventfd(2, os.EFD_NONBLOCK)
    for fd in (gone, event):
        os.set_inheritable(fd, True)
    helper = ["--helper", "/bin/true", "a" * 64]
    monitor = start(tmp_path, lambda: os._exit(7), *helper, "--oom", gone, event)
    _, ended = finish(monitor, tmp_path)
    assert (ended["oom"], ended["oom_told"]) == (True, False)


def test_monitor_stops_what_is_short_of_memory_once_the_kills_are_over(tmp_path: Path) -> None:
    """Each kill may take another one with it; a process that gets the signal earlier may be the next."""
    kills = tmp_path / "memory.oom_control"
    kills.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    file, event = os.open(kills, os.O_RDONLY), os.eventfd(0, os.EFD_NONBLOCK)
    for fd in (file, event):
        os.set_inheritable(fd, True)
    counted = []

    def payload() -> None:
        signal.signal(signal.SIGTERM, lambda *_: counted.append(int(kills.read_text().split()[-1])))
        (tmp_path / "ready").touch()
        while not counted:
            time.sleep(0.01)
        time.sleep(0.5)
        os._exit(counted[0] if len(counted) == 1 else 100 + len(counted))

    monitor = start(tmp_path, payload, "--oom-policy", "stop", "--oom", file, event)
    ready(tmp_path)
    settled(monitor)
    for number in (1, 2, 3):
        kills.write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {number}\n")
        os.eventfd_write(event, 1)
        time.sleep(0.01)
    status, ended = finish(monitor, tmp_path)
    assert (status, ended["code"], ended["oom"]) == (3, 3, True)


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
    assert ended["stopped"] is True


def test_a_stop_that_comes_after_the_end(tmp_path: Path) -> None:
    """machined has the scope stopped of a container that has ended by itself, and its service with it."""
    begin, end = os.pipe()
    monitor = start(tmp_path, lambda: os._exit(len(os.read(begin, 1))))
    settled(monitor)
    os.kill(monitor, signal.SIGSTOP)
    child = Path(f"/proc/{monitor}/task/{monitor}/children").read_text().strip()
    os.write(end, b"x")
    is_dead = until(lambda: ") Z " in Path(f"/proc/{child}/stat").read_text(), 30, 0.01)
    assert is_dead
    os.kill(monitor, signal.SIGTERM)
    os.kill(monitor, signal.SIGCONT)
    _, ended = finish(monitor, tmp_path)
    assert (ended["code"], ended["stopped"]) == (1, False)


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
    done = subprocess.run(
        [MONITOR, "web", "--pidd", "1"], capture_output=True, text=True, check=False
    )
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


def test_no_health_check_begins_once_it_was_asked_to_stop(tmp_path: Path) -> None:
    """One that fails meanwhile would have it restarted."""
    checks = tmp_path / "checks"
    script = tmp_path / "launcher"
    script.write_text(f"#!/bin/sh\necho >>{checks}\n")
    script.chmod(0o755)

    def payload() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "ready").touch()
        time.sleep(60)

    health = ("--health", 10, 10, script, "a" * 64)
    monitor = start(tmp_path, payload, "--stop-timeout", 1, *health)
    ready(tmp_path)
    assert until(checks.exists, 30, 0.01)
    before = checks.stat().st_size
    os.kill(monitor, signal.SIGTERM)
    finish(monitor, tmp_path)
    # those that had begun by then; in the second until its kill there would be dozens
    assert checks.stat().st_size <= before + 3


def test_what_was_paused_again_is_thawed_for_its_kill(tmp_path: Path) -> None:
    """On cgroup v1 a frozen process acts on no signal."""
    freezer = tmp_path / "freezer.state"
    freezer.touch()

    def payload() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        (tmp_path / "ready").touch()
        time.sleep(60)

    monitor = start(tmp_path, payload, "--stop-timeout", 1, "--thaw", freezer, "THAWED ")
    ready(tmp_path)
    os.kill(monitor, signal.SIGTERM)
    _, ended = finish(monitor, tmp_path)
    assert ended["timeout"] is True
    assert freezer.read_text() == "THAWED " * 2


def test_cgroup_events_that_are_removed_wake_it_once(tmp_path: Path) -> None:
    """As with a pipe that nobody reads: poll(2) tells of an error without end, and nothing can be read."""
    begin, end = os.pipe()
    nobody, events = os.pipe()
    os.set_inheritable(events, True)

    def payload() -> None:
        os.close(nobody)
        os._exit(len(os.read(begin, 1)))

    monitor = start(tmp_path, payload, "--events", events)
    os.close(nobody)
    os.close(events)
    settled(monitor)
    time.sleep(0.5)
    used = ticks(monitor)
    os.write(end, b"x")
    assert finish(monitor, tmp_path)[0] == 1
    assert used < os.sysconf("SC_CLK_TCK") // 5


def ticks(pid: int) -> int:
    """The CPU time of a process, in clock ticks (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_client_that_leaves_is_owed_nothing(tmp_path: Path) -> None:
    """It stood still and its output waited for it: that of the container goes on."""
    os.chdir(tmp_path)  # the name of a socket is short
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind("attach")
    listener.listen(1)
    reader, writer = os.pipe()
    for fd in (reader, listener.fileno()):
        os.set_inheritable(fd, True)

    def payload() -> None:
        signal.alarm(60)  # nobody reads what it writes, if the monitor has given up
        (tmp_path / "ready").touch()
        for _ in range(1000):
            os.write(writer, b"z" * 4096)
        os._exit(7)

    monitor = start(tmp_path, payload, "--pump", reader, "--attach", listener.fileno(), 1)
    for fd in (reader, writer):
        os.close(fd)
    listener.close()
    client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    client.connect("attach")
    os.chdir("/")
    assert client.recv(1) == b"H"
    ready(tmp_path)
    time.sleep(0.3)  # until its socket is full
    client.close()
    ended = until(lambda: (tmp_path / "exit").exists(), 20, 0.01)
    if not ended:
        os.kill(monitor, signal.SIGKILL)
        os.waitpid(monitor, 0)
        pytest.fail("its output waits for the client")
    assert finish(monitor, tmp_path)[0] == 7


def logged(directory: Path, log: Path, *texts: bytes) -> None:
    """Have the monitor write these to a log, one after the other."""
    reader, writer = os.pipe()
    os.set_inheritable(reader, True)

    def payload() -> None:
        for text in texts:
            os.write(writer, text)
            time.sleep(0.1)
        os._exit(0)

    monitor = start(directory, payload, "--pump", reader, "--json", log, 0, 1, "")
    os.close(reader)
    os.close(writer)
    finish(monitor, directory)


def test_the_json_log_is_root_s_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        logged(tmp_path, tmp_path / "log", b"text\n")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600
    assert json.loads((tmp_path / "log").read_text())["log"] == "text\n"


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    log = tmp_path / "small/log"
    log.parent.mkdir()

    def fill() -> str:
        _sys.mount("small", str(log.parent), "tmpfs", 0, "size=12k")
        logged(tmp_path, log, b"a" * 4000 + b"\n", b"b" * 12000 + b"\n", b"c\n")
        return log.read_text()

    found = [json.loads(line)["log"][:1] for line in in_child(fill, CLONE_NEWNS).splitlines()]
    assert found == ["a", "c"]


def test_it_says_whether_the_recorder_is_gone(tmp_path: Path) -> None:
    """A socket that nobody has open is what is left of one (src/recorder.c)."""
    for gone in (None, False, True):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as recorder:
            if gone is not None:
                recorder.bind(str(tmp_path / "recorder"))
            if gone:
                recorder.close()
            monitor = start(tmp_path, lambda: None)
            _, ended = finish(monitor, tmp_path)
        assert ended["unrecorded"] is bool(gone)
        (tmp_path / "recorder").unlink(missing_ok=True)
