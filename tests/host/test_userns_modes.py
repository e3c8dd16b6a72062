"""Modes of the user namespace, the ids that containers get, and what is said where they get none."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Container, Containers
from lane import Sysbox

from sysbox.base import paths

FIRST = 524288
SLEEP = ("sleep", "60")
Write = Callable[[str], None]


def outside(one: Container, file: str = "uid_map") -> list[tuple[int, ...]]:
    """The map of its first process, as the host has it."""
    text = Path(f"/proc/{one.pid}/{file}").read_text(encoding="ascii")
    return [tuple(map(int, line.split())) for line in text.splitlines()]


def decided(one: Container) -> tuple[object, object]:
    found = one.inspect("Sysbox.UserNamespace")
    return found["Mode"], found["Reason"]


@pytest.fixture
def entries() -> Iterator[Write]:
    """`entries(TEXT)` is the content of /etc/subuid and /etc/subgid for one test."""
    files = [Path("/etc/subuid"), Path("/etc/subgid")]
    before = [file.read_text() if file.exists() else None for file in files]

    def write(text: str) -> None:
        for file in files:
            file.write_text(text)

    yield write
    for file, text in zip(files, before, strict=True):
        if text is None:
            file.unlink(missing_ok=True)
        else:
            file.write_text(text)


def test_a_range_of_its_own(containers: Containers) -> None:
    one, other = (containers("--userns", "auto") for _ in range(2))
    maps = [outside(each) for each in (one, other)]
    assert all(len(each) == 1 for each in maps)
    (first,), (second,) = maps
    assert (first[0], first[2], second[0], second[2]) == (0, 65536, 0, 65536)
    assert {first[1] % 65536, second[1] % 65536} == {0}
    assert abs(first[1] - second[1]) >= 65536
    assert min(first[1], second[1]) >= FIRST
    assert outside(one, "gid_map") == [first]
    assert Path(f"/proc/{one.pid}").stat().st_uid == first[1]
    assert one.exec("id", "-u") == "0"
    assert one.inspect("HostConfig.UsernsMode") == "private"
    assert one.inspect("HostConfig.IDMappings") == {
        "UidMap": [f"0:{first[1]}:65536"],
        "GidMap": [f"0:{first[1]}:65536"],
    }
    assert decided(one) == ("auto", "")


def test_the_same_range_again(containers: Containers) -> None:
    one = containers("--userns", "auto")
    before = outside(one)
    one("restart", "-t", "0")
    assert outside(one) == before
    leases = [name for name in Path(paths.STATE, "ids").iterdir() if name.name.endswith(one.id)]
    assert len(leases) == 1
    one("rm", "-f")
    assert not leases[0].exists()


@pytest.mark.parametrize(
    "flag",
    ["--privileged", "--pid=host", "--network=host", "--ipc=host", "--uts=host", "--cgroupns=host"],
)
def test_flags_that_mean_the_hosts(
    containers: Containers, sysbox: Sysbox, image: str, flag: str
) -> None:
    one = containers(flag)
    reason = flag.replace("=", " ")
    assert decided(one) == ("host", reason)
    assert one.inspect("HostConfig.UsernsMode") == "host"
    assert outside(one) == [(0, 0, 4294967295)]
    plan = sysbox("run", "--dry-run", flag, image, "true", check=True).stdout
    assert f"user namespace host ({reason})" in plan.splitlines()


def test_a_plan(sysbox: Sysbox, image: str) -> None:
    done = sysbox(
        "run",
        "--dry-run",
        "--userns",
        "auto:size=1000,uidmapping=5:1234:1",
        image,
        "true",
        check=True,
    )
    lines = done.stdout.splitlines()
    at = lines.index("user namespace auto")
    assert [line.split(":")[0] for line in lines[at + 1 : at + 5]] == [
        "  users 0-4", "  users 5", "  users 6-999", "  groups 0-999",
    ]  # fmt: skip
    assert lines[at + 2] == "  users 5: 1234"


def test_maps_that_are_given(containers: Containers, entries: Write) -> None:
    one = containers(
        "--uidmap", "0:200000:1000", "--uidmap", "+10:1234", "--gidmap", "0:300000:1000"
    )
    assert outside(one) == [(0, 200000, 10), (11, 200011, 989), (10, 1234, 1)]
    assert outside(one, "gid_map") == [(0, 300000, 1000)]
    assert decided(one) == ("mapped", "")
    one = containers("--userns", "keep-id:uid=999,gid=998,size=2000")
    assert (999, 0, 1) in outside(one)
    assert (998, 0, 1) in outside(one, "gid_map")
    one = containers("--userns", "keep-id")
    assert outside(one) == [(0, 0, 4294967295)]
    assert Path(f"/proc/{one.pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
    entries("alice:700000:1000\nalice:900000:1000\n")
    one = containers("--subuidname", "alice")
    assert outside(one) == [(0, 700000, 1000), (1000, 900000, 1000)]


def test_entries_are_a_limit(
    containers: Containers, entries: Write, sysbox: Sysbox, image: str
) -> None:
    entries("sysbox:100000:65536\nbob:200000:65536\n")
    one = containers("--userns", "auto")
    assert outside(one) == [(0, 100000, 65536)]
    done = sysbox("run", "--rm", "--userns", "auto", image, "true")
    assert done.returncode == 125
    assert "65536 ids of sysbox in a row are not free any more" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sysbox:100000:65536\nbob:165535:1\n", "sysbox:100000:65536 and bob:165535:1 overlap"),
        (
            "sysbox:100000:1000\n",
            "its largest range of sysbox has 1000 ids, the container takes 65536",
        ),
        ("sysbox:0:65536\n", "no 65536 ids of sysbox in a row are free, and no user's or group's"),
    ],
)
def test_entries_that_do_not_do(
    entries: Write, sysbox: Sysbox, image: str, text: str, says: str
) -> None:
    entries(text)
    done = sysbox("create", "--userns", "auto", image, "true")
    assert done.returncode == 125
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--userns auto --network host", "--userns auto and --network host exclude each other"),
        ("--userns nomap --privileged", "--userns nomap and --privileged exclude each other"),
        ("--userns auto --uidmap 0:1:1", "--userns and --uidmap exclude each other"),
        ("--userns own", "--userns own: unknown mode"),
        ("--userns container:nosuch", "no such container: nosuch"),
        ("--userns ns:/dev/null", "--userns ns:/dev/null"),
        ("--userns auto:size=1000 -u 1000", "--user 1000: 1000 is outside the container's ids"),
        ("--userns auto:size=1000 --group-add 5000", "--group-add 5000: 5000 is outside"),
        ("--uidmap 1:200000:10", "nothing is mapped to 0"),
        ("--uidmap 0:200000:10 --uidmap 5:300000:1", "the id 5 in the container is mapped twice"),
        ("--tmpfs /a:uid=70000", "uid= of the tmpfs /a: 70000 is outside the container's ids"),
        ("--tmpfs /a:gid=70000", "gid= of the tmpfs /a: 70000 is outside the container's ids"),
        ("--subuidname nosuchuser", "/etc/subuid has no entry of nosuchuser"),
    ],
)
def test_bad_input(sysbox: Sysbox, image: str, flags: str, says: str) -> None:
    for verb in ("create", "run"):
        done = sysbox(verb, *flags.split(), image, "true")
        assert done.returncode == 125
        assert done.stdout == ""
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 2, done.stderr
        assert all(line.startswith("sysbox: ") for line in done.stderr.splitlines())


def test_with_another_container(containers: Containers, sysbox: Sysbox, image: str) -> None:
    web = containers("--userns", "auto")
    name = str(web.inspect("Name")).removeprefix("/")
    one = containers("--network", f"container:{name}")
    assert decided(one) == (f"container:{web.id}", f"--network container:{name}")
    assert one.namespace("user") == web.namespace("user")
    assert outside(one) == outside(web)
    for flags, says in (
        (("--userns", "host"), "--userns host means the host's user namespace"),
        (("--privileged",), "--privileged means the host's user namespace"),
        (("--userns", "auto"), f"--network container:{name} is in another user namespace"),
    ):
        done = sysbox("run", "--rm", *flags, "--network", f"container:{name}", image, "true")
        assert done.returncode == 125
        assert says in done.stderr
    # its ids are taken as long as the second one has them
    before = outside(web)
    web("rm", "-f")
    other = containers("--userns", "auto")
    assert outside(other)[0][1] != before[0][1]


def test_what_an_administrator_chooses(containers: Containers) -> None:
    file = Path(paths.CONFIGURATION[1], "sysbox.conf.d", "userns.conf")
    made = [one for one in (file.parent.parent, file.parent) if not one.exists()]
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        file.write_text("[Container]\nUserNS=host\n")
        assert decided(containers())[0] == "host"
        assert decided(containers("--userns", "auto"))[0] == "auto"
        file.write_text("[Container]\nUserNS=auto\n")
        assert decided(containers())[0] == "auto"
    finally:
        file.unlink()
        for one in reversed(made):
            one.rmdir()


def test_ids_that_were_left(sysbox: Sysbox) -> None:
    """A lease whose container was never made, or is gone."""
    directory = Path(paths.STATE, "ids")
    directory.mkdir(mode=0o700, exist_ok=True)
    lease = directory / f"{FIRST}-{FIRST}-65536-{'d' * 64}"
    lease.touch()
    assert f"released the ids of {'d' * 12}" in sysbox("gc", check=True).stdout
    assert not lease.exists()


def test_a_lease_that_was_lost(containers: Containers, sysbox: Sysbox) -> None:
    one = containers("--userns", "auto")
    (lease,) = (each for each in Path(paths.STATE, "ids").iterdir() if each.name.endswith(one.id))
    lease.unlink()
    assert "leased the ids of" in sysbox("gc", check=True).stdout
    assert lease.exists()


def test_the_doctor(sysbox: Sysbox, entries: Write) -> None:
    def rows() -> dict[str, dict[str, str]]:
        lines = sysbox("doctor", "--format", "json").stdout.splitlines()
        return {row["Name"]: row for row in map(json.loads, lines) if row["Area"] == "userns"}

    entries("")
    assert [rows()[name]["State"] for name in ("a root of its own", "map ids")] == ["yes", "yes"]
    assert rows()["ranges of ids"]["Detail"].startswith("524288-1879048191")
    entries("sysbox:100000:65536\n")
    found = rows()["ranges of ids"]
    assert (found["State"], "of sysbox: 100000-165535" in found["Detail"]) == ("yes", True)
    entries("sysbox:100000:65536\nbob:100000:1\n")
    found = rows()["ranges of ids"]
    assert (found["State"], "overlap" in found["Detail"]) == ("no", True)


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system that cannot map ids."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = ",".join(f"{name}dir={tmp_path / name}" for name in ("lower", "upper", "work"))
    merged = tmp_path / "merged"
    subprocess.run(["mount", "-t", "overlay", "-o", options, "overlay", merged], check=True)
    yield merged
    subprocess.run(["umount", merged], check=True)


def test_a_volume_that_cannot_be_mapped(
    containers: Containers, sysbox: Sysbox, image: str, overlay: Path
) -> None:
    """The default does without a user namespace, and says so; one that was asked for is refused."""
    volume = f"{overlay}:/data"
    done = sysbox("run", "--rm", "-v", volume, image, "cat", "/proc/self/uid_map", check=True)
    assert done.stdout.split() == ["0", "0", "4294967295"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("sysbox: no user namespace of its own, as with --userns host: ")
    assert str(overlay) in line
    one = containers("-v", volume)
    mode, reason = decided(one)
    assert (mode, str(overlay) in str(reason)) == ("host", True)
    done = sysbox("run", "--rm", "--userns", "auto", "-v", volume, image, "true")
    assert done.returncode == 125
    assert str(overlay) in done.stderr
    assert "--userns host does without; a volume may be mounted with :ro or :noidmap" in done.stderr
    for option in ("ro", "noidmap"):
        one = containers("--userns", "auto", "-v", f"{volume}:{option}")
        assert decided(one)[0] == "auto"


def test_a_range_has_no_ids_that_another_was_given(containers: Containers, sysbox: Sysbox) -> None:
    look = sysbox("run", "--dry-run", "--userns", "auto", "host", "true", check=True).stdout
    start = int(look.partition("users 0-65535: ")[2].partition("-")[0])
    given = containers("--uidmap", f"0:{start + 7}:1000", "--gidmap", "0:200000:1000")
    one = containers("--userns", "auto")
    first = int(Path(f"/proc/{one.pid}/uid_map").read_text().split()[1])
    assert not (first < start + 1007 and start + 7 < first + 65536)
    given("rm", "-f")
    two = containers("--userns", "auto")
    assert int(Path(f"/proc/{two.pid}/uid_map").read_text().split()[1]) == start
