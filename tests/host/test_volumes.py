"""A new volume takes what the image has at its place, once; from then on it is its users' alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers
from lane import Sysbox

from sysbox.base import paths
from sysbox.fs import copyup, volumes

NAME = "test-copy-up"
CONTENT = Path(volumes.directory(NAME))


@pytest.fixture
def volume(sysbox: Sysbox) -> Iterator[str]:
    """A new volume."""
    sysbox("volume", "create", NAME, check=True)
    yield NAME
    sysbox("volume", "rm", "-f", NAME, check=True)


def run(sysbox: Sysbox, image: str, target: str, script: str) -> str:
    """What a shell prints in a new container with the volume."""
    flags = ("--rm", "--network", "none", "-v", f"{NAME}:{target}")
    return sysbox("run", *flags, image, "sh", "-ec", script, check=True).stdout.strip()


def test_owner_and_mode_of_an_empty_volume_stay(
    sysbox: Sysbox, volume: str, containers: Containers, image: str
) -> None:
    """A server that runs as its own user keeps the directory that it was given."""
    made = containers("-v", f"{volume}:/data")
    made.sh("chown 100:102 /data; chmod 2770 /data")
    made("restart", "-t", "0")
    assert made.sh("stat -c '%u:%g %a' /data") == "100:102 2770"
    for target in ("/data", "/home"):
        assert run(sysbox, image, target, f"stat -c '%u:%g %a' {target}") == "100:102 2770"
    assert os.listdir(CONTENT) == []


def test_filled_once(sysbox: Sysbox, image: str, volume: str) -> None:
    created = volumes.created(volume)
    assert run(sysbox, image, "/home:ro", "stat -c %u:%g /home/user; ls /home") == "0:0\nuser"
    assert (CONTENT / "user").is_dir()
    assert volumes.created(volume) == created
    assert run(sysbox, image, "/home", "rmdir /home/user; ls /home") == ""
    assert run(sysbox, image, "/home", "ls /home") == ""


def test_the_first_mount_counts_even_if_it_fills_nothing(
    sysbox: Sysbox, image: str, volume: str
) -> None:
    run(sysbox, image, "/fresh:nocopy", "true")
    assert run(sysbox, image, "/home", "ls /home") == ""


def test_one_that_has_content_is_left_alone(sysbox: Sysbox, image: str, volume: str) -> None:
    (CONTENT / "mine").touch()
    assert run(sysbox, image, "/home", "ls /home") == "mine"


def test_one_of_a_version_without_marks_counts_as_used(
    sysbox: Sysbox, image: str, volume: str
) -> None:
    """What made volumes before there were marks filled them at every start that found them empty."""
    Path(volumes.mark(volume)).unlink()
    assert run(sysbox, image, "/home", "ls /home") == ""


def test_one_that_was_half_filled_is_filled_again(sysbox: Sysbox, image: str, volume: str) -> None:
    Path(volumes.mark(volume)).write_bytes(copyup.BEGUN)
    (CONTENT / "passwd").touch()
    assert run(sysbox, image, "/etc", "grep -c root /etc/passwd") == "1"


def test_cp_into_a_container_that_never_ran_is_its_first_mount(
    sysbox: Sysbox, volume: str, containers: Containers, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    made = containers("-v", f"{volume}:/home", verb=("create",))
    sysbox("cp", tmp_path / "file", f"{made.id}:/home/file", check=True)
    assert sorted(os.listdir(CONTENT)) == ["file", "user"]


def test_two_first_mounts_at_once(sysbox: Sysbox, image: str, volume: str) -> None:
    """One of them fills it, and the other sees all of it."""
    from containers import popen

    words = ("run", "--rm", "--network", "none", "-v", f"{volume}:/bin")
    both = [popen(*words, image, "sh", "-c", "ls /bin | wc -l") for _ in range(2)]
    counts = [one.communicate()[0].strip() for one in both]
    there = int(run(sysbox, image, "/other", "ls /bin | wc -l"))
    assert counts == [str(there)] * 2


def test_below_usr_of_the_machine(sysbox: Sysbox, volume: str) -> None:
    """/usr is a part of the image `host`, though it is mounted in it."""
    found = run(sysbox, "host", "/usr/share/doc/bash", "ls /usr/share/doc/bash")
    assert found.split() == sorted(os.listdir("/usr/share/doc/bash"))
    assert sorted(os.listdir(CONTENT)) == sorted(os.listdir("/usr/share/doc/bash"))
    assert Path(paths.VOLUMES, volume).is_dir()
