"""Identity of processes, signals, limits, descriptors, and running a program."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from pathlib import Path

import pytest
from forked import in_child

from sysbox.base.errors import KernelError
from sysbox.linux import process


def test_identity() -> None:
    start = process.start_time(os.getpid())
    assert start > 0
    assert process.alive(os.getpid(), start)
    assert not process.alive(os.getpid(), start + 1), "another process with a recycled number"
    assert process.start_time(2**22 + 1) == 0
    assert not process.alive(2**22 + 1, 0)


def test_a_name_with_parentheses_does_not_confuse() -> None:
    def rename() -> bool:
        with open("/proc/self/comm", "w") as file:
            file.write(") Z 1 2 (")
        return process.alive(os.getpid(), process.start_time(os.getpid()))

    assert in_child(rename)


def test_a_zombie_is_not_alive() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert process.start_time(pid) > 0
    assert not process.alive(pid, process.start_time(pid))
    os.waitpid(pid, 0)


def test_send_to_a_process_that_has_ended() -> None:
    child = subprocess.Popen(["sleep", "60"])
    handle = process.pidfd(child.pid)
    assert process.send(handle, signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    assert not process.send(handle, signal.SIGTERM)
    os.close(handle)
    with pytest.raises(KernelError, match="open process"):
        process.pidfd(2**22 + 1)


def test_rlimits() -> None:
    def limit() -> str:
        process.set_rlimit("core", 0, 0)
        process.set_rlimit("nofile", 64, 128)
        with open("/proc/self/limits") as file:
            return file.read()

    lines = {line[:26].strip(): line[26:].split() for line in in_child(limit).splitlines()}
    assert lines["Max open files"][:2] == ["64", "128"]
    assert lines["Max core file size"][:2] == ["0", "0"]
    assert len(set(process.RLIMITS.values())) == 16


def test_rlimit_names_are_the_kernel_s() -> None:
    import resource

    for name, number in process.RLIMITS.items():
        known = getattr(resource, f"RLIMIT_{name.upper()}", number)
        assert known == number, name


def test_reset_signals() -> None:
    def reset() -> str:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        process.reset_signals()
        with open("/proc/self/status") as file:
            fields = dict(line.split(":\t") for line in file.read().splitlines())
        # the C library keeps 32 and 33 to itself: nobody else can set them (nptl(7))
        own = 3 << 31
        masks = [int(fields[name], 16) & ~own for name in ("SigBlk", "SigIgn", "SigCgt")]
        return repr(masks)

    assert in_child(reset) == "[0, 0, 0]"


def test_close_fds_from() -> None:
    def close() -> list[bool]:
        fd = os.open("/", os.O_RDONLY)
        os.set_inheritable(fd, True)
        process.close_fds_from(fd, cloexec=True)
        inherited = os.get_inheritable(fd)
        return [inherited, os.path.exists(f"/proc/self/fd/{fd}")]

    assert in_child(close) == [False, True]


def test_spawn_captures_output_and_feeds_input() -> None:
    data = os.urandom(1 << 20)
    assert process.spawn(["cat"], stdin=data) == (0, data)
    assert process.spawn(["cat"]) == (0, b"")
    assert process.spawn(["/bin/sh", "-c", "echo bad >&2; exit 9"], merge_stderr=True) == (
        9,
        b"bad\n",
    )
    assert process.spawn(["/bin/sh", "-c", "kill -9 $$"])[0] == 137


def test_spawn_gives_a_clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/nowhere.so")
    status, output = process.spawn(["env"])
    assert status == 0
    assert set(output.decode().splitlines()) == {
        f"{key}={value}" for key, value in process.CLEAN_ENVIRONMENT.items()
    }
    assert process.spawn(["/usr/bin/env"], {"A": "1"})[1] == b"A=1\n"


def test_spawn_leaks_no_descriptor_and_names_what_is_missing() -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(KernelError) as caught:
        process.spawn(["no-such-program-anywhere"], stdin=b"x")
    assert "no-such-program-anywhere" in str(caught.value)
    process.spawn(["true"])
    assert os.listdir("/proc/self/fd") == before


def test_nothing_is_ignored_in_a_spawned_program() -> None:
    status, output = process.spawn(["grep", "-h", "SigIgn", "/proc/self/status"])
    assert status == 0
    ignored = int(output.split()[1], 16)
    assert not ignored & 1 << (signal.SIGPIPE - 1), (
        "the interpreter ignores it, `a | head` needs it"
    )


def test_a_limit_that_cannot_be_raised() -> None:
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    above = int(Path("/proc/sys/fs/nr_open").read_text()) + 1
    with pytest.raises(KernelError) as caught:
        process.raise_limits((("nofile", 5, above),))
    assert f"nofile to 5:{above}: Operation not permitted" in caught.value.message
    assert f"more than {most} takes CAP_SYS_RESOURCE" in caught.value.hint
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[1] == most
