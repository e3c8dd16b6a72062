"""The init inside a container, and the launcher on PATH. The third C program: test_linux_monitor.py."""

from __future__ import annotations

import errno
import os
import py_compile
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.base.paths import LIBEXEC

INIT = f"{LIBEXEC}/sysbox-init"
LAUNCHER = Path(sys.executable).parent / "sysbox"


def run_init(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [INIT, "/bin/sh", "-c", script], capture_output=True, text=True, check=False, timeout=30
    )


def test_init_passes_the_status_on() -> None:
    assert run_init("exit 7").returncode == 7
    assert run_init("kill -TERM $$").returncode == 143
    assert subprocess.run([INIT, "/nowhere"], capture_output=True, check=False).returncode == 127
    assert subprocess.run([INIT, "/etc/passwd"], capture_output=True, check=False).returncode == 126
    assert subprocess.run([INIT], capture_output=True, check=False).returncode == 125


def test_init_forwards_signals() -> None:
    script = "trap 'exit 21' USR1; echo ready; while :; do sleep 0.1; done"
    process = subprocess.Popen([INIT, "/bin/sh", "-c", script], stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(10) == 21
    process.stdout.close()


def test_init_reaps_orphans_as_pid_1() -> None:
    needs_root()
    # nobody else can: its parent has ended, and a zombie that is not reaped stays below /proc
    script = """
        orphan=$(sleep 0.05 >/dev/null & echo $!)
        for _ in $(seq 200); do [ -e /proc/$orphan ] || exit 7; sleep 0.05; done
    """
    done = subprocess.run(
        ["unshare", "--pid", "--fork", "--mount-proc", INIT, "/bin/sh", "-c", script],
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 7


@pytest.fixture
def installation(tmp_path: Path) -> Path:
    """A prefix with the launcher, an interpreter of its own, and a package that reports."""
    version = f"python3.{sys.version_info.minor}"
    (tmp_path / "bin").mkdir()
    package = tmp_path / f"lib/{version}/site-packages/sysbox"
    package.mkdir(parents=True)
    (tmp_path / "bin/sysbox").write_bytes(LAUNCHER.read_bytes())
    (tmp_path / "bin/sysbox").chmod(0o755)
    (tmp_path / "bin/python3").symlink_to(os.path.realpath(sys.executable))
    return package / "_main.py"


def launch(main: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    main.write_text(source)
    command = [main.parents[4] / "bin/sysbox", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_launcher_is_isolated_and_passes_arguments(installation: Path) -> None:
    source = "import sys; f = sys.flags; print([f.isolated, f.no_site, f.utf8_mode, *sys.argv[1:]])"
    done = launch(installation, source, "run", "--x", "a b", "")
    prefix = installation.parents[4]
    assert done.stdout.strip() == str([1, 1, 1, f"{prefix}/bin/sysbox", "run", "--x", "a b", ""])


@pytest.mark.parametrize("words", [["run"], ["container", "start"], ["_supervise"]], ids=" ".join)
def test_launcher_of_a_start_has_no_child_and_stays_where_it_is(
    installation: Path, words: list[str]
) -> None:
    # its process that prepares the kernel for a move is no child of it, and moves nothing
    source = """
import os
print(open("/proc/self/cgroup").read(), end="")
try:
    print(os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | 0x40000000))
except ChildProcessError:
    pass
"""
    done = launch(installation, source, *words)
    assert done.stdout == Path("/proc/self/cgroup").read_text()


def test_launcher_prefers_the_compiled_file_of_its_interpreters_version(installation: Path) -> None:
    said = {}
    for minor in (sys.version_info.minor, sys.version_info.minor + 1):
        source = installation.with_name(f"{minor}.py")
        source.write_text(f"print('compiled for {minor}')")
        compiled = installation.with_name(f"_main.cpython-3{minor}.pyc")
        py_compile.compile(str(source), str(compiled), doraise=True)
        said[minor] = launch(installation, "print('source')").stdout
        compiled.unlink()
    assert list(said.values()) == [f"compiled for {sys.version_info.minor}\n", "source\n"]


def test_launcher_names_a_package_that_has_no_first_file(installation: Path) -> None:
    done = subprocess.run(
        [installation.parents[4] / "bin/sysbox"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 125
    assert done.stderr == (
        f"sysbox: cannot read the package's first file in {installation.parent}:"
        " No such file or directory\n"
    )


def test_launcher_follows_a_link_to_itself(installation: Path, tmp_path: Path) -> None:
    installation.write_text("import sys; print(sys.argv[1])")
    (tmp_path / "elsewhere").symlink_to(tmp_path / "bin/sysbox")
    done = subprocess.run([tmp_path / "elsewhere"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{tmp_path}/bin/sysbox"


def test_interpreter_cannot_be_overwritten(installation: Path) -> None:
    """CVE-2019-5736: a hostile process keeps /proc/PID/exe open and writes once nobody runs it."""
    needs_root()
    source = (
        "import posix\n"
        "fd = posix.open('/proc/self/exe', posix.O_PATH)\n"
        "posix.set_inheritable(fd, True)\n"
        "code = f'import os; os.open(\"/proc/self/fd/{fd}\", os.O_WRONLY)'\n"
        f"posix.execve({sys.executable!r}, ['python', '-c', code], posix.environ)\n"
    )
    copy = installation.parents[4] / "bin/python3"
    real = Path(os.path.realpath(sys.executable))
    copy.unlink()
    (copy.parent / real.name).write_bytes(real.read_bytes())
    (copy.parent / real.name).chmod(0o755)
    copy.symlink_to(real.name)
    standard_library = Path(os.__file__).parent
    for entry in standard_library.iterdir():
        target = installation.parents[2] / entry.name
        if not target.exists():
            target.symlink_to(entry)
    done = launch(installation, source)
    assert done.returncode == 1
    assert f"[Errno {errno.EROFS}]" in done.stderr, done.stderr


def test_launcher_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sysbox").write_bytes(LAUNCHER.read_bytes())
    (tmp_path / "sysbox").chmod(0o755)
    done = subprocess.run([tmp_path / "sysbox"], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 125), "it may find the package that it was built for"
    if done.returncode:
        assert done.stderr.startswith("sysbox: ")
