"""Compare `run` under SELinux with `run --security-opt label=disable`, in pairs, on this very host.

    labels.py [--pairs N] [SYSBOX]

SYSBOX is the command, by default that of this checkout. The host must have SELinux and systemd; in the guest:

    .venv/bin/python tools/vm/run.py --flavour enforcing 'python bench/labels.py'
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from against import row
from timing import Command, MeasureError, paired, timed

DISABLED = ("--security-opt", "label=disable")
IMAGE = "host"


def pairs(sysbox: str, count: int, *words: str) -> tuple[list[float], list[float]]:
    """The times of `run` with labels and without, in milliseconds."""
    run, command = (sysbox, "run", "--rm"), (*words, IMAGE, "true")
    return paired(
        lambda _: timed(Command([*run, *command])),
        lambda _: timed(Command([*run, *DISABLED, *command])),
        count,
    )


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
