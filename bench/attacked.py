"""The engine under attack, and what is measured during an attack: the host's memory, its journal."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from contest import WORK
from peers import IMAGE, Engine
from timing import PATH, MeasureError

NOBODY = 65534
LIMIT = 90  # seconds that one command may take
LATE = 124
LARGE = 200 << 10  # KiB that a process of the host may use for a container
Attack = Callable[["Attacked"], str]
ATTACKS: list[Attack] = []


def attack(function: Attack) -> Attack:
    """Add an attack to the table; its docstring is the line's title."""
    ATTACKS.append(function)
    return function


class Attacked:
    """An engine, its command line, and a directory for the attack's own files."""

    def __init__(self, peer: Engine, place: Path) -> None:
        self._peer = peer
        self.name = peer.name
        self.place = place
        self._count = 0

    def __call__(
        self, *words: str | Path, limit: float = LIMIT
    ) -> subprocess.CompletedProcess[str]:
        """Run `ENGINE WORDS...`; the status is LATE if it took too long."""
        begun = self.begin(*words)
        try:
            out, err = begun.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            begun.kill()
            out, err = begun.communicate()
            begun.returncode = LATE
        return subprocess.CompletedProcess(begun.args, begun.returncode, out, err)

    def begin(self, *words: str | Path) -> subprocess.Popen[str]:
        """Start `ENGINE WORDS...` without waiting for its end."""
        with self._peer.view():
            return subprocess.Popen(
                [*self._peer.command(), *map(str, words)],
                env={**os.environ, "PATH": PATH, **self._peer.environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )

    @contextmanager
    def container(
        self, *flags: str | Path, command: Sequence[str] = ("sleep", "1000")
    ) -> Iterator[str]:
        """The name of a detached container, which is removed afterwards. Raises MeasureError."""
        self._count += 1
        name = f"attack{self._count}"
        done = self("run", "-d", "--name", name, *flags, IMAGE, *command)
        try:
            if done.returncode:
                raise MeasureError(last_line(done.stderr))
            yield name
        finally:
            self("rm", "-f", name)

    @contextmanager
    def image(self, links: dict[str, str], change: str = 'CMD ["true"]') -> Iterator[str]:
        """The name of an image with these symbolic links, or scripts, and one change of its configuration.

        Raises MeasureError.
        """
        archive = self.place / "image.tar"
        with tarfile.open(archive, "w") as made:
            made.add(WORK / "attacks-tree", ".")
            for path, target in links.items():
                entry = tarfile.TarInfo(path)
                if target.startswith("#!"):
                    entry.size, entry.mode = len(target), 0o755
                    made.addfile(entry, io.BytesIO(target.encode()))
                else:
                    entry.type, entry.linkname = tarfile.SYMTYPE, target
                    made.addfile(entry)
        done = self("import", "--change", change, archive, "attack:1")
        try:
            if done.returncode:
                raise MeasureError(f"held: refused: {last_line(done.stderr)}")
            yield "attack:1"
        finally:
            self("rmi", "-f", "attack:1")

    @property
    def command(self) -> list[str]:
        """The engine's command line, without a verb."""
        return self._peer.command()

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script, with the engine's environment; the status is LATE if it took too long."""
        argv = ["/bin/sh", "-c", script]
        with self._peer.view():
            try:
                return subprocess.run(
                    argv,
                    env={**os.environ, "PATH": PATH, **self._peer.environment},
                    capture_output=True,
                    text=True,
                    errors="replace",
                    check=False,
                    timeout=LIMIT,
                )
            except subprocess.TimeoutExpired:
                return subprocess.CompletedProcess(argv, LATE, "", "")

    def inside(self, name: str, script: str) -> str:
        """The output of a shell script in a container."""
        return self("exec", name, "sh", "-c", script).stdout.strip()


def last_line(text: str) -> str:
    """The last line of a message, cut to fit into a table."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:140].replace("|", "/") if lines else "no message"


def verdict(fell: object, words: str) -> str:
    return f"**FELL**: {words}" if fell else f"held: {words}"


class Largest:
    """The largest resident size of a process that is new on the host, or has grown, since the start."""

    def __enter__(self) -> Largest:
        self._before = resident()
        self.found = 0  # KiB
        return self

    def __exit__(self, *_: object) -> None:
        self.look()

    def look(self) -> None:
        grown = (size for pid, size in resident().items() if size > self._before.get(pid, 0))
        self.found = max(self.found, *grown, 0)


def resident() -> dict[int, int]:
    """The resident size in KiB of all processes of the host, by pid."""
    listed = subprocess.run(
        ["/usr/bin/ps", "-A", "-o", "pid=,rss="], capture_output=True, text=True, check=True
    )
    return {
        int(pid): int(rss) for pid, rss in (line.split() for line in listed.stdout.splitlines())
    }


def send(data: bytes) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.sendto(data, "/run/systemd/journal/socket")


def as_nobody(function: Callable[[], None]) -> None:
    """Call a function in an unprivileged process."""
    if (pid := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            function()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def journal_size() -> int:
    files = [
        file
        for directory in ("/var/log/journal", "/run/log/journal")
        for file in Path(directory).rglob("*")
    ]
    return sum(file.stat().st_blocks * 512 for file in files if file.is_file())
