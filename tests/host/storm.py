"""Rounds of create, start, exec, stop and rm, with kill -9 at random instants of whatever takes part."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

from faults import kill, unclean
from lane import SLOWNESS, SYSBOX, run_sysbox

from sysbox.base import paths

PATIENCE = 120.0 * SLOWNESS  # seconds for one command, in the worst of weathers
TAIL = 0.25 * SLOWNESS  # seconds within which most instants are
NETWORK, FURTHER = "storm", "storm-too"  # both with IPv6
FLAGS = (
    (), ("-p", "80"), ("-v", "/data"), ("--cpuset-cpus", "0"), ("--memory", "64m"), ("--init",),
    ("--log-driver", "json-file"), ("--network", "none"), ("--network", NETWORK), ("--network", NETWORK),
    ("--health-cmd", "true", "--health-interval", "100ms"),
)  # fmt: skip
POLICIES = ("no", "no", "always", "on-failure:2", "unless-stopped")
COMMANDS = (
    ("sleep", "1000"),
    ("sh", "-c", "trap 'exit 3' TERM; while :; do echo line; sleep 0.05; done"),
    ("sh", "-c", "sleep 0.2; exit 1"),
)
# what a round consists of; NAME is its container's
SCRIPTS = (
    ("create", "start", "exec", "stop", "rm"),
    ("run", "exec", "pause", "unpause", "stop", "start", "rm -f"),
    ("run -t", "attach", "exec", "restart", "kill", "start", "rm -f"),
    ("run", "pause", "rm -f"),
    ("run", "pause", "stop", "start", "update", "stop", "rm"),
    ("foreground", "exec", "stop", "rm"),
    ("run --rm", "exec", "stop"),
    ("create", "rename", "start", "stop", "rm"),
    ("run", "connect", "exec", "disconnect", "connect", "kill", "start", "rm -f"),
    ("create", "connect", "start", "disconnect", "publish", "restart", "stop", "rm"),
)
WEATHER = (
    ("systemctl", "kill", "-s", "KILL", "systemd-journald"),
    ("systemctl", "restart", "dbus"),
    ("systemctl", "daemon-reexec"),
    ("systemctl", "daemon-reload"),
    (str(SYSBOX), "gc"),
    (str(SYSBOX), "ps", "-a"),
)


class Storm:
    """Runs rounds, several at a time, and notes what should not have been."""

    def __init__(self, image: str, seed: str) -> None:
        self.complaints: list[str] = []
        self.counts: dict[str, int] = {}
        self._image = image
        self._seed = seed
        self._over = threading.Event()

    def run(self, rounds: int, at_once: int) -> None:
        """All of them; then what is left is removed."""
        weather = threading.Thread(target=self._weather)
        weather.start()
        try:
            with ThreadPoolExecutor(at_once) as pool:
                for done in [pool.submit(self._round, number) for number in range(rounds)]:
                    done.result()
        finally:
            self._over.set()
            weather.join()
            _reset_failed()

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _weather(self) -> None:
        random = Random(f"{self._seed} weather")
        while not self._over.wait(random.uniform(0.2, 2.0) * SLOWNESS):
            words = random.choice(WEATHER)
            self._count(" ".join(words).removeprefix(f"{SYSBOX.parent}/"))
            _reset_failed()
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if words[0] == str(SYSBOX) and (done.returncode or done.stderr):
                self.complaints.append(f"{words[1]}: {done.returncode}: {done.stderr}")

    def _round(self, number: int) -> None:
        random = Random(f"{self._seed} {number}")
        name = f"storm-{number}"
        flags = (*random.choice(FLAGS), *random.choice(FLAGS))
        policy = ("--restart", random.choice(POLICIES))
        watchers: list[subprocess.Popen[str]] = []
        for step in random.choice(SCRIPTS):
            words = self._words(step, name, (flags, policy), random.choice(COMMANDS))
            if step in ("attach", "foreground"):
                watchers.append(_spawn(*words))
                time.sleep(random.uniform(0, TAIL))
                if random.random() < 0.3:
                    watchers[-1].kill()
                continue
            self._step(words, name, random)
        self._end(name, watchers)

    def _words(
        self,
        step: str,
        name: str,
        flags: tuple[tuple[str, ...], tuple[str, ...]],
        command: tuple[str, ...],
    ) -> tuple[str, ...]:
        once, policy = flags
        what = (*once, "--name", name, self._image, *command)
        special: dict[str, tuple[str, ...]] = {
            "create": ("create", *policy, *what),
            "run": ("run", "-d", *policy, *what),
            "run -t": ("run", "-dt", *policy, *what),
            "run --rm": ("run", "-d", "--rm", *what),
            "foreground": ("run", *what),
            "exec": ("exec", name, "true"),
            "attach": ("attach", "--no-stdin", name),
            "stop": ("stop", "-t", "1", name),
            "restart": ("restart", "-t", "0", name),
            "update": ("update", "--memory", "80m", "--memory-swap", "-1", name),
            "connect": ("network", "connect", FURTHER, name),
            "disconnect": ("network", "disconnect", FURTHER, name),
            "publish": ("publish", name, "20000-20999:80"),
            "rename": ("rename", name, f"{name}-new"),
            "rm": ("rm", "-v", name),
            "rm -f": ("rm", "-f", "-v", name),
        }
        return special.get(step, (step, name))

    def _step(self, words: tuple[str, ...], name: str, random: Random) -> None:
        victim = random.choice(("command", "command", "monitor", "init", "nothing"))
        instant = random.uniform(0, TAIL)
        started = _spawn(*words)
        if victim != "nothing":
            time.sleep(instant)
            self._count(f"kill of {victim}")
            for pid in [started.pid] if victim == "command" else _pids(name, victim):
                kill(pid)
        try:
            output, errors = started.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.complaints.append(f"{name}: does not end: {' '.join(words)}")
            started.kill()
            started.communicate()
            return
        self._count("commands")
        done = subprocess.CompletedProcess(words, started.returncode, output, errors)
        if victim != "command" and (wrong := unclean(done)):
            self.complaints.append(f"{name}: {' '.join(words)}, kill of {victim}: {wrong}")

    def _end(self, name: str, watchers: list[subprocess.Popen[str]]) -> None:
        """Whatever has become of it, it can be removed, and who watches it leaves."""
        for one in (name, f"{name}-new"):
            try:
                done = run_sysbox("rm", "-f", "-v", one, timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.complaints.append(f"{one}: rm -f does not end")
                continue
            if done.returncode or (done.stderr and "no such container" not in done.stderr):
                self.complaints.append(f"{one}: cannot be removed: {done.stderr.strip()}")
        for watcher in watchers:
            try:
                _, errors = watcher.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                self.complaints.append(f"{name}: who watches it does not end: {watcher.args}")
                watcher.kill()
                watcher.communicate()
                continue
            done = subprocess.CompletedProcess(watcher.args, watcher.returncode, "", errors)
            if watcher.returncode >= 0 and (wrong := unclean(done, payload=True)):
                self.complaints.append(f"{name}: {watcher.args}: {wrong}")


def _reset_failed() -> None:
    """systemd does not start again what died too often, and shows it as failed."""
    for service in ("systemd-journald", "systemd-machined", "dbus"):
        subprocess.run(["systemctl", "reset-failed", service], capture_output=True, check=False)


def _spawn(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(SYSBOX), *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, errors="replace",
    )  # fmt: skip


def _pids(name: str, victim: str) -> list[int]:
    """The container's first process, or who supervises it, as the record has them right now."""
    try:
        owner = os.readlink(f"{paths.NAMES}/{name}")
        text = Path(paths.RUN_CONTAINERS, owner, "state.json").read_text(encoding="ascii")
    except OSError:
        return []
    found = json.loads(text)
    which = "pid" if victim == "init" else "supervisor"
    pid, start = found[which], found["start_time" if which == "pid" else "supervisor_start"]
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    # the number may have become another's
    return [pid] if pid > 1 and int(status.rpartition(")")[2].split()[19]) == start else []
