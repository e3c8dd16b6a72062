"""Declarations beside files of a hostile local user, and flags that a declaration may not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from lane import Sysbox

USER = 1000


@pytest.fixture
def shared(tmp_path: Path, image: str) -> Path:
    """A directory in which anyone may make files, as /tmp, with root's declaration."""
    directory = tmp_path / "shared"
    directory.mkdir()
    directory.chmod(0o1777)
    (directory / "web.container").write_text(f"[Container]\nImage={image}\n")
    return directory


def hostile(directory: Path, name: str, text: str) -> Path:
    """A drop-in that the user has made."""
    below = directory / name
    below.mkdir()
    (below / "a.conf").write_text(text)
    for path in (below, below / "a.conf"):
        os.chown(path, USER, USER)
    return below


@pytest.mark.parametrize("name", ["web.container.d", "container.d"])
def test_a_drop_in_of_another_user_is_refused(shared: Path, sysbox: Sysbox, name: str) -> None:
    below = hostile(shared, name, "[Service]\nExecStartPre=/bin/sh -c 'id >/tmp/owned'\n")
    for verb in ("check", "print", "install"):
        done = sysbox("unit", verb, shared / "web.container")
        assert done.returncode == 1
        assert f"{below}: it belongs to uid {USER}: others may change with it what" in done.stderr
    assert not Path("/etc/systemd/system/web.service").exists()
    # neither is a link to a directory of root's; mostly the kernel does not follow it (fs.protected_symlinks)
    below.rename(shared / "kept.d")
    below.symlink_to("kept.d")
    os.chown(below, USER, USER, follow_symlinks=False)
    for path in (shared / "kept.d", shared / "kept.d" / "a.conf"):
        os.chown(path, 0, 0)
    assert "ExecStartPre" not in sysbox("unit", "print", shared / "web.container").stdout
    below.unlink()
    (shared / "kept.d").rename(below)
    assert "ExecStartPre" in sysbox("unit", "print", shared / "web.container").stdout
    below.chmod(0o777)  # all users can put files there
    assert "all users can write it" in sysbox("unit", "check", shared / "web.container").stderr
    below.chmod(0o755)
    os.chown(below / "a.conf", USER, USER)
    done = sysbox("unit", "install", shared / "web.container")
    assert f"{below}/a.conf: it belongs to uid {USER}" in done.stderr


@pytest.mark.parametrize("what", ["directory", "file"])
def test_a_drop_in_that_a_group_can_write_is_refused(
    shared: Path, sysbox: Sysbox, what: str
) -> None:
    below = hostile(shared, "web.container.d", "[Service]\nExecStartPre=/bin/true\n")
    path = below if what == "directory" else below / "a.conf"
    for one in (below, below / "a.conf"):
        os.chown(one, 0, 0)
    path.chmod(0o775)
    assert sysbox("unit", "print", shared / "web.container").returncode == 0  # root's group
    os.chown(path, 0, USER)
    path.chmod(0o775)
    done = sysbox("unit", "install", shared / "web.container")
    assert (done.returncode, f"{path}: group {USER} can write it" in done.stderr) == (1, True)


def test_a_file_of_his_lends_no_trust_to_his_drop_in(shared: Path, sysbox: Sysbox) -> None:
    """He adds a declaration of his own, so that its owner seems to be one of those who may."""
    below = hostile(shared, "web.container.d", "[Service]\nExecStartPre=/bin/touch /root/pwned\n")
    lure = shared / "zz.volume"
    lure.write_text("[Volume]\n")
    os.chown(lure, USER, USER)
    for verb in ("check", "install"):
        for given in ([shared], [shared / "web.container", lure]):
            done = sysbox("unit", verb, *given)
            assert (done.returncode, "it belongs to uid" in done.stderr) == (1, True), done.stderr
    (below / "a.conf").unlink()
    below.rmdir()
    done = sysbox("unit", "install", shared)
    assert f"{lure}: it belongs to uid {USER}: others may have put it into this" in done.stderr
    assert "name each file that is to count" in done.stderr
    assert not Path("/etc/systemd/system/web.service").exists()


def test_a_socket_file_of_his_joins_no_container_of_others(shared: Path, sysbox: Sysbox) -> None:
    socket = shared / "web.socket"
    socket.write_text("[Socket]\nListenStream=8099\nExecStartPre=/bin/touch /root/pwned\n")
    os.chown(socket, USER, USER)
    for given in ([shared], [socket], [shared / "web.container", socket]):
        done = sysbox("unit", "install", *given)
        assert (done.returncode, f"{socket}: it belongs to uid {USER}: " in done.stderr) == (
            1,
            True,
        )
    assert "web.socket" not in sysbox("unit", "print", shared / "web.container", check=True).stdout
    assert not Path("/etc/systemd/system/web.socket").exists()
    os.chown(shared / "web.container", USER, USER)  # his own may have it
    done = sysbox("unit", "print", shared / "web.container", check=True)
    assert "ListenStream=8099" in done.stdout


def test_a_reference_is_not_to_a_file_of_another_user(
    shared: Path, sysbox: Sysbox, image: str
) -> None:
    (shared / "web.container").write_text("[Container]\nImage=base.image\n")
    base = shared / "base.image"
    base.write_text(f"[Image]\nImage={image}\n")
    os.chown(base, USER, USER)
    assert "there is no base.image" in sysbox("unit", "check", shared / "web.container").stderr
    os.chown(base, 0, 0)
    assert sysbox("unit", "check", shared / "web.container").returncode == 0


def test_the_files_of_a_user_may_be_all_of_that_user(shared: Path, sysbox: Sysbox) -> None:
    hostile(shared, "web.container.d", "[Container]\nEnvironment=A=1\n")
    os.chown(shared / "web.container", USER, USER)
    done = sysbox("unit", "print", shared / "web.container", check=True)
    assert "--env=A=1" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("evil", "'evil' would be the image"),
        ("-- evil", "'evil' would be the image"),
        ("--dry-run", "start no container"),
        ("--unit-file /etc/x.container", "start no container"),
    ],
    ids=["word", "end-of-flags", "dry-run", "unit-file"],
)
def test_podman_args_are_flags(shared: Path, sysbox: Sysbox, words: str, said: str) -> None:
    with (shared / "web.container").open("a") as file:
        file.write(f"PodmanArgs={words}\n")
    done = sysbox("unit", "check", shared / "web.container")
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr


def test_what_is_private_is_said_not_to_stay_so(shared: Path, sysbox: Sysbox) -> None:
    assert not sysbox("unit", "check", shared / "web.container", check=True).stderr
    (shared / "web.container").chmod(0o600)
    done = sysbox("unit", "check", shared / "web.container", check=True)
    assert "all users can read the unit" in done.stderr


def test_a_generated_declaration_is_its_owners(shared: Path, sysbox: Sysbox, image: str) -> None:
    file = shared / "new.container"
    sysbox("run", "--unit-file", file, "-e", "PASSWORD=x", image, check=True)
    assert file.stat().st_mode & 0o777 == 0o600
