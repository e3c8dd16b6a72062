"""Security modules: which there are, and the files that labels are written to."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from forked import in_child

from sysbox.base.errors import KernelError
from sysbox.linux import _sys, lsm, mount
from sysbox.linux.mount import MS_BIND
from sysbox.linux.namespace import CLONE_NEWNS


def test_the_list_agrees_with_each_module() -> None:
    found = lsm.active()
    assert (lsm.SELINUX in found) is lsm.has_selinux()
    assert (lsm.APPARMOR in found) is lsm.has_apparmor()
    assert lsm.has_selinux() or not lsm.is_enforcing()


def test_without_the_list_the_modules_are_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lsm, "_LIST", str(tmp_path / "none"))
    monkeypatch.setattr(lsm, "SELINUXFS", str(tmp_path))
    monkeypatch.setattr(lsm, "_APPARMOR", str(tmp_path / "enabled"))
    assert lsm.active() == ()
    (tmp_path / "enforce").write_text("0")
    (tmp_path / "enabled").write_text("Y\n")
    assert lsm.active() == ("selinux", "apparmor")
    assert not lsm.is_enforcing()
    (tmp_path / "enforce").write_text("1")
    assert lsm.is_enforcing()
    (tmp_path / "lsm").write_text("lockdown,capability,selinux,bpf")
    monkeypatch.setattr(lsm, "_LIST", str(tmp_path / "lsm"))
    assert lsm.active() == ("lockdown", "capability", "selinux", "bpf")


@pytest.mark.parametrize("module", [lsm.SELINUX, lsm.APPARMOR])
def test_the_attribute_is_this_threads(module: str) -> None:
    procfs = mount.open_procfs()
    fd = lsm.open_exec_label(procfs, module)
    path = os.readlink(f"/proc/self/fd/{fd}")
    os.close(fd)
    os.close(procfs)
    assert path.startswith(f"/proc/{os.getpid()}/task/")
    assert path.endswith("/exec")


def test_a_label_that_no_policy_has_is_refused() -> None:
    procfs = mount.open_procfs()
    fd = lsm.open_exec_label(procfs, lsm.SELINUX)
    with pytest.raises(KernelError) as caught:
        lsm.write(fd, "not:a:label")
    os.close(fd)
    os.close(procfs)
    assert caught.value.errno == errno.EINVAL
    assert "not:a:label" in caught.value.message


def test_a_file_that_is_mounted_over_the_attribute_gets_no_label(tmp_path: Path) -> None:
    """CVE-2019-16884: the label went to a file of the image's, and the container had none."""
    decoy = tmp_path / "decoy"
    decoy.write_text("")

    def write() -> int:
        _sys.mount(str(decoy), "/proc/thread-self/attr/exec", None, MS_BIND, None)
        try:
            lsm.open_exec_label(mount.open_procfs(), lsm.SELINUX)
        except KernelError as error:
            return error.errno
        return 0

    assert in_child(write, CLONE_NEWNS) == errno.EXDEV
    assert decoy.read_text() == ""


def test_another_procfs_is_not_taken_for_it(tmp_path: Path) -> None:
    """A directory that only looks like /proc (CVE-2025-52881)."""
    for name in ("exec", "apparmor/exec"):
        file = tmp_path / "thread-self/attr" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    fd = os.open(tmp_path, os.O_PATH | os.O_DIRECTORY)
    for module in (lsm.SELINUX, lsm.APPARMOR):
        with pytest.raises(KernelError) as caught:
            lsm.open_exec_label(fd, module)
        assert caught.value.errno == errno.ENODEV
    os.close(fd)


@pytest.mark.parametrize(
    ("answer", "granted"),
    [
        ("6 ffffffff 0 ffffffff 12 0", True),
        ("5 ffffffff 0 ffffffff 12 0", False),
        ("0 ffffffff 0 ffffffff 12 1", True),
        ("0 ffffffff 0 ffffffff 12 2", False),
    ],
    ids=["allowed", "denied", "permissive-type", "another-flag"],
)
def test_what_the_policy_answers(answer: str, granted: bool) -> None:
    assert lsm._is_granted(answer, 2) is granted
