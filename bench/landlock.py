"""Compare `run --security-opt landlock=on` with `run` without it, in pairs on one host.

    landlock.py [--pairs N] [CHECKOUT]

Boots an embedded host with its own network; the order alternates, and the result is the median of the ratios.
CHECKOUT, by default this one, has the build in its .venv. Prints Markdown.
"""

from __future__ import annotations

import statistics
import sys

from against import IMAGE, Build, measured, row
from contest import say
from hardware import load
from report import machine_table
from timing import paired

ON = ("--security-opt", "landlock=on")
MOST = 1.05  # the median of the ratios


def pairs(build: Build, count: int, *words: str) -> tuple[list[float], list[float]]:
    """The times of a command with Landlock and without it, in milliseconds."""
    confined = (words[0], *ON, *words[1:])
    return paired(lambda _: build.time(*confined), lambda _: build.time(*words), count)


def report(build: Build, count: int) -> None:
    """The figures as Markdown, in the form that keep.py takes."""
    before = load()
    rows, found = [], []
    for name, words in (
        ("run --rm --network none", ("run", "--rm", "--network", "none", IMAGE, "true")),
        ("run --rm", ("run", "--rm", IMAGE, "true")),
    ):
        say(name)
        confined, free = pairs(build, count, *words)
        rows.append(row(name, confined, free))
        found.append(statistics.median(a / b for a, b in zip(confined, free, strict=True)))
    print("# Starts with Landlock\n")
    print(f"{count} pairs of each, in milliseconds. Made by `make bench-landlock`.\n")
    print(machine_table(before, ()))
    print("\n| command | landlock=on | without | median of the ratios | quartiles |")
    print("|---|---:|---:|---:|---:|")
    print("\n".join(rows))
    met = "met" if max(found) <= MOST else "missed"
    print(f"\nWanted: at most {MOST:.2f} of a start without it: {met}, {max(found):.2f}.")


if __name__ == "__main__":
    sys.exit(measured("bench/landlock.py", __doc__, report))
