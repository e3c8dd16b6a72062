"""A host without SELinux: what asks for no label goes on as it was, what asks for one is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from containers import Containers
from lane import Sysbox

from sysbox.linux import lsm


def test_nothing_has_a_label(containers: Containers, tmp_path: Path) -> None:
    """Command lines that are made for hosts with SELinux too."""
    assert not lsm.has_selinux(), "this file is for hosts without SELinux"
    flags = ("--security-opt", "label=disable", "-v", f"{tmp_path}:/x:Z", "-v", "/etc:/y:ro,z")
    one = containers(*flags)
    assert one.inspect("ProcessLabel") == one.inspect("MountLabel") == ""
    one.sh("echo 1 >/x/file")
    assert "security.selinux" not in os.listxattr(tmp_path)
    assert "security.selinux" not in os.listxattr("/etc")
    assert not [name for name in listed("levels") if name.endswith(one.id)]


def listed(directory: str) -> list[str]:
    """What is in a directory of the store, which a new host has not."""
    path = f"/var/lib/sysbox/{directory}"
    return os.listdir(path) if os.path.isdir(path) else []


@pytest.mark.parametrize("option", ["type:container_t", "level:s0:c1,c2", "nested"])
def test_a_label_that_nobody_would_apply(sysbox: Sysbox, image: str, option: str) -> None:
    before = listed("containers")
    flags = ("--security-opt", f"label={option}")
    said = f"--security-opt label={option}: SELinux is not enabled on this host"
    for verb in (("run", "--rm"), ("run", "-d"), ("create",), ("run", "--dry-run")):
        done = sysbox(*verb, *flags, image, "true")
        assert done.returncode == 125
        assert said in done.stderr.splitlines()[0]
    assert listed("containers") == before
