"""`login`, `logout` and `manifest inspect` as commands, with Debian's docker-registry."""

from __future__ import annotations

import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from registryserver import Registry, TokenServer, program

SYSBOX = Path(sys.prefix) / "bin/sysbox"
USERS = {"carol": "secret:word"}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module", autouse=True)
def needs_registry(requires: Any) -> None:
    requires(program(), "docker-registry, below .venv/test-services")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    """Where nothing of this machine counts."""
    home.mkdir()
    (home / "registries.conf").write_text("")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        "CONTAINERS_REGISTRIES_CONF": str(home / "registries.conf"),
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*words: str, input: str = "", **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SYSBOX, *words],
            input=input,
            env={**environment, **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry", htpasswd=USERS) as one:
        one.put_image("team/app", "1", [b"layer"])
        yield one


def test_login_and_logout(registry: Registry, run: Run, home: Path) -> None:
    host = registry.host
    done = run("login", "--get-login", host)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"login {host}: not logged in" in done.stderr
    done = run("manifest", "inspect", f"{host}/team/app:1")
    assert done.returncode == 1
    assert f"sysbox: {host}/team/app: access denied" in done.stderr
    assert f"sysbox login {host}" in done.stderr
    done = run("login", "-u", "carol", "--password-stdin", host, input="secret:word\n")
    assert (done.returncode, done.stdout) == (0, "Login Succeeded\n"), done.stderr
    assert "unencrypted" in done.stderr
    assert stat.S_IMODE((home / "auth.json").stat().st_mode) == 0o600
    assert run("login", "--get-login", host).stdout == "carol\n"
    done = run("login", host)
    assert done.stdout == "Authenticating with existing credentials...\nLogin Succeeded\n"
    done = run("manifest", "inspect", f"{host}/team/app:1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schemaVersion"] == 2
    done = run("logout", host)
    assert (done.returncode, done.stdout) == (0, f"Removing login credentials for {host}\n")
    done = run("logout", host)
    assert (done.returncode, done.stdout) == (0, f"Not logged in to {host}\n")
    assert json.loads((home / "auth.json").read_text()) == {"auths": {}}


def test_what_the_registry_refuses_is_not_kept(registry: Registry, run: Run, home: Path) -> None:
    done = run("login", "-u", "carol", "--password-stdin", registry.host, input="wrong")
    assert done.returncode == 1
    assert "does not accept the credentials of the command line" in done.stderr
    assert done.stderr.count("\n") == 2
    assert not (home / "auth.json").exists()
    assert "wrong" not in done.stderr


def test_another_file(registry: Registry, run: Run, home: Path) -> None:
    path = str(home / "other/auth.json")
    done = run("login", "-u", "carol", "-p", "secret:word", "--authfile", path, registry.host)
    assert done.returncode == 0, done.stderr
    assert "--password-stdin" in done.stderr
    assert not (home / "auth.json").exists()
    shown = ("manifest", "inspect", f"{registry.host}/team/app:1")
    assert run(*shown).returncode == 1
    assert run(*shown, "--authfile", path).returncode == 0
    assert run("logout", "--all", "--authfile", path).stdout.startswith(
        "Removed the credentials of 1"
    )
    assert run(*shown, "--authfile", path).returncode == 1


def test_another_file_that_still_has_credentials(registry: Registry, run: Run, home: Path) -> None:
    more = {"REGISTRY_AUTH_FILE": "", "XDG_RUNTIME_DIR": str(home / "run")}
    words = ("-u", "carol", "--password-stdin", registry.host)
    for name in (".config/containers/auth.json", ".docker/config.json"):
        path = str(home / name)
        assert run("login", "--authfile", path, *words, input="secret:word").returncode == 0
    done = run("logout", "--authfile", str(home / ".docker/config.json"), registry.host, **more)
    assert done.stderr == ""
    done = run("logout", registry.host, **more)
    assert "auth.json still has credentials" in done.stderr


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("-u", "carol"), "standard input is no terminal"),
        ((), "standard input is no terminal"),
        (("--password-stdin",), "must provide --username"),
        (("-u", "a", "-p", "b", "--password-stdin"), "are mutually exclusive"),
        (("-u", "a:b", "-p", "c"), "holds a colon"),
        (("-u", "carol", "--password-stdin"), "standard input is no terminal"),
    ],
)
def test_bad_use(run: Run, words: tuple[str, ...], error: str) -> None:
    done = run("login", *words, "127.0.0.1:1")
    assert done.returncode == 1
    assert error in done.stderr


def test_a_terminal_is_asked_without_echo(
    registry: Registry, environment: dict[str, str], home: Path
) -> None:
    pid, terminal = pty.fork()
    if not pid:
        os.execve(SYSBOX, ["sysbox", "login", registry.host], environment)
    seen = b""

    def until(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            try:
                part = os.read(terminal, 1000)
            except OSError:  # EIO: the other side is closed
                part = b""
            assert part, seen
            seen += part

    until(b"Username: ")
    os.write(terminal, b"carol\n")
    until(b"Password: ")
    os.write(terminal, b"secret:word\n")
    until(b"Login Succeeded")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(terminal)
    assert b"secret" not in seen
    assert "Y2Fyb2w6c2VjcmV0OndvcmQ=" in (home / "auth.json").read_text()


def test_login_by_tokens(run: Run, tmp_path: Path) -> None:
    with (
        TokenServer(tmp_path / "tokens", USERS) as tokens,
        Registry(tmp_path / "registry", tokens=tokens) as registry,
    ):
        words = ("login", "-u", "carol", "--password-stdin", registry.host)
        assert run(*words, input="wrong").returncode == 1
        done = run(*words, input="secret:word")
        assert (done.returncode, done.stdout) == (0, "Login Succeeded\n"), done.stderr
        assert tokens.seen[-1]["fields"].get("scope") is None


def test_manifest_inspect_prints_what_the_registry_has(run: Run, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        text = (
            b'{"schemaVersion":2, "mediaType":"application/vnd.oci.image.index.v1+json",\r\n"manifests":[],'
            b'"annotations":{"a":"{,:[\\" \\u00e9\xc3\xa9","b":{}}}'
        )
        kind = "application/vnd.oci.image.index.v1+json"
        registry.put_manifest("team/index", "1", text, kind)
        done = run("manifest", "inspect", f"{registry.host}/team/index:1")
        assert done.returncode == 0, done.stderr
        assert done.stdout == (
            '{\n   "schemaVersion": 2,\n   "mediaType": "application/vnd.oci.image.index.v1+json",\n'
            '   "manifests": [],\n   "annotations": {\n      "a": "{,:[\\" \\u00e9\u00e9",\n'
            '      "b": {}\n   }\n}\n'
        )
        registry.put_image("team/app", "1", [b"layer"])
        done = run("manifest", "inspect", f"{registry.host}/team/app:1")
        assert done.stdout == json.dumps(json.loads(done.stdout), indent="\t") + "\n"
        done = run("manifest", "inspect", f"{registry.host}/team/none")
        assert done.returncode == 1
        assert f"no such manifest: {registry.host}/team/none" in done.stderr


def test_a_mirror_is_asked_first(run: Run, home: Path, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        registry.put_image("copies/app", "1", [b"layer"])
        (home / "registries.conf").write_text(
            f"""[[registry]]
            prefix = "a.invalid/team"
            location = "a.invalid/team"
            [[registry.mirror]]
            location = "127.0.0.1:1/nobody"
            [[registry.mirror]]
            location = "{registry.host}/copies"
            """
        )
        assert run("manifest", "inspect", "a.invalid/team/app:1").returncode == 0
        done = run("manifest", "inspect", "a.invalid/team/none:1")
        assert done.returncode == 1
        assert "a.invalid: no such host" in done.stderr
