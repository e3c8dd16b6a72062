"""Install sysbox into the environment that runs this script; only the steps whose sources have changed.

Each step keeps a stamp, the digest of its sources. Changed Python files are copied into the environment,
which has the same result as a new installation and takes no time; any other change goes through pip.
"""

from __future__ import annotations

import compileall
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = Path(sys.prefix)
PACKAGE = Path(sysconfig.get_path("platlib")) / "sysbox"
NATIVE = [
    "pyproject.toml",
    "meson.build",
    "meson.options",
    "tools/precompile.py",
    *ROOT.glob("src/*.c"),
    *ROOT.glob("src/*.h"),
]
PAGES = [ROOT / "CHANGELOG.md", ROOT / "tools/man.py", *sorted(ROOT.glob("docs/man/*.md"))]


def main() -> None:
    """Bring the environment up to date."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)
    requires = project["build-system"]["requires"] + ["ninja"]
    pip_install("dependencies", requires + project["project"]["dependencies"])
    if "--test" in sys.argv[1:]:
        pip_install("test", project["project"]["optional-dependencies"]["test"])
    install_sysbox()


def pip_install(step: str, requirements: list[str]) -> None:
    """Install packages of others, once per list of requirements."""
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()
    if read_stamp(step) == digest:
        return
    say(f"installing {', '.join(requirements)}")
    pip(*requirements)
    write_stamp(step, digest)


def install_sysbox() -> None:
    """Install sysbox: through pip if C or the build has changed, else file by file."""
    native = digest_of([ROOT / name for name in NATIVE])
    files = python_files(ROOT / "sysbox")
    units = python_files(ROOT / "systemd")
    python = digest_of([*files, *units])
    tables = [*ROOT.glob("sysbox/cli/table/*.py"), ROOT / "sysbox/conf/table.py"]
    tables += [ROOT / f"sysbox/units/quadlet/{name}.py" for name in ("keys", "keyhelp")]
    manual = digest_of([*tables, *PAGES])
    if read_stamp("native") != native or not (ENVIRONMENT / "bin/sysbox").exists():
        say("building sysbox")
        pip("--no-deps", "--no-build-isolation", "--force-reinstall", str(ROOT))
        # pip writes modules.bin first: a module installed a second later would count as newer
        precompile()
    else:
        if read_stamp("python") != python:
            synchronise(files)
        if read_stamp("man") != manual:
            make_pages()
    write_stamp("native", native)
    write_stamp("python", python)
    write_stamp("man", manual)


def synchronise(files: list[Path]) -> None:
    """Copy changed Python files of the checkout, remove deleted ones, and compile them as pip does."""
    wanted = {path.relative_to(ROOT / "sysbox"): path for path in files}
    # systemd's files, which are installed in the package too
    wanted |= {path.relative_to(ROOT): path for path in python_files(ROOT / "systemd")}
    for installed in python_files(PACKAGE):
        if installed.relative_to(PACKAGE) not in wanted:
            installed.unlink()
    for name, path in wanted.items():
        target = PACKAGE / name
        if not target.exists() or target.read_bytes() != path.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    compileall.compile_dir(PACKAGE, quiet=1)
    precompile()
    say(f"{len(wanted)} files are up to date in {PACKAGE}")


def precompile() -> None:
    """Make the compiled files again from the installed modules."""
    command = [sys.executable, "-I", "-B", ROOT / "tools/precompile.py"]
    subprocess.run([*command, PACKAGE, PACKAGE.parent], check=True)


def make_pages() -> None:
    """Make the man pages again, where meson-python has put them: it takes the prefix for the datadir."""
    target = ENVIRONMENT / "man"
    for page in target.glob("man[15]/sysbox*.[15]"):
        page.unlink()
    subprocess.run([sys.executable, "-B", ROOT / "tools/man.py", "--tree", target], check=True)


def python_files(directory: Path) -> list[Path]:
    """The files that meson.build installs from sysbox/: all but bytecode and the results of C."""
    skipped = {".pyc", ".pyo", ".so", ".bin"}
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and path.suffix not in skipped and "libexec" not in path.parts
    )


def digest_of(files: list[Path]) -> str:
    """One digest over names and contents."""
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(ROOT)}\0".encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()


def pip(*arguments: str) -> None:
    """Run pip; meson and ninja are found beside it."""
    path = f"{ENVIRONMENT}/bin:{os.environ['PATH']}"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--use-pep517"]
    done = subprocess.run(
        [*command, *arguments], env=os.environ | {"PATH": path}, cwd=ENVIRONMENT, check=False
    )
    if done.returncode:
        sys.exit(f"setup: pip failed with status {done.returncode}")


def read_stamp(step: str) -> str:
    """The digest of the sources with which a step was last done; "" for never."""
    path = ENVIRONMENT / f".sysbox-{step}"
    return path.read_text() if path.exists() else ""


def write_stamp(step: str, digest: str) -> None:
    """Record that a step is done."""
    (ENVIRONMENT / f".sysbox-{step}").write_text(digest)


def say(text: str) -> None:
    """Print progress on standard error."""
    print(f"setup: {text}", file=sys.stderr)


main()
