"""Compare `run` in a user namespace of the container's own with `run --userns host`, in pairs on one host.

    userns.py [--pairs N] [CHECKOUT]

Boots an embedded host with its own network. An image of one layer and one of forty are run, in alternating
order; the result is the median of the ratios. CHECKOUT, by default this one, has the build in its .venv.
"""

from __future__ import annotations

import sys

from against import IMAGE, Build, measured, row
from contest import say
from hardware import load
from timing import paired

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


def report(build: Build, count: int) -> None:
    """The figures as a table of Markdown."""
    add_layers(build)
    print(f"{count} pairs of each, milliseconds; load before: {load()}\n")
    print("| `run --rm` | auto | host | median of the ratios | quartiles |")
    print("|---|---:|---:|---:|---:|")
    for name, words in (
        ("1 layer, --network none", ("--network", "none", IMAGE)),
        ("1 layer", (IMAGE,)),
        (f"{LAYERS} layers", (MANY,)),
    ):
        say(name)
        print(row(name, *pairs(build, count, *words)), flush=True)


if __name__ == "__main__":
    sys.exit(measured("bench/userns.py", __doc__, report))
