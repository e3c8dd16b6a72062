"""Run a function under the monitor, as sysbox does with a detached container's first process."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from sysbox.base.paths import LIBEXEC

MONITOR = f"{LIBEXEC}/sysbox-monitor"


def start(directory: Path, payload: Callable[[], None], *arguments: object) -> int:
    """A process that forks `payload` and becomes its monitor, as sysbox does."""
    monitor = os.fork()
    if monitor:
        return monitor
    # what comes before the monitor listens waits for it
    early = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
    signal.pthread_sigmask(signal.SIG_BLOCK, early)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, early)
        try:
            payload()
        finally:
            os._exit(99)
    command = [
        "sysbox-monitor",
        "web",
        "--pid",
        str(child),
        "--dir",
        str(directory),
        *map(str, arguments),
    ]
    os.execv(MONITOR, command)
    raise AssertionError("execv does not return")


def finish(monitor: int, directory: Path) -> tuple[int, dict[str, object]]:
    """The monitor's own status, and what it wrote down."""
    status = os.waitstatus_to_exitcode(os.waitpid(monitor, 0)[1])
    return status, json.loads((directory / "exit").read_text())


def ready(directory: Path) -> None:
    """Wait until the payload has told that it is set up."""
    deadline = time.monotonic() + 10
    while not (directory / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def settled(monitor: int) -> None:
    """Wait until it is the monitor's own program, and waits itself."""
    deadline = time.monotonic() + 30
    while True:
        status = Path(f"/proc/{monitor}/status").read_text()
        if status.startswith("Name:\tsysbox-monitor\n") and "\nState:\tS" in status:
            return
        assert time.monotonic() < deadline, status
        time.sleep(0.01)
