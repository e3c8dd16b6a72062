"""The program is replaced by a newer one while containers run: they go on, and every verb works on them.

What the version at commit 7aea3c2 has started: in the foreground, in the background, with a policy, paused,
with a volume, a port, a json-file log; and what it has created and ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import PATIENCE, eventually, systemctl
from lane import IMAGE, SYSBOX, TIMEOUT

COMMIT = "7aea3c2"
ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".venv/upgraded"  # where the program is, before and after
LOOP = ("sh", "-c", "trap 'echo asked; exit 7' TERM; echo begun; while :; do sleep 0.05; done")


class Program:
    """sysbox at one place, of one version and then of another."""

    def install(self, prefix: Path) -> None:
        """Put that of a prefix in its place, with the third-party packages of these tests."""
        shutil.rmtree(HOME, ignore_errors=True)
        (HOME / "bin").mkdir(parents=True)
        (package,) = prefix.glob("lib/python3*/site-packages/sysbox")
        target = HOME / package.relative_to(prefix)
        copy(ROOT / ".venv/lib", HOME / "lib")
        shutil.rmtree(target)
        copy(package, target)
        copy(prefix / "bin/sysbox", HOME / "bin/sysbox")

    def __call__(self, *words: str, check: bool = True) -> str:
        done = subprocess.run(
            [HOME / "bin/sysbox", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def state(self, name: str) -> str:
        return self("inspect", "-f", "{{.State.Status}}", name).strip()

    def foreground(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [HOME / "bin/sysbox", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def old(requires: Callable[[object, str], None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prefix with that version, built from this checkout's history, with no network."""
    known = subprocess.run(
        ["git", "rev-parse", "--verify", "-q", f"{COMMIT}^{{commit}}"],
        cwd=ROOT, capture_output=True, check=False,
    )  # fmt: skip
    requires(known.returncode == 0, f"the commit {COMMIT} in this checkout's history")
    prefix = ROOT / ".venv" / f"upgrade-{COMMIT}"
    if not (prefix / "bin/sysbox").exists():
        made = tmp_path_factory.mktemp("upgrade")
        archive = subprocess.run(
            ["git", "archive", "--prefix=source/", COMMIT],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        subprocess.run(["tar", "-x", "-C", made], input=archive.stdout, check=True)
        pip("wheel", "--no-build-isolation", "--wheel-dir", str(made), str(made / "source"))
        (wheel,) = made.glob("*.whl")
        pip("install", "--ignore-installed", "--prefix", str(prefix), str(wheel))
    return prefix


def pip(verb: str, *words: str) -> None:
    """With meson and ninja beside it."""
    tools = ROOT / ".venv/bin"
    environment = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    command = [tools / "python", "-m", "pip", verb, "--quiet", "--no-deps", "--no-index", *words]
    subprocess.run(command, env=environment, check=True, capture_output=True)


@pytest.fixture
def program(old: Path, image: str) -> Iterator[Program]:
    """The older version, in its place."""
    one = Program()
    one.install(old)
    yield one
    for name in one("ps", "-aq", check=False).split():
        subprocess.run([SYSBOX, "rm", "-f", "-v", name], check=False, capture_output=True)
    subprocess.run([SYSBOX, "volume", "rm", "upgraded"], check=False, capture_output=True)
    shutil.rmtree(HOME, ignore_errors=True)


def copy(source: Path, target: Path) -> None:
    subprocess.run(["cp", "-al", source, target], check=True)


def replace(program: Program) -> None:
    program.install(ROOT / ".venv")


def kept(program: Program, name: str) -> dict[str, object]:
    """What must be the same afterwards."""
    found = json.loads(program("inspect", name))[0]
    config = {key: found["Config"][key] for key in ("Env", "Cmd", "Entrypoint", "User", "Labels")}
    return {"config": config, "pid": found["State"]["Pid"], "mounts": len(found["Mounts"])}


def test_containers_that_run(program: Program) -> None:
    started = {
        "plain": ("-e", "A=1", "-m", "64m"),
        "always": ("--restart", "always"),
        "paused": (),
        "volume": ("-v", "upgraded:/data", "-v", "/anonymous"),
        "port": ("-p", "8099:80"),
        "json": ("--log-driver", "json-file"),
    }
    for name, flags in started.items():
        program("run", "-d", "--name", name, *flags, IMAGE, *LOOP)
        eventually(lambda: "begun" in program("logs", name), "its trap is set")  # noqa: B023
    program("exec", "volume", "sh", "-c", "echo kept >/data/file")
    program("exec", "-d", "port", "httpd", "-h", "/etc", "-p", "80")
    program("pause", "paused")
    before = {name: kept(program, name) for name in started}
    replace(program)
    for name in started:
        assert kept(program, name) == before[name]
        assert program.state(name) == ("paused" if name == "paused" else "running")
        assert "begun" in program("logs", name)
    assert set(program("ps", "--format", "{{.Names}}").split()) == set(started)
    assert program("exec", "plain", "sh", "-c", "echo $A").strip() == "1"
    assert program("exec", "volume", "cat", "/data/file").strip() == "kept"
    address = program("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "port").strip()
    with urllib.request.urlopen(f"http://{address}/passwd", timeout=PATIENCE) as answer:
        assert b"root" in answer.read()
    program("update", "-m", "128m", "plain")
    assert program("inspect", "-f", "{{.HostConfig.Memory}}", "plain").strip() == str(128 << 20)
    program("unpause", "paused")
    for name in started:
        program("stop", name)
        assert program.state(name) == "exited"
        assert program("inspect", "-f", "{{.State.ExitCode}}", name).strip() == "7", name
        assert "asked" in program("logs", name)
        program("start", name)
        assert program.state(name) == "running"
    assert program("exec", "volume", "cat", "/data/file").strip() == "kept"
    for name in started:
        program("restart", "-t", "0", name)
        program("rm", "-f", "-v", name)
    assert program("gc") == ""
    assert program("ps", "-aq") == ""


def test_one_in_the_foreground(program: Program) -> None:
    """Its supervisor is still the older program; who stops it is the newer one."""
    with program.foreground("run", "--rm", "--name", "fore", IMAGE, *LOOP) as supervisor:
        try:
            assert supervisor.stdout
            assert supervisor.stdout.readline() == "begun\n"
            replace(program)
            assert program.state("fore") == "running"
            assert program("exec", "fore", "echo", "inside").strip() == "inside"
            program("stop", "fore")
            assert supervisor.stdout.read() == "asked\n"
            assert supervisor.wait(PATIENCE) == 7
        finally:
            supervisor.kill()
    assert program("ps", "-aq") == ""
    assert program("gc") == ""


def test_a_policy_acts_by_the_new_program(program: Program) -> None:
    """systemd starts what the unit file names, which is where the newer program is now."""
    program("run", "-d", "--name", "always", "--restart", "always", IMAGE, *LOOP)
    pid = int(program("inspect", "-f", "{{.State.Pid}}", "always"))
    replace(program)
    os.kill(pid, signal.SIGKILL)

    def came_back() -> bool:
        found = json.loads(program("inspect", "always"))[0]["State"]
        return bool(found["Running"]) and found["Pid"] not in (0, pid)

    eventually(came_back, "it is started once more")
    systemctl("daemon-reload")
    program("stop", "always")
    program("rm", "always")
    assert program("gc") == ""


def test_what_does_not_run(program: Program) -> None:
    program("create", "--name", "created", "-v", "upgraded:/data", IMAGE, "cat", "/etc/hostname")
    program(
        "run", "-d", "--name", "ended", IMAGE, "sh", "-c", "echo said; echo x >/etc/new; exit 4"
    )
    program("wait", "ended")
    replace(program)
    assert program.state("created") == "created"
    assert program("start", "-a", "created").strip()
    # there were no user namespaces: a container keeps its ids
    template = "{{.Sysbox.UserNamespace.Mode}} {{.HostConfig.UsernsMode}}"
    assert program("inspect", "-f", template, "created").strip() == "host host"
    assert program.state("ended") == "exited"
    assert program("inspect", "-f", "{{.State.ExitCode}}", "ended").strip() == "4"
    assert program("logs", "ended") == "said\n"
    assert "A /etc/new" in program("diff", "ended").splitlines()
    program("cp", "ended:/etc/new", str(HOME / "new"))
    assert (HOME / "new").read_text() == "x\n"
    program("commit", "ended", "upgraded:1")
    assert program("run", "--rm", "upgraded:1", "cat", "/etc/new") == "x\n"
    program("rmi", "upgraded:1")
    program("rename", "ended", "renamed")
    program("rm", "created", "renamed")
    assert program("gc") == ""
