"""A helper: what it returns, what it fails with, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from forked import needs_root

from sysbox.base.errors import NotFound, StartError
from sysbox.linux import _sys, namespace
from sysbox.run import helper


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_descriptors_come_back() -> None:
    def work() -> tuple[int, ...]:
        return (os.memfd_create("one"), -1, os.memfd_create("two"))

    found = helper.have_done("make files", work, 3)
    try:
        assert [one >= 0 and os.readlink(f"/proc/self/fd/{one}")[:10] for one in found] == [
            "/memfd:one", False, "/memfd:two",
        ]  # fmt: skip
        assert not any(os.get_inheritable(one) for one in found if one >= 0)
    finally:
        for one in found:
            if one >= 0:
                os.close(one)


def test_without_any() -> None:
    needs_root()
    here = namespace.identity("/proc/self/ns/uts")

    def work() -> tuple[int, ...]:
        _sys.unshare(namespace.CLONE_NEWUTS)
        _sys.sethostname("elsewhere")
        return ()

    assert helper.have_done("take a name", work) == ()
    assert namespace.identity("/proc/self/ns/uts") == here
    assert os.uname().nodename != "elsewhere"


@pytest.mark.parametrize("descriptors", [0, 2])
def test_what_it_fails_with(descriptors: int) -> None:
    def work() -> tuple[int, ...]:
        raise NotFound("no such thing", hint="make it")

    with pytest.raises(StartError) as caught:
        helper.have_done("look", work, descriptors)
    assert (caught.value.message, caught.value.hint) == ("no such thing", "make it")

    def refused() -> tuple[int, ...]:
        raise OSError(13, "x")

    with pytest.raises(StartError, match=r"look \(helper\): Permission denied"):
        helper.have_done("look", refused, descriptors)


@pytest.mark.parametrize("descriptors", [0, 2])
def test_one_that_is_killed(descriptors: int) -> None:
    def work() -> tuple[int, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        return ()

    with pytest.raises(StartError, match="look: the child that does it was killed"):
        helper.have_done("look", work, descriptors)
