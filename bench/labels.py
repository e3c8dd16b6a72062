"""Compare `run` under SELinux with `run --security-opt label=disable`, in pairs, on this very host.

    labels.py [--pairs N] [SYSBOX]

SYSBOX is the command, by default that of this checkout. The host must have SELinux and systemd; in the guest:

    .venv/bin/python tools/vm/run.py --flavour enforcing 'python bench/labels.py'
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from against import row
from timing import PAUSE, Command, MeasureError, timed

FLAGS = {"labels": (), "label=disable": ("--security-opt", "label=disable")}
IMAGE = "host"


def pairs(sysbox: str, count: int, *words: str) -> tuple[list[float], list[float]]:
    """The times of `run` with each of FLAGS, in milliseconds, in alternating order."""
    times: dict[str, list[float]] = {name: [] for name in FLAGS}
    names = tuple(FLAGS)
    for number in range(count + 1):
        for name in names if number % 2 else names[::-1]:
            time.sleep(PAUSE)
            took = timed(Command([sysbox, "run", "--rm", *FLAGS[name], *words, IMAGE, "true"]))
            if number:  # the first pair warms up
                times[name].append(took)
    return times[names[0]], times[names[1]]


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/labels.py", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, metavar="N", help="of each kind (60)")
    own = Path(__file__).resolve().parents[1] / ".venv/bin/sysbox"
    default = str(own) if own.exists() else shutil.which("sysbox") or ""
    parser.add_argument("sysbox", nargs="?", default=default, help="the command")
    arguments = parser.parse_args()
    if not Path("/sys/fs/selinux/enforce").exists():
        print("bench/labels.py: this host has no SELinux", file=sys.stderr)
        return 1
    print("| `run --rm` | labels | label=disable | median of the ratios | quartiles |")
    print("|---|---:|---:|---:|---:|")
    try:
        for name, words in (("--network none", ("--network", "none")), ("a network", ())):
            print(row(name, *pairs(arguments.sysbox, arguments.pairs, *words)), flush=True)
    except MeasureError as error:
        print(f"bench/labels.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
