"""Usage: tools/test.py

Runs all lanes of tests, one after the other. A failed test is run a second time, by itself and on a fresh
host. If it passes then, it is reported as UNSTEADY, with the end of both logs. A lane that takes longer than
DEADLINE is interrupted, so that it says what failed until then. Exit status: 0 if no test failed twice and at
most three were unsteady, else 1.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST = 3  # unsteady tests in one run
END = 60  # lines of a log
DEADLINE = (
    2400.0  # seconds for a lane, or for one of its tests; twice what they take on a busy machine
)
# status of pytest and of the lanes if tests failed; any other status means a worse error
TESTS_FAILED = 1
FAILED = re.compile(r"^failed: (\S.*)$", re.MULTILINE)  # printed by tests/conftest.py
# pytest's lines above each failure and each section
HEADING = re.compile(r"^(?:_{3,} .+ _{3,}|={3,} .+ ={3,})$")

PYTEST = (".venv/bin/pytest", "-p", "no:cacheprovider")
PARALLEL = ("-n", "auto", "--dist", "worksteal")  # one process for each CPU
LANES = {  # name -> (command for the lane, command for one of its tests)
    "lint, unit, plans and fuzz": (
        (*PYTEST, *PARALLEL, "tests/lint", "tests/unit", "tests/plans", "tests/fuzz"),
        PYTEST,
    ),
    "host": (("tools/test-host.sh",), ("tools/test-host.sh",)),
    "guest": (("tools/test-vm.sh", "--optional"), ("tools/test-vm.sh",)),
}


def main() -> int:
    """The exit status."""
    unsteady: list[str] = []
    for name, (lane, one) in LANES.items():
        status, output = run(lane)
        if status == 0:
            continue
        failed = failed_tests(output) if status == TESTS_FAILED else []
        if not failed or len(failed) + len(unsteady) > MOST:
            say(f"the lane {name} failed: status {status}, {len(failed)} tests")
            return 1
        for test in failed:
            say(f"{test} failed; once more, by itself")
            again, second = run((*one, test))
            if again:
                say(f"{test} failed twice")
                return 1
            unsteady.append(test)
            report(test, output, second)
    for test in unsteady:
        say(f"UNSTEADY: {test}")
    return 0


def run(command: tuple[str, ...]) -> tuple[int, str]:
    """The exit status of a command and its output, which is also shown while it runs."""
    said = []
    # a group of its own: an interrupt must reach pytest below the lane's script
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, process_group=0
    ) as process:
        assert process.stdout
        timer = threading.Timer(DEADLINE, interrupt, (process, f"not done after {DEADLINE:.0f} s"))
        timer.daemon = True
        timer.start()
        try:
            while data := os.read(process.stdout.fileno(), 1 << 16):
                sys.stdout.buffer.write(data)
                sys.stdout.flush()
                said.append(data)
        except KeyboardInterrupt:
            interrupt(process, "interrupted")
            raise
        finally:
            timer.cancel()
    return process.returncode, b"".join(said).decode(errors="replace").replace("\r\n", "\n")


def interrupt(process: subprocess.Popen[bytes], why: str) -> None:
    """Have a lane end as ^C does: pytest reports what it has, the script stops its hosts."""
    say(f"{why}: the lane ends")
    os.killpg(process.pid, signal.SIGINT)


def failed_tests(output: str) -> list[str]:
    """The tests that a lane names as failed, each once, in their order."""
    return list(dict.fromkeys(FAILED.findall(output)))


def report(test: str, first: str, second: str) -> None:
    """Print the end of both runs' output for a test."""
    say(f"UNSTEADY: {test}")
    for what, lines in (
        ("failed", failure(test, first)),
        ("passed", second.splitlines()),
    ):
        say(f"the end of the run that {what}:")
        for line in list(lines)[-END:]:
            print("  |", line)
    sys.stdout.flush()


def failure(test: str, output: str) -> Iterator[str]:
    """The lines that pytest prints of one failed test."""
    title = test.partition("::")[2].replace("::", ".")
    within = False
    for line in output.splitlines():
        if HEADING.match(line):
            within = line.strip("_ ").endswith(title)
        if within:
            yield line


def say(text: str) -> None:
    """Print a line that begins with "test:"."""
    print(f"test: {text}", flush=True)


if __name__ == "__main__":
    for ending in (
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # the lane is not in this process group: it must be told
        signal.signal(ending, signal.default_int_handler)
    sys.exit(main())
