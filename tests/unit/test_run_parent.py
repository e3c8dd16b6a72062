"""What is forked to become a container's process ends whatever happens to it or to its parent."""

from __future__ import annotations

import errno
import os
import select
import signal
from typing import NoReturn

import pytest

from sysbox.base.errors import KernelError, StartError, SysboxError, SystemdError
from sysbox.run.handshake import BORN, Channel
from sysbox.run.parent import Parked, fork_helper

PATIENCE = 30_000  # milliseconds


def test_it_does_not_outlive_its_parent() -> None:
    """Not even while it does not listen."""
    reader, writer = os.pipe()

    def stay(_: Channel) -> NoReturn:
        os.write(writer, b".")
        while True:
            signal.pause()
            held.destroy()

    parent = os.fork()
    if parent == 0:
        try:
            held = fork_helper(stay)  # its channel stays open
            signal.pause()
            held.destroy()
        finally:
            os._exit(1)
    os.close(writer)
    assert os.read(reader, 1) == b"."
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    poll = select.poll()
    poll.register(reader, select.POLLHUP)  # both of them held the other end
    assert poll.poll(PATIENCE)
    os.close(reader)


def test_what_it_raises_is_not_the_parents() -> None:
    def fail(_: Channel) -> NoReturn:
        raise ValueError("no way to tell")

    parked = fork_helper(fail)
    try:
        with pytest.raises(StartError, match="profile refuses"):
            parked.await_exec()
    finally:
        parked.destroy()


def test_what_has_said_why_is_believed() -> None:
    def fail(channel: Channel) -> NoReturn:
        channel.report("process", "do it", ValueError("said"))
        raise ValueError("not said")

    parked = fork_helper(fail)
    try:
        with pytest.raises(StartError, match="ValueError: said"):
            parked.await_exec()
    finally:
        parked.destroy()


@pytest.mark.parametrize(
    "error",
    [
        KernelError("make the link", "sb1", errno.ESRCH),
        SystemdError("Process with ID 7 does not exist"),
        StartError("the container's first process ended before its command ran", phase="handshake"),
    ],
)
def test_what_follows_from_its_death(error: SysboxError) -> None:
    """The kernel kills it where memory is short; what this process does for it then fails in its own way."""
    parked = fork_helper(lambda _: os.kill(os.getpid(), signal.SIGKILL) or os._exit(0))
    with pytest.raises(StartError, match="was killed before its command ran"), parked:
        raise error


@pytest.mark.parametrize("alive", [True, False])
def test_what_does_not_follow_from_it(alive: bool) -> None:
    parked = fork_helper(lambda _: signal.pause() or os._exit(0) if alive else os._exit(3))
    with pytest.raises(KernelError, match="sb1: File exists"), parked:
        raise KernelError("make the link", "sb1", errno.EEXIST)


def test_an_error_between_a_helper_and_what_it_has_had_born() -> None:
    parked = fork_helper(lambda _: os._exit(0))
    os.waitpid(parked.pid, 0)
    os.close(parked.pidfd)
    parked.pidfd = -1
    with pytest.raises(StartError, match="not a child"), parked:
        raise StartError("the newborn is not a child of sysbox", phase="handshake")


def test_a_pid_that_is_not_a_childs_is_not_touched() -> None:
    """A container that holds the newborn's end of the handshake may name any process of the host's."""
    reading, writing = os.pipe()
    middle = os.fork()
    if middle == 0:
        stranger = os.fork()
        if stranger == 0:
            signal.pause()
        os.write(writing, b"%d" % stranger)
        os._exit(0)
    os.waitpid(middle, 0)
    stranger = int(os.read(reading, 20))
    watched = os.pidfd_open(stranger)
    ours, theirs = Channel.pair()
    helper = os.fork()
    if helper == 0:
        theirs.send_once(BORN, {"pid": stranger})
        os._exit(0)
    theirs.close()
    parked = Parked(helper, os.pidfd_open(helper), ours)
    try:
        with pytest.raises(StartError, match="not a child"):
            parked.await_birth()
        parked.destroy()
        assert not select.select([watched], [], [], 1)[0], "it was killed"
    finally:
        signal.pidfd_send_signal(watched, signal.SIGKILL)
        for fd in (reading, writing, watched):
            os.close(fd)
