"""What an attempt in a child says: that it works, why it does not, or that nothing was learned."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError, SysboxError, Unsupported
from sysbox.linux import namespace
from sysbox.linux.child import BUSY, why_not


def fails(error: BaseException) -> Callable[[], None]:
    """An attempt that does."""

    def attempt() -> None:
        raise error

    return attempt


def test_what_works() -> None:
    assert why_not(lambda: None) == ""


def test_why_it_fails() -> None:
    assert why_not(fails(Unsupported("not here"))) == "not here"
    assert why_not(fails(KernelError("mount", "/x", errno.EINVAL))) == "mount /x: Invalid argument"
    assert why_not(fails(OSError(errno.EPERM, "no"))) == "try it: Operation not permitted"
    assert why_not(fails(KeyError("x"))) == "KeyError: 'x'"
    assert why_not(fails(Unsupported("x" * 9000))) == "x" * 4000
    # an attempt within another one
    assert why_not(lambda: fails(Unsupported(why_not(fails(Unsupported("deep")))))()) == "deep"


@pytest.mark.parametrize("number", sorted(BUSY))
def test_nothing_is_learned_of_a_busy_host(number: int) -> None:
    for error in (KernelError("mount", "/x", number), OSError(number, "no")):
        with pytest.raises(KernelError) as caught:
            why_not(fails(error))
        assert caught.value.errno == number
    assert str(caught.value) == f"try it: {os.strerror(number)}"

    def within() -> None:
        why_not(fails(KernelError("mount", "/x", number)))

    with pytest.raises(KernelError) as caught:
        why_not(within)
    assert str(caught.value) == f"mount /x: {os.strerror(number)}"


def test_a_child_that_is_killed() -> None:
    with pytest.raises(SysboxError, match="killed"):
        why_not(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_its_namespaces_are_new() -> None:
    needs_root()
    here = namespace.identity("/proc/self/ns/net")

    def attempt() -> None:
        assert namespace.identity("/proc/self/ns/net") != here

    assert why_not(attempt, namespace.CLONE_NEWNET) == ""
    assert why_not(attempt).startswith("AssertionError: ")


def test_namespaces_that_cannot_be_made() -> None:
    def ask() -> str:
        os.setresgid(7, 7, 7)
        os.setresuid(7, 7, 7)
        return why_not(lambda: None, namespace.CLONE_NEWNET)

    assert in_child(ask, namespace.CLONE_NEWNS) == "make new namespaces: Operation not permitted"


def test_nothing_is_left() -> None:
    before = os.listdir("/proc/self/fd")
    why_not(lambda: None)
    why_not(fails(Unsupported("x")))
    with pytest.raises(KernelError):
        why_not(fails(OSError(errno.ENOMEM, "")))
    assert os.listdir("/proc/self/fd") == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_it_ends_though_the_attempt_exits() -> None:
    """What an attempt raises does not reach the code that follows in the parent."""
    assert why_not(fails(SystemExit(3))) == "it ended early"
