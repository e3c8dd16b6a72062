"""wait --condition, prune, volumes: what becomes of containers and what they leave."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from containers import Containers, eventually, popen
from lane import SYSBOX, Sysbox

LABEL = "label=test.tidying"  # nothing else on this host may go


@pytest.fixture
def volume(sysbox: Sysbox) -> Iterator[str]:
    """A volume that is labelled, removed at the end if it is there."""
    name = "tidying"
    sysbox("volume", "create", "--label", "test.tidying=1", name, check=True)
    yield name
    sysbox("volume", "rm", "-f", name)


def waits(process: subprocess.Popen[str]) -> None:
    """It sleeps in a system call, for a process or for what happens in a directory of records."""

    def sleeps() -> bool:
        where = Path(f"/proc/{process.pid}/wchan").read_text(encoding="ascii")
        if "poll" in where:
            return any("pidfd" in one for one in held(process))
        # a file below that directory is one that it just reads
        return "sigtimedwait" in where and any(one.endswith("/containers") for one in held(process))

    eventually(sleeps, "it waits")
    assert process.poll() is None


def held(process: subprocess.Popen[str]) -> list[str]:
    """What it has open."""
    found = []
    for one in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            found.append(os.readlink(one))
    return found


def ends_with(process: subprocess.Popen[str], text: str) -> None:
    """It ends soon, and has written this."""
    out, err = process.communicate(timeout=30)
    assert (out, err) == (text, "")


def test_the_next_exit_of_one_that_runs_not(containers: Containers) -> None:
    made = containers(command=("sh", "-c", "exit 5"), verb=("create",))
    for _ in range(2):  # the first run, and one after another
        waiting = popen("wait", "--condition", "next-exit", made.id)
        waits(waiting)
        made("start")
        ends_with(waiting, "5\n")
    assert made("wait").strip() == "5"


def test_the_next_exit_of_one_that_runs(containers: Containers) -> None:
    made = containers("--stop-signal", "KILL")
    waiting = popen("wait", "--condition=next-exit", made.id)
    waits(waiting)
    made("stop")
    ends_with(waiting, "137\n")


def test_the_removal(containers: Containers) -> None:
    made = containers(command=("sh", "-c", "exit 4"), verb=("create",))
    waiting = popen("wait", "--condition", "removed", made.id)
    waits(waiting)
    made("start")
    made("wait")
    waits(waiting)
    made("rm")
    ends_with(waiting, "0\n")


UNTIL_TOLD = "until test -e /tmp/go; do sleep 0.02; done; exit 7"


@pytest.mark.parametrize("condition", ["not-running", "next-exit", "removed", "stopped"])
def test_the_status_of_one_that_is_gone_at_once(sysbox: Sysbox, condition: str) -> None:
    done = sysbox("run", "-d", "--rm", "host", "sh", "-c", UNTIL_TOLD, check=True)
    made = done.stdout.strip()
    waiting = popen("wait", "--condition", condition, made)
    waits(waiting)
    sysbox("exec", made, "touch", "/tmp/go")  # which may be killed by the end that it brings
    ends_with(waiting, "7\n")


def test_one_in_the_foreground_that_is_gone_at_once(sysbox: Sysbox) -> None:
    running = popen("run", "--rm", "--name", "tidying-fg", "host", "sh", "-c", UNTIL_TOLD)
    eventually(lambda: "tidying-fg" in sysbox("ps", "--format", "{{.Names}}").stdout, "it runs")
    waiting = popen("wait", "tidying-fg")
    waits(waiting)
    sysbox("exec", "tidying-fg", "touch", "/tmp/go")
    ends_with(waiting, "7\n")
    assert running.wait(timeout=30) == 7


def test_an_unknown_condition(sysbox: Sysbox) -> None:
    done = sysbox("wait", "--condition", "removd", "none")
    assert done.returncode == 1
    assert "did you mean removed?" in done.stderr


def test_containers_are_pruned(containers: Containers, sysbox: Sysbox) -> None:
    flags = ("--label", "test.tidying")
    running = containers(*flags)
    paused = containers(*flags)
    paused("pause")
    stopped = containers(*flags, command=("sh", "-c", "head -c 5000 /dev/zero >/file"))
    stopped("wait")
    created = containers(*flags, "--label", "keep=1", verb=("create",))
    done = sysbox(
        "container", "prune", "-f", "--filter", LABEL, "--filter", "label!=keep", check=True
    )
    assert done.stdout.splitlines() == [
        "Deleted Containers:", stopped.id, "", "Total reclaimed space: 5kB"
    ]  # fmt: skip
    # made a moment ago: not older than an hour
    done = sysbox("container", "prune", "-f", "--filter", LABEL, "--filter", "until=1h", check=True)
    assert done.stdout == "Total reclaimed space: 0B\n"
    assert created.inspect("State.Status") == "created"
    sysbox("system", "prune", "-f", "--filter", LABEL, check=True)
    assert created.id not in sysbox("ps", "-aq", "--no-trunc").stdout
    assert running.inspect("State.Status") == "running"
    assert paused.inspect("State.Status") == "paused"


@pytest.mark.parametrize("answer", ["n\n", "", "yep\n"])
@pytest.mark.parametrize("what", ["container", "image", "volume", "system"])
def test_nothing_is_pruned_without_a_yes(
    containers: Containers, sysbox: Sysbox, what: str, answer: str
) -> None:
    made = containers(verb=("create",))
    done = sysbox(what, "prune", "--filter", LABEL, input=answer)
    assert done.returncode == 1
    assert done.stdout.startswith("WARNING! This will remove")
    assert done.stdout.endswith("Are you sure you want to continue? [y/N] ")
    assert "cancelled" in done.stderr
    assert made.inspect("State.Status") == "created"


def test_a_yes(containers: Containers, sysbox: Sysbox) -> None:
    made = containers("--label", "test.tidying", verb=("create",))
    done = sysbox("container", "prune", "--filter", LABEL, input="y\n", check=True)
    assert f"Deleted Containers:\n{made.id}\n" in done.stdout


def test_images_are_pruned(containers: Containers, sysbox: Sysbox) -> None:
    made = containers(command=("sh", "-c", "head -c 70000 /dev/zero >/file"))
    made("wait")
    commit = ("commit", "-c", "LABEL test.tidying=1", made.id)
    dangling, named = (
        sysbox(*commit, *name, check=True).stdout.strip() for name in ((), ("tidy:1",))
    )
    user = containers(image="tidy:1", verb=("create",))
    done = sysbox("image", "prune", "-f", "--filter", LABEL, check=True)
    assert done.stdout.splitlines()[:2] == ["Deleted Images:", f"deleted: {dangling}"]
    # one that a container needs stays
    done = sysbox("image", "prune", "-fa", "--filter", LABEL, check=True)
    assert done.stdout == "Total reclaimed space: 0B\n"
    user("rm")
    done = sysbox("image", "prune", "-fa", "--filter", LABEL, check=True)
    assert done.stdout.splitlines() == [
        "Deleted Images:", "untagged: tidy:1", f"deleted: {named}", "", "Total reclaimed space: 70kB"
    ]  # fmt: skip
    assert sysbox("image", "inspect", "host").returncode == 0


def test_volumes_are_pruned(containers: Containers, sysbox: Sysbox, volume: str) -> None:
    made = containers("-v", f"{volume}:/a", "-v", "/b", verb=("create",))
    anonymous = next(iter(made.inspect("Mounts") or [{}]))
    assert anonymous
    before = set(sysbox("volume", "ls", "-q").stdout.split())
    # all of them are in use, or not ours
    sysbox("volume", "prune", "-fa", "--filter", LABEL, check=True)
    assert set(sysbox("volume", "ls", "-q").stdout.split()) == before
    made("rm")
    done = sysbox("volume", "prune", "-f", "--filter", LABEL, check=True)
    assert volume not in done.stdout, "it has a name"
    done = sysbox("volume", "prune", "-fa", "--filter", LABEL, check=True)
    assert done.stdout.startswith(f"Deleted Volumes:\n{volume}\n")
    left = sysbox("volume", "ls", "-q", "-f", "dangling=true").stdout.split()
    assert len(left) == 1, "the anonymous one, which has no label"
    sysbox("volume", "prune", "-f", check=True)
    assert sysbox("volume", "ls", "-q").stdout == ""


def test_volumes(containers: Containers, sysbox: Sysbox, volume: str) -> None:
    made = containers("-v", f"{volume}:/data")
    made.sh("echo x >/data/file")
    found = json.loads(sysbox("volume", "inspect", volume, check=True).stdout)[0]
    assert (found["Name"], found["Labels"]) == (volume, {"test.tidying": "1"})
    assert found["Mountpoint"].endswith("/_data")
    lines = sysbox("volume", "ls", "--filter", LABEL, "--format", "{{.Name}} {{.Links}}").stdout
    assert lines == f"{volume} 1\n"
    done = sysbox("volume", "rm", volume)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is in use by container" in done.stderr
    made("rm", "-f")
    assert sysbox("volume", "rm", volume, check=True).stdout == f"{volume}\n"
    done = sysbox("volume", "rm", volume)
    assert (done.returncode, "no such volume" in done.stderr) == (1, True)
    assert sysbox("volume", "rm", "-f", volume).returncode == 0


@pytest.mark.parametrize("name", ["../x", "a/b", ".lock", ".", "-x"])
def test_names_that_are_no_volumes(sysbox: Sysbox, name: str) -> None:
    for verb in ("create", "rm", "inspect"):
        done = sysbox("volume", verb, "--", name)
        assert done.returncode in (1, 125)
        assert "not a valid name" in done.stderr


def test_a_volume_in_use_does_not_go_while_containers_are_made(sysbox: Sysbox, image: str) -> None:
    """The record comes before the volume, and who removes it looks for records first."""
    pruning = [
        subprocess.Popen([SYSBOX, "volume", "prune", "-fa"], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    for turn in range(4):
        name = f"race{turn}"
        words = (
            "run",
            "--rm",
            "-v",
            f"{name}:/data",
            image,
            "sh",
            "-c",
            "echo x >/data/f; cat /data/f",
        )
        pruning.append(
            subprocess.Popen([SYSBOX, "volume", "prune", "-fa"], stdout=subprocess.DEVNULL)
        )
        assert sysbox(*words, check=True).stdout == "x\n"
    for process in pruning:
        assert process.wait(timeout=30) == 0
    sysbox("volume", "prune", "-fa", check=True)
