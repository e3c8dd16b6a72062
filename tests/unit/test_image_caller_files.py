"""The one reader of the caller's files: absent, read whole, or an error of the class that was asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sysbox.base.errors import FormatError, SpecError, TrustError
from sysbox.image import caller_files


def test_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "fifo")
    assert caller_files.read(f"{tmp_path}/link", 5) == b"12345"
    # where $HOME is /dev/null there is no file below it
    for name in ("none", "file/none"):
        assert caller_files.read(f"{tmp_path}/{name}") is None
        assert caller_files.names(f"{tmp_path}/{name}") == []
    with pytest.raises(FormatError, match="file: larger than 4 bytes"):
        caller_files.read(f"{tmp_path}/file", 4)
    for name, why in (("fifo", "not a file"), ("", "not a file"), ("circle", "Too many levels")):
        with pytest.raises(TrustError, match=f"{tmp_path}/{name}: {why}"):
            caller_files.read(f"{tmp_path}/{name}", 5, TrustError)
    with pytest.raises(TrustError, match="circle: Too many levels"):
        caller_files.names(f"{tmp_path}/circle", TrustError)
    assert caller_files.names(str(tmp_path)) == ["circle", "fifo", "file", "link"]


def test_a_file_of_the_command_line(tmp_path: Path) -> None:
    """It may be a pipe, which the shell's <(...) makes."""
    with subprocess.Popen(["sh", "-c", "sleep 0.1; echo 1234"], stdout=subprocess.PIPE) as one:
        assert one.stdout is not None
        path = f"/dev/fd/{one.stdout.fileno()}"
        assert caller_files.read_given(path, 5, SpecError) == b"1234\n"
    with pytest.raises(SpecError, match="none: no such file"):
        caller_files.read_given(f"{tmp_path}/none", 5, SpecError)
    with pytest.raises(SpecError, match="not a file"):
        caller_files.read_given("/dev/zero", 5, SpecError)
