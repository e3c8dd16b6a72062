"""The guest's image and the project as it goes into the guest, both made once and kept in a cache.

Each is named by the digest of what it is made from, so that a change makes a new one and nothing stale is
ever used. What nobody has used for two weeks is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sysbox" / "vm"
PREFIX = Path("opt/sysbox")  # of the environment in the guest, below its root
PROJECT = "root/sysbox"  # where its tests are there
PYTHON = "/usr/bin/python3.11"  # the guest's: what is installed for it is made by the same here
KEPT = 14 * 86400  # seconds
RECIPE = ("build-image.sh", "customise.sh", "agent.py", "wire.py", "vm-agent.service")
SHIPPED = ("tests", "pyproject.toml", "tools/vm", "tools/test-network.sh")


class Failed(Exception):
    """The guest cannot be had; the text says why."""


def image() -> Path:
    """The directory with what QEMU boots."""
    packages = requirements()
    key = digest([HERE / name for name in RECIPE], "\n".join(packages))
    return _cached(f"image-{key}", lambda directory: _build(directory, packages))


def _build(directory: Path, packages: list[str]) -> None:
    say("making the guest's image, which takes some minutes and is done once")
    _check_interpreter()
    with tempfile.TemporaryDirectory() as scratch:
        environment = Path(scratch) / PREFIX
        (environment / "bin").mkdir(parents=True)
        (environment / "bin/python").symlink_to(PYTHON)
        (environment / "pyvenv.cfg").write_text(
            "home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n"
        )
        pip("install", "--ignore-installed", "--prefix", str(environment), *packages)
        command = [str(HERE / "build-image.sh"), str(directory), scratch]
        run(command if os.geteuid() == 0 else ["sudo", *command])
    with (directory / "scratch.raw").open("wb") as disk:
        disk.truncate(8 << 30)


def requirements() -> list[str]:
    """What the project needs at run time, and pytest."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    tests = project["optional-dependencies"]["test"]
    return [*project["dependencies"], *(name for name in tests if name.startswith("pytest"))]


def _check_interpreter() -> None:
    if os.path.realpath(sys.executable) != PYTHON:
        raise Failed(
            f"the guest is Debian 12: {PYTHON} makes what goes into it, not {sys.executable}"
        )


def bundle() -> Path:
    """A tar archive, to be unpacked at the guest's root: the project's wheel, installed, and its tests."""
    sources = [path for name in ("sysbox", "src") for path in files_below(ROOT / name)]
    key = digest([ROOT / "pyproject.toml", ROOT / "meson.build", ROOT / "meson.options", *sources])
    installed = _cached(f"wheel-{key}", _install_wheel)
    target = CACHE / f"bundle-{os.getpid()}.tar"
    with tarfile.open(target, "w") as archive:
        archive.add(installed / "root", arcname=".", filter=_as_root)
        for name in SHIPPED:
            for path in files_below(ROOT / name):
                archive.add(path, f"{PROJECT}/{path.relative_to(ROOT)}", filter=_as_root)
    return target


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    return entry


def _install_wheel(directory: Path) -> None:
    say("building the wheel")
    _check_interpreter()
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT))
    (wheel,) = directory.glob("*.whl")
    prefix = directory / "root" / PREFIX
    install = "install --no-deps --no-index --no-compile --ignore-installed --prefix"
    pip(*install.split(), str(prefix), str(wheel))
    stripped = str(directory / "root")
    run([sys.executable, "-m", "compileall", "-q", "-s", stripped, "-p", "/", str(prefix)])


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    """A directory of the cache, made by `make` if it is not there; by one process at a time."""
    directory = CACHE / name
    CACHE.mkdir(parents=True, exist_ok=True)
    with locked(CACHE / "lock"):
        if not directory.exists():
            _prune()
            with tempfile.TemporaryDirectory(dir=CACHE, prefix="new-") as scratch:
                fresh = Path(scratch) / name
                fresh.mkdir()
                make(fresh)
                fresh.rename(directory)
        os.utime(directory)
    return directory


def _prune() -> None:
    for path in CACHE.iterdir():
        if path.name != "lock" and path.stat().st_mtime < time.time() - KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that others wait for."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def files_below(path: Path) -> list[Path]:
    """A file, or all the files of a directory that are not made by running it."""
    if path.is_file():
        return [path]
    skipped = {".pyc", ".so"}
    return sorted(one for one in path.rglob("*") if one.is_file() and one.suffix not in skipped)


def digest(paths: list[Path], text: str = "") -> str:
    """Over names and contents, short enough for a file name."""
    total = hashlib.sha256(text.encode())
    for path in paths:
        program = bool(path.stat().st_mode & 0o100)  # the rest is the umask's
        total.update(f"\0{path.relative_to(ROOT)}\0{program}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def pip(*words: str) -> None:
    """Run this environment's pip; meson and ninja are found beside it."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *words]
    run(command, env={**os.environ, "PATH": path, "PYTHONWARNINGS": "ignore"})


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    """Run a program that tells on its standard error what is wrong. Raises Failed."""
    try:
        subprocess.run(command, env=env, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(f"{command[0]}: {error}") from None


def say(text: str) -> None:
    """Progress, beside the output of what is run."""
    print(f"vm: {text}", file=sys.stderr, flush=True)
