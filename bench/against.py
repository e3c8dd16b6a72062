"""Compare two builds of sysbox, each on its own embedded host; `bench/against.sh` runs it.

A build is a checkout with its `.venv`. Every measure is taken in pairs, new and old, in alternating order;
the result is the median of the pairs' ratios. Prints Markdown, and its progress on standard error.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import rootfs
from contest import say
from hardware import load
from timing import Command, MeasureError, alarms, paired, timed

IMAGE = "bench:1"
LISTED = 50  # running containers while `ps` and `stats` are measured


def serve() -> None:
    """On an embedded host: time each command line of standard input, and print its milliseconds."""
    with alarms():
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = repr(timed(Command(request["argv"], terminal=request["terminal"])))
            except MeasureError as error:
                answer = f"error: {error}"
            print(answer.replace("\n", " "), flush=True)


class Build:
    """One checkout, and the process that times its commands on its embedded host."""

    def __init__(self, name: str, checkout: Path, process: subprocess.Popen[str]) -> None:
        self.name = name
        self.launcher = checkout / ".venv/bin/sysbox"
        self._process = process

    def time(self, *words: str, terminal: bool = False) -> float:
        """Milliseconds of one command of this build; raises MeasureError."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"argv": [str(self.launcher), *words], "terminal": terminal}
        print(json.dumps(request), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        try:
            return float(answer)
        except ValueError:
            raise MeasureError(f"{self.name}: {answer.strip() or 'no answer'}") from None


@contextmanager
def booted(name: str, checkout: Path) -> Iterator[Build]:
    """A build on a new embedded host, which is removed afterwards with its state."""
    launcher = checkout / ".venv/bin/sysbox"
    subprocess.run(
        [launcher, "host", "start", "--name", name, "--private-network"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    try:
        inside = [sys.executable, "-B", __file__, "--serve"]
        with subprocess.Popen(
            [launcher, "host", "exec", "--name", name, "--", *inside],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield Build(name, checkout, process)
            assert process.stdin
            process.stdin.close()
    finally:
        subprocess.run(
            [launcher, "host", "stop", "--name", name, "--timeout", "60", "--purge"],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def measured(prog: str, about: str, measure: Callable[[Build, int], None]) -> int:
    """The command line of a script that measures pairs of commands of one build, and its exit status.

    `about` is the script's docstring; `measure` gets the build, which has IMAGE, and the number of pairs.
    """
    parser = argparse.ArgumentParser(prog=prog, description=about.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=60, metavar="N", help="of each measure (60)")
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("checkout", type=Path, nargs="?", default=here, help="with its .venv")
    arguments = parser.parse_args()
    try:
        with booted(Path(prog).stem, arguments.checkout) as build:
            import_image(build)
            measure(build, arguments.pairs)
    except (MeasureError, subprocess.CalledProcessError) as error:
        say(str(error))
        return 1
    return 0


def import_image(*builds: Build) -> None:
    """Give each build the image IMAGE. Raises MeasureError."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as work:
        archive = Path(work) / "rootfs.tar"
        rootfs.make(Path(work) / "rootfs", archive)
        for build in builds:
            build.time("import", str(archive), IMAGE)


class Measure:
    """One command line, and the one that undoes it."""

    def __init__(self, *words: str, undo: Sequence[str] = (), terminal: bool = False) -> None:
        self.words = words
        self.undo = undo
        self.terminal = terminal

    def take(self, build: Build, number: int) -> float:
        words = [word.replace("%n", str(number)) for word in self.words]
        took = build.time(*words, terminal=self.terminal)
        if self.undo:
            build.time(*(word.replace("%n", str(number)) for word in self.undo))
        return took


RUN = ("run", "--rm")
FEW = {
    "run --rm --network none": Measure(*RUN, "--network", "none", IMAGE, "true"),
    "run --rm": Measure(*RUN, IMAGE, "true"),
    "run --rm -it": Measure(*RUN, "-it", IMAGE, "true", terminal=True),
    "run -d": Measure(
        *("run", "-d", "--name", "d%n", IMAGE, "sleep", "1000"), undo=("rm", "-f", "d%n")
    ),
    "exec": Measure("exec", "up", "true"),
    "stop -t 0, start": Measure("stop", "-t", "0", "up", undo=("start", "up")),
    "update": Measure("update", "--cpu-shares", "5%n", "up"),
    "inspect": Measure("inspect", "up"),
    "logs": Measure("logs", "up"),
}
MANY = {
    f"ps of {LISTED}": Measure("ps"),
    f"stats of {LISTED}": Measure("stats", "--no-stream"),
}


def ratios(
    new: Build, old: Build, measures: dict[str, Measure], pairs: int
) -> Iterator[tuple[str, list[float], list[float]]]:
    """(name, times of the new build, times of the old build) of each measure, in milliseconds."""
    for name, measure in measures.items():
        say(name)
        takes = (partial(measure.take, build) for build in (new, old))
        yield name, *paired(*takes, pairs)


def row(name: str, new: list[float], old: list[float]) -> str:
    """The medians in milliseconds, and the median and the quartiles of the pairs' ratios."""
    quotients = [one / other for one, other in zip(new, old, strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4)
    medians = f"{statistics.median(new):.1f} | {statistics.median(old):.1f}"
    return f"| `{name}` | {medians} | {middle:.2f} | {low:.2f} to {high:.2f} |"


def compare(new: Build, old: Build, pairs: int, only: str) -> None:
    few = {name: measure for name, measure in FEW.items() if name.startswith(only)}
    many = {name: measure for name, measure in MANY.items() if name.startswith(only)}
    print(f"{pairs} pairs of each, milliseconds; load before: {load()}\n")
    print("| | new | old | median of the ratios | quartiles |")
    print("|---|---:|---:|---:|---:|")
    import_image(new, old)
    for build in (new, old):
        build.time("run", "-d", "--name", "up", IMAGE, "sleep", "1000")
    for found in ratios(new, old, few, pairs):
        print(row(*found), flush=True)
    for build in (new, old):
        for number in range(1, LISTED if many else 1):
            build.time("run", "-d", "--name", f"many{number}", IMAGE, "sleep", "1000")
    for found in ratios(new, old, many, pairs):
        print(row(*found), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/against.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=60, metavar="N", help="of each measure (60)")
    parser.add_argument("--only", default="", metavar="WORDS", help="measures that begin so")
    parser.add_argument("checkout", type=Path, nargs="*", help="the new build, and the old one")
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    first, second = arguments.checkout
    try:
        with booted("against-new", first) as new, booted("against-old", second) as old:
            compare(new, old, arguments.pairs, arguments.only)
    except (MeasureError, subprocess.CalledProcessError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
