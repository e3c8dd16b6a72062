"""Landlock: what lies below a directory, and nothing else; on the kernel that runs the tests."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import in_child

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, landlock, seccomp
from sysbox.linux.landlock import Domain
from sysbox.linux.process import PR_SET_NO_NEW_PRIVS

_CREATE_RULESET = 444  # the same on every architecture


@pytest.fixture
def version(requires: Callable[[object, str], None]) -> int:
    """Of the kernel's ABI."""
    requires(not landlock.lack(), "Landlock")
    return landlock.abi()


@pytest.mark.parametrize(
    ("version", "rights", "scopes"),
    [(1, 0x1FFF, 0), (2, 0x3FFF, 0), (3, 0x7FFF, 0), (4, 0x7FFF, 0), (5, 0xFFFF, 0), (6, 0xFFFF, 3),
     (8, 0xFFFF, 3), (9, 0x1FFFF, 3), (99, 0x1FFFF, 3), (0, 0, 0)],
    ids=["1", "2", "3", "4", "5", "6", "8", "9", "newer", "none"],
)  # fmt: skip
def test_what_a_version_knows(version: int, rights: int, scopes: int) -> None:
    """linux/landlock.h"""
    assert landlock.rights_of(version) == rights
    assert landlock.scopes_of(version) == scopes


def refusing(number: int, error: int) -> bytes:
    """A filter that answers one system call by an error."""
    return b"".join(
        struct.pack("<HBBI", *one)
        for one in (
            (0x20, 0, 0, 0),  # the number of the call
            (0x15, 0, 1, number),
            (0x06, 0, 0, 0x00050000 | error),  # SECCOMP_RET_ERRNO
            (0x06, 0, 0, 0x7FFF0000),  # SECCOMP_RET_ALLOW
        )
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [(errno.ENOSYS, "CONFIG_SECURITY_LANDLOCK"), (errno.EOPNOTSUPP, "lsm=")],
    ids=["not-built", "not-chosen"],
)
def test_a_kernel_without_it(error: int, said: str) -> None:
    """The call's own errors, returned by a filter: landlock_create_ruleset(2)."""

    def ask() -> tuple[int, str]:
        _sys.prctl(PR_SET_NO_NEW_PRIVS, 1)
        seccomp.load(refusing(_CREATE_RULESET, error))
        return landlock.abi(), landlock.lack()

    version, why = in_child(ask)
    assert version == 0
    assert said in why


def confined(
    top: Path, version: int, function: Callable[[], object], streams: tuple[int, ...] = ()
) -> object:
    """What `function` returns in a process that may reach what is below `top`."""

    def inside() -> object:
        _sys.prctl(PR_SET_NO_NEW_PRIVS, 1)
        root = os.open(top, os.O_PATH)
        landlock.confine(root, Domain(rights=landlock.rights_of(version)), streams)
        return function()

    return in_child(inside)


def refused(call: Callable[[], object]) -> int:
    """The error of a call, 0 for none."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


def test_what_is_outside_cannot_be_opened_by_a_descriptor_either(
    tmp_path: Path, version: int
) -> None:
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "inside/own").write_text("x")
    above = os.open(tmp_path, os.O_RDONLY)
    held = os.open(tmp_path / "secret", os.O_RDWR)

    def attempts() -> list[int]:
        inside = os.open(tmp_path / "inside", os.O_RDONLY)
        return [
            refused(lambda: os.open("secret", os.O_RDONLY, dir_fd=above)),
            refused(lambda: os.open("secret", os.O_WRONLY, dir_fd=above)),
            refused(lambda: os.mkdir("new", dir_fd=above)),
            refused(lambda: os.unlink("secret", dir_fd=above)),
            refused(lambda: os.open(".", os.O_RDONLY, dir_fd=above)),
            # what is open stays so: the names in that directory, the content of that file
            refused(lambda: os.listdir(above)),
            refused(lambda: os.write(held, b"y")),
            refused(lambda: os.open("own", os.O_RDWR, dir_fd=inside)),
            refused(lambda: os.rename("own", "other", src_dir_fd=inside, dst_dir_fd=inside)),
        ]

    denied = errno.EACCES
    assert confined(tmp_path / "inside", version, attempts) == [denied] * 5 + [0] * 4
    assert (tmp_path / "secret").read_text() == "y"
    os.close(above)
    os.close(held)


def test_a_stream_can_be_opened_once_more_for_what_it_is_open_for(
    tmp_path: Path, version: int
) -> None:
    """A named pipe or a device; a directory is a way into its tree, and a pipe needs no rule."""
    (tmp_path / "inside").mkdir()
    (tmp_path / "secret").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    directory = os.open(tmp_path, os.O_RDONLY)
    pipe, other = os.pipe()

    def attempts() -> list[int]:
        fifo, top = tmp_path / "fifo", tmp_path / "inside"
        return [
            refused(lambda: os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)),
            refused(lambda: os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)),
            refused(lambda: os.open("secret", os.O_RDONLY, dir_fd=directory)),
            refused(lambda: os.listdir(top)),
        ]

    found = confined(tmp_path / "inside", version, attempts, (reader, directory, pipe))
    assert found == [0, errno.EACCES, errno.EACCES, 0]
    for fd in (reader, directory, pipe, other):
        os.close(fd)


def test_a_process_without_the_right_to_it_says_so(tmp_path: Path, version: int) -> None:
    """It needs no_new_privs or CAP_SYS_ADMIN."""

    def alone() -> str:
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        root = os.open("/", os.O_PATH)
        try:
            landlock.confine(root, Domain(rights=landlock.rights_of(version)), ())
        except KernelError as error:
            return error.message
        return ""

    assert in_child(alone) == "confine the process with Landlock: Operation not permitted"
