"""Networks: what a start on one costs, how fast names are answered, and how fast packets go.

`bench/run.sh --network` runs it on an embedded host. Every figure that is to be compared is taken in one run,
in turn with what it is compared with. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import re
import socket
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ports
import throughput
from contest import contest, say
from hardware import load
from peers import IMAGE, LAUNCHER, Docker, Peer, Sysbox
from report import machine_table
from timing import MeasureError, Sample, interleaved

HERE = Path(__file__).resolve().parent
NETWORK = "bench-net"
SERVICE = f"sysbox-dns-{NETWORK}.service"
OTHERS = 2000  # questions after the first
# (title, the most or the least that is wanted, whether it is the most)
WANTED = (
    ("`run` on a network of its own, of that on the default bridge", 1.15, True),
    ("first answer after an idle time, ms", 100.0, True),
    ("other answers, ms", 1.0, True),
    ("questions a second, of aardvark-dns", 1.0, False),
    ("throughput between two containers, of docker's", 0.95, False),
    ("throughput through a published port, of docker's", 0.95, False),
    (f"`run -p` beside {ports.PORTS} published ports, of the first", 1.3, True),
)


def sysbox(*words: str) -> str:
    """A command's output. Raises CalledProcessError."""
    return throughput.run(LAUNCHER, *words)


@contextmanager
def network() -> Iterator[str]:
    """A network with names; its gateway."""
    sysbox("network", "create", NETWORK)
    try:
        (found,) = json.loads(sysbox("network", "inspect", NETWORK))
        yield str(found["IPAM"]["Config"][0]["Gateway"])
    finally:
        sysbox("network", "rm", "-f", NETWORK)


def starts(peer: Peer, runs: int) -> dict[str, Sample]:
    """Milliseconds of `run --rm` of the only container of a network, and of one on the default bridge."""
    command = [str(LAUNCHER), "run", "--rm"]
    lines = {
        "on the default bridge": [*command, IMAGE, "true"],
        "on a network, without names": [*command, "--network", f"{NETWORK}-plain", IMAGE, "true"],
        "on a network": [*command, "--network", NETWORK, IMAGE, "true"],
    }

    def failed(name: str, error: MeasureError) -> None:
        raise SystemExit(f"bench: {name}: {error}")

    sysbox("network", "create", "--disable-dns", f"{NETWORK}-plain")
    try:
        contestants = {
            name: lambda _, words=words: peer.time(words)  # type: ignore[misc]
            for name, words in lines.items()
        }
        return interleaved(contestants, runs, failed)
    finally:
        sysbox("network", "rm", "-f", f"{NETWORK}-plain")


def ratios(samples: dict[str, Sample], name: str, other: str) -> float:
    """The median of the ratios of two that were taken in turn: other work on the machine affects it less."""
    pairs = zip(samples[name].values, samples[other].values, strict=True)
    return statistics.median(mine / its for mine, its in pairs)


def question(name: str) -> bytes:
    """A question for the address of a name of one label."""
    return b"\1\2\1\0\0\1\0\0\0\0\0\0" + bytes((len(name),)) + name.encode() + b"\0\0\1\0\1"


def ask(server: str, name: str) -> float:
    """Milliseconds until it has answered with an address. Raises MeasureError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.connect((server, 53))
        data = question(name)
        began = time.perf_counter()
        sock.send(data)
        answer = sock.recv(512)
        took = (time.perf_counter() - began) * 1000
    if answer[:2] != data[:2] or answer[3] & 15 or answer[6:8] != b"\0\1":
        raise MeasureError(f"no answer about {name}: {answer.hex()}")
    return took


def answers(gateway: str, runs: int) -> tuple[Sample, Sample]:
    """Milliseconds of first answers, of a resolver that is not there, and of others."""
    sysbox("run", "-d", "--name", "named", "--network", NETWORK, IMAGE, "sleep", "1000")
    try:
        first = []
        for number in range(runs + 1):
            # as it is after an idle time: the socket listens, and nobody is behind it; no more often than its
            # start limit allows
            throughput.run("systemctl", "stop", SERVICE)
            time.sleep(0.6)
            took = ask(gateway, "named")
            if number:
                first.append(took)
        others = [ask(gateway, "named") for _ in range(OTHERS)]
    finally:
        sysbox("rm", "-f", "named")
    return Sample(tuple(first)), Sample(tuple(others))


def questions(seconds: int) -> tuple[str, float]:
    """What names.py says of both resolvers, and the ratio."""
    text = throughput.run(HERE / "names.sh", str(seconds)).strip()
    found = re.search(r"ratio ([0-9.]+)", text)
    assert found, text
    return text, float(found.group(1))


def times(samples: dict[str, Sample]) -> str:
    rows = ["| | median ms | min | p90 |", "|---|---:|---:|---:|"]
    for name, one in samples.items():
        rows.append(f"| {name} | {one.median:.2f} | {one.lowest:.2f} | {one.high:.2f} |")
    return "\n".join(rows)


def speeds(found: dict[str, dict[str, list[float]]]) -> str:
    rows = ["| | sysbox, Gbit/s | docker, Gbit/s | median of the ratios |", "|---|---:|---:|---:|"]
    for name, one in found.items():
        mine, other = (statistics.median(one[peer]) for peer in ("sysbox", "docker"))
        rows.append(f"| {name} | {mine:.1f} | {other:.1f} | {throughput.ratio(one):.2f} |")
    return "\n".join(rows)


def wanted(values: list[float | None]) -> str:
    lines = []
    for (title, bound, most), value in zip(WANTED, values, strict=True):
        if value is None:
            lines.append(f"* {title}: not measured")
            continue
        met = value <= bound if most else value >= bound
        sign = "≤" if most else "≥"
        lines.append(f"* {title}: wanted {sign} {bound:g}: {value:.2f} {'ok' if met else 'MISSED'}")
    return "\n".join(lines)


def main() -> int:
    """0, or 1 where a contestant could not take part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seconds", type=int, default=5, help="for each flow and each dnsperf")
    arguments = parser.parse_args()
    with contest((Sysbox, Docker)) as (peers, failures):
        print("# Networks: starts, names, packets\n")
        print(f"{arguments.runs} runs of each. Made by `make bench-network`.\n")
        print(machine_table(load(), peers))
        with network() as gateway:
            say("starts")
            began = starts(peers[0], arguments.runs)
            print(f"\n## `run --rm`, the only container\n\n{times(began)}", flush=True)
            say("answers")
            first, others = answers(gateway, arguments.runs)
            shown = {"the first after an idle time": first, "the others": others}
            print(f"\n## Answers about names, asked from the host\n\n{times(shown)}", flush=True)
        say("questions a second")
        text, rate = questions(arguments.seconds)
        print(f"\n## Questions a second, one CPU each\n\n{text}.", flush=True)
        flows: dict[str, dict[str, list[float]]] = {}
        if len(peers) > 1:
            say("throughput")
            flows = throughput.measure(peers, arguments.seconds)
            print(f"\n## Throughput of TCP (iperf3)\n\n{speeds(flows)}", flush=True)
        say("published ports")
        row = ports.measure("nft", arguments.runs)
        print(f"\n## Published ports\n\n{ports.HEAD}\n{row}", flush=True)
        values: list[float | None] = [
            ratios(began, "on a network", "on the default bridge"),
            first.median,
            others.median,
            rate,
            *(throughput.ratio(flows[name]) if flows else None for name in throughput.WAYS),
            float(row.split("|")[-2]),
        ]
        print(f"\n## Wanted\n\n{wanted(values)}\n\nLoad after: {load():.1f}.")
        for text in failures:
            print(f"\n* {text}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
