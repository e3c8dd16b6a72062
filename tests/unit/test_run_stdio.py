"""A container's standard streams: which of its caller's it gets, and what is copied in between."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_child

from sysbox.run import stdio
from sysbox.run.stdio import TERMINAL, Streams
from sysbox.spec import ContainerSpec
from sysbox.units.journal import Sink


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A socket as that to the journal is."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with theirs:
        yield Sink(fd=ours.detach(), identifier="x", rate=0, burst=0)


def is_open(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, fcntl.F_GETFD)
    except OSError:
        return False
    return True


def for_caller(*given: int, **how: Any) -> tuple[list[int], list[tuple[int, ...]], int]:
    """(ends of the child, pumps, input) for a caller that has these three descriptors as 0, 1 and 2."""

    def decide() -> tuple[list[int], list[tuple[int, ...]], int]:
        for target, fd in enumerate(given):
            os.dup2(fd, target)
        streams = stdio.for_caller(**how)
        return streams.child, streams.pumps, streams.input

    return in_child(decide)  # type: ignore[no-any-return]


@pytest.fixture
def kinds(tmp_path: Path) -> Iterator[dict[str, int]]:
    """Descriptors of the kinds that a caller may have as its streams."""
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    master, slave = os.openpty()
    found = {
        "pipe": writer,
        "socket": one.detach(),
        "file": os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT),
        "directory": os.open(tmp_path, os.O_RDONLY),
        "terminal": slave,
        "null": os.open("/dev/null", os.O_RDWR),
        "zero": os.open("/dev/zero", os.O_RDWR),
    }
    yield found
    for fd in (*found.values(), reader, master):
        os.close(fd)
    other.close()


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_pipe_or_a_socket_is_handed_over(kinds: dict[str, int], kind: str) -> None:
    fd = kinds[kind]
    child, pumps, _ = for_caller(fd, fd, fd, tty=False, interactive=True, log=None)
    assert (child, pumps) == ([0, 1, 2], [])


def test_of_the_null_device_the_container_has_its_own(kinds: dict[str, int]) -> None:
    fd = kinds["null"]
    child, pumps, _ = for_caller(fd, fd, fd, tty=False, interactive=True, log=None)
    assert (child, pumps) == ([-1, -1, -1], [])


@pytest.mark.parametrize("kind", ["file", "directory", "terminal", "zero"])
def test_anything_else_is_copied(kinds: dict[str, int], kind: str) -> None:
    """The container could open a file anew and read or truncate it, and push input into a terminal."""
    fd = kinds[kind]
    child, pumps, given = for_caller(fd, fd, fd, tty=False, interactive=True, log=None)
    assert not {0, 1, 2} & set(child)
    assert [(pumps[0][0], pumps[0][1]), pumps[1][1], pumps[2][1]] == [(0, given), 1, 2]


def test_without_i_the_caller_s_input_is_nobody_s(kinds: dict[str, int]) -> None:
    fd = kinds["pipe"]
    child, pumps, given = for_caller(fd, fd, fd, tty=False, interactive=False, log=None)
    assert (child, pumps, given) == ([-1, 1, 2], [], -1)


def test_output_that_is_kept_is_copied_whatever_it_is(kinds: dict[str, int], sink: Sink) -> None:
    fd = kinds["pipe"]
    child, pumps, _ = for_caller(fd, fd, fd, tty=False, interactive=True, log=sink)
    assert child[0] == 0
    assert not {1, 2} & set(child)
    assert [targets for _, *targets in pumps] == [[1], [2]]


@pytest.mark.parametrize(
    ("interactive", "pumps"),
    [(False, [(TERMINAL, 1)]), (True, [(TERMINAL, 1), (0, TERMINAL)])],
)
def test_a_terminal_of_its_own(
    kinds: dict[str, int], interactive: bool, pumps: list[tuple[int, int]]
) -> None:
    fd = kinds["terminal"]
    found = for_caller(fd, fd, fd, tty=True, interactive=interactive, log=None)
    assert found == ([-1, -1, -1], pumps, -1)


@pytest.mark.parametrize(
    ("tty", "interactive", "ends", "pumps"),
    [(False, False, [False, True, True], 2), (False, True, [True, True, True], 2),
     (True, True, [False, False, False], 1)],
)  # fmt: skip
def test_a_service_has_nobody_at_the_other_end(
    sink: Sink, tty: bool, interactive: bool, ends: list[bool], pumps: int
) -> None:
    spec = ContainerSpec(image="x", tty=tty, interactive=interactive)
    streams = stdio.for_service(spec, sink)
    assert [end >= 0 for end in streams.child] == ends
    assert [len(pump) for pump in streams.pumps] == [1] * pumps
    assert (streams.input >= 0) is (interactive and not tty)
    streams.close()


def test_our_ends_do_not_block_and_the_container_s_do() -> None:
    """What is poll(2)ed may have been read by then: somebody in the container can open its end anew."""
    streams = Streams()
    ours = [streams.pipe(target) for target in range(3)]
    assert [os.get_blocking(fd) for fd in ours] == [False] * 3
    assert [os.get_blocking(fd) for fd in streams.child] == [True] * 3
    assert not any(os.get_inheritable(fd) for fd in (*ours, *streams.child))
    os.write(ours[0], b"in")
    os.write(streams.child[1], b"out")
    assert (os.read(streams.child[0], 9), os.read(ours[1], 9)) == (b"in", b"out")
    streams.close()


def test_the_child_s_ends_are_closed_first_and_all_in_the_end(sink: Sink) -> None:
    spec = ContainerSpec(image="x", interactive=True)
    streams = stdio.for_service(spec, sink)
    theirs, ours = list(streams.child), [streams.input, *(pump[0] for pump in streams.pumps)]
    streams.close_child_ends()
    assert [is_open(fd) for fd in theirs] == [False] * 3
    assert [is_open(fd) for fd in ours] == [True] * 3
    assert is_open(sink.fd)
    streams.close()
    assert not any(is_open(fd) for fd in (*ours, sink.fd))
