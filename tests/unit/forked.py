"""Run a function in a child with namespaces of its own, so that a test changes nothing outside."""

from __future__ import annotations

import marshal
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from sysbox.linux import _sys
from sysbox.linux.mount import MS_PRIVATE, MS_REC
from sysbox.linux.namespace import CLONE_NEWNS


def needs_root() -> None:
    """Skip where we are not root; in CI that is a failure."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI"):
        pytest.fail("this test needs root, and CI must provide it")
    pytest.skip("needs root")


def in_child(function: Callable[[], Any], namespaces: int = 0) -> Any:
    """What `function` returns (plain values only), run in a forked child; its exception fails the test."""
    if namespaces:
        needs_root()
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if namespaces:
                _sys.unshare(namespaces)
            if namespaces & CLONE_NEWNS:
                _sys.mount(None, "/", None, MS_REC | MS_PRIVATE, None)
            answer = marshal.dumps((True, function()))
        except BaseException:
            answer = marshal.dumps((False, traceback.format_exc()))
        os.write(write_end, answer)
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as file:
        answer = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert answer, f"the child ended with {status} and no answer"
    good, value = marshal.loads(answer)
    if not good:
        pytest.fail(value)
    return value
