"""examples/: each starts, comes back as its file says, is seen, and stops cleanly.

The images are small ones of ours, whose programs are those of test_databases; drop-ins say where these are.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import active_state, eventually, is_active, systemctl
from lane import SLOWNESS, SYSBOX, Sysbox
from test_databases import PGDATA, PROGRAMS, SERVICES, UNPACKED, archive

ROOT = Path(__file__).parents[2] / "examples"
BUSYBOX, REDIS, POSTGRES = (
    f"docker.io/library/{one}" for one in ("busybox:1.37", "redis:7", "postgres:16")
)
LASTING = {
    "site": ("site", "static-site"),
    "database": ("database", "database"),
    "worker": ("worker@a", "worker"),
}


@pytest.fixture(scope="module")
def images(requires: Any) -> Iterator[None]:
    """The images of the examples, under the names that these have."""
    found = [*SERVICES.glob("usr/lib/postgresql/*/bin/postgres")]
    requires(found, "PostgreSQL and redis, from tools/setup.sh test")
    programs = f"{UNPACKED}/{found[0].parent.relative_to(SERVICES)}"
    path = f"{programs}:{UNPACKED}/usr/bin:/usr/local/bin:/usr/bin:/bin"
    new, data = f"{PGDATA}/new", f"{PGDATA}/data"
    # a kill in the middle of initdb leaves nothing that looks whole
    initdb = f"initdb -D {new} --no-locale -E UTF8 -A trust --no-sync && mv {new} {data}"
    serve = f"test -d {data} || {{ rm -rf {new}; {initdb}; }}; exec postgres -D {data} -k /tmp -c jit=off"
    changes: dict[str, list[str]] = {
        # not the lane's own image under another name: policy.json would ask for both
        BUSYBOX: [],
        REDIS: ["CMD redis-server"],
        POSTGRES: ["USER postgres", f"CMD {serve}"],
    }
    for name, words in changes.items():
        flags = [one for text in (*words, f"ENV PATH={path}") for one in ("-c", text)]
        command = [SYSBOX, "import", *flags, "-", name]
        subprocess.run(command, input=archive(), capture_output=True, check=True)
    yield
    command = [SYSBOX, "rmi", "-f", BUSYBOX, REDIS, POSTGRES]
    subprocess.run(command, capture_output=True, check=True)


class Examples:
    """Installs examples from a copy of their directory."""

    def __init__(self, sysbox: Sysbox, directory: Path) -> None:
        self.sysbox = sysbox
        self.directory = directory

    def install(self, *names: str) -> None:
        for name in names:
            files = [
                one
                for one in (self.directory / name).iterdir()
                if "." in one.name and one.is_file()
            ]
            self.sysbox("unit", "install", *files, check=True)

    def pid(self, unit: str) -> int:
        """That of the first process of a service's container; 0 where it does not run."""
        named = "systemd-worker_a" if unit == "worker@a" else unit
        for name in (named, f"systemd-{named}"):
            found = self.sysbox("inspect", "-f", "{{.State.Pid}}", name)
            if not found.returncode:
                return int(found.stdout)
        return 0


@pytest.fixture
def examples(sysbox: Sysbox, images: None, tmp_path: Path) -> Iterator[Examples]:
    directory = tmp_path / "examples"
    shutil.copytree(ROOT, directory)
    for kind, name in (
        ("database", "database"), ("webapp", "webapp-database"), ("counter", "counter-store"),
    ):  # fmt: skip
        drop_in = directory / kind / f"{name}.container.d"
        drop_in.mkdir()
        mounts = " ".join(PROGRAMS)
        (drop_in / "programs.conf").write_text(
            f"[Container]\nPodmanArgs={mounts}\nHealthInterval=100ms\n"
        )
    sysbox("secret", "create", "database-password", "-", input="x", check=True)
    yield Examples(sysbox, directory)
    # one goes with all units of its file; what others need comes last
    while listed := sysbox("unit", "list", "--format", "{{.Unit}}").stdout.split():
        listed.sort(key=lambda one: one.endswith(("-volume.service", "-network.service")))
        # the StopTimeout= of one is a minute, and what makes its database heeds no stop signal
        sysbox("unit", "uninstall", "--force", listed[0], check=True, timeout=180 * SLOWNESS)
    systemctl("reset-failed", check=False)
    sysbox("volume", "rm", "-f", "systemd-database", "systemd-webapp", check=True)
    if not sysbox("network", "exists", "systemd-webapp").returncode:
        sysbox("network", "rm", "systemd-webapp", check=True)
    sysbox("secret", "rm", "database-password", check=True)
    shutil.rmtree("/var/lib/ci-job", ignore_errors=True)


def fetched(url: str) -> str:
    done = subprocess.run(["busybox", "wget", "-q", "-O", "-", url], capture_output=True, text=True)
    return done.stdout


def test_all_of_them_at_once(examples: Examples, sysbox: Sysbox) -> None:
    examples.install("static-site", "database", "webapp", "worker")
    units = ["site", "database", "webapp", "worker@a", "worker@b"]
    systemctl("start", "--no-block", *units)
    for unit in units:
        eventually(lambda unit=unit: is_active(unit), f"{unit} is started")  # type: ignore[misc]
    assert all(is_active(one) for one in [*units, "webapp-database"])
    eventually(lambda: "It works" in fetched("http://127.0.0.1:8080/"), "the site answers")
    visits = "http://127.0.0.1:8081/cgi-bin/visits"
    eventually(lambda: fetched(visits).startswith(":"), "the application has found its database")
    before = int(fetched(visits)[1:])
    assert int(fetched(visits)[1:]) == before + 1
    query = ("psql", "-XAt", "-h", "localhost", "-U", "postgres", "-c", "select 1")
    assert sysbox("exec", "database", *query, check=True).stdout == "1\n"
    pids = {unit: examples.pid(unit) for unit in ("site", "database", "webapp", "worker@a")}
    systemctl("daemon-reload")
    assert {unit: examples.pid(unit) for unit in pids} == pids
    for unit in units:
        assert "Active: active (running)" in systemctl("status", unit)
    said = subprocess.run(["journalctl", "-u", "site", "-o", "cat"], capture_output=True, text=True)
    assert "Started" in said.stdout
    sysbox("unit", "uninstall", "worker@.service", check=True)
    assert not any(is_active(one) for one in ("worker@a", "worker@b")), (
        "those of a template stop with it"
    )
    units = units[:3]
    systemctl("stop", *units, "webapp-database")
    for unit in [*units, "webapp-database"]:
        assert systemctl("show", "-P", "Result", unit) == "success"
        assert systemctl("is-active", unit, check=False) == "inactive"
    assert sysbox("ps", "-aq", check=True).stdout == ""


@pytest.mark.parametrize("name", LASTING)
def test_it_comes_back(examples: Examples, name: str) -> None:
    """After a kill of the command that starts it, of its payload, and of its monitor."""
    unit, directory = LASTING[name]
    examples.install(directory)
    systemctl("start", "--no-block", unit)
    starter, payload = (lambda: main_pid(unit)), (lambda: examples.pid(unit))
    for count, victim in enumerate((starter, payload, starter), start=1):
        # the process that starts it becomes the monitor
        os.kill(eventually(victim, "there is one"), signal.SIGKILL)
        eventually(
            lambda count=count: systemctl("show", "-P", "NRestarts", unit) == str(count),  # type: ignore[misc]
            "systemd restarts it",
        )
        # a database is made anew in between, and has to be healthy
        eventually(lambda: examples.pid(unit), "it is started again")
        eventually(lambda: is_active(unit) and examples.pid(unit), "it runs again")
    systemctl("stop", unit)
    assert systemctl("show", "-P", "Result", unit) == "success"
    examples.sysbox("gc", check=True)  # what a start that was killed has left


def test_a_pod_of_two(examples: Examples, sysbox: Sysbox) -> None:
    examples.install("counter")
    systemctl("start", "counter-pod")
    visits = "http://127.0.0.1:8082/cgi-bin/visits"
    eventually(lambda: fetched(visits) == ":1\n", "the page has found its store")
    slice_ = sysbox(
        "pod", "inspect", "-f", "{{.CgroupParent}}", "systemd-counter", check=True
    ).stdout.strip()
    limits = systemctl("show", "-P", "TasksMax", slice_)
    assert limits == "100"
    os.kill(examples.pid("counter-web"), signal.SIGKILL)
    eventually(
        lambda: fetched(visits) == ":2\n", "the page is there again, and its store has stayed"
    )
    systemctl("stop", "counter-pod")
    for unit in ("counter-web", "counter-store"):
        assert systemctl("show", "-P", "Result", unit) == "success"
        assert systemctl("is-active", unit, check=False) == "inactive"
    assert sysbox("pod", "ps", "-q", check=True).stdout == sysbox("ps", "-aq").stdout == ""


def main_pid(unit: str) -> int:
    return int(systemctl("show", "-P", "MainPID", unit))


def test_a_job_leaves_its_report(examples: Examples) -> None:
    examples.install("ci-job")
    systemctl("start", "ci-job")
    report = Path("/var/lib/ci-job/report.txt")
    assert report.read_text().splitlines()[-1] == "all passed"
    (examples.directory / "ci-job/src/check.sh").write_text("echo it is wrong\nexit 3\n")
    systemctl("start", "ci-job", check=False)
    assert systemctl("show", "-P", "ExecMainStatus", "ci-job") == "3"
    assert systemctl("is-active", "ci-job", check=False) == "failed"
    assert report.read_text() == "it is wrong\n"


def test_the_files_are_what_they_are_said_to_be(examples: Examples) -> None:
    """Every file of every example is accepted, and every directory is in the list."""
    names = {one.name for one in ROOT.iterdir() if one.is_dir()}
    text = (ROOT / "README.md").read_text()
    assert {one for one in names if f"| `{one}` |" in text} == names
    for name in names:
        files = [one for one in (ROOT / name).iterdir() if one.is_file()]
        assert examples.sysbox("unit", "check", *files, check=True).stderr == ""


def test_a_site_that_sleeps(examples: Examples) -> None:
    """Nobody, no container; a connection starts it, and it stops when it has been idle."""
    idle = examples.directory / "idle-site" / "idle-site.container.d"
    idle.mkdir()
    (idle / "sooner.conf").write_text("[Container]\nIdleStop=1\n")
    examples.install("idle-site")
    systemctl("start", "idle-site.socket")
    for _ in range(2):
        assert not examples.pid("idle-site")
        # while a connection is open it does not stop, however long it takes to look
        with socket.create_connection(("127.0.0.1", 8083)):
            assert "asleep a moment ago" in fetched("http://127.0.0.1:8083/")
            assert is_active("idle-site")
        # and not "deactivating", while the container is still there
        eventually(
            lambda: active_state("idle-site") in ("inactive", "failed"),
            "it stops when nobody is there",
        )
    assert is_active("idle-site.socket")
