"""The handshake between parent and child: what the other end says is checked, whoever holds it."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
from pathlib import Path

import pytest

from sysbox.base.errors import FAILED, NOT_FOUND, KernelError, SpecError, StartError
from sysbox.run.handshake import BORN, CONSOLE, FAILURE, SCOPED, STARTING, UNSHARED, Channel


@pytest.fixture
def ends() -> tuple[Channel, _socket.socket]:
    """Ours, and the bare socket of the other."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return Channel(one), other


@pytest.mark.parametrize(
    "message",
    [
        b"F",
        b"F[1,2]",
        b"B[1]",
        b"B1",
        b"Fnull",
        b'F{"status":"abc"}',
        b"F" + b"[" * 5000,
        b"B\xff",
        b'B{"pid":1,"pid":2}',
    ],
)
def test_a_malformed_message_is_one_line(
    ends: tuple[Channel, _socket.socket], message: bytes
) -> None:
    ours, other = ends
    other.send(message)
    with pytest.raises(StartError) as raised:
        ours.receive(BORN if message[:1] == BORN else UNSHARED)
    assert raised.value.status == FAILED
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(("status", "found"), [(0, FAILED), (1, FAILED), (NOT_FOUND, NOT_FOUND)])
def test_what_has_not_run_has_not_succeeded(
    ends: tuple[Channel, _socket.socket], status: int, found: int
) -> None:
    ours, other = ends
    other.send(b'F{"phase":"exec","message":"m","hint":"","status":%d}' % status)
    with pytest.raises(StartError) as raised:
        ours.receive(UNSHARED)
    assert raised.value.status == found


def test_a_message_arrives_with_its_data_and_its_descriptor() -> None:
    parent, child = Channel.pair()
    reader, writer = os.pipe()
    parent.send(SCOPED, {"address": "10.90.0.2/16"})
    child.send(UNSHARED)
    child.send(CONSOLE, fd=writer)
    os.close(writer)
    assert child.receive(SCOPED) == ({"address": "10.90.0.2/16"}, -1)
    assert parent.receive(UNSHARED) == ({}, -1)
    data, fd = parent.receive(CONSOLE)
    assert data == {}
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.write(fd, b"through it")
    assert os.read(reader, 99) == b"through it"
    for one in (fd, reader):
        os.close(one)


def test_neither_end_is_left_to_the_command() -> None:
    for end in Channel.pair():
        assert not os.get_inheritable(end.fileno())


@pytest.mark.parametrize("expected", [UNSHARED, CONSOLE, BORN])
def test_an_end_that_comes_too_early(expected: bytes) -> None:
    parent, child = Channel.pair()
    child.close()
    with pytest.raises(StartError, match="ended before its command ran"):
        parent.receive(expected)


def test_the_end_that_is_expected() -> None:
    """Close-on-exec: execve(2) has closed it."""
    parent, child = Channel.pair()
    child.close()
    assert parent.receive(b"") == ({}, -1)


def test_another_message_than_the_one_that_is_due() -> None:
    """The descriptor that came with it does not stay open."""
    parent, child = Channel.pair()
    reader, writer = os.pipe()
    child.send(CONSOLE, fd=writer)
    os.close(writer)
    with pytest.raises(StartError):
        parent.receive(UNSHARED)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # nobody has the other end
    os.close(reader)


@pytest.mark.parametrize(
    ("error", "message", "hint", "phase", "status"),
    [
        (OSError(errno.EIO, "x"), "mount the root (root): Input/output error", "", "root", 125),
        (KernelError("open", "/x", errno.EIO, hint="h"), "open /x: Input/output error", "h", "root", 125),
        (SpecError("-v: no", hint="h"), "-v: no", "h", "root", 125),
        (StartError("no such command", phase="exec", status=127), "no such command", "", "exec", 127),
        (ValueError("odd"), "ValueError: odd", "this is a bug in sysbox", "root", 125),
    ],
)  # fmt: skip
def test_what_ended_the_child_is_told(
    error: Exception, message: str, hint: str, phase: str, status: int
) -> None:
    parent, child = Channel.pair()
    child.report("root", "mount the root", error)
    with pytest.raises(StartError) as raised:
        parent.receive(UNSHARED)
    told = raised.value
    assert (told.message, told.hint, told.phase, told.status) == (message, hint, phase, status)


def test_a_reported_failure_is_found_behind_others_and_not_waited_for() -> None:
    parent, child = Channel.pair()
    assert parent.reported_failure() is None
    child.send(UNSHARED)
    assert parent.reported_failure() is None
    child.send(UNSHARED)
    child.fail("process", "why", "", NOT_FOUND)
    child.close()
    found = parent.reported_failure()
    assert found
    assert (found.message, found.phase, found.status) == ("why", "process", NOT_FOUND)
    assert parent.reported_failure() is None


def test_a_failure_is_told_by_a_child_that_has_not_read_our_message() -> None:
    """As where the child fails just when its scope is there: the kernel says ECONNRESET first."""
    for awaited in (True, False):
        parent, child = Channel.pair()
        parent.send(SCOPED)
        child.fail("root", "why", "", FAILED)
        child.close()
        if awaited:
            with pytest.raises(StartError, match="why"):
                parent.receive(b"")
        else:
            found = parent.reported_failure()
            assert found
            assert found.message == "why"


def test_a_peer_that_is_gone() -> None:
    parent, child = Channel.pair()
    child.check_peer()
    parent.close()
    child.send(UNSHARED)  # no error
    child.send_once(FAILURE, {})
    with pytest.raises(StartError, match="the process that started the container died"):
        child.check_peer()


def test_somebody_connects_to_one_that_waits(tmp_path: Path) -> None:
    gate = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    gate.bind(f"{tmp_path}/gate")
    gate.listen(1)
    starter = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    starter.connect(f"{tmp_path}/gate")
    accepted = Channel.accept(os.dup(gate.fileno()))
    accepted.send(STARTING)
    assert Channel(starter).receive(STARTING) == ({}, -1)
