"""run --replace and create --replace: the container that has the name goes first."""

from __future__ import annotations

from pathlib import Path

import pytest
from containers import Containers, systemctl
from lane import Sysbox

from sysbox.base.paths import CONTAINERS

NAME = "swap"
NAMED = ("--name", NAME)


def test_one_that_runs(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    """Its port and its name are the new one's; anonymous volumes stay, as with `rm -f`."""
    published = ("-p", "8097:80")
    old = containers(*NAMED, *published, "-v", "/a")
    (volume,) = (one["Name"] for one in old.inspect("Mounts"))
    said = sysbox("run", "--dry-run", "--replace", *NAMED, "host", "true", check=True).stdout
    assert said.splitlines()[-1] == f"remove container {old.id[:12]}"
    assert old.inspect("State.Running") is True
    new = containers("--replace", *NAMED, *published, "--cidfile", str(tmp_path / "id"))
    assert sysbox("inspect", old.id).returncode == 1
    assert (new.inspect("Name"), new.inspect("State.Running")) == (f"/{NAME}", True)
    assert sysbox("volume", "rm", volume, check=True).stdout == f"{volume}\n"
    last = containers("--replace", *NAMED, verb=("create",))
    assert sysbox("inspect", new.id).returncode == 1
    assert last.inspect("State.Status") == "created"
    # in the foreground
    done = sysbox("run", "--rm", "--replace", *NAMED, "host", "echo", "new", check=True)
    assert done.stdout == "new\n"
    assert sysbox("inspect", last.id).returncode == 1


def test_none_of_that_name(containers: Containers) -> None:
    assert containers("--replace", *NAMED).inspect("State.Running") is True


def test_a_damaged_one(containers: Containers, sysbox: Sysbox) -> None:
    old = containers(*NAMED)
    Path(f"{CONTAINERS}/{old.id}/record.json").write_text("{")
    new = containers("--replace", *NAMED)
    assert new.inspect("State.Running") is True
    assert not Path(f"{CONTAINERS}/{old.id}").exists()


REFUSED = {
    "network": (("--network", "no-such"), "no such network"),
    "joined": (("--network", f"container:{NAME}"), "needs the container swap itself"),
    "linked": (
        ("--network", "swap-net", "--link", f"{NAME}:db"),
        "needs the container swap itself",
    ),
    "cidfile": (("--cidfile", "/etc/passwd"), "the file exists already"),
    "limit": (("--memory", "1"), "--memory"),
    "pod": (("--pod", "no-such"), "no-such"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_made_replaces_nothing(
    containers: Containers, sysbox: Sysbox, image: str, case: str
) -> None:
    sysbox("network", "create", "swap-net", check=True)
    try:
        old = containers(*NAMED, "--network", "swap-net")
        pid = old.pid
        flags, why = REFUSED[case]
        for verb in ("run", "create"):
            done = sysbox(verb, "--replace", *NAMED, *flags, image, "true")
            assert done.returncode != 0
            assert why in done.stderr
            assert (old.inspect("State.Running"), old.pid) == (True, pid)
        old("rm", "-f")
    finally:
        sysbox("network", "rm", "swap-net", check=True)


def test_without_a_name(sysbox: Sysbox, image: str) -> None:
    for verb in ("run", "create"):
        done = sysbox(verb, "--replace", image, "true")
        assert done.returncode == 125
        assert done.stderr.startswith("sysbox: --replace: which container is replaced?")


def test_one_that_is_declared_stays(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    file = tmp_path / f"{NAME}.container"
    file.write_text(
        f"[Container]\nImage={image}\nContainerName={NAME}\nExec=sleep 1000\nStopSignal=KILL\n"
    )
    sysbox("unit", "install", file, check=True)
    try:
        systemctl("start", NAME)
        done = sysbox("run", "--replace", *NAMED, image, "true")
        assert done.returncode != 0
        assert f"is in use by the container of {NAME}.service" in done.stderr
        assert systemctl("is-active", NAME) == "active"
    finally:
        sysbox("unit", "uninstall", f"{NAME}.service", check=True)
