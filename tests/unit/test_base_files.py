"""Files of our own: what the kernel is told so that they survive a power cut, by strace(1)."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from sysbox.base import files, tree

WRITE = "import sys; from sysbox.base.files import write_file; "


def calls(tmp_path: Path, code: str) -> list[str]:
    """What is done in the directory, in order: "fsync FILE", "rename FROM TO"."""
    log = tmp_path.with_name(f"{tmp_path.name}.log")
    subprocess.run(
        ["strace", "-y", "-o", log, "-e", "trace=fsync,rename,write",
         sys.executable, "-P", "-c", code, tmp_path],
        check=True, timeout=60,
    )  # fmt: skip
    found = []
    for line in log.read_text().splitlines():
        if str(tmp_path) in line and line.rpartition(" = ")[2].isdecimal():
            name = line.partition("(")[0]
            paths = re.findall(rf"{tmp_path}[^\">]*", line)
            words = [re.sub(r"\.\d+$", ".PID", path.removeprefix(f"{tmp_path}")) for path in paths]
            found.append(" ".join([name, *(word or "/" for word in words)]))
    return found


def test_a_durable_write_is_synced_before_it_is_renamed(tmp_path: Path, requires: Any) -> None:
    requires.program("strace")
    found = calls(tmp_path, WRITE + "write_file(f'{sys.argv[1]}/a', b'x', durable=True)")
    assert found == ["write /a.PID", "fsync /a.PID", "rename /a.PID /a", "fsync /"]


def test_what_can_be_made_again_is_not(tmp_path: Path, requires: Any) -> None:
    requires.program("strace")
    found = calls(tmp_path, WRITE + "write_file(f'{sys.argv[1]}/a', b'x')")
    assert found == ["write /a.PID", "rename /a.PID /a"]


def test_a_deep_tree_is_walked_and_removed(tmp_path: Path) -> None:
    """Deeper than the descriptors that stay open, and wider on the way back."""
    depth = 30
    inner = tmp_path / "top"
    for _ in range(depth):
        for name in "abc":
            (inner / name).mkdir(parents=True)
        (inner / "file").touch()
        inner = inner / "b"
    directory = os.open(tmp_path / "top", os.O_RDONLY)
    found = [one.name for one in tree.below(directory)]
    os.close(directory)
    assert sorted(found) == sorted(["a", "b", "c", "file"] * depth)
    files.remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []
