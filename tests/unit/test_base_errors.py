"""Errors in words: what is wrong, and what to do about it."""

from __future__ import annotations

import errno

import pytest

from sysbox.base.errors import KernelError, in_use


@pytest.mark.parametrize(
    ("op", "target", "full"),
    [
        ("copy", "big", True),
        ("write", "/srv/a", True),
        ("copy the image's content into the volume", "data", True),
        ("write", "/sys/fs/cgroup/cpuset/x/tasks", False),
        ("make new namespaces", "", False),
        ("watch", "/run", False),
    ],
    ids="file path volume cgroup namespace watch".split(),
)
def test_no_space_is_not_always_a_disk(op: str, target: str, *, full: bool) -> None:
    hint = KernelError(op, target, errno.ENOSPC).hint
    assert ("file system is full: free some space" in hint) == full
    assert ("max_mnt_namespaces" in hint) != full


def test_who_uses_it() -> None:
    one, two = in_use("volume data", ["web"]), in_use("volume data", ["db", "web"])
    assert (one.message, one.hint) == (
        "volume data is in use by container web", "remove the container first",
    )  # fmt: skip
    assert (two.message, two.hint) == (
        "volume data is in use by containers db, web", "remove the containers first",
    )  # fmt: skip
