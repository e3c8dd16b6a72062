"""Scale to zero: the first answer of a container that starts, or thaws, with a connection.

`bench/run.sh --sockets` runs it on an embedded host. Each round takes in turn the answer of a declared
container by way of its socket, and that of the same container started, or thawed, by hand. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import sys
import time
from pathlib import Path

import throughput
from contest import WORK, contest, say
from hardware import load
from peers import IMAGE, LAUNCHER, Sysbox
from report import machine_table
from timing import MeasureError, Sample, interleaved

PORT = 18473
NAME = "bench-demand"
HAND = "bench-hand"
SERVER = ("httpd", "-f", "-p", "80", "-h", "/etc")
PATIENCE = 60.0  # seconds
_STEP = 0.001
LONG = 3600  # seconds without a connection, of what ends only when this program says so
# more starts a second than the limit of such a service allows
UNIT = f"""[Unit]
StartLimitIntervalSec=0

[Container]
Image={IMAGE}
ListenStream=127.0.0.1:{PORT}
ProxyPort=80
IdleStop={LONG}
StopSignal=KILL
Exec={" ".join(SERVER)}
"""


def answer(address: str, port: int) -> None:
    """Wait until a server answers a request. Raises MeasureError."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with socket.create_connection((address, port), timeout=PATIENCE) as connection:
                connection.sendall(b"GET /hostname HTTP/1.0\r\n\r\n")
                if connection.recv(100).startswith(b"HTTP/"):
                    return
        except ConnectionError:
            pass
        if time.monotonic() > until:
            raise MeasureError(f"{address}:{port} does not answer")
        time.sleep(_STEP)


def run(*words: str | Path) -> str:
    return throughput.run(*words)


def address(name: str) -> str:
    """The address of a container."""
    (found,) = json.loads(run(LAUNCHER, "inspect", name))
    return str(found["NetworkSettings"]["IPAddress"])


def took(begin: float) -> float:
    return (time.perf_counter() - begin) * 1000


def cold_by_hand(_: int) -> float:
    begin = time.perf_counter()
    run(LAUNCHER, "run", "-d", "--name", HAND, "--stop-signal", "KILL", IMAGE, *SERVER)
    answer(address(HAND), 80)
    found = took(begin)
    run(LAUNCHER, "rm", "-f", HAND)
    return found


def cold_by_connection(_: int) -> float:
    run("systemctl", "stop", f"{NAME}.service")
    begin = time.perf_counter()
    answer("127.0.0.1", PORT)
    return took(begin)


def thawed_by_hand(_: int) -> float:
    run(LAUNCHER, "pause", f"systemd-{NAME}")
    where = address(f"systemd-{NAME}")
    begin = time.perf_counter()
    run(LAUNCHER, "unpause", f"systemd-{NAME}")
    answer(where, 80)
    return took(begin)


def thawed_by_connection(_: int) -> float:
    # as it is when the proxy has been idle for long enough
    run("systemctl", "stop", f"{NAME}-proxy.service")
    run(LAUNCHER, "pause", f"systemd-{NAME}")
    begin = time.perf_counter()
    answer("127.0.0.1", PORT)
    return took(begin)


def direct(_: int) -> float:
    where = address(f"systemd-{NAME}")
    begin = time.perf_counter()
    answer(where, 80)
    return took(begin)


def proxied(_: int) -> float:
    begin = time.perf_counter()
    answer("127.0.0.1", PORT)
    return took(begin)


PAIRS = (
    (
        "cold start",
        ("by `run -d`", cold_by_hand),
        ("by a connection", cold_by_connection),
        "IdleStop",
    ),
    (
        "frozen",
        ("by `unpause`", thawed_by_hand),
        ("by a connection", thawed_by_connection),
        "IdleFreeze",
    ),
    ("running", ("to its address", direct), ("through the proxy", proxied), "IdleStop"),
)


def declare(key: str) -> None:
    file = WORK / f"{NAME}.container"
    file.write_text(UNIT.replace("IdleStop", key))
    run(LAUNCHER, "unit", "install", "--force", file)
    run("systemctl", "restart", f"{NAME}.socket")
    answer("127.0.0.1", PORT)


def rows(samples: dict[str, Sample]) -> list[str]:
    hand, connection = samples.values()
    pairs = zip(connection.values, hand.values, strict=True)
    ratio = statistics.median(mine / its for mine, its in pairs)
    return [
        f"| {name} | {one.median:.1f} | {one.lowest:.1f} | {one.high:.1f} | "
        + (f"{ratio:.2f} |" if one is connection else " |")
        for name, one in samples.items()
    ]


def main() -> int:
    """0, or 1 where something could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    arguments = parser.parse_args()

    def failed(name: str, error: MeasureError) -> None:
        raise SystemExit(f"bench: {name}: {error}")

    with contest((Sysbox,)) as (peers, failures):
        print("# Scale to zero: the first answer\n")
        print(f"{arguments.runs} runs of each, in turn. Made by `make bench-sockets`.\n")
        print(machine_table(load(), peers))
        print("\n| first answer | median ms | min | p90 | median of the ratios |")
        print("|---|---:|---:|---:|---:|")
        for title, hand, connection, key in PAIRS:
            say(title)
            declare(key)
            contestants = {f"{title}, {name}": measure for name, measure in (hand, connection)}
            samples = interleaved(contestants, arguments.runs, failed)
            print("\n".join(rows(samples)), flush=True)
        run(LAUNCHER, "unit", "uninstall", "--force", f"{NAME}.service")
        print(f"\nLoad after: {load():.1f}.")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
