"""`:U` and `:idmap=`: whose files of a volume are whose inside, and that nothing on disk changes.

In the guest: Linux 6.1 keeps the user namespace of a mount's map, later kernels copy the map.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers
from lane import Sysbox
from test_userns import ids, owner, stamps

from sysbox.base.paths import VOLUMES

MODES = [("--userns", "auto"), ("--userns", "host")]
BOTH = pytest.mark.parametrize("mode", MODES, ids=["auto", "host"])


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory of 1000:1001, with files of several users."""
    top = tmp_path / "tree"
    top.mkdir()
    for name, uid, gid in (
        ("its", 1000, 1001), ("roots", 0, 0), ("users", 999, 998), ("other", 7, 8), ("mixed", 1000, 8),
        ("far", 70000, 70001),
    ):  # fmt: skip
        (top / name).write_text(name)
        os.chown(top / name, uid, gid)
        (top / name).chmod(0o640)
    os.chown(top, 1000, 1001)
    return top


@pytest.fixture
def volume(sysbox: Sysbox) -> Iterator[Path]:
    """The content of a new volume named owned."""
    sysbox("volume", "create", "owned", check=True)
    yield Path(VOLUMES) / "owned/_data"
    sysbox("volume", "rm", "owned", check=True)


def shown(container: Container, *names: str) -> list[str]:
    """uid:gid of files of /data, as the container sees them."""
    return container.sh("cd /data; stat -c %u:%g " + " ".join(names)).split()


@pytest.mark.guest("Linux 6.1 has the namespace of a map, not the map")
@BOTH
def test_the_users_is_what_the_owner_owns(
    containers: Containers, tree: Path, mode: tuple[str, ...]
) -> None:
    before = stamps(tree)
    made = containers(*mode, "-u", "999:998", "-v", f"{tree}:/data:U")
    names = (".", "its", "users", "roots", "other", "mixed")
    assert shown(made, *names) == ["999:998", "999:998", "1000:1001", "0:0", "7:8", "999:8"]
    # far: outside of the map of the one, an ordinary id for the other
    assert shown(made, "far") == ["65534:65534" if mode[1] == "auto" else "70000:70001"]
    assert made.sh("cat /data/its") == "its"
    assert "denied" in made.exec("sh", "-c", "cat /data/users 2>&1 || true")
    assert stamps(tree) == before, "not even a time of change"
    made.sh("echo x >/data/new; mkdir /data/dir; echo more >>/data/its")
    assert owner(tree / "new") == owner(tree / "dir") == owner(tree / "its") == (1000, 1001)
    # who is root inside has all, and what it makes is root's
    made.exec(
        "sh",
        "-ec",
        "touch /data/made; cat /data/users; chown 999:998 /data/other",
        flags=("-u", "0"),
    )
    assert (owner(tree / "made"), owner(tree / "other")) == ((0, 0), (1000, 1001))
    left = stamps(tree)
    made("restart", "-t", "0")
    assert shown(made, ".", "new") == ["999:998", "999:998"]
    made("rm", "-f")
    assert stamps(tree) == left


@BOTH
def test_root_is_what_a_user_is_on_disk(
    containers: Containers, tree: Path, mode: tuple[str, ...]
) -> None:
    """The case of a source tree at home: root inside works as the user who owns it."""
    made = containers(*mode, "-v", f"{tree}:/data:U")
    assert shown(made, ".", "its", "roots", "users") == ["0:0", "0:0", "1000:1001", "999:998"]
    made.sh("echo x >/data/new; chown 1000:1001 /data/its")
    assert (owner(tree / "new"), owner(tree / "its")) == ((1000, 1001), (0, 0))


def test_the_user_is_looked_up_in_the_image(containers: Containers, tree: Path) -> None:
    os.chown(tree, 5, 6)
    for mode in MODES:
        made = containers(*mode, "-u", "user", "-v", f"{tree}:/data:U")
        assert made.sh("id -u; id -g; stat -c %u:%g /data") == "1000\n1000\n1000:1000"
        made("rm", "-f")


@BOTH
def test_an_owner_outside_of_the_map(
    containers: Containers, tree: Path, mode: tuple[str, ...]
) -> None:
    os.chown(tree, 1 << 20, 1 << 21)
    made = containers(*mode, "-u", "999:998", "-v", f"{tree}:/data:U")
    assert shown(made, ".") == ["999:998"]
    made.sh("touch /data/new")
    assert owner(tree / "new") == (1 << 20, 1 << 21)


@BOTH
def test_a_file(containers: Containers, tree: Path, mode: tuple[str, ...]) -> None:
    made = containers(*mode, "-u", "999:998", "-v", f"{tree}/other:/data:U")
    assert made.sh("stat -c %u:%g /data; echo x >>/data") == "999:998"
    assert owner(tree / "other") == (7, 8)
    assert (tree / "other").read_text() == "otherx\n"


@BOTH
def test_read_only(containers: Containers, tree: Path, mode: tuple[str, ...]) -> None:
    before = stamps(tree)
    made = containers(*mode, "-u", "999:998", "-v", f"{tree}:/data:ro,U")
    assert made.sh("cat /data/its") == "its"
    assert "ead-only" in made.exec("sh", "-c", "touch /data/new 2>&1 || true")
    assert stamps(tree) == before


@BOTH
def test_what_is_mounted_below(
    containers: Containers, tree: Path, mode: tuple[str, ...], tmp_path: Path
) -> None:
    (tree / "below").mkdir()
    more = tmp_path / "more"
    more.mkdir()
    os.chown(more, 1000, 1001)
    subprocess.run(["mount", "--bind", more, tree / "below"], check=True)
    try:
        made = containers(*mode, "-u", "999:998", "-v", f"{tree}:/data:U")
        made.sh("touch /data/below/new")
        made("rm", "-f")
    finally:
        subprocess.run(["umount", tree / "below"], check=True)
    assert owner(more / "new") == (1000, 1001)


@BOTH
def test_set_user_id_has_no_effect(
    containers: Containers, tree: Path, mode: tuple[str, ...]
) -> None:
    """Else who owns a directory on the host could have a program run as the container's root."""
    program = tree / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    os.chown(program, 1000, 1001)
    program.chmod(0o4755)
    for option, uid in (
        ("U", "33"),
        ("idmap=uids=@1000-0-1;gids=@1001-0-1", "33"),
        ("U,suid", "0"),
    ):
        made = containers(*mode, "-v", f"{tree}:/data:{option}", image="host")
        assert made.exec("stat", "-c", "%u", "/data/id") == "0"
        assert made.exec("/data/id", "-u", flags=("-u", "33")) == uid, option
        made("rm", "-f")


@pytest.mark.guest("Linux 6.1 has the namespace of a map, not the map")
def test_maps_that_are_given(containers: Containers, tree: Path) -> None:
    """In the container by @, else on the host; what is left out has no owner inside."""
    before = stamps(tree)
    made = containers("-v", f"{tree}:/data:idmap=uids=@1000-5-1#@0-0-1;gids=@1001-6-1#@0-0-1")
    found = shown(made, ".", "its", "roots", "users", "mixed")
    assert found == ["5:6", "5:6", "0:0", "65534:65534", "5:65534"]
    assert stamps(tree) == before
    made.exec("sh", "-ec", "touch /data/new", flags=("-u", "5:6"))
    assert owner(tree / "new") == (1000, 1001)
    assert "too large" in made.exec(
        "sh", "-c", "touch /data/x 2>&1 || true", flags=("-u", "9:6")
    ) or (not (tree / "x").exists())
    first = ids(made)[1]
    made("rm", "-f")
    # one side only: the other is the container's own
    made = containers("-v", f"{tree}:/data:idmap=uids=@1000-0-1")
    assert shown(made, "its", "other") == ["0:1001", "65534:8"]
    made("rm", "-f")
    # the host's ids, of which the container has a range
    given = f"idmap=uids=1000-{first + 3}-1;gids=1001-{first + 4}-1"
    made = containers("--uidmap", f"0:{first}:1000", "-v", f"{tree}:/data:{given}")
    assert shown(made, "its", "roots") == ["3:4", "65534:65534"]
    made("rm", "-f")
    made = containers("--userns", "host", "-v", f"{tree}:/data:idmap=uids=1000-77-1;gids=0-0-2000")
    assert shown(made, "its", "roots") == ["77:1001", "65534:0"]
    made.exec("sh", "-ec", "echo x >/data/its", flags=("-u", "77"))
    assert owner(tree / "its") == (1000, 1001)


def test_it_is_shown_and_kept(containers: Containers, tree: Path, sysbox: Sysbox) -> None:
    given = "idmap=uids=@1000-0-1;gids=@1001-0-1"
    made = containers(
        "-v", f"{tree}:/data:ro,{given}", "--mount", f"type=bind,src={tree},dst=/other,U=true"
    )
    assert made.inspect("HostConfig.Binds") == [f"{tree}:/data:ro,{given}"]
    modes = {one["Destination"]: one["Mode"] for one in made.inspect("Mounts")}
    assert modes == {"/data": f"ro,{given}", "/other": "U"}
    made("restart", "-t", "0")
    assert shown(made, ".") == ["0:0"]
    done = sysbox(
        "run", "--rm", "--dry-run", "-v", f"{tree}:/data:{given}", "host", "true", check=True
    )
    assert f"bind {tree} on /data (nosuid), {given}" in done.stdout


def test_another_containers_user_namespace(containers: Containers, tree: Path) -> None:
    containers("--name", "first")
    made = containers("--network", "container:first", "-u", "999:998", "-v", f"{tree}:/data:U")
    assert shown(made, ".", "roots") == ["999:998", "0:0"]
    made("rm", "-f")


@BOTH
def test_a_new_volume(
    containers: Containers, volume: Path, image: str, mode: tuple[str, ...], sysbox: Sysbox
) -> None:
    """It belongs to the container's user, with what the image has there; on disk all is root's."""
    made = containers(*mode, "-u", "999:998", "-v", "owned:/home:U")
    assert made.sh("stat -c %u:%g /home /home/user; touch /home/new") == "999:998\n999:998"
    assert {owner(path) for path in (volume, *volume.iterdir())} == {(0, 0)}
    made("restart", "-t", "0")
    assert made.sh("stat -c %u:%g /home /home/new") == "999:998\n999:998"
    made("rm", "-f")
    # and another user has it as well, without a change on disk
    made = containers(*mode, "-u", "5:5", "-v", "owned:/home:U")
    assert made.sh("stat -c %u:%g /home /home/new") == "5:5\n5:5"
    made("rm", "-f")


@BOTH
def test_what_a_new_volume_takes_from_a_hostile_image(
    containers: Containers, sysbox: Sysbox, volume: Path, mode: tuple[str, ...]
) -> None:
    """A set-user-ID program of somebody's is not root's on disk, and a link's target keeps its owner."""
    made = containers("--userns", "host")
    made.sh(
        "mkdir -p /home/d; cp /bin/busybox /home/d/su; chown -R 1000:1000 /home/d; chmod 6755 /home/d/su;"
        "ln -s /etc/passwd /home/d/link; ln /home/d/su /home/d/hard; mkfifo /home/d/pipe"
    )
    sysbox("commit", made.id, "hostile-volume:test", check=True)
    made("rm", "-f")
    try:
        script = "stat -c '%u:%g:%a' su hard; stat -c %u:%g pipe link /etc/passwd"
        words = ("-u", "999:998", "-w", "/home/d", "-v", "owned:/home:U", "hostile-volume:test")
        done = sysbox("run", "--rm", *mode, *words, "sh", "-ec", script, check=True)
        assert done.stdout.split() == ["999:998:755"] * 2 + ["999:998"] * 2 + ["0:0"]
        assert {owner(path) for path in (volume, *volume.rglob("*"))} == {(0, 0)}
        assert (volume / "d/su").stat().st_mode & 0o7777 == 0o755
    finally:
        sysbox("rmi", "-f", "hostile-volume:test", check=True)


@BOTH
def test_files_in_and_out(
    containers: Containers, tree: Path, mode: tuple[str, ...], sysbox: Sysbox, tmp_path: Path
) -> None:
    """cp has the ids of the container, whether it runs or not."""
    for option in ("U", "idmap=uids=@1000-999-1#@0-0-1;gids=@1001-998-1#@0-0-1"):
        made = containers(*mode, "-u", "999:998", "-v", f"{tree}:/data:{option}")
        for state in ("running", "stopped"):
            if state == "stopped":
                made("stop", "-t", "0")
            out = tmp_path / f"out-{state}"
            sysbox("cp", "-a", f"{made.id}:/data/its", out, check=True)
            assert owner(out) == (999, 998), (option, state)
            sysbox("cp", "-a", out, f"{made.id}:/data/back", check=True)
            assert owner(tree / "back") == (1000, 1001), (option, state)
            sysbox("cp", out, f"{made.id}:/data/plain", check=True)
            assert owner(tree / "plain") == (0, 0), (option, state)
            for path in (out, tree / "back", tree / "plain"):
                path.unlink()
        made("rm", "-f")


def test_a_volume_of_one_that_never_ran(
    containers: Containers, sysbox: Sysbox, volume: Path, tmp_path: Path
) -> None:
    """cp fills it first, as a start does."""
    made = containers("-u", "999:998", "-v", "owned:/home:U", verb=("create",))
    sysbox("cp", f"{made.id}:/home", tmp_path / "home", check=True)
    assert {owner(path) for path in (volume, *volume.iterdir())} == {(0, 0)}
    made("start")
    assert made.sh("stat -c %u:%g /home/user") == "999:998"
    made("rm", "-f")


def test_content_of_ids_outside_of_the_map(
    containers: Containers, sysbox: Sysbox, volume: Path, image: str
) -> None:
    """A new volume does not silently get files of nobody's in place of theirs."""
    made = containers("--userns", "host")
    made.sh(
        "mkdir /far; echo x >/far/file; chown 70000 /far/file; chmod 600 /far/file; chown :70000 /home"
    )
    sysbox("commit", made.id, "far:test", check=True)
    try:
        done = sysbox("run", "--rm", "-v", "owned:/far", "far:test", "true")
        assert done.returncode == 125
        told = "volume /far: owner of the image's /far/file: 70000 is outside the container's ids, which are"
        assert f"{told} 0-65535" in done.stderr
        assert "--userns auto:size=70001" in done.stderr
        done = sysbox("run", "--rm", "-v", "owned:/home", "far:test", "true")
        assert "volume /home: owner of the image's /home: 70000 is outside" in done.stderr
        assert list(volume.iterdir()) == []
        # what helps
        script = "stat -c %u:%g /far/file; cat /far/file"
        words = ("-v", "owned:/far", "far:test", "sh", "-ec", script)
        done = sysbox("run", "--rm", "--userns", "auto:size=70001", *words, check=True)
        assert done.stdout == "70000:0\nx\n"
        assert owner(volume / "file") == (70000, 0)
        done = sysbox(
            "run", "--rm", "--mount", "dst=/far,volume-nocopy", "far:test", "ls", "/far", check=True
        )
        assert done.stdout == ""
    finally:
        made("rm", "-f")
        sysbox("rmi", "-f", "far:test", check=True)
