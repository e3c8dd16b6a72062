"""Memory of processes: the proportional set size of proc_pid_smaps(5), in KiB."""

from __future__ import annotations

import os
from pathlib import Path


def pss(names: frozenset[str]) -> tuple[int, int]:
    """(number, PSS in KiB) of the processes of these names (`comm`, 15 bytes at most).

    A process that ends meanwhile does not count.
    """
    count = total = 0
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            if Path(f"/proc/{entry}/comm").read_text().rstrip("\n") not in names:
                continue
            size = pss_of(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
        count += 1
        total += size
    return count, total


def pss_of(pid: int) -> int:
    """The PSS of one process in KiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0
