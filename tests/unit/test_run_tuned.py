"""What others have set on a scope, read while it changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sysbox.run import tuned

ID = "ab" * 32
# as systemd does: another file takes the name; its time is that of its value
CHANGING = """import os, sys
os.chdir(sys.argv[1])
while True:
    for number in 100, 200:
        with open("new", "w") as file:
            file.write(f"[Scope]\\nCPUShares={number}\\n")
        os.utime("new", (number, number))
        os.rename("new", "50-CPUShares.conf")
    if sys.stdout:
        print(flush=True)
        sys.stdout = None
"""


def test_a_value_has_the_time_of_its_own_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time of the next one, an older value counted as what was said last of a limit's two names."""
    monkeypatch.setattr(tuned, "TRANSIENT", str(tmp_path))
    place = Path(tuned.directory(ID))
    place.mkdir()
    command = [sys.executable, "-I", "-c", CHANGING, place]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as changing:
        try:
            assert changing.stdout
            read = set()
            changing.stdout.readline()  # it has begun
            for _ in range(20_000):
                read |= {
                    (one.text.split("=")[1].strip(), one.changed) for one in tuned.drop_ins(ID)
                }
        finally:
            changing.kill()
    assert read == {("100", 100.0), ("200", 200.0)}
