"""`--device DIRECTORY`: the devices below it, and what looks like one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.base.errors import SpecError
from sysbox.security import devices
from sysbox.spec import Device


def test_a_directory_without_a_device(tmp_path: Path) -> None:
    """As /tmp, by mistake: no file is one, nor what marks a removed one in a layer, nor a terminal."""
    needs_root()
    for name in ("deep/layer", "deep/pts"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "deep/file").touch()
    os.mkfifo(tmp_path / "deep/fifo")
    os.mknod(tmp_path / "deep/layer/removed", stat.S_IFCHR, 0)
    os.mknod(tmp_path / "deep/pts/5", stat.S_IFCHR, os.makedev(136, 5))
    with pytest.raises(SpecError, match="there is no device in this directory"):
        devices.resolve_devices((Device(source=str(tmp_path), target="/dev/x"),))
