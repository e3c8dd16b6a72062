"""`build` of a Containerfile of six steps, cold and with everything cached, beside buildah and docker.

`bench/run.sh --build` runs it. For each round of each contestant there is a fresh ext4 with a journal on a
loop device with the base image alone: the first build is the cold one, later ones find every step. Prints
Markdown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar

import rootfs
from contest import WORK, add_only, say
from hardware import load
from peers import Docker, Hybrid, Sysbox
from pull import MET, fresh, peak
from report import machine_table, seconds, table
from timing import Command, MeasureError, Sample, alarms, sampled

BASE = "localhost/bench:1"
NAME = "localhost/bench-built:1"
COLD = "`build` of six steps, cold"
CACHED = "`build` with everything cached"
AGAIN = 3  # cached builds of a round
FILES = 400  # of the context
# (measure, contestant, the most that sysbox's time divided by the contestant's may be)
WANTED = (
    (COLD, "buildah", 0.6),
    (COLD, "docker", 0.6),
    (COLD, "BuildKit", 0.6),
    (CACHED, "buildah", 0.3),
    (CACHED, "docker", 1.0),
)
MOST_MEMORY = 100  # MiB
CONTAINERFILE = f"""\
FROM {BASE}
ENV MODE=production
WORKDIR /app
COPY src /app/src
RUN cat src/*/* > all && sha256sum all > sum
RUN for i in $(seq 200); do echo $i > file-$i; done
RUN mkdir lib && cp -r src lib/ && rm -r lib/src/0
RUN adduser -D app 2>/dev/null || echo app:x:1000:1000::/app:/bin/sh >> /etc/passwd
COPY start /usr/bin/start
CMD ["/usr/bin/start"]
"""


class Builder:
    """What a contestant does, with its state below a directory of the fresh file system."""

    label: ClassVar[str]

    def begin(self, directory: Path, archive: Path) -> None:
        """Start what it needs, and import the base image."""
        raise NotImplementedError

    def build(self, context: Path) -> list[str]:
        """The command line of a build."""
        raise NotImplementedError

    def end(self) -> None:
        """End what `begin` has started."""


class BuildSysbox(Builder, Sysbox):
    label = "sysbox"

    def begin(self, directory: Path, archive: Path) -> None:
        self.environment = {
            "SYSBOX_STATE_DIR": str(directory),
            "SYSBOX_RUN_DIR": "/run/bench-build-sysbox",
        }
        self.call(*self.command(), "import", str(archive), BASE)

    def build(self, context: Path) -> list[str]:
        return [*self.command(), "build", "-q", "-t", NAME, str(context)]

    def end(self) -> None:
        shutil.rmtree("/run/bench-build-sysbox", ignore_errors=True)


class BuildBuildah(Builder, Hybrid):
    """buildah, with the cache that it has only if asked for."""

    name = label = "buildah"
    packages = ("buildah", "crun")
    programs = ("/usr/bin/buildah", "/usr/bin/crun")

    def begin(self, directory: Path, archive: Path) -> None:
        from mountview import MountView

        self._mounts = MountView()
        self._directories = ["--root", str(directory), "--runroot", "/run/bench-buildah"]
        self.environment = {"TMPDIR": str(directory), "BUILDAH_RUNTIME": "/usr/bin/crun"}
        container = "bench-base"
        self.call(*self.command(), "from", "--name", container, "scratch")
        self.call(*self.command(), "add", container, str(archive), "/")
        self.call(*self.command(), "commit", "--rm", container, BASE)

    def command(self) -> list[str]:
        return [self.programs[0], *self._directories]

    def build(self, context: Path) -> list[str]:
        return [*self.command(), "build", "-q", "--layers", "-t", NAME, str(context)]

    def end(self) -> None:
        self._mounts.close()
        shutil.rmtree("/run/bench-buildah", ignore_errors=True)


class BuildDocker(Builder, Docker):
    """docker's classic builder; the daemon starts before the clock does."""

    label = "docker"
    kit = "0"

    def begin(self, directory: Path, archive: Path) -> None:
        socket = "unix:///run/bench-docker.sock"
        self.environment = {
            "DOCKER_HOST": socket,
            "DOCKER_CONFIG": str(directory),
            "DOCKER_BUILDKIT": self.kit,
        }
        self.call(
            *("systemd-run", "--quiet", "--collect", f"--unit={self.unit}"),
            *("--property=Type=notify", "--property=Delegate=yes", "--property=KillMode=mixed"),
            *("--", "/usr/sbin/dockerd", "--host", socket, "--data-root", str(directory)),
            *("--exec-root=/run/bench-docker", "--pidfile=/run/bench-docker.pid"),
            *("--exec-opt", "native.cgroupdriver=systemd"),
        )
        self.call(*self.command(), "import", str(archive), BASE)

    def build(self, context: Path) -> list[str]:
        file = str(context / "Containerfile")
        return [*self.command(), "build", "-q", "-f", file, "-t", NAME, str(context)]

    def end(self) -> None:
        self.cleanup()


class BuildKit(BuildDocker):
    """The same daemon with BuildKit."""

    label = "BuildKit"
    kit = "1"


BUILDERS = (BuildSysbox, BuildBuildah, BuildDocker, BuildKit)
Contestant = BuildSysbox | BuildBuildah | BuildDocker


def make_context(top: Path) -> None:
    """Some hundred files of a few KiB, and the Containerfile."""
    for number in range(FILES):
        path = top / "src" / str(number % 10) / f"file-{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 1000)
    (top / "start").write_text("#!/bin/sh\ncat /app/sum\n")
    (top / "start").chmod(0o755)
    (top / "Containerfile").write_text(CONTAINERFILE)


@contextmanager
def ready(builder: Contestant, archive: Path) -> Iterator[None]:
    """A contestant with the base image alone on a fresh file system."""
    with fresh() as place:
        directory = place / builder.name
        directory.mkdir()
        builder.begin(directory, archive)
        try:
            os.sync()
            yield
        finally:
            builder.end()


def once(builder: Contestant, context: Path, archive: Path) -> dict[str, list[float]]:
    """Milliseconds of a cold build, and of cached ones."""
    with ready(builder, archive):
        found = {COLD: [builder.time(builder.build(context))]}
        found[CACHED] = [builder.time(builder.build(context)) for _ in range(AGAIN)]
    return found


def peak_memory(builder: BuildSysbox, context: Path, archive: Path) -> float:
    """`peak` of one cold build; what runs in its steps is no part of it."""
    with ready(builder, archive):
        return peak(Command(builder.build(context), builder.environment))


def measure(
    builders: Sequence[Contestant], context: Path, archive: Path, runs: int
) -> dict[str, dict[str, Sample]]:
    """measure -> contestant -> times."""
    values: dict[str, dict[str, list[float]]] = {COLD: {}, CACHED: {}}
    for number in range(runs):
        for builder in builders:
            say(f"{builder.label}: {number + 1} of {runs}")
            for title, times in once(builder, context, archive).items():
                values[title].setdefault(builder.label, []).extend(times)
    return sampled(values)


def report(
    times: dict[str, dict[str, Sample]],
    memory: float,
    builders: Sequence[Contestant],
    load_before: float,
) -> str:
    """The whole report."""
    how = (
        f"Two COPY, four RUN and a WORKDIR on a base of one layer, with a context of {FILES} files, on a "
        "fresh ext4 with a journal on a loop device for each round. `docker` is its classic builder, "
        "`BuildKit` the one in the same daemon, which runs before the clock does. Made by `make bench-build`."
    )
    blocks = ["# What a build costs", how, machine_table(load_before, builders)]
    blocks += [seconds(title, samples) for title, samples in times.items()]
    lines = []
    for title, other, most in WANTED:
        if other in times[title]:
            ratio = times[title]["sysbox"].median / times[title][other].median
            lines.append((title, other, f"{ratio:.2f}", f"{most:.2f}", MET[ratio <= most]))
    met = MET[memory <= MOST_MEMORY]
    lines.append(
        ("memory of all its processes", "", f"{memory:.0f} MiB", f"{MOST_MEMORY} MiB", met)
    )
    blocks.append("## Goals\n\n" + table(("", "beside", "sysbox is", "at most", ""), lines))
    return "\n\n".join(blocks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    add_only(parser)
    chosen = parser.parse_args()
    kinds = [one for one in BUILDERS if not chosen.only or one.name in {"sysbox", *chosen.only}]
    with ExitStack() as stack:
        WORK.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, WORK, ignore_errors=True)
        tree, archive, context = (WORK / name for name in ("rootfs", "rootfs.tar", "context"))
        rootfs.make(tree, archive)
        make_context(context)
        stack.enter_context(alarms())
        builders = [one(WORK) for one in kinds if not one(WORK).missing()]
        before = load()
        try:
            times = measure(builders, context, archive, chosen.runs)
            mine = next(one for one in builders if isinstance(one, BuildSysbox))
            memory = peak_memory(mine, context, archive)
        except MeasureError as error:
            sys.exit(f"bench: {error}")
        print(report(times, memory, builders, before))


if __name__ == "__main__":
    main()
