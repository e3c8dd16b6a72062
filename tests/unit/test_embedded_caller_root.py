"""A path that the caller gave means the caller's file, also from inside the embedded host."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError
from sysbox.embedded import caller_root
from sysbox.linux import mount


def test_nothing_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("here")
    monkeypatch.chdir(tmp_path)
    for path in ("file", f"{tmp_path}/file"):
        fd = caller_root.open_path(path, os.O_RDONLY)
        assert os.read(fd, 10) == b"here"
        os.close(fd)
    with pytest.raises(KernelError, match="open none"):
        caller_root.open_path("none", os.O_RDONLY)


@pytest.mark.parametrize(("races", "opened"), [(0, True), (1, True), (63, True), (64, False)])
def test_a_rename_elsewhere_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, races: int, opened: bool
) -> None:
    """openat2(2): EAGAIN, if the kernel cannot tell that ".." stays inside of the root."""
    left = [OSError(errno.EAGAIN, "")] * races

    def openat2(*_: object) -> int:
        if left:
            raise left.pop()
        return 7

    monkeypatch.setattr(caller_root, "_root", 3)
    monkeypatch.setattr(mount._sys, "openat2", openat2)
    if opened:
        assert caller_root.open_path("/a/../b", os.O_RDONLY) == 7
    else:
        with pytest.raises(KernelError, match="open /a/"):
            caller_root.open_path("/a/../b", os.O_RDONLY)


def test_the_root_was_left(tmp_path: Path) -> None:
    needs_root()
    other = tmp_path / "other"
    (other / str(tmp_path)[1:]).mkdir(parents=True)
    (other / str(tmp_path)[1:] / "file").write_text("of the other root")
    (tmp_path / "file").write_text("the caller's")
    (tmp_path / "link").symlink_to(tmp_path / "file")

    def leave() -> None:
        caller_root.keep(str(tmp_path))
        os.chroot(other)
        os.chdir("/")
        for path in ("file", f"{tmp_path}/file", "link", f"{tmp_path}/../{tmp_path.name}/link"):
            assert os.read(caller_root.open_path(path, os.O_RDONLY), 20) == b"the caller's", path
        assert caller_root.working_directory() == str(tmp_path)

    in_child(leave)
