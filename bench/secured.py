"""Compare `run` under the host's security module with `run --security-opt OPTION`, which leaves it out.

    secured.py [--pairs N] OPTION [SYSBOX]

In pairs, on this very host, which must have the module and systemd. SYSBOX is the command, by default that of
this checkout. Prints Markdown. In a guest, whose flavour decides the module:

    .venv/bin/python tools/vm/run.py --flavour apparmor 'python bench/secured.py apparmor=unconfined'
    .venv/bin/python tools/vm/run.py --flavour enforcing 'python bench/secured.py label=disable'
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from against import row
from timing import Command, MeasureError, alarms, paired, timed

IMAGE = "host"


def pairs(sysbox: str, count: int, option: str, *words: str) -> tuple[list[float], list[float]]:
    """The times of `run` without the option and with it, in milliseconds."""
    run, command = (sysbox, "run", "--rm"), (*words, IMAGE, "true")
    return paired(
        lambda _: timed(Command([*run, *command])),
        lambda _: timed(Command([*run, "--security-opt", option, *command])),
        count,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/secured.py", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, metavar="N", help="of each kind (60)")
    parser.add_argument("option", help="such as apparmor=unconfined")
    own = Path(__file__).resolve().parents[1] / ".venv/bin/sysbox"
    default = str(own) if own.exists() else shutil.which("sysbox") or ""
    parser.add_argument("sysbox", nargs="?", default=default, help="the command")
    given = parser.parse_args()
    print(f"| `run --rm` | confined | {given.option} | median of the ratios | quartiles |")
    print("|---|---:|---:|---:|---:|")
    try:
        with alarms():
            for name, words in (("--network none", ("--network", "none")), ("a network", ())):
                found = pairs(given.sysbox, given.pairs, given.option, *words)
                print(row(name, *found), flush=True)
    except MeasureError as error:
        print(f"bench/secured.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
