"""Compare `run` in a user namespace of the container's own with `run --userns host`, in pairs on one host.

    userns.py [--pairs N] [CHECKOUT]

Boots an embedded host with its own network. An image of one layer and one of forty are run, in alternating
order; the result is the median of the ratios. CHECKOUT, by default this one, has the build in its .venv.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from against import IMAGE, Build, booted, import_image, row
from contest import say
from hardware import load
from timing import MeasureError, paired

LAYERS = 40
MANY = "bench:many"


def add_layers(build: Build) -> None:
    """Make MANY from IMAGE, with LAYERS layers."""
    build.time("tag", IMAGE, MANY)
    for number in range(1, LAYERS):
        build.time("run", "--name", "layer", MANY, "touch", f"/{number}")
        build.time("commit", "layer", MANY)
        build.time("rm", "layer")


def pairs(build: Build, count: int, *words: str) -> tuple[list[float], list[float]]:
    """The times of `run` with a user namespace of its own and with the host's, in milliseconds."""
    auto, host = (("run", "--rm", "--userns", mode, *words, "true") for mode in ("auto", "host"))
    return paired(lambda _: build.time(*auto), lambda _: build.time(*host), count)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/userns.py", description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, metavar="N", help="of each image (60)")
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("checkout", type=Path, nargs="?", default=here, help="with its .venv")
    arguments = parser.parse_args()
    try:
        with booted("userns", arguments.checkout) as build:
            import_image(build)
            add_layers(build)
            print(f"{arguments.pairs} pairs of each, milliseconds; load before: {load()}\n")
            print("| `run --rm` | auto | host | median of the ratios | quartiles |")
            print("|---|---:|---:|---:|---:|")
            for name, words in (
                ("1 layer, --network none", ("--network", "none", IMAGE)),
                ("1 layer", (IMAGE,)),
                (f"{LAYERS} layers", (MANY,)),
            ):
                say(name)
                print(row(name, *pairs(build, arguments.pairs, *words)), flush=True)
    except (MeasureError, subprocess.CalledProcessError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
