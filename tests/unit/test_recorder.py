"""The recorder (src/recorder.c) as a program: it notes the calls of a process, and lets them go on."""

from __future__ import annotations

import errno
import os
import re
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.base.paths import LIBEXEC
from sysbox.base.wait import until
from sysbox.linux import _sys, seccomp
from sysbox.run import recording
from sysbox.security import bpf

PROGRAM = f"{LIBEXEC}/sysbox-recorder"
GETPPID, UMASK = 110, 95
UNMADE = 5000  # no call has such a number


class Recorder:
    def __init__(self, table: Path) -> None:
        table.write_bytes(bytes(recording.SIZE + 8))
        self._table = table
        self.recorded: set[int] = set()  # process ids, until they are waited for
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        with theirs, table.open("r+b") as file:
            fds = (theirs.fileno(), file.fileno())
            words = (str(fd) for fd in fds)
            self.process = subprocess.Popen([PROGRAM, *words, str(os.getpid())], pass_fds=fds)

    def give(self, fd: int) -> None:
        socket.send_fds(self.ours, [b"L"], [fd])
        os.close(fd)

    def is_marked(self) -> bool:
        """As one that was killed leaves it."""
        return self._table.stat().st_size > recording.SIZE

    def numbers(self) -> list[int]:
        words = memoryview(self._table.read_bytes()).cast("Q")
        return sorted(word & 0xFFFFFFFF for word in words if word)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    needs_root()
    one = Recorder(tmp_path / "calls")
    yield one
    for pid in one.recorded:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    one.process.kill()
    one.process.wait()
    one.ours.close()


class Recorded:
    """A forked process with the recorder's filter; it does `calls` once, and says how each ended.

    It begins with what can be read from `gate`, a pipe, if there is one.
    """

    def __init__(self, recorder: Recorder, *calls: int, gate: int | None = None) -> None:
        import ctypes

        libc = ctypes.CDLL(None, use_errno=True)
        ours, theirs = socket.socketpair()
        self.answers, end = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _sys.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
            fd = seccomp.listen(bpf.recorder("x86_64"))
            # by write(2) alone: who answers has nothing yet
            os.write(theirs.fileno(), struct.pack("=i", fd))
            theirs.recv(1)
            os.close(fd)  # else it would wait for ever, should the recorder end
            libc.syscall(317, 0, 0, 0)  # seccomp(2): sysbox's own, before the command
            libc.syscall(59, 0, 0, 0)  # execve(2), which fails
            libc.syscall(317, 0, 0, 0)
            if gate is not None:
                os.read(gate, 1)
            for number in calls:
                failed = libc.syscall(number, 0) == -1
                os.write(end, struct.pack("=i", ctypes.get_errno() if failed else 0))
            os._exit(0)
        self._waited = recorder.recorded
        self._waited.add(self.pid)
        os.close(end)
        (number,) = struct.unpack("=i", ours.recv(4))
        pidfd = os.pidfd_open(self.pid)
        recorder.give(_sys.pidfd_getfd(pidfd, number))
        os.close(pidfd)
        ours.send(b"T")
        for one in (ours, theirs):
            one.close()

    def wait(self) -> list[int]:
        """The errno of each call."""
        data = b""
        while chunk := os.read(self.answers, 4096):
            data += chunk
        os.close(self.answers)
        self._waited.remove(self.pid)
        assert os.waitpid(self.pid, 0)[1] == 0
        return list(struct.unpack(f"={len(data) // 4}i", data))


def test_it_notes_each_call_and_lets_it_go_on(recorder: Recorder) -> None:
    gate, opens = os.pipe()
    one = Recorded(recorder, GETPPID, UMASK, GETPPID, UNMADE, gate=gate)
    assert until(recorder.is_marked, 10, 0.01)  # as long as it has a listener, which waits
    os.write(opens, b"!")
    for fd in (gate, opens):
        os.close(fd)
    assert one.wait() == [0, 0, 0, errno.ENOSYS]
    assert recorder.process.wait(10) == 0  # with its last listener
    assert not recorder.is_marked()
    found = recorder.numbers()
    assert {GETPPID, UMASK, 59, 231} <= set(found)
    assert len(found) == len(set(found))
    assert found.count(317) == 1  # of the command, not the one before it
    assert max(found) < UNMADE


def test_one_that_is_killed_leaves_the_mark(recorder: Recorder) -> None:
    gate, opens = os.pipe()
    one = Recorded(recorder, UMASK, gate=gate)
    until(lambda: 0 in recorder.numbers(), 10, 0.01)  # it reads
    recorder.process.kill()
    recorder.process.wait()
    for fd in (gate, opens):
        os.close(fd)
    os.close(one.answers)
    assert recorder.is_marked()


def test_several_listeners_and_one_that_goes_on(recorder: Recorder) -> None:
    gate, opens = os.pipe()
    # the recorder ends with its last listener, so one is there while the others come
    first = Recorded(recorder, *(GETPPID,) * 2000, gate=gate)
    others = [Recorded(recorder, UMASK) for _ in range(3)]
    os.write(opens, b"!")
    for fd in (gate, opens):
        os.close(fd)
    assert [other.wait() for other in others] == [[0]] * 3
    assert first.wait() == [0] * 2000
    assert recorder.process.wait(10) == 0
    assert {GETPPID, UMASK} <= set(recorder.numbers())


def test_signals_of_a_terminal_do_not_end_it(recorder: Recorder) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    status = Path(f"/proc/{recorder.process.pid}/status")

    def ignores_them() -> bool:
        # a shell has what it starts in the background ignore others, too
        (mask,) = re.findall(r"^SigIgn:\t(\w+)$", status.read_text(), re.MULTILINE)
        return all(int(mask, 16) >> number - 1 & 1 for number in numbers)

    assert until(ignores_them, 10, 0.01)
    for number in numbers:
        recorder.process.send_signal(number)
    one = Recorded(recorder, GETPPID)
    assert one.wait() == [0]
    assert recorder.process.wait(10) == 0


def test_without_a_listener_it_ends_with_who_has_started_it(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.set_inheritable(writing, True)
        one = Recorder(tmp_path / "calls")
        os.write(writing, struct.pack("=i", one.process.pid))
        os._exit(0)
    os.close(writing)
    (recorder,) = struct.unpack("=i", os.read(reading, 4))
    os.waitpid(pid, 0)
    try:
        pidfd = os.pidfd_open(recorder)
    except ProcessLookupError:
        return
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)


def test_what_is_no_listener_is_ignored(recorder: Recorder) -> None:
    recorder.ours.send(b"nothing")
    one = Recorded(recorder, GETPPID)
    assert one.wait() == [0]
    assert recorder.process.wait(10) == 0


@pytest.mark.parametrize(
    "words", [[], ["0", "0", "1"], ["0", "0", "0"]], ids=["none", "init", "zero"]
)
def test_other_words_are_refused(words: list[str]) -> None:
    done = subprocess.run([PROGRAM, *words], stdin=subprocess.DEVNULL, check=False, timeout=10)
    assert done.returncode == 125
