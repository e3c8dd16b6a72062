"""Files of our own: what the kernel is told so that they survive a power cut, by strace(1)."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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
