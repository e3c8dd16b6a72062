"""A path that the caller gave means the caller's file, also from inside the embedded host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import KernelError
from sysbox.embedded import caller_root


def test_nothing_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("here")
    monkeypatch.chdir(tmp_path)
    for path in ("file", f"{tmp_path}/file"):
        fd = caller_root.open_path(path, os.O_RDONLY)
        assert os.read(fd, 10) == b"here"
        os.close(fd)
    with pytest.raises(KernelError, match="open none"):
        caller_root.open_path("none", os.O_RDONLY)


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
