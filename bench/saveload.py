"""`save` to a file and `load` from it, beside podman and docker, on a fresh ext4 each time.

`bench/run.sh --saveload` runs it. The image is that of pull.py with layers of gzip; it is loaded once, which
is not timed, then saved, removed and loaded again. Prints Markdown.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import pullimage
from contest import WORK, add_only, say
from hardware import load
from pull import MET, PULLERS, Puller, compress, fresh
from report import machine_table, seconds, table
from timing import MeasureError, Sample, alarms, sampled

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from registryserver import digest_of

NAME = "localhost/bench:1"
SAVE, LOAD, BOTH = "save", "load", "save and load"
MOST = 0.7  # of the others' time for both


def make(path: Path) -> int:
    """docker's archive of the image; returns the bytes of its layers."""
    files: dict[str, bytes] = {}
    diff_ids = []
    for number, archive in enumerate(pullimage.archives()):
        diff_ids.append(digest_of(archive))
        files[f"{number}.tar"] = compress(archive, "gzip")
    config = {
        "os": "linux",
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    size = sum(map(len, files.values()))
    item = {"Config": "config.json", "RepoTags": [NAME], "Layers": list(files)}
    files["config.json"] = json.dumps(config).encode()
    files["manifest.json"] = json.dumps([item]).encode()
    with tarfile.open(path, "w") as archive_file:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive_file.addfile(member, io.BytesIO(data))
    return size


def once(puller: Puller, archive: Path) -> dict[str, float]:
    """Milliseconds of `save` and of `load`."""
    with fresh() as place:
        directory = place / puller.name
        directory.mkdir()
        puller.begin(directory)
        out = str(place / "saved.tar")
        try:
            puller.call(*puller.command(), "load", "-q", "-i", str(archive))
            os.sync()
            found = {SAVE: puller.time([*puller.command(), "save", "-o", out, NAME])}
            puller.call(*puller.command(), "rmi", "-f", NAME)
            os.sync()
            found[LOAD] = puller.time([*puller.command(), "load", "-q", "-i", out])
        finally:
            puller.end()
    return found | {BOTH: found[SAVE] + found[LOAD]}


def measure(pullers: Sequence[Puller], archive: Path, runs: int) -> dict[str, dict[str, Sample]]:
    """measure -> contestant -> times."""
    values: dict[str, dict[str, list[float]]] = {}
    for number in range(runs):
        for puller in pullers:
            say(f"{puller.name}: {number + 1} of {runs}")
            for title, milliseconds in once(puller, archive).items():
                values.setdefault(title, {}).setdefault(puller.name, []).append(milliseconds)
    return sampled(values)


def report(
    times: dict[str, dict[str, Sample]], size: int, pullers: Sequence[Puller], load_before: float
) -> str:
    """The whole report."""
    how = (
        f"An image of {len(pullimage.FILES)} layers and {sum(pullimage.FILES):,} files, "
        f"{size / 1e6:.0f} MB with gzip, saved to a file and loaded from it, on a fresh ext4 with a "
        "journal each time. Made by `make bench-saveload`."
    )
    blocks = ["# What save and load cost", how, machine_table(load_before, pullers)]
    blocks += [seconds(f"`{title}`", samples) for title, samples in times.items()]
    rows = []
    for name, one in times[BOTH].items():
        if name != "sysbox":
            ratio = times[BOTH]["sysbox"].median / one.median
            rows.append((name, f"{ratio:.2f}", f"{MOST:.2f}", MET[ratio <= MOST]))
    return "\n\n".join(
        [*blocks, "## Goals\n\n" + table(("beside", "sysbox is", "at most", ""), rows)]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    add_only(parser)
    chosen = parser.parse_args()
    kinds = [one for one in PULLERS if not chosen.only or one.name in {"sysbox", *chosen.only}]
    with ExitStack() as stack:
        WORK.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, WORK, ignore_errors=True)
        say("making the image")
        archive = WORK / "image.tar"
        size = make(archive)
        stack.enter_context(alarms())
        pullers = [one(WORK) for one in kinds if not one(WORK).missing()]
        before = load()
        try:
            times = measure(pullers, archive, chosen.runs)
        except MeasureError as error:
            sys.exit(f"bench: {error}")
        print(report(times, size, pullers, before))


if __name__ == "__main__":
    main()
