"""`push` to a registry on loopback, beside podman and docker, and `create` from the same image.

`bench/run.sh --push` runs it. The image is that of pull.py; it is loaded from a file, which is not timed, and
pushed to a registry that has nothing. `create` from it is compared with `create` from an image of one file,
in turns. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pullimage
import rootfs
import saveload
from contest import WORK, add_only, say
from hardware import load
from pull import MET, PULLERS, Puller, PullSysbox, fresh
from report import machine_table, seconds, table
from timing import MeasureError, Sample, alarms

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from registryserver import Registry, program

MOST = 0.7  # of the others' time
MOST_CREATE = 1.2  # of the time that `create` takes from a small image
PAIRS = 60
SMALL = "localhost/small:1"


def push_words(puller: Puller, source: str, target: str) -> list[str]:
    """The command that pushes; docker takes no other name for the image than its own."""
    if puller.name == "docker":
        puller.call(*puller.command(), "tag", source, target)
        return [*puller.command(), "push", "-q", target]
    return [*puller.command(), "push", "-q", "--tls-verify=false", source, target]


def once(puller: Puller, archive: Path) -> float:
    """Milliseconds of a push to an empty registry."""
    with fresh() as place:
        directory = place / puller.name
        directory.mkdir()
        puller.begin(directory)
        try:
            puller.call(*puller.command(), "load", "-q", "-i", str(archive))
            with Registry(place / "registry") as registry:
                words = push_words(puller, saveload.NAME, f"{registry.host}/bench:1")
                os.sync()
                return puller.time(words)
        finally:
            puller.end()


def measure(pullers: Sequence[Puller], archive: Path, runs: int) -> dict[str, Sample]:
    """contestant -> times."""
    values: dict[str, list[float]] = {one.name: [] for one in pullers}
    for number in range(runs):
        for puller in pullers:
            say(f"{puller.name}: {number + 1} of {runs}")
            values[puller.name].append(once(puller, archive))
    return {name: Sample(tuple(kept)) for name, kept in values.items()}


def creates(mine: PullSysbox, archive: Path) -> dict[str, Sample]:
    """The times of `create` from the large image and from a small one, taken in turns."""
    values: dict[str, list[float]] = {saveload.NAME: [], SMALL: []}
    small = WORK / "small.tar"
    rootfs.make(WORK / "small", small)
    with fresh() as place:
        mine.begin(place)
        mine.call(*mine.command(), "load", "-q", "-i", str(archive))
        mine.call(*mine.command(), "import", str(small), SMALL)
        for number in range(PAIRS):
            for image, name in ((saveload.NAME, f"large-{number}"), (SMALL, f"small-{number}")):
                words = [*mine.command(), "create", "--network", "none", "--name", name, image]
                values[image].append(mine.time([*words, "true"]))
    return {name: Sample(tuple(kept)) for name, kept in values.items()}


def ratio_of(made: dict[str, Sample]) -> float:
    """The median of the pairs' ratios."""
    pairs = zip(made[saveload.NAME].values, made[SMALL].values, strict=True)
    return statistics.median(large / small for large, small in pairs)


def report(
    pushed: dict[str, Sample],
    made: dict[str, Sample],
    size: int,
    pullers: Sequence[Puller],
    load_before: float,
) -> str:
    """The whole report."""
    how = (
        f"An image of {len(pullimage.FILES)} layers and {sum(pullimage.FILES):,} files, {size / 1e6:.0f} MB "
        "with gzip, loaded from a file and pushed to an empty docker-registry on loopback, on a fresh ext4 "
        f"with a journal each time; and `create` from it and from an image of one file, {PAIRS} of each in "
        "turns. Made by `make bench-push`."
    )
    rows = [(f"`create`: {name}", f"{one.median:.1f}") for name, one in made.items()]
    goals = []
    for name, one in pushed.items():
        if name != "sysbox":
            ratio = pushed["sysbox"].median / one.median
            goals.append((f"`push`, {name}", f"{ratio:.2f}", f"{MOST:.2f}", MET[ratio <= MOST]))
    ratio = ratio_of(made)
    met = MET[ratio <= MOST_CREATE]
    goals.append(("`create`, the small image", f"{ratio:.2f}", f"{MOST_CREATE:.2f}", met))
    return "\n\n".join(
        [
            "# What a push costs",
            how,
            machine_table(load_before, pullers),
            seconds("`push`", pushed),
            "## `create`\n\n" + table(("", "median ms"), rows),
            "## Goals\n\n" + table(("beside", "sysbox is", "at most", ""), goals),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    add_only(parser)
    chosen = parser.parse_args()
    if not program():
        sys.exit("bench: docker-registry is not there: tools/setup.sh test unpacks it")
    kinds = [one for one in PULLERS if not chosen.only or one.name in {"sysbox", *chosen.only}]
    with ExitStack() as stack:
        WORK.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, WORK, ignore_errors=True)
        say("making the image")
        archive = WORK / "image.tar"
        size = saveload.make(archive)
        stack.enter_context(alarms())
        pullers = [one(WORK) for one in kinds if not one(WORK).missing()]
        mine = next(one for one in pullers if isinstance(one, PullSysbox))
        before = load()
        try:
            pushed = measure(pullers, archive, chosen.runs)
            made = creates(mine, archive)
        except MeasureError as error:
            sys.exit(f"bench: {error}")
        print(report(pushed, made, size, pullers, before))


if __name__ == "__main__":
    main()
