"""The guest's image, and the archive of the project for the guest."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path, PurePath
from typing import IO

from bytecode import bytecode
from cache import CACHE, GIB, ROOT, Failed, cached, digest, say

HERE = Path(__file__).resolve().parent
TESTS = ROOT / "tests"
PREFIX = Path("opt/sysbox")  # of the environment in the guest, below its root
PROJECT = "root/sysbox"  # directory of the tests in the guest
PYTHON = (
    "/usr/bin/python3.11"  # the guest's; its packages must be installed by the same version here
)
RECIPE = ("build-image.sh", "customise.sh", "agent.py", "wire.py", "vm-agent.service")
# the SELinux policy that the guest has
POLICY = ("tools/install-selinux.sh", "contrib/selinux")
# sources of the wheel besides the code: tools/precompile.py makes one of its files
BUILT_BY = ("pyproject.toml", "meson.build", "meson.options", "tools/precompile.py")
SHIPPED = (
    "tests", "pyproject.toml", "systemd", "tools/vm", "tools/test-network.sh", "tools/install-system.sh",
    "bench", "examples",
)  # fmt: skip
# programs for tests, which tools/setup.sh unpacks; an installed package would start its service in the guest
UNPACKED = ("usr/bin/docker-registry",)
# what the guest does with the bundle, as a shell script, which goes on in the tests' directory;
# a package manager would label installed files: a copied file has the label of its directory
INSTALL = """
cd / && tar -xf /dev/vdc || exit 125
restorecon -R /opt/sysbox/bin/sysbox /opt/sysbox/lib/python3.11/site-packages/sysbox/libexec || exit 125
export PATH=/opt/sysbox/bin:$PATH
cd /root/sysbox
"""


def image() -> Path:
    """The directory with the files that QEMU boots."""
    packages = requirements()
    recipe = [HERE / name for name in RECIPE]
    policy = [path for name in POLICY for path in files_below(ROOT / name)]
    key = digest([*recipe, *policy], "\n".join(packages))
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
    """The packages that the project needs at run time, and pytest with its limit of time."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    tests = project["optional-dependencies"]["test"]
    return [
        *project["dependencies"],
        *(name for name in tests if name.startswith(("pytest ", "pytest-timeout "))),
    ]


def _check_interpreter() -> None:
    if os.path.realpath(sys.executable) != PYTHON:
        raise Failed(
            f"the guest is Debian 12 and needs packages made by {PYTHON}, not {sys.executable}"
        )


def bundle() -> IO[bytes]:
    """A tar archive for the guest's root: the project's wheel, installed, its tests and programs for them.

    It is a file without a name, so that it is gone however this process ends.
    """
    sources = [path for name in ("sysbox", "src") for path in files_below(ROOT / name)]
    key = digest([*(ROOT / name for name in BUILT_BY), *sources])
    installed = cached(CACHE, "wheel", key, GIB // 4, _install_wheel)
    shipped = [path for name in SHIPPED for path in files_below(ROOT / name)]
    tests = [path for path in shipped if path.suffix == ".py" and path.is_relative_to(TESTS)]
    target = tempfile.TemporaryFile()
    with tarfile.open(fileobj=target, mode="w") as archive:
        archive.add(installed / "root", arcname=".", filter=_as_root)
        for path in shipped:
            archive.add(path, f"{PROJECT}/{path.relative_to(ROOT)}", filter=_as_root)
        compiled = bytecode(tests, PurePath("/", PROJECT))
        archive.add(compiled / "tests", f"{PROJECT}/tests", filter=_as_root)
        for name in UNPACKED:
            if (program := Path(sys.prefix, "test-services", name)).exists():
                archive.add(program, str(PREFIX / "test-services" / name), filter=_as_root)
    return target


def _as_root(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = "root"
    entry.mtime = int(entry.mtime)  # a fraction would take two more blocks
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
    """A file, or all source files of a directory."""
    if path.is_file():
        return [path]
    # all of __pycache__, not only *.pyc: while Python compiles, the directory has files with temporary names
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
    """Run a program whose standard error explains its failure. Raises Failed."""
    try:
        subprocess.run(command, env=env, check=True, stdout=sys.stderr)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(f"{command[0]}: {error}") from None
