"""Detached containers for tests, and what can be read of them: from sysbox, systemd, the kernel."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from lane import SLOWNESS, SYSBOX, Sysbox

from sysbox.base.errors import FormatError
from sysbox.container import store
from sysbox.host import probe
from sysbox.linux import cgroup

Found = TypeVar("Found")
V1 = probe().cgroup_mode == "v1"
PATIENCE = 30.0 * SLOWNESS  # seconds for anything that comes by itself


class Container:
    """One container, by its full id."""

    def __init__(self, sysbox: Sysbox, container_id: str) -> None:
        self.id = container_id
        self.scope = f"docker-{container_id}.scope"
        self._sysbox = sysbox

    def inspect(self, path: str) -> Any:
        """A value of `inspect`, by its path in it: "State.Pid"."""
        return json.loads(self("inspect", "-f", f"{{{{json .{path}}}}}"))

    @property
    def pid(self) -> int:
        """Of its first process, on the host."""
        return int(self.inspect("State.Pid"))

    def __call__(self, verb: str, *words: str, check: bool = True) -> str:
        """`sysbox VERB WORDS... ID`: its output."""
        return self._sysbox(verb, *words, self.id, check=check).stdout

    def exec(self, *words: str, flags: tuple[str, ...] = ()) -> str:
        """The output of a command in it, which succeeds."""
        return self._sysbox("exec", *flags, self.id, *words, check=True).stdout.strip()

    def sh(self, script: str) -> str:
        """The output of a shell script in it, which succeeds."""
        return self.exec("sh", "-ec", script)

    def cgroup(self, controller: str) -> Path:
        """Its scope's directory of a controller."""
        return Path(cgroup.directory(probe(), controller, f"/system.slice/{self.scope}"))

    def limit(self, controller: str, file: str) -> str:
        """A cgroup file's content."""
        return (self.cgroup(controller) / file).read_text(encoding="ascii").strip()

    def namespace(self, kind: str) -> str:
        """Which namespace its first process is in."""
        return os.readlink(f"/proc/{self.pid}/ns/{kind}")

    def await_state(self, state: str) -> None:
        """Until it is in that state; if it has ended, until its end is recorded, or is by who looks next."""
        eventually(lambda: self.inspect("State.Status") == state, f"{self.id[:12]} is {state}")
        if state == "exited":
            # the supervisor tells how it ended, and what comes after it records the rest
            eventually(lambda: not is_supervised(self.id), f"the end of {self.id[:12]} is recorded")


def is_supervised(container_id: str) -> bool:
    """Whether a process attends to its run."""
    try:
        run = store.runtime(container_id)
    except FormatError:
        return False
    return run is not None and run.supervised()


class Containers:
    """Makes containers, and removes them all at the end."""

    def __init__(self, sysbox: Sysbox, image: str) -> None:
        self._sysbox = sysbox
        self._image = image
        self._made: list[str] = []

    def __call__(
        self,
        *flags: str,
        command: tuple[str, ...] = ("sleep", "1000"),
        image: str = "",
        verb: tuple[str, ...] = ("run", "-d"),
    ) -> Container:
        """`sysbox run -d FLAGS... IMAGE COMMAND...`; a shell command is `sh=`-less: give the words."""
        done = self._sysbox(*verb, *flags, image or self._image, *command, check=True)
        container_id = done.stdout.strip()
        self._made.append(container_id)
        return Container(self._sysbox, container_id)

    def known(self, name: str) -> Container:
        """One that something else starts, once it runs; it is removed like the others."""
        eventually(lambda: self._sysbox("inspect", name).returncode == 0, f"{name} is there")
        container_id = self._sysbox("inspect", "-f", "{{.Id}}", name, check=True).stdout.strip()
        self._made.append(container_id)
        found = Container(self._sysbox, container_id)
        found.await_state("running")
        return found

    def known_ended(self, name: str) -> Container:
        """One that something else has run in the foreground; it is removed like the others."""
        container_id = self._sysbox("inspect", "-f", "{{.Id}}", name, check=True).stdout.strip()
        self._made.append(container_id)
        return Container(self._sysbox, container_id)

    def remove(self) -> None:
        if self._made:
            self._sysbox("rm", "-f", "-v", *self._made)


def eventually(condition: Callable[[], Found], what: str) -> Found:
    """Wait until it is true, or fail saying what never was; its value, which may soon be another."""
    deadline = time.monotonic() + PATIENCE
    while True:
        asked = time.monotonic()
        if found := condition():
            return found
        now = time.monotonic()
        assert now < deadline, f"not in {PATIENCE:.0f} s: {what}"
        # a question that is a command takes a CPU from what it waits for: half of the time is enough
        time.sleep(max(0.01 * SLOWNESS, min(now - asked, 0.04)))


def within(measure: Callable[[], float], low: float, high: float) -> None:
    """Fails unless what is measured is below `high`, and above `low` in one of three: a rate that is limited.

    While the machine stands still nothing is written, nor is it made up for.
    """
    for _ in range(3):
        found = measure()
        assert found < high
        if found > low:
            return
    raise AssertionError(f"{found} <= {low}")


def throttled(directory: Path) -> tuple[int, int]:
    """(periods, those of them in which the quota was used up) of a cgroup's CPU time, from its cpu.stat."""
    lines = (directory / "cpu.stat").read_text(encoding="ascii").splitlines()
    found = dict(line.split() for line in lines)
    return int(found["nr_periods"]), int(found["nr_throttled"])


def share_of_cpu(directory: Path, used: Callable[[], float]) -> float:
    """CPU seconds by `used`, for each second of the quota's periods of 100 ms: while twenty are used up.

    Periods and not the clock: on a machine that is busy a container may get less than its quota.
    """
    before, (periods, times) = used(), throttled(directory)
    eventually(lambda: throttled(directory)[1] >= times + 20, "it is throttled")
    passed = throttled(directory)[0] - periods
    return (used() - before) / (passed * 0.1)


def commands() -> list[str]:
    """The command lines of the host's processes."""
    ps = subprocess.run(["ps", "-A", "-o", "args="], capture_output=True, text=True, check=True)
    return ps.stdout.splitlines()


@contextmanager
def with_health_check(sysbox: Sysbox, image: str) -> Iterator[str]:
    """The name of an image like another one, but with a health check of its own."""
    made = sysbox("create", image, "true", check=True).stdout.strip()
    sysbox("commit", "-c", "HEALTHCHECK CMD true", made, "checked:test", check=True)
    sysbox("rm", made, check=True)
    try:
        yield "checked:test"
    finally:
        sysbox("rmi", "checked:test", check=True)


def active_state(unit: str) -> str:
    """ActiveState= of a unit; "inactive" too where there is none."""
    return systemctl("show", "-P", "ActiveState", unit)


def is_active(unit: str) -> bool:
    return active_state(unit) == "active"


def systemctl(*words: str, check: bool = True) -> str:
    """systemctl(1): its output."""
    done = subprocess.run(
        ["systemctl", *words], capture_output=True, text=True, check=False, timeout=60 * SLOWNESS
    )
    if check and done.returncode:
        # the last lines of their logs with it
        units = [word for word in words[1:] if not word.startswith("-")]
        status = subprocess.run(
            ["systemctl", "--no-pager", "--full", "--lines=30", "status", *units],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        raise AssertionError(f"systemctl {' '.join(words)}: {done.stderr}{status.stdout}")
    return done.stdout.strip()


def popen(*words: str, under: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
    """`sysbox WORDS...` as a process to be waited for, `under` another command if there is one."""
    options = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
    }
    return subprocess.Popen([*under, SYSBOX, *words], text=True, **options)
