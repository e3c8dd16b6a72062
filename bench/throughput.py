"""Throughput of TCP with iperf3: between two containers, and from another machine to a published port."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rootfs
from contest import WORK
from peers import Peer
from timing import MeasureError

IMAGE = "bench:iperf3"
IPERF3 = Path("/usr/bin/iperf3")
WAYS = ("between two containers", "through a published port")
ROUNDS = 5
OUTSIDE, UPLINK = "198.51.100.2", "198.51.100.1"  # RFC 5737: another machine, and the host's side


def run(*words: str | Path) -> str:
    """A command's output. Raises CalledProcessError."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def archive() -> Path:
    """A root file system with iperf3 and the libraries that it loads."""
    tree, packed = WORK / "iperf3", WORK / "iperf3.tar"
    rootfs.make(tree, packed)
    for file in (str(IPERF3), *re.findall(r"(/\S+) \(0x", run("ldd", IPERF3))):
        target = tree / file[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    (tree / "tmp").chmod(0o1777)
    run("tar", "-C", tree, "-cf", packed, ".")
    return packed


@contextmanager
def another_machine() -> Iterator[list[str]]:
    """A network namespace with a wire to the host; the words that run a command there."""
    name = "bench-away"
    away = ["ip", "netns", "exec", name]
    steps = (
        ["ip", "netns", "add", name],
        ["ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name],
        ["ip", "address", "add", f"{UPLINK}/30", "dev", name],
        ["ip", "link", "set", name, "up"],
        [*away, "ip", "address", "add", f"{OUTSIDE}/30", "dev", "eth0"],
        [*away, "ip", "link", "set", "eth0", "up"],
    )
    try:
        for words in steps:
            run(*words)
        yield away
    finally:
        run("ip", "netns", "delete", name)


def output(peer: Peer, *words: str) -> str:
    """A command's output. Raises MeasureError."""
    done = subprocess.run(
        [peer.programs[0], *words],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **peer.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MeasureError(f"{peer.name} {' '.join(words)}: {done.stderr[-400:]}")
    return done.stdout


def rate(text: str) -> float:
    """Gbit/s that were received, from iperf3's JSON."""
    return float(json.loads(text)["end"]["sum_received"]["bits_per_second"]) / 1e9


def ratio(found: dict[str, list[float]]) -> float:
    """The median of sysbox's rates divided by docker's of the same round."""
    pairs = zip(found["sysbox"], found["docker"], strict=True)
    return statistics.median(mine / other for mine, other in pairs)


def measure(peers: Sequence[Peer], seconds: int) -> dict[str, dict[str, list[float]]]:
    """Way -> contestant -> Gbit/s of each round."""
    found: dict[str, dict[str, list[float]]] = {
        way: {peer.name: [] for peer in peers} for way in WAYS
    }
    image = archive()
    with ExitStack() as stack:
        away = stack.enter_context(another_machine())
        servers = {}
        for number, peer in enumerate(peers):
            peer.call(peer.programs[0], "import", str(image), IMAGE)
            port = 15201 + number
            publish = ("-p", f"{port}:5201")
            output(peer, "run", "-d", "--name", "server", *publish, IMAGE, "iperf3", "-s")
            stack.callback(peer.call, peer.programs[0], "rm", "-f", "server")
            template = "{{.NetworkSettings.IPAddress}}"
            servers[peer] = (output(peer, "inspect", "--format", template, "server").strip(), port)
        flow = ("-t", str(seconds), "-J")
        for _ in range(ROUNDS):
            for peer, (address, port) in servers.items():
                text = output(peer, "run", "--rm", IMAGE, "iperf3", "-c", address, *flow)
                found[WAYS[0]][peer.name].append(rate(text))
                command = [*away, str(IPERF3), "-c", UPLINK, "-p", str(port), *flow]
                found[WAYS[1]][peer.name].append(rate(run(*command)))
    return found
