"""What the tests of faults share: how long they go on, what a clean failure is, injections by strace(1)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

from lane import SYSBOX, TIMEOUT, Sysbox

SOAK = bool(os.environ.get("SYSBOX_SOAK"))  # `make soak`: everything, and for long
# what is left to chance can be had again: the seed of a run is in its output
SEED = os.environ.get("SYSBOX_SEED") or os.urandom(4).hex()

MOST_LINES = 2  # of a failure: what is wrong, and what can be done
# sysbox failed, cannot be executed, not found; one of several failed; ended by a signal
STATUSES = {0, 1, 125, 126, 127, *range(128 + 1, 128 + 65)}
UNCLEAN = re.compile(r"Traceback|this is a bug|Fatal Python|Exception ignored|  File \"")


def unclean(done: subprocess.CompletedProcess[str], *, payload: bool = False) -> str:
    """What is wrong with how a command has failed; "" for nothing. A `payload`'s status is its own."""
    if UNCLEAN.search(done.stderr):
        return f"not a message for a user: {done.stderr.strip()}"
    if done.returncode not in STATUSES and not payload:
        return f"status {done.returncode} is not documented: {done.stderr.strip()}"
    # a notice that comes before is none of it
    lines = [line for line in done.stderr.splitlines() if not line.endswith(" is ignored")]
    if len(lines) > MOST_LINES:
        return f"more than {MOST_LINES} lines: {done.stderr.strip()}"
    if done.returncode in (1, 125) and not done.stderr and not payload:
        return f"status {done.returncode} and no word"
    return ""


def traced(
    trace: list[str], *words: str, timeout: float = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    """`sysbox WORDS...` under strace(1). Raises TimeoutExpired; both are killed then."""
    command = ["strace", "-qq", *trace, SYSBOX, *words]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            # what strace(1) traces would go on without it
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def calls_of(file: Path, *words: str) -> dict[str, tuple[int, int]]:
    """Which system calls a command makes by itself: kind -> (how many before it has read what it is made
    of, how many in all)."""
    traced(["-o", str(file)], *words)
    before: dict[str, int] = {}
    total: dict[str, int] = {}
    loaded = False
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        found = re.match(r"(\w+)\(", line)
        if not found:
            continue
        kind = found[1]
        total[kind] = total.get(kind, 0) + 1
        # from here on its own code runs, and anything else is loaded when it is needed
        loaded = loaded or "/cli/invoke" in line
        if not loaded:
            before[kind] = total[kind]
    assert loaded
    return {kind: (before.get(kind, 0), count) for kind, count in total.items()}


def calls_between(file: Path, first: str, last: str) -> list[tuple[str, int]]:
    """The system calls in a trace between the lines that hold these: kind, and which of its kind it is."""
    found = []
    counted: dict[str, int] = {}
    within = False
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        call = re.match(r"(\w+)\(", line)
        if not call:
            continue
        counted[call[1]] = counted.get(call[1], 0) + 1
        if within and last in line:
            return found
        if within:
            found.append((call[1], counted[call[1]]))
        within = within or first in line
    raise AssertionError(f"no {last} after {first} in {file}")


def injection(kind: str, error: str, number: int) -> list[str]:
    """strace's words: the `number`th call of a kind fails."""
    return [
        "-o", "/dev/null", "-e", f"trace={kind}", "-e", f"inject={kind}:error={error}:when={number}"
    ]  # fmt: skip


def spread(first: int, last: int, most: int) -> list[int]:
    """At most so many numbers of first..last, both of them included."""
    count = last - first + 1
    if count <= most:
        return list(range(first, last + 1))
    return sorted({first + round(at * (count - 1) / (most - 1)) for at in range(most)})


def kill(pid: int) -> None:
    """kill -9; one that is gone is fine."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def settled(sysbox: Sysbox) -> list[str]:
    """What gc had to put right; it must succeed."""
    done = sysbox("gc")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()
