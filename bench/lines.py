"""A container's output in the journal: how fast it is written, in which order, and how fast it is read.

`bench/run.sh --lines` runs it, for sysbox and for docker's journald driver. journald's own rate limit, which
counts all containers of docker as one unit, is off, so that journald drops nothing. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from contest import add_only, contest, say
from hardware import load
from peers import IMAGE, Docker, Engine, Sysbox
from report import table
from timing import MeasureError

LINES = 240_000  # below the 250,000 that sysbox keeps at once
PAIRS = 1000
PATIENCE = 300  # seconds
UNLIMITED = Path("/run/systemd/journald.conf.d/bench.conf")
FLOOD = f"seq {LINES}"
ALTERNATING = (
    f"i=0; while [ $i -lt {PAIRS} ]; do echo $((2*i)); echo $((2*i+1)) >&2; i=$((i+1)); done"
)
COLUMNS = (
    "", "the container, s", "lines kept", "supervisor, KiB", "`logs`, s", "`logs --tail 1`, ms",
    "out of order, %",
)  # fmt: skip


def call(peer: Engine, *words: str) -> subprocess.CompletedProcess[bytes]:
    with peer.view():
        return subprocess.run(
            [*peer.command(), *words], env={"PATH": "/usr/sbin:/usr/bin", **peer.environment},
            capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip


def start(peer: Engine, name: str, script: str) -> float:
    """Run a container to its end; its run time in seconds, as the engine reports it."""
    driver = ("--log-driver", "journald")
    done = call(peer, "run", "-d", "--name", name, *driver, IMAGE, "sh", "-c", script)
    if done.returncode:
        raise MeasureError(done.stderr.decode(errors="replace")[-400:])
    call(peer, "wait", name)
    shown = json.loads(call(peer, "inspect", name).stdout)[0]["State"]
    begin, end = (
        datetime.fromisoformat(shown[key][:26].rstrip("Z")) for key in ("StartedAt", "FinishedAt")
    )
    return (end - begin).total_seconds()


def journal_lines(name: str) -> list[str]:
    command = ["journalctl", "-q", "-o", "cat", f"CONTAINER_NAME={name}"]
    return subprocess.check_output(command, text=True).splitlines()


def final_lines(name: str) -> list[str]:
    """The lines in the journal once no more arrive: a daemon may still be sending."""
    lines: list[str] = []
    while len(found := journal_lines(name)) > len(lines):
        lines = found
        time.sleep(2)
    return lines


def peak_memory(peer: Engine, name: str) -> str:
    """The supervisor's peak memory in KiB, for a running container that has logged LINES lines."""
    script = f"{FLOOD}; sleep 1000"
    done = call(
        peer, "run", "-d", "--name", name, "--log-driver", "journald", IMAGE, "sh", "-c", script
    )
    if done.returncode:
        raise MeasureError(done.stderr.decode(errors="replace")[-400:])
    deadline = time.monotonic() + PATIENCE
    while len(journal_lines(name)) < LINES and time.monotonic() < deadline:
        time.sleep(1)
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            status = dict(
                line.split(":", 1) for line in (directory / "status").read_text().splitlines()
            )
        except OSError:
            continue
        if status["Name"].strip() in (peer.supervisors if peer.name == "sysbox" else peer.daemons):
            found.append(int(status.get("VmHWM", "0 kB").split()[0]))
    return str(max(found, default=0))


def timed(peer: Engine, *words: str) -> float:
    begin = time.monotonic()
    call(peer, "logs", *words)
    return time.monotonic() - begin


def row(peer: Engine) -> list[str]:
    say(f"{peer.name}: {LINES} lines")
    # names with the engine's: the journal keeps the lines of the other engine's containers
    flood, pairs, again = (f"{peer.name}-{name}" for name in ("flood", "pairs", "again"))
    took = start(peer, flood, FLOOD)
    lines = final_lines(flood)
    whole = timed(peer, flood)
    tail = min(timed(peer, "--tail", "1", flood) for _ in range(5))
    start(peer, pairs, ALTERNATING)
    order = [int(line) for line in final_lines(pairs)]
    wrong = sum(one > after for one, after in pairwise(order)) / max(len(order), 1)
    memory = peak_memory(peer, again)
    peer.remove([flood, pairs, again])
    cells = [peer.name, f"{took:.2f}", str(len(lines)), memory]
    cells += [f"{whole:.2f}", f"{tail * 1000:.0f}", f"{wrong * 100:.0f}"]
    say(" | ".join(cells))
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench/run.sh --lines", description=__doc__.splitlines()[0]
    )
    add_only(parser)
    only = parser.parse_args().only
    kinds = [kind for kind in (Sysbox, Docker) if not only or kind is Sysbox or kind.name in only]
    UNLIMITED.parent.mkdir(parents=True, exist_ok=True)
    UNLIMITED.write_text("[Journal]\nRateLimitIntervalSec=0\nRateLimitBurst=0\n")
    subprocess.run(["/usr/bin/systemctl", "restart", "systemd-journald.service"], check=True)
    before = load()
    with contest(kinds) as (ready, failures):
        rows = []
        for peer in ready:
            try:
                rows.append(row(peer))
            except (MeasureError, subprocess.TimeoutExpired, KeyError, ValueError) as error:
                failures.append(f"{peer.name}: {error}")
    print(f"# Lines: {LINES} of them to the journal, and {PAIRS} pairs on two streams\n")
    print(f"The supervisor is sysbox-monitor, or docker's daemon. Load before: {before:.1f}.\n")
    print(table(COLUMNS, rows))
    for failure in failures:
        print(f"\n* {failure}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
