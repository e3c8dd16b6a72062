"""`stop`, `kill` and `rm` with flags of podman: --cidfile, --ignore, `rm --time`."""

from __future__ import annotations

from pathlib import Path

import pytest
from containers import Containers, eventually
from lane import Sysbox


def test_by_file(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    """As the services that `podman generate systemd` wrote do; the name of --replace may have passed on."""
    file = tmp_path / "id"
    one = containers("--cidfile", str(file), "--init")
    another = containers()
    for verb, status in (("kill", 137), ("stop", 143)):
        assert sysbox(verb, "--cidfile", str(file), check=True).stdout == f"{one.id}\n"
        one.await_state("exited")
        assert one.inspect("State.ExitCode") == status
        one("start")
    done = sysbox("rm", "-f", another.id[:12], "--cidfile", str(file), check=True)
    assert done.stdout == f"{another.id[:12]}\n{one.id}\n"
    assert file.read_text() == one.id  # it belongs to whoever named it


@pytest.mark.parametrize("verb", ["stop", "rm"])
def test_missing_ones_are_ignored(
    verb: str, containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    gone, file = tmp_path / "gone", tmp_path / "id"
    one = containers("--cidfile", str(file))
    one("rm", "-f")
    for words in (("nosuch",), ("--cidfile", str(file)), ("--cidfile", str(gone))):
        done = sysbox(verb, *words)
        assert (done.returncode, done.stdout) == (1, ""), words
        assert "no such" in done.stderr, words
        done = sysbox(verb, "--ignore", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), words
    done = sysbox(verb, "-i", "nosuch", "no/such")
    assert done.returncode == 0, done.stderr
    assert sysbox(verb, "--ignore").returncode == 1  # but something is to be named


def test_rm_by_force_says_what_is_missing(sysbox: Sysbox, tmp_path: Path) -> None:
    done = sysbox("rm", "-f", "nosuch", "--cidfile", str(tmp_path / "gone"), check=True)
    assert done.stderr == "sysbox: no such container: nosuch\n"
    assert sysbox("rm", "-fi", "nosuch", check=True).stderr == ""


@pytest.mark.parametrize("text", ["", "victim", "a" * 63, "../victim", "a" * 64 + "\nvictim"])
def test_only_an_id_counts(
    text: str, containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """A file that became another's, such as /etc/hostname, names no container."""
    victim = containers("--name", "victim")
    file = tmp_path / "id"
    file.write_text(text)
    for verb in (("stop", "-t", "0"), ("kill",), ("rm", "-f", "-i")):
        done = sysbox(*verb, "--cidfile", str(file))
        assert done.returncode == 1, verb
        assert "has no container's id" in done.stderr
    assert victim.inspect("State.Running") is True


SLOW = "trap 'echo bye; sleep 0.3; echo $? >/v/end; exit' TERM; echo ready; while :; do sleep 0.02; done"


@pytest.mark.parametrize("flags", [(), ("--rm",), ("--restart", "always")])
def test_rm_stops_first(
    flags: tuple[str, ...], containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """With a time, `rm -f` ends it gracefully."""
    one = containers(*flags, "-v", f"{tmp_path}:/v", command=("sh", "-c", SLOW))
    eventually(lambda: "ready" in one("logs"), "the payload is ready")
    idle = containers()
    idle("kill")
    idle.await_state("exited")
    refused = sysbox("rm", "-t", "20", one.id)
    assert refused.returncode == 1
    assert "need --force" in refused.stderr
    done = sysbox("rm", "-f", "-t", "20", one.id, idle.id, "nosuch", check=True)
    assert done.stdout == f"{one.id}\n{idle.id}\n"
    assert done.stderr == "sysbox: no such container: nosuch\n"
    assert (tmp_path / "end").read_text() == "0\n"
    assert sysbox("ps", "-aq", check=True).stdout == ""


def test_rm_waits_no_longer_than_it_is_told(containers: Containers, sysbox: Sysbox) -> None:
    one = containers("--stop-timeout", "500", command=("sh", "-c", "trap '' TERM; sleep 1000"))
    sysbox(
        "rm", "-f", "--time", "0", one.id, check=True
    )  # which would reach the limit of a command
    assert sysbox("ps", "-aq", check=True).stdout == ""
