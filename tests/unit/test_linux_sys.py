"""The C extension: arguments go in, the kernel's errno comes out, a cloned child is a whole process."""

from __future__ import annotations

import os
import select
import signal
import socket

import pytest
from forked import in_child, needs_root

from sysbox.linux import _sys, bpf
from sysbox.linux.namespace import CLONE_NEWPID, CLONE_NEWUTS


def test_clone3_returns_pid_and_pidfd() -> None:
    pid, pidfd = _sys.clone3(0)
    if pid == 0:
        os._exit(7)
    assert select.select([pidfd], [], [], 10)[0], "a pidfd is readable when its process has ended"
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    assert not os.get_inheritable(pidfd)
    os.close(pidfd)


def test_clone3_child_is_told_so_and_can_run_python() -> None:
    read_end, write_end = os.pipe()
    pid, pidfd = _sys.clone3(0)
    if pid == 0:
        signal.raise_signal(signal.SIGCONT)
        grandchild = os.fork()
        if grandchild == 0:
            os._exit(3)
        status = os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1])
        os.write(write_end, repr((pid, pidfd, status)).encode())
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 100) == b"(0, -1, 3)"
    os.waitpid(pid, 0)
    os.close(pidfd)
    os.close(read_end)


def test_clone3_makes_namespaces() -> None:
    needs_root()
    pid, pidfd = _sys.clone3(CLONE_NEWPID)
    if pid == 0:
        os._exit(os.getpid() + 10)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 11
    os.close(pidfd)


def test_clone3_refuses_shared_memory() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        _sys.clone3(0x100)


def test_clone3_into_a_bad_cgroup() -> None:
    directory = os.open("/", os.O_RDONLY | os.O_CLOEXEC)
    with pytest.raises(OSError, match="Bad file descriptor"):
        _sys.clone3(0, directory)
    os.close(directory)


def test_hostname() -> None:
    def rename() -> str:
        _sys.sethostname("box")
        return os.uname().nodename

    before = os.uname().nodename
    assert in_child(rename, CLONE_NEWUTS) == "box"
    assert os.uname().nodename == before


def test_setns() -> None:
    def enter() -> tuple[str, str]:
        own = os.open("/proc/self/ns/uts", os.O_RDONLY)
        first = os.readlink("/proc/self/ns/uts")
        _sys.unshare(CLONE_NEWUTS)
        assert os.readlink("/proc/self/ns/uts") != first
        _sys.setns(own, CLONE_NEWUTS)
        return first, os.readlink("/proc/self/ns/uts")

    before, after = in_child(enter, CLONE_NEWUTS)
    assert before == after


def test_close_range() -> None:
    def close() -> list[bool]:
        kept, gone = os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)
        os.dup2(gone, 200)
        _sys.close_range(200, 300, 0)
        return [os.path.exists(f"/proc/self/fd/{fd}") for fd in (kept, gone, 200)]

    assert in_child(close) == [True, True, False]


def test_prlimit_reads_and_sets() -> None:
    assert _sys.prlimit(0, 7, None)[0] > 0

    def limit() -> tuple[int, int]:
        _sys.prlimit(0, 4, (4096, 8192))
        return _sys.prlimit(0, 4, None)

    assert in_child(limit) == (4096, 8192)


def test_seccomp_wants_whole_instructions() -> None:
    for program in (b"", b"1234567", b"\0" * 8 * 4097):
        with pytest.raises(ValueError, match="sock_filter"):
            _sys.seccomp_load(0, program)


def test_fstatfs_type() -> None:
    fd = os.open("/proc", os.O_RDONLY)
    assert _sys.fstatfs_type(fd) == 0x9FA0
    os.close(fd)


def test_what_is_written_aside() -> None:
    def check() -> None:
        for expected in (b"0", b"0", b""):  # the third time there is no thread for it
            reader, writer = os.pipe()
            handler = signal.signal(signal.SIGUSR1, lambda *_: None)
            _sys.write_aside(writer)
            signal.raise_signal(signal.SIGUSR1)
            assert signal.signal(signal.SIGUSR1, handler)
            assert os.read(reader, 2) == expected
            assert os.read(reader, 2) == b"", "its descriptor is closed"
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()

    in_child(check)


def test_a_child_that_is_forked_while_something_is_written_aside() -> None:
    def check() -> None:
        reader, writer = os.pipe()
        while True:  # a full pipe keeps the thread
            os.set_blocking(writer, False)
            try:
                os.write(writer, bytes(4096))
            except BlockingIOError:
                break
        os.set_blocking(writer, True)
        _sys.write_aside(os.dup(writer))
        assert len(os.listdir("/proc/self/task")) == 2
        pid, pidfd = _sys.clone3(0)
        if pid == 0:
            os.setresgid(*os.getresgid())  # what the C library does for all threads it knows
            os._exit(len(os.listdir("/proc/self/task")))
        assert select.select([pidfd], [], [], 10)[0]
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        os.close(writer)
        left = b""
        while data := os.read(reader, 1 << 16):
            left += data
        assert left == bytes(len(left) - 1) + b"0"

    in_child(check)


def test_syncfs() -> None:
    with open("/proc/self/stat") as file:
        _sys.syncfs(file.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        _sys.syncfs(-1)


def test_a_program_for_devices_is_taken_or_refused_by_its_errno() -> None:
    assert bpf.device_programs() in ("", "Operation not permitted", "Function not implemented")
    with pytest.raises(OSError, match=r"Invalid|not permitted|too long"):
        _sys.bpf_prog_load(15, b"", "GPL")


def test_getsockopt_passes_a_value_in() -> None:
    """SO_PEERCRED takes none, but shows that the answer comes back in its place."""
    one, other = socket.socketpair()
    with one, other:
        answer = _sys.getsockopt(one.fileno(), socket.SOL_SOCKET, socket.SO_PEERCRED, bytes(12))
        assert answer == one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        with pytest.raises(OSError, match="Protocol not available"):
            _sys.getsockopt(one.fileno(), socket.SOL_SOCKET, 9999, bytes(4))
