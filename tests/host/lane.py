"""What tests of real containers share: they run on a booted systemd, as root, and leave nothing behind.

The conftest.py of each lane that runs on a host (tests/host, tests/attack, tests/vm) takes all from here.
"""

from __future__ import annotations

import functools
import io
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import leaks
import pytest

from sysbox.base import paths

if TYPE_CHECKING:
    from containers import Containers

SYSBOX = Path(sys.prefix) / "bin" / "sysbox"
# by how much a machine may be slower than an ordinary one: an emulated one says so (tools/vm/run.py).
# Whatever waits in a test, or finds that something took too long, reckons with it.
SLOWNESS = float(os.environ.get("SYSBOX_TEST_SLOWNESS", "1"))
TIMEOUT = 60.0 * SLOWNESS  # seconds for one command
SETTLING = 10.0 * SLOWNESS  # the kernel takes namespaces, cgroups and links down at leisure
USUAL = 0.6  # seconds of one test
IMAGE = "busybox:test"


class Sysbox(Protocol):
    """Runs the installed command."""

    def __call__(
        self,
        *args: str | os.PathLike[str],
        input: str | None = None,
        timeout: float = TIMEOUT,
        check: bool = False,
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]: ...


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Away from a systemd these tests cannot run: say how they can."""
    lanes = [Path(__file__).parents[1] / name for name in ("host", "attack", "vm")]
    if (
        any(lane in item.path.parents for lane in lanes for item in items)
        and not Path("/run/systemd/system").exists()
    ):
        raise pytest.UsageError("these tests need a booted systemd: run tools/test-host.sh")
    if hasattr(config, "workerinput"):
        # the longest files first: one that comes last keeps its host when the others have ended
        seconds = seconds_of(items)
        items.sort(key=lambda item: -seconds[item.path])


def seconds_of(items: list[pytest.Item]) -> dict[Path, float]:
    """How long the tests of each file may take: as seconds.txt says, else as many as it has."""
    found: dict[Path, float] = {}
    for item in items:
        found[item.path] = found.get(item.path, 0) + USUAL
    root = Path(__file__).parents[2]
    for line in Path(__file__).with_name("seconds.txt").read_text(encoding="ascii").splitlines():
        seconds, _, file = line.strip().partition(" ")
        if root / file in found:
            found[root / file] = float(seconds)
    return found


os.environ["CONTAINERS_REGISTRIES_CONF"] = str(Path(__file__).with_name("registries.conf"))


def run_sysbox(
    *args: str | os.PathLike[str],
    input: str | None = None,
    timeout: float = TIMEOUT,
    check: bool = False,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`sysbox ARGS...`: status, stdout and stderr as text; `check` fails the test for a status but 0."""
    done = subprocess.run(
        [SYSBOX, *args],
        input=input,
        stdin=subprocess.DEVNULL if input is None else None,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
        env=None if env is None else {**os.environ, **env},
    )
    if check and done.returncode:
        words = " ".join(map(str, args))
        raise AssertionError(
            f"sysbox {words}: {done.returncode}\n{done.stdout}{done.stderr}{_logs(done.stderr)}"
        )
    return done


def _logs(errors: str) -> str:
    """The ends of the logs that a message names: they may be gone when anybody reads it."""
    found = ""
    for unit in re.findall(r"`journalctl -u (\S+)`", errors):
        command = ["journalctl", "-q", "-n", "30", "-o", "short-monotonic", "-u", unit]
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
        found += done.stdout
    return found


@pytest.fixture(scope="session")
def sysbox() -> Sysbox:
    """`sysbox("run", "--rm", ...)` runs the installed command line."""
    return run_sysbox


@pytest.fixture(scope="session")
def image(requires: object) -> Iterator[str]:
    """The name of a small image: a static busybox with all its applets, and the usual files."""
    archive = rootfs(Path("/bin/busybox"))
    done = subprocess.run(
        [SYSBOX, "import", "-", IMAGE],
        input=archive,
        capture_output=True,
        check=False,
        timeout=TIMEOUT,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    yield IMAGE
    run_sysbox("rmi", "-f", IMAGE)


@functools.cache
def rootfs(busybox: Path) -> bytes:
    """A root file system as a tar archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, mode in DIRECTORIES.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        for name, text in FILES.items():
            _add_file(archive, name, text.encode(), 0o644)
        _add_file(archive, "bin/busybox", busybox.read_bytes(), 0o755)
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
        for applet in listed.stdout.split():
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                archive.addfile(entry)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system in a tar archive."""
    path = tmp_path_factory.mktemp("archive") / "rootfs.tar"
    path.write_bytes(rootfs(Path("/bin/busybox")))
    return path


DIRECTORIES = {
    "bin": 0o755,
    "dev": 0o755,
    "etc": 0o755,
    "home": 0o755,
    "home/user": 0o755,
    "proc": 0o755,
    "root": 0o700,
    "sys": 0o755,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
    "var/tmp": 0o1777,
}
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n",
    "etc/group": "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n",
    "etc/os-release": 'ID=busybox\nPRETTY_NAME="busybox for tests"\n',
}


def _add_file(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> None:
    """What outlives a test is made between two tests: the host is not as the first left it."""
    if fixturedef.scope != "function":
        leaks.known = None


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[object]) -> None:
    """And so it is when it is taken away."""
    if fixturedef.scope != "function":
        leaks.known = None


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """After every host test the host is as it was before."""
    before = leaks.known or leaks.snapshot()
    leaks.known = None
    yield
    after = leaks.snapshot()
    deadline = time.monotonic() + SETTLING
    while found := leaks.differences(before, after):
        if time.monotonic() > deadline:
            lines = [line for kind in found.values() for line in kind]
            pytest.fail("\n".join(["the test left the host changed:", *lines]), pytrace=False)
        # mostly a process or two that are about to end
        time.sleep(0.02 * SLOWNESS)
        after |= leaks.snapshot(found)
    leaks.known = after


@pytest.fixture
def containers(sysbox: Sysbox, image: str) -> Iterator[Containers]:
    """`containers(FLAGS..., command=(...))` runs a detached container that the test need not remove."""
    from containers import Containers

    made = Containers(sysbox, image)
    yield made
    made.remove()


@pytest.fixture
def network(sysbox: Sysbox) -> Iterator[Callable[..., str]]:
    """`network(NAME, FLAGS...)` makes a network that the test need not remove; returns the name."""
    made: list[str] = []

    def make(name: str, *flags: str) -> str:
        sysbox("network", "create", *flags, name, check=True)
        made.append(name)
        return name

    yield make
    if made:
        sysbox("network", "rm", "-f", *made, check=True)


@pytest.fixture
def disk(containers: Containers) -> Iterator[str]:
    """A loop device with 8 MB, which any machine can have."""
    file = Path(paths.STATE) / f"loop-{os.getpid()}"
    with file.open("wb") as backing:
        backing.truncate(8 << 20)
    found = subprocess.run(
        ["losetup", "--find", "--show", file], capture_output=True, text=True, check=True
    ).stdout.strip()
    yield found
    containers.remove()
    subprocess.run(["losetup", "--detach", found], check=True)
    file.unlink()
