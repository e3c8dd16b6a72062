"""Usage: tools/vm/lane.py

Runs tests/vm, and the tests of tests/host and tests/attack that are marked `guest`, in groups of files of
about the same size: each group in its own guest, a few guests at a time. Those marked `also_enforcing` run in
the group where SELinux denies, too. Those of tests/reboot run here, and have a guest that they reboot. Exit
status: 1 if tests failed, 125 if a guest could not be made, any other after another error.
"""

from __future__ import annotations

import ast
import functools
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cache import GIB, ROOT, say
from machine import exit_on_signals

LANES = ("vm", "host", "attack")
REBOOT = "reboot"  # flavour and directory of the tests that run here, with a guest of their own
# tests/vm/conftest.py marks all tests of its directory
MARKERS = {
    "enforcing": "enforcing or also_enforcing",
    "apparmor": "apparmor",
    "smp": "smp",
    "permissive": "guest and not enforcing and not apparmor and not smp",
}
OWN = ("enforcing", "apparmor", "smp")  # flavours that only files with their marker need
RUN = Path(__file__).resolve().with_name("run.py")
TIED = ("setpriv", "--pdeathsig", "TERM")  # ends with this process
GUEST = 3 * GIB  # memory that a guest may take
MOST = 5  # guests at a time
LINE = 1.0  # seconds for a line of a test that has not been measured
START = 20.0  # seconds of a guest before its first test
NOTHING_RAN = 5  # pytest's status if all tests of the files are for another kind of host
NO_GUEST = 125


class Job:
    """The tests of some files, in a guest."""

    def __init__(self, flavour: str, files: list[Path]) -> None:
        names = [str(file.relative_to(ROOT)) for file in files]
        self.name = f"{flavour}: {' '.join(names)}"
        self._output = tempfile.TemporaryFile()
        self._started = time.monotonic()
        self.process = subprocess.Popen(
            [*TIED, sys.executable, *_words(flavour, names)],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        say(f"{self.name} has started")

    def finish(self) -> int:
        """Wait for the end and print the output; returns the exit status."""
        before = _spent()
        status = self.process.wait()
        spent = _spent() - before
        self._output.seek(0)
        sys.stdout.buffer.write(self._output.read())
        sys.stdout.flush()
        took = time.monotonic() - self._started
        say(f"{self.name}: status {status}, {took:.0f} s, of CPU time {spent:.0f} s")
        return 0 if status == NOTHING_RAN else status


def _spent() -> float:
    """CPU seconds of all children that have been waited for, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _words(flavour: str, names: list[str]) -> list[str]:
    """The words after "python" that run the tests of some files."""
    pytest = ["-m", "pytest", "-p", "no:cacheprovider", "--durations", "15"]
    if flavour == REBOOT:
        return [*pytest, *names]
    tests = shlex.join(["python", *pytest, "-m", MARKERS[flavour], *names])
    return [str(RUN), "--flavour", flavour, f"tools/test-network.sh && exec {tests}"]


def main() -> int:
    """The exit status."""
    exit_on_signals()
    started = time.monotonic()
    running, failed, most = dict[int, Job](), dict[str, int](), guests()
    waiting = planned(most)
    try:
        while waiting or running:
            while waiting and len(running) < most:
                job = Job(*waiting.pop(0))
                running[job.process.pid] = job
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert ended
            job = running.pop(ended.si_pid)
            if status := job.finish():
                failed[job.name] = status
    finally:
        for job in running.values():
            job.process.terminate()
        for job in running.values():
            job.process.wait()
    took = divmod(round(time.monotonic() - started), 60)
    say(f"{took[0]} min {took[1]} s, {most} guests at a time")
    for name, status in failed.items():
        say(f"FAILED: {name}: status {status}")
    return NO_GUEST if NO_GUEST in failed.values() else max(failed.values(), default=0)


def planned(guests: int) -> list[tuple[str, list[Path]]]:
    """The jobs for so many guests at a time, in as many groups as let the last of them end soonest.

    Fewer start fewer guests, more let these end together.
    """
    return min(
        (jobs(groups) for groups in range(1, guests + 2)), key=lambda made: end(made, guests)
    )


def end(made: list[tuple[str, list[Path]]], guests: int) -> float:
    """When the last job ends, in seconds, if each starts when one of the guests has ended."""
    busy = [0.0] * guests
    for job in made:
        busy[busy.index(min(busy))] += START + length(*job)
    return max(busy)


def jobs(groups: int) -> list[tuple[str, list[Path]]]:
    """(flavour, files) per group, the longest first, so that the guests end at about the same time."""
    found: dict[str, list[Path]] = {name: [] for name in ("", "permissive", *OWN)}
    for file in (file for lane in LANES for file in ROOT.glob(f"tests/{lane}/test_*.py")):
        found[flavour(file)].append(file)
        if "mark.also_enforcing(" in file.read_text(encoding="utf-8"):
            found["enforcing"].append(file)
    permissive: list[list[Path]] = [[] for _ in range(groups)]
    for file in sorted(found["permissive"], key=lambda file: -length("permissive", [file])):
        min(permissive, key=lambda files: length("permissive", files)).append(file)
    made = [(REBOOT, sorted(ROOT.glob("tests/reboot/test_*.py")))]
    made += [(name, found[name]) for name in OWN]
    made += [("permissive", files) for files in permissive]
    return sorted((job for job in made if job[1]), key=lambda job: -length(*job))


def length(flavour: str, files: list[Path]) -> float:
    """How long the tests of files may take, in seconds."""
    known = seconds()
    return sum(known.get((flavour, file)) or size(file) * LINE for file in files)


@functools.cache
def seconds() -> dict[tuple[str, Path], float]:
    """(flavour, file) -> how long its tests take in a guest, as tests/vm/seconds.txt says."""
    lines = (ROOT / "tests/vm/seconds.txt").read_text(encoding="ascii").splitlines()
    words = (line.split() for line in lines)
    return {(flavour, ROOT / file): float(number) for number, flavour, file in words}


@functools.cache
def size(file: Path) -> int:
    """The number of lines of the tests that run in a guest, an estimate of their time."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    marks = guest_marks(tree)
    whole = file.parent.name == "vm" or "pytestmark" in marks
    return sum(
        (node.end_lineno or 0) - node.lineno + 1
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
        and (whole or any(names_guest(one, marks) for one in node.decorator_list))
    )  # fmt: skip


def guest_marks(tree: ast.Module) -> set[str]:
    """The variables of a file that have the marker `guest`, `pytestmark` among them if all its tests do."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and names_guest(node.value, found):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def names_guest(expression: ast.expr, marks: set[str]) -> bool:
    """Whether an expression has the marker `guest`, itself, in a test's parameters or by one of `marks`."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr == "guest")
        or (isinstance(node, ast.Name) and node.id in marks)
        for node in ast.walk(expression)
    )


@functools.cache
def flavour(file: Path) -> str:
    """The flavour of the guest that a file's tests need; "" if none of them runs in a guest."""
    if not size(file):
        return ""
    lines = file.read_text(encoding="utf-8").splitlines()
    marks = "".join(line for line in lines if line.startswith("pytestmark"))
    return next((name for name in OWN if f"mark.{name}(" in marks), "permissive")


def guests() -> int:
    """The number of guests at a time, one more than CPUs, since tests wait too; fewer if memory is short."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    (available,) = [int(line.split()[1]) << 10 for line in lines if "MemAvailable" in line]
    return max(1, min(len(os.sched_getaffinity(0)) + 1, available // GUEST, MOST))


if __name__ == "__main__":
    sys.exit(main())
