"""A new volume takes what the image has at its place, once; from then on it is its users' alone."""

from __future__ import annotations

import grp
import json
import os
from collections.abc import Callable, Iterator
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


@pytest.fixture
def optional(sysbox: Sysbox) -> Iterator[Callable[..., str]]:
    """`optional(OPTION...)`: a volume with these options."""

    def make(*options: str) -> str:
        words = [word for one in options for word in ("-o", one)]
        return sysbox("volume", "create", *words, NAME, check=True).stdout.strip()

    yield make
    sysbox("volume", "rm", "-f", NAME, check=True)


def test_a_volume_that_is_a_directory_of_the_host(
    sysbox: Sysbox, image: str, tmp_path: Path, optional: Callable[..., str], containers: Containers
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "mine").write_text("1")
    optional("type=none", f"device={tmp_path}", "o=bind,ro")
    assert (
        run(sysbox, image, "/home", "ls /home; touch /home/x || echo read-only")
        == "below\nmine\nread-only"
    )
    found = json.loads(sysbox("volume", "inspect", NAME, check=True).stdout)[0]
    assert found["Mountpoint"] == str(tmp_path)
    assert found["Options"] == {"type": "none", "device": str(tmp_path), "o": "bind,ro"}
    made = containers("-v", f"{NAME}:/home", verb=("create",))
    assert made.inspect("Mounts")[0]["Source"] == str(tmp_path)
    assert sysbox("cp", f"{made.id}:/home/mine", "-", check=True).stdout
    made("rm")
    sysbox("volume", "rm", NAME, check=True)
    assert sorted(os.listdir(tmp_path)) == ["below", "mine"]


def test_a_directory_that_is_not_there(
    sysbox: Sysbox, image: str, optional: Callable[..., str]
) -> None:
    optional("type=bind", "device=/no/such/place")
    done = sysbox("run", "--rm", "-v", f"{NAME}:/home", image, "true")
    assert (done.returncode, "/no/such/place does not exist" in done.stderr) == (125, True)


def test_a_volume_in_memory(sysbox: Sysbox, image: str, optional: Callable[..., str]) -> None:
    """Each container has its own, which is empty at each start."""
    optional("type=tmpfs", "device=tmpfs", "o=size=4m,uid=7,mode=700")
    said = "grep /home /proc/mounts; stat -c %u:%a /home; cp /bin/busybox /home/sh; /home/sh -c 'ls /home'"
    for _ in range(2):
        mounted, owner, there = run(sysbox, image, "/home", said).splitlines()
        assert (" /home tmpfs rw" in mounted, "size=4096k" in mounted) == (True, True)
        assert (owner, there) == ("7:700", "sh")
    assert os.listdir(CONTENT) == []


def test_a_volume_with_an_owner_keeps_it(
    sysbox: Sysbox, image: str, optional: Callable[..., str]
) -> None:
    optional("o=uid=7", "gid=daemon")
    gid = grp.getgrnam("daemon").gr_gid
    assert run(sysbox, image, "/home", "stat -c %u:%g /home; ls /home") == f"7:{gid}\nuser"
    assert CONTENT.stat().st_uid == 7


def test_a_volume_that_stays_empty(
    sysbox: Sysbox, image: str, optional: Callable[..., str]
) -> None:
    optional("nocopy")
    assert run(sysbox, image, "/home", "ls /home") == ""


def test_a_volume_with_other_options_is_kept(sysbox: Sysbox, optional: Callable[..., str]) -> None:
    optional("o=uid=7")
    optional("o=uid=7")
    done = sysbox("volume", "create", NAME)
    assert (done.returncode, "exists with other options" in done.stderr) == (1, True)
    done = sysbox("volume", "create", "--ignore", NAME, check=True)
    assert (done.stdout, "which it keeps" in done.stderr) == (f"{NAME}\n", True)
    assert CONTENT.stat().st_uid == 7
