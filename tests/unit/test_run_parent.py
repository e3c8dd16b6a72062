"""What is forked to become a container's process ends whatever happens to it or to its parent."""

from __future__ import annotations

import fcntl
import os
import select
import signal
from pathlib import Path
from typing import NoReturn

import pytest
from forked import needs_root

from sysbox.base.errors import KernelError, StartError
from sysbox.linux import _sys
from sysbox.linux.namespace import CLONE_NEWUTS
from sysbox.linux.userns import IdMap
from sysbox.run.handshake import BORN, MAPPED, Channel
from sysbox.run.parent import Parked, fork_helper, fork_mapped

NS_GET_USERNS = 0xB701  # ioctl_ns(2)
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


def test_a_user_namespace_has_its_maps_before_it_owns_others() -> None:
    needs_root()
    reading, writing = os.pipe()

    def look(channel: Channel) -> NoReturn:
        channel.receive(MAPPED)
        _sys.unshare(CLONE_NEWUTS)
        uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
        owner = os.fstat(fcntl.ioctl(uts, NS_GET_USERNS)).st_ino
        mine = os.stat("/proc/self/ns/user").st_ino
        maps = [Path(f"/proc/self/{file}").read_text().split() for file in ("uid_map", "gid_map")]
        told = (os.getuid(), os.getgid(), owner == mine, maps)
        os.write(writing, repr(told).encode())
        os._exit(0)

    ids = (IdMap(inside=0, outside=200_000, count=1000),)
    parked = fork_mapped(look, 0, (*ids, IdMap(inside=5000, outside=0, count=1)), ids)
    try:
        told = os.read(reading, 4096).decode()
    finally:
        parked.destroy()
    nobody = Path("/proc/sys/kernel/overflowuid").read_text().strip()
    wanted = [["0", "200000", "1000", "5000", "0", "1"], ["0", "200000", "1000"]]
    assert told == f"(5000, {nobody}, True, {wanted})"
    os.close(reading)
    os.close(writing)


def test_maps_that_the_kernel_refuses_leave_no_child() -> None:
    needs_root()
    reading, writing = os.pipe()

    def stay(channel: Channel) -> NoReturn:
        channel.receive(MAPPED)
        os._exit(0)

    twice = (IdMap(inside=0, outside=200_000, count=2), IdMap(inside=1, outside=300_000, count=1))
    with pytest.raises(KernelError, match=r"write /proc/[0-9]+/uid_map"):
        fork_mapped(stay, 0, twice, twice)
    os.close(writing)
    poll = select.poll()
    poll.register(reading, select.POLLHUP)  # the child held the other end
    assert poll.poll(PATIENCE)
    os.close(reading)


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
