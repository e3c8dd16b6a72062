"""User namespaces: root inside is nobody outside, and no file changes its owner for it.

In the guest: Linux 6.1 maps the layers of an overlay by another path, and the scope is on cgroup v2.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Container, Containers
from lane import Sysbox

from sysbox.base.paths import CONTAINERS, IMAGES, VOLUMES

MAPPED = ("--userns", "auto")
FIRST = 100_000  # the lowest id that root inside may have


def ids(container: Container, file: str = "uid_map") -> tuple[int, int, int]:
    """(inside, outside, count) of its one map."""
    inside, outside, count = Path(f"/proc/{container.pid}/{file}").read_text().split()
    return int(inside), int(outside), int(count)


def owner(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid


def stamps(directory: Path) -> dict[str, tuple[int, int, int]]:
    """Owner, group and time of change of everything below a directory."""
    found = {}
    for above, names, files in os.walk(directory):
        for name in (".", *names, *files):
            status = os.lstat(f"{above}/{name}")
            found[f"{above}/{name}"] = status.st_uid, status.st_gid, status.st_ctime_ns
    return found


@pytest.fixture
def volume(sysbox: Sysbox) -> Iterator[Path]:
    """The content of a volume named kept."""
    sysbox("volume", "create", "kept", check=True)
    yield Path(VOLUMES) / "kept/_data"
    sysbox("volume", "rm", "kept", check=True)


def test_root_inside_is_nobody_outside(containers: Containers) -> None:
    one, two = containers(*MAPPED), containers(*MAPPED)
    ps = subprocess.run(
        ["ps", "-o", "uid=,gid=", "-p", str(one.pid)], capture_output=True, text=True, check=True
    )
    assert min(map(int, ps.stdout.split())) >= FIRST
    for file in ("uid_map", "gid_map"):
        ranges = [ids(each, file) for each in (one, two)]
        assert all(inside == 0 and outside >= FIRST for inside, outside, _ in ranges)
        (_, low, count), (_, high, _) = sorted(ranges)
        assert low + count <= high
    assert one.sh("id -u; cat /proc/self/uid_map").split()[:2] == ["0", "0"]


def test_files_keep_the_owners_that_they_have_inside(containers: Containers, volume: Path) -> None:
    layers = Path(IMAGES) / "layers"
    before = stamps(layers)
    one = containers(*MAPPED, "-v", "kept:/data")
    one.sh("touch /file /data/file; chown 1000:100 /data/file; chown 7 /bin; rm /etc/passwd")
    assert one.sh("stat -c %u:%g /file /data/file /bin").split() == ["0:0", "1000:100", "7:0"]
    upper = Path(CONTAINERS) / one.id / "upper"
    assert (owner(upper / "file"), owner(upper / "bin")) == ((0, 0), (7, 0))
    assert owner(volume / "file") == (1000, 100)
    one("restart", "-t", "0")
    assert one.sh("stat -c %u:%g /file /data/file /bin").split() == ["0:0", "1000:100", "7:0"]
    assert stamps(layers) == before
    one("rm", "-f")


def test_the_same_range_at_each_start(containers: Containers) -> None:
    one = containers(*MAPPED)
    before = ids(one)
    one("restart", "-t", "0")
    assert ids(one) == before


@pytest.fixture
def subids() -> Iterator[Callable[[str], None]]:
    """`subids(LINE)` adds a line to /etc/subuid and to /etc/subgid until the end of the test."""
    files = [Path("/etc/subuid"), Path("/etc/subgid")]
    before = [file.read_bytes() if file.exists() else None for file in files]

    def add(line: str) -> None:
        for file, text in zip(files, before, strict=True):
            file.write_bytes((text or b"") + line.encode() + b"\n")

    yield add
    for file, text in zip(files, before, strict=True):
        file.unlink() if text is None else file.write_bytes(text)


def test_ids_that_another_user_gets_later(
    containers: Containers, sysbox: Sysbox, volume: Path, subids: Callable[[str], None]
) -> None:
    """The next start takes others; those of a user namespace that is shared stay, and doctor tells."""
    one, two = containers(*MAPPED, "-v", "kept:/data"), containers(*MAPPED)
    one.sh("touch /file /data/file")
    inside, outside, count = ids(one)
    subids(f"alice:{outside + 10}:1000")
    assert f"alice:{outside + 10}:1000 of /etc/subuid is within" in sysbox("doctor").stdout
    one("restart", "-t", "0")
    _, other, _ = ids(one)
    assert abs(other - outside) >= count
    assert abs(other - ids(two)[1]) >= count
    assert ids(one, "gid_map") == ids(one) == (inside, other, count)
    assert one.inspect("HostConfig.IDMappings.UidMap") == [f"0:{other}:{count}"]
    assert one.sh("stat -c %u:%g /file /data/file").split() == ["0:0", "0:0"]
    assert owner(volume / "file") == (0, 0)
    assert "is within" not in sysbox("doctor").stdout
    beside = containers("--network", f"container:{one.id}")
    subids(f"alice:{other}:1")
    one("restart", "-t", "0")
    assert ids(one) == (inside, other, count)
    assert f"alice:{other}:1 of /etc/subuid is within" in sysbox("doctor").stdout
    beside("rm", "-f")
    one("rm", "-f")


def test_a_read_only_volume_stays_so(containers: Containers, tmp_path: Path) -> None:
    """Even for CAP_SYS_ADMIN inside: the kernel keeps locked what was mounted outside."""
    one = containers(*MAPPED, "--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined",
                     "-v", f"{tmp_path}:/ro:ro", "-v", f"{tmp_path}:/rw")  # fmt: skip
    script = (
        "mount -o remount,rw,bind /ro; touch /ro/x; mkdir /m; mount --bind /ro /m;"
        "mount -o remount,rw,bind /m; touch /m/x; touch /rw/y; mount -t tmpfs none /m && echo own"
    )
    assert one.exec("sh", "-c", script) == "own"
    assert [path.name for path in tmp_path.iterdir()] == ["y"]


def test_a_bind_mount_of_the_hosts_ids(containers: Containers, tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 0)
    one = containers(*MAPPED, "-v", f"{tmp_path}:/a", "-v", f"{tmp_path}:/b:noidmap")
    assert one.sh("stat -c %u /a /b").split() == ["0", "65534"]
    assert "denied" in one.exec("sh", "-c", "touch /b/file 2>&1 || true")


def test_users_inside(containers: Containers, sysbox: Sysbox, image: str) -> None:
    one = containers(*MAPPED, "-u", "1000:50")
    _, outside, _ = ids(one)
    status = Path(f"/proc/{one.pid}/status").read_text()
    assert f"Uid:\t{outside + 1000}\t" in status
    assert f"Gid:\t{outside + 50}\t" in status
    assert one.exec("id", "-u") == "1000"
    assert one.exec("id", "-u", flags=("-u", "0")) == "0"
    # through a pipe of the caller's, which belongs to the user inside
    for verb in (("run", "--rm", *MAPPED, "-u", "1000", image), ("exec", one.id)):
        done = sysbox(*verb, "sh", "-c", "echo out >/dev/stdout; echo err >/dev/stderr")
        assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_an_id_outside_the_map(sysbox: Sysbox, image: str) -> None:
    done = sysbox("run", "--rm", *MAPPED, "-u", "70000", image, "true")
    assert done.returncode == 125
    assert "70000" in done.stderr


@pytest.mark.parametrize("flags", [("--userns", "auto:size=1"), ("--uidmap", "0:200000:1")])
def test_few_ids(sysbox: Sysbox, image: str, flags: tuple[str, ...]) -> None:
    """Terminals belong to the group 5, where it exists."""
    done = sysbox("run", "--rm", *flags, image, "sh", "-c", "id -u; ls /dev/pts")
    assert done.stdout.split() == ["0", "ptmx"], done.stderr


def test_a_working_directory_of_a_stranger(sysbox: Sysbox, image: str, volume: Path) -> None:
    volume.chmod(0o700)
    os.chown(volume, 70000, 70000)
    done = sysbox("run", "--rm", *MAPPED, "-v", "kept:/a", "-w", "/a", image, "true")
    assert done.returncode == 125
    assert "working directory /a: Permission denied" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_a_device_and_a_limit(containers: Containers) -> None:
    """What only the host's root may do is done before the user namespace is entered."""
    one = containers(*MAPPED, "--device", "/dev/null:/dev/a/b", "--device", "/dev/zero:/opt/zero",
                     "--ulimit", "nofile=100:200")  # fmt: skip
    assert one.sh("echo x >/dev/a/b; head -c 3 /opt/zero | wc -c") == "3"
    assert one.sh("ulimit -n; ulimit -Hn").split() == ["100", "200"]
    # but inside nobody makes one
    assert "not permitted" in one.exec("sh", "-c", "mknod /x c 1 3 2>&1 || true")


def test_what_is_mounted_inside(containers: Containers) -> None:
    one = containers(*MAPPED, "--tmpfs", "/scratch:mode=1777", "--shm-size", "1m")
    found = one.sh("stat -f -c %T /proc /sys /dev /dev/pts /dev/shm /scratch")
    assert found.split() == ["proc", "sysfs", "tmpfs", "devpts", "tmpfs", "tmpfs"]
    assert one.sh("stat -c %u /dev /dev/shm /dev/pts/ptmx /scratch").split() == ["0"] * 4
    assert "ead-only" in one.exec("sh", "-c", "echo 1 2>&1 >/proc/sys/kernel/panic || true")


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid"])
def test_another_containers_namespace(containers: Containers, kind: str, volume: Path) -> None:
    """Who joins one namespace of a container is in its user namespace, which owns the others."""
    one = containers(*MAPPED, "--name", "first")
    two = containers(f"--{kind}", "container:first", "-v", "kept:/data")
    assert two.namespace("user") == one.namespace("user")
    file = {"network": "net"}.get(kind, kind)
    assert two.namespace(file) == one.namespace(file)
    two.sh("touch /data/two; stat -c %u /data/two")
    assert owner(volume / "two") == (0, 0)
    if kind == "pid":
        assert "sleep" in two.sh("ps")
    two("rm", "-f")


@pytest.mark.parametrize(
    "flags",
    [
        ("--privileged",), ("--pid", "host"), ("--network", "host"), ("--ipc", "host"),
        ("--uts", "host"), ("--cgroupns", "host"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_means_the_hosts(containers: Containers, flags: tuple[str, ...]) -> None:
    one = containers(*flags)
    assert one.namespace("user") == os.readlink("/proc/1/ns/user")


def test_a_failure_leaves_nothing(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = sysbox("run", "--rm", *MAPPED, "-v", f"{tmp_path}/file:/etc", image, "true")
    assert done.returncode == 125
    assert "over the directory /etc" in done.stderr
    done = sysbox("run", "--rm", *MAPPED, image, "/nosuch")
    assert done.returncode == 127


def test_a_volume_that_cannot_be_mapped(
    containers: Containers, sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    """On overlayfs: by default the container is in the host's user namespace, which is said in one line."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    place = tmp_path / "merged"
    options = f"lowerdir={tmp_path}/lower,upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "none", place, "-o", options], check=True)
    try:
        done = sysbox(
            "run", "--rm", "-v", f"{place}:/data", image, "cat", "/proc/self/uid_map", check=True
        )
        assert done.stdout.split() == ["0", "0", "4294967295"]
        (line,) = done.stderr.splitlines()
        assert f"the kernel cannot map the ids of {place}" in line
        done = sysbox("run", "--rm", *MAPPED, "-v", f"{place}:/data", image, "true")
        assert done.returncode == 125
        assert f"the kernel cannot map the ids of {place}" in done.stderr
        assert "--userns host" in done.stderr
        # where nothing can be written it is mounted as it is
        one = containers("-v", f"{place}:/data:ro")
        assert one.sh("stat -c %u /data") == "65534"
        one("rm", "-f")
    finally:
        subprocess.run(["umount", place], check=True)
