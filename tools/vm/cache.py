"""A cache of what is made once: an entry is a directory, named by the digest of its sources.

A change of the sources therefore makes a new entry, and no stale one is ever used. An entry appears complete
or not at all, made by one process at a time; one with a file of the wrong size is made again. When one is
made, those that were not used for a while are removed, and of large ones all but a few.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sysbox" / "vm"
KEPT = {"image": 14 * 86400}  # seconds
KEPT_OTHERWISE = 86400  # seconds, for entries that are made quickly and often
MOST = {"image": 3}  # besides the newest, however lately they were used; each takes some GiB
LATELY = 7200.0  # seconds: whoever has used an entry since then may still use it, and it stays
SIZES = "sizes.json"  # sizes of an entry's files; written last
GIB = 1 << 30


class Failed(Exception):
    """The guest cannot be made or started; the text says why."""


def cached(parent: Path, kind: str, key: str, space: int, make: Callable[[Path], None]) -> Path:
    """The entry `parent`/`kind`-`key`; if missing, `make` makes it in `space` bytes. Raises Failed."""
    entry = parent / f"{kind}-{key}"
    if not _complete(entry):
        parent.mkdir(parents=True, exist_ok=True)
        with locked(parent / f"{kind}.lock"):
            if not _complete(entry):
                _make(entry, parent / f"new-{kind}", space, make)
                _prune(parent, kind, entry)
    os.utime(entry)
    return entry


def _complete(entry: Path) -> bool:
    try:
        sizes = json.loads((entry / SIZES).read_text(encoding="utf-8"))
        return all((entry / name).lstat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _make(entry: Path, fresh: Path, space: int, make: Callable[[Path], None]) -> None:
    if entry.exists():
        say(f"{entry} is damaged: making it again")
        _remove(entry)
    _remove(fresh)  # left by a process that was killed
    need(entry.parent, space)
    try:
        fresh.mkdir()
        make(fresh)
        files = [path for path in fresh.rglob("*") if not path.is_dir()]
        sizes = {str(path.relative_to(fresh)): path.lstat().st_size for path in files}
        (fresh / SIZES).write_text(json.dumps(sizes), encoding="utf-8")
        fresh.rename(entry)
    except OSError as error:
        raise Failed(f"{entry}: {error}") from None
    finally:
        _remove(fresh)


def _prune(parent: Path, kind: str, entry: Path) -> None:
    """Remove entries that nobody has used for long, and all but the last ones if their number is limited."""
    now = time.time()
    used = {other: other.stat().st_mtime for other in parent.glob(f"{kind}-*") if other != entry}
    for place, other in enumerate(sorted(used, key=lambda one: -used[one])):
        age = now - used[other]
        too_many = place >= MOST.get(kind, len(used)) and age > LATELY
        if (too_many or age > KEPT.get(kind, KEPT_OTHERWISE)) and not _is_named(other):
            _remove(other)


def _is_named(entry: Path) -> bool:
    """Whether a process has the entry on its command line, as QEMU has, which a shell may use for days."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if f"{entry}/".encode() in file.read_bytes():
                return True
        except OSError:
            pass  # ignoring: it has just ended
    return False


def _remove(directory: Path) -> None:
    """Remove a directory if it exists. Raises Failed if root has made it and the user is not root."""
    if directory.exists():
        try:
            shutil.rmtree(directory)
        except PermissionError as error:
            raise Failed(f"{error}: remove {directory} as root") from None


def need(directory: Path, space: int) -> None:
    """Check free space in bytes. Raises Failed, with a clearer message than that of a full disk."""
    free = shutil.disk_usage(directory).free
    if free < space:
        raise Failed(
            f"{directory}: {free / GIB:.1f} GiB are free, and {space / GIB:.1f} GiB are needed"
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock; print a message before waiting for it."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that has {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest(paths: list[Path], text: str = "") -> str:
    """A digest of names, execute permissions and contents, short enough for a file name."""
    total = hashlib.sha256(text.encode())
    for path in paths:
        program = bool(path.stat().st_mode & 0o100)  # the other bits depend on the umask
        total.update(f"\0{path.relative_to(ROOT)}\0{program}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def say(text: str) -> None:
    """Print progress on standard error."""
    print(f"vm: {text}", file=sys.stderr, flush=True)
