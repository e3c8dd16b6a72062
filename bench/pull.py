"""`pull` of an image of six layers from a registry on loopback, beside podman and docker.

`bench/run.sh --pull` runs it. For each pull there is a fresh ext4 with a journal on a loop device: on a file
system that was filled and emptied before, each further round is slower, whoever pulls. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pullimage
from contest import WORK, add_only, say
from hardware import load
from peers import Docker, Podman, Sysbox
from report import machine_table, seconds, table
from timing import Command, MeasureError, Sample, alarms, finish, sampled, spawn

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from registryserver import Registry, digest_of, program

SIZE = "8G"
GZIP = "`pull` of 6 layers, gzip"
ZSTD = "`pull` of 6 layers, zstd"
AGAIN = "`pull` after the smallest layer has changed, gzip"
# (measure, contestant, the most that sysbox's time divided by the contestant's may be)
WANTED = ((GZIP, "podman", 0.38), (GZIP, "docker", 0.45), (ZSTD, "podman", 0.45))
MOST_MEMORY = 120  # MiB
MET = {True: "met", False: "missed"}
KINDS = {GZIP: "gzip", ZSTD: "zstd"}
OCI = "application/vnd.oci.image"


class PullSysbox(Sysbox):
    """sysbox, with its state on the fresh file system."""

    def begin(self, directory: Path) -> None:
        self.environment = {
            "SYSBOX_STATE_DIR": str(directory),
            "SYSBOX_RUN_DIR": "/run/bench-pull-sysbox",
        }

    def pull(self, reference: str) -> list[str]:
        return [*self.command(), "pull", "-q", "--tls-verify=false", reference]

    def end(self) -> None:
        pass


class PullPodman(Podman):
    """podman; without a container it needs no other view of the cgroups."""

    def begin(self, directory: Path) -> None:
        self.work = directory

    def pull(self, reference: str) -> list[str]:
        return [*self.command(), "pull", "-q", "--tls-verify=false", reference]

    def end(self) -> None:
        shutil.rmtree("/run/bench-podman", ignore_errors=True)

    @contextmanager
    def view(self) -> Iterator[None]:
        yield


class PullDocker(Docker):
    """docker, whose daemon starts before the clock does."""

    def begin(self, directory: Path) -> None:
        socket = "unix:///run/bench-docker.sock"
        self.environment = {"DOCKER_HOST": socket, "DOCKER_CONFIG": str(directory)}
        self.call(
            *("systemd-run", "--quiet", "--collect", f"--unit={self.unit}"),
            *("--property=Type=notify", "--property=Delegate=yes", "--property=KillMode=mixed"),
            *("--", "/usr/sbin/dockerd", "--host", socket, "--data-root", str(directory)),
            *("--exec-root=/run/bench-docker", "--pidfile=/run/bench-docker.pid"),
            *("--exec-opt", "native.cgroupdriver=systemd", "--bridge=none", "--iptables=false"),
        )

    def pull(self, reference: str) -> list[str]:
        return [*self.command(), "pull", "-q", reference]

    def end(self) -> None:
        self.cleanup()


PULLERS = (PullSysbox, PullPodman, PullDocker)
Puller = PullSysbox | PullPodman | PullDocker


@contextmanager
def fresh() -> Iterator[Path]:
    """A new file system, mounted."""
    image, place = WORK / "disk", WORK / "mount"
    place.mkdir(exist_ok=True)
    image.unlink(missing_ok=True)
    subprocess.run(["/usr/bin/truncate", "-s", SIZE, image], check=True)
    # all of it is written now, and not by the kernel while a pull is measured
    options = "lazy_itable_init=0,lazy_journal_init=0"
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", "-E", options, image], check=True)
    subprocess.run(["/usr/bin/mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        _unmount(place)
        image.unlink()


def _unmount(place: Path) -> None:
    for _ in range(50):
        if (
            subprocess.run(["/usr/bin/umount", place], capture_output=True, check=False).returncode
            == 0
        ):
            return
        time.sleep(0.1)  # a daemon that was stopped lets go of it in a moment
    subprocess.run(["/usr/bin/umount", "-l", place], check=True)


def compress(data: bytes, kind: str) -> bytes:
    """As image tools do it: gzip with level 6, zstd with level 3."""
    if kind == "gzip":
        engine = zlib.compressobj(6, wbits=31)
        return engine.compress(data) + engine.flush()
    return subprocess.run(
        ["/usr/bin/zstd", "-qc", "-3"], input=data, capture_output=True, check=True
    ).stdout


def publish(registry: Registry) -> dict[str, float]:
    """Push the image in both compressions, and with another topmost layer; kind -> MB of all layers."""
    sent: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS.values()}
    diff_ids = []
    for archive in pullimage.archives():
        diff_ids.append(digest_of(archive))
        for kind, layers in sent.items():
            blob = registry.put_blob("bench", compress(archive, kind))
            layers.append({"mediaType": f"{OCI}.layer.v1.tar+{kind}", **blob})
    for kind, layers in sent.items():
        put(registry, f"{kind}-1", diff_ids, layers)
    other = pullimage.changed()
    blob = registry.put_blob("bench", compress(other, "gzip"))
    top = {"mediaType": f"{OCI}.layer.v1.tar+gzip", **blob}
    put(registry, "gzip-2", [*diff_ids[:-1], digest_of(other)], [*sent["gzip"][:-1], top])
    return {kind: sum(one["size"] for one in layers) / 1e6 for kind, layers in sent.items()}


def put(
    registry: Registry, tag: str, diff_ids: Sequence[str], layers: Sequence[dict[str, Any]]
) -> None:
    """Push configuration and manifest."""
    config = {
        "os": "linux",
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
    }
    blob = registry.put_blob("bench", json.dumps(config).encode())
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": {"mediaType": f"{OCI}.config.v1+json", **blob},
        "layers": list(layers),
    }
    registry.put_manifest("bench", tag, manifest, f"{OCI}.manifest.v1+json")


def once(puller: Puller, host: str, kind: str) -> dict[str, float]:
    """Milliseconds of a pull to a fresh file system, and for gzip of one after a layer has changed."""
    with fresh() as place:
        directory = place / puller.name
        directory.mkdir()
        puller.begin(directory)
        try:
            os.sync()
            title = next(one for one, word in KINDS.items() if word == kind)
            found = {title: puller.time(puller.pull(f"{host}/bench:{kind}-1"))}
            if kind == "gzip":
                found[AGAIN] = puller.time(puller.pull(f"{host}/bench:gzip-2"))
        finally:
            puller.end()
    return found


class Watch(threading.Thread):
    """Samples the PSS of a process and all below it; `peak` is in KiB."""

    def __init__(self, pid: int) -> None:
        super().__init__()
        self.peak = 0
        self.ended = threading.Event()
        self._pid = pid

    def run(self) -> None:
        while not self.ended.wait(0.02):
            self.peak = max(self.peak, sum(pss(pid) for pid in family(self._pid)))


def family(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def peak(command: Command) -> float:
    """MiB of all processes of a command at their peak, not timed. Raises MeasureError."""
    begun = spawn(command)
    watch = Watch(begun.pid)
    watch.start()
    try:
        _, status, _ = os.wait4(begun.pid, 0)
    finally:
        watch.ended.set()
        watch.join()
    finish(begun, status)
    return watch.peak / 1024


def peak_memory(puller: PullSysbox, host: str, kind: str) -> float:
    """`peak` of one pull."""
    with fresh() as place:
        puller.begin(place)
        return peak(Command(puller.pull(f"{host}/bench:{kind}-1"), puller.environment))


def measure(pullers: Sequence[Puller], host: str, runs: int) -> dict[str, dict[str, Sample]]:
    """measure -> contestant -> times."""
    values: dict[str, dict[str, list[float]]] = {}
    for number in range(runs):
        for kind in KINDS.values():
            for puller in pullers:
                if kind == "zstd" and puller.name == "docker":
                    continue  # docker 20.10 has no zstd
                say(f"{puller.name}: {kind}, {number + 1} of {runs}")
                for title, milliseconds in once(puller, host, kind).items():
                    values.setdefault(title, {}).setdefault(puller.name, []).append(milliseconds)
    return sampled(values)


def report(
    times: dict[str, dict[str, Sample]],
    memory: dict[str, float],
    sizes: dict[str, float],
    pullers: Sequence[Puller],
    load_before: float,
) -> str:
    """The whole report."""
    how = (
        f"An image of {len(pullimage.FILES)} layers and {sum(pullimage.FILES):,} files, "
        f"{sizes['gzip']:.0f} MB with gzip and {sizes['zstd']:.0f} MB with zstd, from docker-registry on "
        "loopback, to a fresh ext4 with a journal on a loop device for each pull. Made by `make bench-pull`."
    )
    blocks = ["# What a pull costs", how, machine_table(load_before, pullers)]
    blocks += [seconds(title, samples) for title, samples in times.items()]
    rows = [(kind, f"{size:.0f}") for kind, size in memory.items()]
    blocks.append(
        "## Memory of all processes of sysbox\n\nThe peak of the sum of their PSS during one pull.\n\n"
        + table(("", "MiB"), rows)
    )
    return "\n\n".join([*blocks, wanted(times, memory)])


def wanted(times: dict[str, dict[str, Sample]], memory: dict[str, float]) -> str:
    """What was to be reached, and whether it was."""
    lines = []
    for title, other, most in WANTED:
        samples = times.get(title, {})
        if other in samples:
            ratio = samples["sysbox"].median / samples[other].median
            lines.append((title, other, f"{ratio:.2f}", f"{most:.2f}", MET[ratio <= most]))
    for kind, size in memory.items():
        met = MET[size <= MOST_MEMORY]
        lines.append((f"memory, {kind}", "", f"{size:.0f} MiB", f"{MOST_MEMORY} MiB", met))
    return "## Goals\n\n" + table(("", "beside", "sysbox is", "at most", ""), lines)


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
        registry = stack.enter_context(Registry(WORK / "registry"))
        say("making the image")
        sizes = publish(registry)
        stack.enter_context(alarms())
        pullers = [one(WORK) for one in kinds if not one(WORK).missing()]
        before = load()
        try:
            times = measure(pullers, registry.host, chosen.runs)
            mine = next(one for one in pullers if isinstance(one, PullSysbox))
            memory = {kind: peak_memory(mine, registry.host, kind) for kind in KINDS.values()}
        except MeasureError as error:
            sys.exit(f"bench: {error}")
        print(report(times, memory, sizes, pullers, before))


if __name__ == "__main__":
    main()
