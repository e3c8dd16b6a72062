"""Events: what happened, by docker's names, from the journal and as it happens."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

from containers import Container, Containers, eventually, popen, systemctl
from lane import Sysbox

from sysbox.container.events import MESSAGE_IDS


def since(sysbox: Sysbox, start: float, *words: str) -> list[dict[str, Any]]:
    """The events from `start` until now."""
    command = ("events", "--since", f"{start:.6f}", "--until", "0s", "--format", "json", *words)
    return [json.loads(one) for one in sysbox(*command, check=True).stdout.splitlines()]


def actions(found: list[dict[str, Any]], actor: str) -> list[str]:
    return [one["Action"] for one in found if one["Actor"]["ID"] == actor]


def test_a_life(sysbox: Sysbox, containers: Containers) -> None:
    start = time.time()
    one = containers("--name", "first", "-l", "color=blue")
    one("pause")
    one("unpause")
    one.exec("true")
    sysbox("rename", "first", "second", check=True)
    one("kill", "-s", "WINCH")
    one("stop", "-t", "0")
    one("start")
    one("rm", "-f")
    expected = (
        "create start pause unpause exec_create exec_start exec_die "
        "rename kill die stop start die destroy"
    )
    eventually(lambda: "destroy" in actions(since(sysbox, start), one.id), "the last event")
    found = since(sysbox, start)
    assert actions(found, one.id) == expected.split()
    ours = [event for event in found if event["Actor"]["ID"] == one.id]
    attributes = ours[0]["Actor"]["Attributes"]
    assert (attributes["name"], attributes["color"], ours[0]["Type"]) == (
        "first",
        "blue",
        "container",
    )
    assert ours[7]["Actor"]["Attributes"]["oldName"] == "first"
    assert ours[9]["Actor"]["Attributes"]["exitCode"] == "137"
    times = [event["timeNano"] for event in ours]
    assert times == sorted(times)


def test_images_and_volumes(sysbox: Sysbox, tmp_path: Path) -> None:
    start = time.time()
    archive = tmp_path / "root.tar"
    with tarfile.open(archive, "w") as tar:
        tar.addfile(tarfile.TarInfo("file"))
    image = sysbox("import", archive, "told:1", check=True).stdout.strip()
    sysbox("rmi", "told:1", check=True)
    sysbox("volume", "create", "told", check=True)
    sysbox("volume", "rm", "told", check=True)
    eventually(lambda: "destroy" in actions(since(sysbox, start), "told"), "the last event")
    found = since(sysbox, start)
    assert actions(found, image) == ["import", "untag", "delete"]
    assert actions(found, "told") == ["create", "destroy"]
    told = [event for event in found if event["Actor"]["ID"] == image]
    assert {event["Type"] for event in told} == {"image"}
    assert [one["Actor"]["Attributes"]["name"] for one in told] == ["told:1", "told:1", image]
    names = since(sysbox, start, "--filter", "image=told:1")
    assert [event["Action"] for event in names] == ["import", "untag"]


def test_filters_and_formats(sysbox: Sysbox, containers: Containers) -> None:
    start = time.time()
    one, other = containers("-l", "tier=web"), containers()
    one("kill")
    eventually(lambda: "die" in actions(since(sysbox, start), one.id), "the end")

    def ids(*filters: str) -> set[str]:
        words = [word for text in filters for word in ("--filter", text)]
        return {event["Actor"]["ID"] for event in since(sysbox, start, *words)}

    assert ids(f"container={one.id[:12]}") == {one.id}
    assert ids("event=create", "type=container") == {one.id, other.id}
    assert ids("label=tier=web") == {one.id}
    assert ids("event=die") == {one.id}
    image = one.inspect("Config.Image")
    assert ids(f"image={image}", "event=create") == {one.id, other.id}
    assert ids(f"image={image.rpartition(':')[0]}", "event=create") == {one.id, other.id}
    assert ids("scope=local", "event=die") == {one.id}
    assert ids("network=bridge") == ids("scope=swarm") == ids("service=web") == set()
    done = sysbox(
        "events", "--since", f"{start:.6f}", "--until", "0s", "--filter", "event=die",
        "--format", "{{.Action}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.nothing}}", check=True,
    )  # fmt: skip
    assert done.stdout == "die 137 <no value>\n"
    assert sysbox("events", "--filter", "colour=red").returncode == 1


def stir(watching: subprocess.Popen[str], one: Container) -> None:
    """Make things happen until it is seen to watch: it says nothing before."""
    assert watching.stdout
    deadline = time.monotonic() + 30
    while not select.select([watching.stdout], [], [], 0.3)[0]:
        assert time.monotonic() < deadline
        one("kill", "-s", "WINCH")


def test_as_it_happens(sysbox: Sysbox, containers: Containers) -> None:
    watching = popen("events", "--format", "{{.Action}} {{.Actor.ID}}")
    try:
        stir(watching, containers())
        one = containers()
        one("kill")
        assert watching.stdout
        seen: list[list[str]] = []
        while len(seen) < 4:
            words = watching.stdout.readline().split()
            seen += [words] if words[1] == one.id else []
        assert seen == [[action, one.id] for action in ("create", "start", "die", "kill")]
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=20)


def test_an_end_that_nobody_told_of(sysbox: Sysbox, image: str) -> None:
    """The command that attended to it was killed: systemd says that the scope is gone."""
    start = time.time()
    watching = popen("events", "--format", "json", "--filter", "event=die")
    attended = popen("run", "--name", "orphan", image, "sleep", "1000")
    try:
        eventually(
            lambda: sysbox("inspect", "-f", "{{.State.Running}}", "orphan").stdout == "true\n",
            "it runs",
        )
        actor = sysbox("inspect", "-f", "{{.Id}}", "orphan", check=True).stdout.strip()
        pid = int(sysbox("inspect", "-f", "{{.State.Pid}}", "orphan", check=True).stdout)
        attended.kill()
        attended.communicate(timeout=20)
        with contextlib.suppress(ProcessLookupError):  # it ends with who attended to it
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: actions(since(sysbox, start), actor)[-1:] == ["die"], "it is told")
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=20)
        sysbox("rm", "-f", "orphan")


def test_journalctl_finds_them(containers: Containers) -> None:
    one = containers()

    def found() -> str:
        done = subprocess.run(
            ["journalctl", "-o", "json", f"MESSAGE_ID={MESSAGE_IDS['container', 'start']}",
             f"SYSBOX_ID={one.id}"],
            capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
        return done.stdout

    eventually(found, "a record")
    assert json.loads(found())["MESSAGE"].startswith("container start ")


def test_what_journald_has_not_read_yet(sysbox: Sysbox) -> None:
    """It is waited for: an event of a command that has ended is there."""
    begin = time.time()
    systemctl("kill", "--signal=STOP", "systemd-journald")
    try:
        sysbox("volume", "create", "unread", check=True)
        words = ("events", "--since", f"{begin:.6f}", "--until", "0s", "--format", "{{.Actor.ID}}")
        with popen(*words) as asking:
            assert asking.stdout
            # without the wait it ends by then
            assert select.select([asking.stdout], [], [], 1) == ([], [], [])
            systemctl("kill", "--signal=CONT", "systemd-journald")
            assert asking.communicate(timeout=60)[0] == "unread\n"
    finally:
        systemctl("kill", "--signal=CONT", "systemd-journald")
        sysbox("volume", "rm", "unread", check=True)
