"""Secrets reach a container as files or variables, and are nowhere else."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Containers, popen, systemctl
from lane import Sysbox, run_sysbox
from test_units import SERVICE, Declare, declare, journal

from sysbox.base import paths
from sysbox.container import secrets

__all__ = ["declare"]

VALUE = "tell-no-one-9f3b17"
Make = Callable[..., str]


@pytest.fixture
def secret(sysbox: Sysbox) -> Iterator[Make]:
    """`secret(NAME, FLAGS..., value=...)` makes one that the test need not remove; returns its name."""
    made: list[str] = []

    def make(name: str, *flags: str, value: str = VALUE) -> str:
        sysbox("secret", "create", *flags, name, "-", input=value, check=True)
        made.append(name)
        return name

    yield make
    if made:
        sysbox("secret", "rm", "-i", *made, check=True)


def run(image: str, *words: str, script: str) -> str:
    """What a shell prints in a new container."""
    flags = ("--rm", "--network", "none", *words)
    return run_sysbox("run", *flags, image, "sh", "-ec", script, check=True).stdout.strip()


def test_a_file_of_the_given_owner_that_nobody_can_change(secret: Make, image: str) -> None:
    name = secret("one")
    flags = ("--secret", name, "--secret", f"{name},target=sub/two,uid=1000,gid=2000,mode=0400",
             "--secret", f"{name},target=/etc/app/key,uid=1000")  # fmt: skip
    script = """
        cat /run/secrets/one; echo
        stat -c '%n %u:%g %a' /run/secrets /run/secrets/one /run/secrets/sub/two /etc/app/key
        ls /run/secrets
        echo x 2>/dev/null >/run/secrets/one || echo refused
        echo x 2>/dev/null >/etc/app/key || echo refused
        rm -f /run/secrets/one 2>/dev/null || echo refused
        grep -c ' /run/secrets ro,nosuid,nodev,noexec' /proc/self/mountinfo
    """
    for userns in ("auto", "host"):
        found = run(image, "--userns", userns, *flags, script=script).splitlines()
        assert found == [
            VALUE,
            "/run/secrets 0:0 755", "/run/secrets/one 0:0 444", "/run/secrets/sub/two 1000:2000 400",
            "/etc/app/key 1000:0 444",
            "one", "sub",
            "refused", "refused", "refused",
            "1",
        ]  # fmt: skip


def test_read_only_root_and_another_user(secret: Make, image: str) -> None:
    name = secret("one")
    flags = ("--read-only", "--user", "1000", "--secret", f"{name},uid=1000,mode=400")
    assert run(image, *flags, script="cat /run/secrets/one") == VALUE


def test_a_variable(secret: Make, containers: Containers) -> None:
    """`exec` has it too, and what is given to `exec` by name wins."""
    name = secret("one")
    made = containers("-e", "TOKEN=no", "--secret", f"{name},type=env,target=TOKEN")
    environ = Path(f"/proc/{made.pid}/environ").read_bytes()
    assert f"TOKEN={VALUE}".encode() in environ.split(b"\0")
    assert made.sh("echo $TOKEN; ls -d /run/secrets 2>/dev/null || echo no files") == (
        f"{VALUE}\nno files"
    )
    assert made.exec("sh", "-c", "echo $TOKEN", flags=("-e", "TOKEN=mine")) == "mine"


def test_a_new_value_counts_from_the_next_start_on(
    secret: Make, containers: Containers, sysbox: Sysbox
) -> None:
    name = secret("one")
    made = containers("--secret", name)
    secret(name, "--replace", value="second")
    assert made.sh("cat /run/secrets/one") == VALUE
    made("restart", "-t", "0")
    assert made.sh("cat /run/secrets/one") == "second"
    refused = sysbox("secret", "rm", name)
    assert refused.returncode == 1
    assert f"secret {name} is in use by container" in refused.stderr
    assert sysbox("secret", "rm", "--all", check=True).stdout == ""


def said(*words: str) -> str:
    """What a command prints; the journal has bytes of other tests that are no text."""
    done = subprocess.run(words, capture_output=True, check=True)
    return done.stdout.decode(errors="replace")


def test_nowhere_else(
    secret: Make, containers: Containers, sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    """Neither in what sysbox writes and prints, nor in what systemd and journald have, nor in images."""
    name = secret("one")
    flags = ("--secret", name, "--secret", f"{name},type=env,target=TOKEN",
             "--secret", f"{name},target=/etc/key")  # fmt: skip
    made = containers(*flags)
    unit = f"sysbox-{made.id}.service"
    commit = sysbox("commit", made.id, "secret-test", check=True).stdout.strip()
    exported = tmp_path / "root.tar"
    sysbox("export", "-o", exported, made.id, check=True)
    try:
        sysbox("save", "-o", tmp_path / "image.tar", "secret-test", check=True)
        shown = [
            sysbox("run", "--dry-run", *flags, image, "true", check=True).stdout,
            *(sysbox(*words, check=True).stdout for words in (
                ("inspect", made.id), ("inspect", commit), ("secret", "inspect", name),
                ("secret", "ls"), ("logs", made.id), ("diff", made.id), ("history", commit),
                ("explain", made.id), ("top", made.id),
            )),
            *(said(*words) for words in (
                ("systemctl", "show", unit, made.scope), ("journalctl", "-q", "-o", "export"),
                ("ps", "-Awwo", "args"),
            )),
        ]  # fmt: skip
        assert not [text[:200] for text in shown if VALUE in text]
        assert json.loads(shown[1])[0]["Config"]["Secrets"][1]["Target"] == "TOKEN"
        places = [paths.STATE, paths.RUN, "/run/systemd", "/etc/systemd", str(tmp_path)]
        found = subprocess.run(
            ["grep", "-rlsF", "--devices=skip", VALUE, *places],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert found.stdout == ""
    finally:
        sysbox("rmi", "-f", "secret-test")


def test_of_a_declared_container(secret: Make, declare: Declare) -> None:
    """Its service fails with the reason where one is missing, and starts once it is there."""
    file = declare.file(
        "Secret=one,mode=0400 one,type=env,target=TOKEN\nSecret=other\nExec=sleep 1000\nStopSignal=KILL"
    )
    run_sysbox("unit", "install", file, check=True)
    secret("one")
    began = time.time()
    failed = subprocess.run(["systemctl", "start", SERVICE], capture_output=True, check=False)
    assert failed.returncode
    assert "no such secret: other" in journal(SERVICE, began)
    secret("other")
    systemctl("reset-failed", SERVICE)
    systemctl("start", SERVICE)
    made = declare.container()
    assert made.sh("cat /run/secrets/one /run/secrets/other; echo $TOKEN") == VALUE * 2 + VALUE
    systemctl("stop", SERVICE)
    assert VALUE not in Path("/etc/systemd/system", SERVICE).read_text()


def test_listed_and_inspected(secret: Make, sysbox: Sysbox) -> None:
    name = secret("one", "--label", "for=test")
    secret("two")
    listing = sysbox("secret", "ls", check=True).stdout.splitlines()
    assert listing[0].split() == ["ID", "NAME", "DRIVER", "CREATED", "UPDATED"]
    assert [line.split()[1] for line in listing[1:]] == ["one", "two"]
    only = sysbox("secret", "ls", "-q", "--filter", "label=for=test", check=True).stdout.strip()
    found = json.loads(sysbox("secret", "inspect", only, check=True).stdout)[0]
    assert found["ID"] == only
    assert found["Spec"]["Name"] == name
    assert found["Spec"]["Driver"]["Name"] == secrets.SEALED
    assert found["Spec"]["Labels"] == {"for": "test"}


def test_from_a_file_and_from_a_variable(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("from a file")
    try:
        sysbox("secret", "create", "one", tmp_path / "value", check=True)
        sysbox("secret", "create", "--env", "two", "OF", check=True, env={"OF": "a variable"})
        script = "cat /run/secrets/one; echo; cat /run/secrets/two"
        assert run(image, "--secret", "one", "--secret", "two", script=script) == (
            "from a file\na variable"
        )
    finally:
        sysbox("secret", "rm", "-i", "one", "two", check=True)


def test_bad_input_is_one_clear_line(sysbox: Sysbox, secret: Make, image: str) -> None:
    name = secret("one")
    secret("big", value="x" * (200 << 10))
    cases = {
        ("run", "--secret", "oen", image, "true"): "no such secret: oen",
        ("create", "--secret", "oen", image, "true"): "no such secret: oen",
        ("run", "--secret", f"{name},mode=9", image, "true"): "9 is not the mode of a file",
        ("run", "--secret", name, "--secret", name, image, "true"): "another secret for the file",
        ("run", "--secret", "big,type=env", image, "true"): "larger than a variable can be",
        ("run", "--secret", f"{name},target=/etc", image, "true"): "over the directory /etc",
        ("run", "--secret", f"{name},uid=99999", image, "true"): "the owner of secret one",
        ("run", "--secret", f"{name},target={'x' * 300}", image, "true"): "File name too long",
        ("run", "--secret", f"{name},target={'x/' * 2000}x", image, "true"): "directories deep",
        ("secret", "create", name, "/dev/null"): "the value is empty",
        ("secret", "create", "new", "/dev/zero"): "larger than 512 KiB",
        ("secret", "create", "new", "/nowhere"): "/nowhere: no such file or directory",
        ("secret", "create", "new", "/"): "is a directory",
        ("secret", "create", "--env", "new", "NOT_SET"): "the variable NOT_SET is not set",
        ("secret", "inspect", "oen"): "no such secret: oen",
        ("secret", "rm", "oen"): "no such secret: oen",
    }  # fmt: skip
    for words, reason in cases.items():
        done = sysbox(*words)
        assert done.returncode in (1, 125), words
        assert reason in done.stderr, (words, done.stderr)
        assert len(done.stderr.splitlines()) <= 2, done.stderr
        assert VALUE not in done.stderr
    assert sysbox("ps", "-aq", check=True).stdout == ""


def test_of_many_at_once_one_has_the_name(sysbox: Sysbox, secret: Make) -> None:
    name = secret("zero")
    sysbox("secret", "rm", name, check=True)
    started = [popen("secret", "create", name, "/etc/hostname") for _ in range(4)]
    ended = [(one.communicate()[1], one.returncode) for one in started]
    assert sorted(status for _, status in ended) == [0, 1, 1, 1]
    assert all("is in use by another secret" in text for text, status in ended if status)


def test_what_a_killed_writer_leaves_is_cleaned_up(sysbox: Sysbox, secret: Make) -> None:
    name = secret("one")
    left = Path(f"{secrets.path_of(name)}.4194304")  # above any pid
    left.write_bytes(b"{")
    assert str(left) in sysbox("gc", check=True).stdout
    assert not left.exists()
    assert sysbox("secret", "ls", "-q", check=True).stdout.count("\n") == 1


def test_a_file_that_was_torn_or_moved(sysbox: Sysbox, secret: Make, image: str) -> None:
    """What a secret was encrypted for is part of it: nobody can have it under another name."""
    one, two = secret("one"), secret("two", value="other")
    path = Path(secrets.path_of(one))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"one"', b'"two"'))
    os.rename(path, secrets.path_of(two))
    refused = sysbox("run", "--rm", "--secret", two, image, "true")
    assert refused.returncode == 125
    assert "secret two: systemd-creds cannot decrypt it" in refused.stderr
    path.write_bytes(whole[:100])
    refused = sysbox("run", "--rm", "--secret", one, image, "true")
    assert "secret one is damaged" in refused.stderr
    assert len(refused.stderr.splitlines()) == 2
    assert sysbox("ps", "-aq", check=True).stdout == ""


def test_the_key_outlives_a_stop_of_an_embedded_host(sysbox: Sysbox, tmp_path: Path) -> None:
    (tmp_path / "value").write_text(VALUE)
    env = {"SYSBOX_HOST": "embedded:secrets-inner"}
    start = ("host", "start", "--name", "secrets-inner", "--private-network")
    try:
        sysbox(*start, check=True)
        sysbox("secret", "create", "one", tmp_path / "value", check=True, env=env)
        sysbox("host", "stop", "--name", "secrets-inner", check=True)
        sysbox(*start, check=True)
        words = ("run", "--rm", "--secret", "one", "host", "cat", "/run/secrets/one")
        assert sysbox(*words, check=True, env=env).stdout == VALUE
        found = json.loads(sysbox("secret", "inspect", "one", check=True, env=env).stdout)
        assert found[0]["Spec"]["Driver"]["Name"] == secrets.SEALED
    finally:
        sysbox("host", "stop", "--name", "secrets-inner", "--purge", check=True)
