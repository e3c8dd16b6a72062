"""Published ports: what one more costs where 500 are published, with each packet filter.

`bench/run.sh --ports` runs it. Each round times `run --rm -p` on a host without other published ports and
on one with 500, in turn. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PORTS = 500
IMAGE = "host"
HEAD = """| packet filter | `run`, ms | with one port | with 500 others | ratio |
|---|---|---|---|---|"""
SYSBOX = str(Path(sys.executable).parent / "sysbox")


def sysbox(*words: str) -> str:
    """Run the command; its output. Raises CalledProcessError."""
    done = subprocess.run([SYSBOX, *words], capture_output=True, text=True, check=True)
    return done.stdout


def timed(*flags: str) -> float:
    """Milliseconds of one run."""
    began = time.perf_counter()
    sysbox("run", "--rm", *flags, IMAGE, "true")
    return (time.perf_counter() - began) * 1000


def use(backend: str) -> None:
    """Move the rules there, as `network reload` does after a change of Firewall=."""
    directory = Path("/etc/sysbox/sysbox.conf.d")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "bench.conf").write_text(f"[Network]\nFirewall={backend}\n", encoding="ascii")
    sysbox("network", "reload")


def measure(backend: str, rounds: int) -> str:
    """One row: the medians, and the ratio."""
    use(backend)
    none, first, last = [], [], []
    for _ in range(rounds):
        none.append(timed())
        first.append(timed("-p", "20000:80"))
    sysbox(
        "run",
        "-d",
        "--name",
        "many",
        "-p",
        f"10001-{10000 + PORTS}:1-{PORTS}",
        IMAGE,
        "sleep",
        "inf",
    )
    try:
        last = [timed("-p", "20000:80") for _ in range(rounds)]
    finally:
        sysbox("rm", "-f", "many")
    without, before, after = map(statistics.median, (none, first, last))
    cells = (backend, f"{without:.1f}", f"{before:.1f}", f"{after:.1f}", f"{after / before:.2f}")
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    rounds = parser.parse_args().runs
    timed("-p", "20000:80")
    print(f"# Published ports: `run --rm` with one, beside {PORTS} of another container\n")
    print(f"{rounds} runs each, medians; load average {os.getloadavg()[0]:.1f} at the beginning.\n")
    print(HEAD)
    for backend in ("nft", "iptables-nft", "iptables-legacy"):
        print(measure(backend, rounds), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
