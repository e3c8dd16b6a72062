"""Credentials reach a container as systemd says: those of the command line, and those of its service."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Containers, systemctl
from lane import SYSBOX, Sysbox, run_sysbox
from test_inside import SYSTEMD, await_boot
from test_units import SERVICE, Declare, declare

__all__ = ["declare"]

VALUE = "tell-no-one-b70d52"
SHOW = 'cd "$CREDENTIALS_DIRECTORY"; pwd; for one in *; do echo "$one=$(cat "$one")"; done'
Store = Callable[[str, str], None]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "value"
    path.write_text(VALUE)
    return path


@pytest.fixture
def stored() -> Iterator[Store]:
    """`stored(NAME, VALUE)` puts a credential into the administrator's store, or where a path says."""
    made: list[Path] = []

    def put(name: str, value: str) -> None:
        path = Path(name if "/" in name else f"/etc/credstore/{name}")
        path.parent.mkdir(0o700, exist_ok=True)
        path.write_text(value)
        made.append(path)

    yield put
    for path in made:
        path.unlink()


def sealed(name: str, value: str) -> str:
    """The value as systemd-creds(1) encrypts it."""
    words = ["systemd-creds", f"--name={name}", "encrypt", "-", "-"]
    return subprocess.run(words, input=value, capture_output=True, text=True, check=True).stdout


def run(image: str, *words: str, script: str = SHOW) -> str:
    """What a shell prints in a new container."""
    flags = ("--rm", "--network", "none", *words)
    return run_sysbox("run", *flags, image, "sh", "-ec", script, check=True).stdout.strip()


def test_a_file_for_the_containers_user_alone(
    image: str, file: Path, containers: Containers
) -> None:
    flags = ("--user", "1000:2000", "--credential", f"app.key:{file}")
    script = f"{SHOW}; stat -c '%a %u:%g' . app.key; (echo >app.key) 2>/dev/null || echo refused"
    for userns in ("auto", "host"):
        found = run(image, "--userns", userns, "--read-only", *flags, script=script).splitlines()
        assert found == [
            "/run/host/credentials", f"app.key={VALUE}", "500 1000:2000", "400 1000:2000", "refused",
        ]  # fmt: skip
    made = containers(*flags)
    assert made.sh(SHOW).splitlines()[1] == f"app.key={VALUE}"
    refused = run_sysbox("exec", "-u", "3000", made.id, "cat", "/run/host/credentials/app.key")
    assert refused.returncode == 1
    assert made.inspect("Config.Credentials") == [{"Name": "app.key", "Source": str(file)}]
    file.write_text("second")
    made("restart", "-t", "0")
    assert made.sh(SHOW).splitlines()[1] == "app.key=second"


def test_of_a_store_by_name_and_by_pattern(image: str, file: Path, stored: Store) -> None:
    stored("app.a", "first")
    stored("/run/credstore/app.a", "hidden by the first")
    stored("/run/credstore.encrypted/app.b", sealed("app.b", "sealed"))
    stored("other", "not asked for")
    assert run(image, "--credential", "app.*", "--credential", f"app.c:{file}").splitlines() == [
        "/run/host/credentials", "app.a=first", "app.b=sealed", f"app.c={VALUE}",
    ]  # fmt: skip
    assert run(image, "--credential", "app.b").splitlines()[1:] == ["app.b=sealed"]
    assert run(image, "--credential", "none.*", script="ls -A $CREDENTIALS_DIRECTORY") == ""


def test_those_of_the_service_that_runs_the_command(image: str, file: Path) -> None:
    service = [
        "systemd-run",
        "--pipe",
        "--wait",
        "--collect",
        "-q",
        f"--property=LoadCredential=one:{file}",
    ]
    command = [SYSBOX, "run", "--rm", "--network", "none", "--credential", "one", image]
    words = [*service, *command, "cat", "/run/host/credentials/one"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (VALUE, 0), done.stderr


def test_of_a_declared_container(declare: Declare, file: Path, stored: Store) -> None:
    stored("import.a", "imported")
    text = "".join(sealed("set.sealed", "also sealed").split())
    (file.parent / "sealed").write_text(sealed("sealed", "sealed"))
    made = declare(
        container="Exec=sleep 1000\nStopSignal=KILL\nUser=1000",
        service=f"LoadCredential=loaded:{file}\nSetCredential=set:in the file\n"
        f"LoadCredentialEncrypted=sealed:{file.parent}/sealed\nSetCredentialEncrypted=set.sealed:{text}\n"
        "ImportCredential=import.*",
    )
    expected = [
        "/run/host/credentials", "import.a=imported", f"loaded={VALUE}", "sealed=sealed",
        "set=in the file", "set.sealed=also sealed",
    ]  # fmt: skip
    assert made.sh(SHOW).splitlines() == expected
    file.write_text("second")
    systemctl("restart", SERVICE)
    assert declare.container().sh(SHOW).splitlines()[2] == "loaded=second"
    for words in (("inspect", made.id), ("logs", made.id)):
        shown = run_sysbox(*words, check=True).stdout
        assert VALUE not in shown
        assert "also sealed" not in shown


def test_systemd_inside_has_them_as_the_systems(containers: Containers, file: Path) -> None:
    """Its services take them by LoadCredential=, as they would on a machine that was given them at boot."""
    made = containers("--credential", f"app.key:{file}", image="host", command=(SYSTEMD,))
    await_boot(made)
    assert made.exec("systemd-creds", "--system", "cat", "app.key") == VALUE
    script = "cat $CREDENTIALS_DIRECTORY/app.key"
    assert made.exec(
        "systemd-run", "-q", "--pipe", "--wait", "--property=LoadCredential=app.key", "sh", "-c", script
    ) == (VALUE)  # fmt: skip


def test_nowhere_else(containers: Containers, sysbox: Sysbox, file: Path, tmp_path: Path) -> None:
    made = containers("--credential", f"app.key:{file}")
    tar = tmp_path / "root.tar"
    sysbox("export", "-o", tar, made.id, check=True)
    assert VALUE.encode() not in tar.read_bytes()
    found = subprocess.run(
        ["grep", "-rlsF", "--devices=skip", VALUE, "/var/lib/sysbox", "/run/sysbox", "/run/systemd"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.stdout == ""


def test_bad_input_is_one_clear_line(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    (tmp_path / "half").write_bytes(bytes(600 << 10))
    half = f"{tmp_path}/half"
    cases = {
        ("missing",): "no such credential: missing",
        (f"a:{tmp_path}/missing",): f"credential a: {tmp_path}/missing: no such file or directory",
        (f"a:{tmp_path}",): "not a regular file",
        (f"a:{tmp_path}/fifo",): "not a regular file",
        ("a:/dev/zero",): "not a regular file",
        (f"a:{tmp_path}/large",): "larger than 1 MiB",
        (f"a:{half}", f"b:{half}"): "all together are larger than 1 MiB",
        (f"a:{half}", f"a:{half}"): "there is another credential a",
        ("a*:/x",): "a pattern has no file",
        ("[:",): "a pattern has no file",
        ("[a",): "a [ without its ]",
        ("a/b:/x",): "not NAME or NAME:FILE",
        ("a:",): "the file is missing",
        ("",): "not NAME or NAME:FILE",
    }
    for texts, reason in cases.items():
        words = [word for text in texts for word in ("--credential", text)]
        done = sysbox("run", "--rm", *words, image, "true")
        assert done.returncode == 125, texts
        assert reason in done.stderr, (texts, done.stderr)
        assert len(done.stderr.splitlines()) <= 2
    flags = ("--tmpfs", "/run/host/credentials", "--credential", f"a:{half}")
    assert "is mounted at /run/host/credentials" in sysbox("run", *flags, image, "true").stderr
    assert json.loads(sysbox("ps", "-a", "--format", "json", check=True).stdout or "[]") == []
