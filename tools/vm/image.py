"""The guest's image, and the project as it goes into the guest."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path
from typing import IO

from cache import CACHE, GIB, ROOT, Failed, cached, digest, say

HERE = Path(__file__).resolve().parent
PREFIX = Path("opt/sysbox")  # of the environment in the guest, below its root
PROJECT = "root/sysbox"  # where its tests are there
PYTHON = "/usr/bin/python3.11"  # the guest's: what is installed for it is made by the same here
RECIPE = ("build-image.sh", "customise.sh", "agent.py", "wire.py", "vm-agent.service")
# of what the wheel is made, beside the sources: tools/precompile.py makes one of its files
BUILT_BY = ("pyproject.toml", "meson.build", "meson.options", "tools/precompile.py")
SHIPPED = ("tests", "pyproject.toml", "tools/vm", "tools/test-network.sh")


def image() -> Path:
    """The directory with what QEMU boots."""
    packages = requirements()
    key = digest([HERE / name for name in RECIPE], "\n".join(packages))
    return cached(CACHE, "image", key, 4 * GIB, lambda directory: _build(directory, packages))


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


def bundle() -> IO[bytes]:
    """A tar archive, to be unpacked at the guest's root: the project's wheel, installed, and its tests.

    It is a file without a name, so that nothing is left whatever ends this process.
    """
    sources = [path for name in ("sysbox", "src") for path in files_below(ROOT / name)]
    key = digest([*(ROOT / name for name in BUILT_BY), *sources])
    installed = cached(CACHE, "wheel", key, GIB // 4, _install_wheel)
    target = tempfile.TemporaryFile()
    with tarfile.open(fileobj=target, mode="w") as archive:
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


def files_below(path: Path) -> list[Path]:
    """A file, or all the files of a directory that are not made by running it."""
    if path.is_file():
        return [path]
    # the whole of __pycache__: what is compiled just now has a name there that goes in a moment
    found = (
        one for one in path.rglob("*") if one.suffix != ".so" and "__pycache__" not in one.parts
    )
    return sorted(one for one in found if one.is_file())


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
