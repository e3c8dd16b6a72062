"""What all tests share: the policy about what a machine may lack."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest

LONG = 20  # seconds: a file that takes as long is named after a run on several hosts

# `python -m pytest` puts the checkout on the path, where the C extension is not: test what is installed
_CHECKOUT = str(Path(__file__).parent.parent)
sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != _CHECKOUT]

_kill = os.kill


def _kill_one(pid: int, number: int) -> None:
    """kill(2), but not of 0, the pid of what does not run: that signals or stops the whole lane."""
    if pid <= 0:
        raise ValueError(f"kill: {pid} is the pid of no process")
    _kill(pid, number)


os.kill = _kill_one

# a shell that starts a job in the background has it ignore ^C, and so would everything that tests start
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about this machine: a test says so with a marker, and why."""
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    enforce = Path("/sys/fs/selinux/enforce")
    enforcing = enforce.exists() and enforce.read_text(encoding="ascii") == "1"
    apparmor = Path("/sys/kernel/security/apparmor").exists()
    elsewhere = {
        "v1_only": unified, "v2_only": not unified, "enforcing": not enforcing, "apparmor": not apparmor,
    }  # fmt: skip
    away = [marker for marker, applies in elsewhere.items() if applies]
    left_out = [item for item in items if any(map(item.get_closest_marker, away))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name each failed test on a line of its own, for tools/test.py; how long files took that are shared.

    Of files that run in a guest (tools/vm/lane.py asks for durations) all are named.
    """
    shared = terminalreporter.config.getoption("dist", "no") == "loadfile"
    if shared or terminalreporter.config.getoption("durations"):
        for file, seconds in times(terminalreporter).items():
            if seconds >= (LONG if shared else 0):
                terminalreporter.write_line(f"{seconds:4.0f} {file}")
    reports = (*terminalreporter.getreports("failed"), *terminalreporter.getreports("error"))
    for name in dict.fromkeys(report.nodeid for report in reports):
        terminalreporter.write_line(f"failed: {name}")


def times(reporter: pytest.TerminalReporter) -> dict[str, float]:
    """File -> the seconds that its tests took, the longest first."""
    found: dict[str, float] = {}
    for report in (one for several in reporter.stats.values() for one in several):
        if isinstance(report, pytest.TestReport):
            file = report.nodeid.partition("::")[0]
            found[file] = found.get(file, 0) + report.duration
    return dict(sorted(found.items(), key=lambda one: -one[1]))


class Requires:
    """A test says what it needs; lacking it is a skip for a developer and a failure in CI."""

    def __call__(self, present: object, what: str) -> None:
        """Go on if `present` is true."""
        if present:
            return
        if os.environ.get("CI"):
            pytest.fail(f"needs {what}, and CI must have it", pytrace=False)
        pytest.skip(f"needs {what}")

    def program(self, name: str) -> str:
        """The path of a program on PATH or in a system directory."""
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
        self(path, f"the program {name}")
        return path or ""

    def root(self) -> None:
        """The tests run as root."""
        self(os.geteuid() == 0, "root")


@pytest.fixture(scope="session")
def requires() -> Requires:
    """`requires(condition, "what")`, `requires.program("name")`, `requires.root()`."""
    return Requires()
