"""The root of a container: volumes, binds, tmpfs, /dev, /etc, what is read-only (S8) and what is not.

In the guest: the kernel is an older one, which knows fewer ways to mount, and files have labels.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from containers import Containers, eventually
from lane import SLOWNESS, SYSBOX, Sysbox

from sysbox.base import paths

READ_ONLY = "Read-only file system"


@pytest.mark.guest("its kernel has no overlay layers by descriptor")
def test_the_writable_layer(containers: Containers, sysbox: Sysbox) -> None:
    """What a container writes is its own, and gone with it; the image is untouched."""
    one, two = containers(), containers()
    one.sh(
        "echo one > /new; rm /etc/os-release; echo more >> /etc/passwd; mkdir /made; mv /home/user /moved"
    )
    assert two.sh("ls /new /made /moved 2>/dev/null || true") == ""
    assert two.sh("grep -c more /etc/passwd || true") == "0"
    upper = Path(one.inspect("GraphDriver.Data.UpperDir"))
    assert (upper / "new").read_text(encoding="ascii") == "one\n"
    one("rm", "-f")
    assert not upper.exists()


def test_the_kernels_file_systems(containers: Containers) -> None:
    """S8: /sys and parts of /proc cannot be written to; /proc is the container's own."""
    one = containers()
    for path in ("/sys/kernel/x", "/proc/sys/kernel/hostname"):
        assert READ_ONLY in one.sh(f"(echo x > {path}) 2>&1 || true"), path
    mounts = one.sh("cat /proc/mounts").replace("seclabel,", "")
    for path in ("/proc/sys", "/proc/irq", "/proc/bus"):
        assert f" {path} proc ro," in mounts
    for line in (
        " /proc proc rw,nosuid,nodev,noexec",
        " /sys sysfs ro,nosuid,nodev,noexec",
    ):
        assert line in mounts
    assert "upperdir" not in one.sh("mount -t tmpfs")
    assert one.sh("ls -d /proc/[0-9]* | wc -l") < "9"
    # no trace of what was there before the root was changed
    assert "/var/lib/sysbox" not in one.sh("grep -v ' / ' /proc/self/mountinfo | cut -d' ' -f5")


def test_its_devices(containers: Containers) -> None:
    one = containers()
    names = one.sh("ls /dev").split()
    expected = "core fd full log mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero".split()
    assert set(expected) - {"core"} <= set(names) <= {*expected, "console"}, names
    assert (
        one.sh("head -c 3 /dev/zero | wc -c; echo x > /dev/null; head -c 4 /dev/urandom | wc -c")
        == "3\n4"
    )
    for name, target in (
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("ptmx", "pts/ptmx"),
    ):
        assert one.sh(f"readlink /dev/{name}") == target
    assert one.sh("stat -c %a:%t:%T /dev/null /dev/shm /dev/mqueue").split()[0] == "666:1:3"
    assert "1777" in one.sh("stat -c %a /dev/shm")


@pytest.mark.parametrize("flags", [("--rm",), ()])
@pytest.mark.parametrize("user", ["0", "1000"])
def test_standard_streams_can_be_opened_anew(
    sysbox: Sysbox, image: str, flags: tuple[str, ...], user: str
) -> None:
    """Many images log to /dev/stdout and /dev/stderr by name."""
    script = "echo a > /dev/stdout; echo b > /dev/stderr; echo c >> /dev/stdout; echo d | tee /dev/stderr"
    done = sysbox("run", "--name", "opener", "-u", user, *flags, image, "sh", "-ec", script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\nc\nd\n", "b\nd\n")
    sysbox("rm", "opener")
    done = sysbox(
        "run", "-d", "--name", "opener", "-u", user, image, "sh", "-ec", script, check=True
    )
    assert sysbox("wait", "opener").stdout == "0\n"
    done = sysbox("logs", "opener")
    assert (done.stdout, done.stderr) == ("a\nc\nd\n", "b\nd\n")
    sysbox("rm", "opener", check=True)


@pytest.mark.parametrize("flags", [("--rm",), ()])
def test_a_file_of_the_callers_is_not_handed_over(
    sysbox: Sysbox, image: str, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    """The container could open it anew, for reading what others wrote and for writing over it."""
    given, output = tmp_path / "given", tmp_path / "output"
    given.write_text("input\n", encoding="ascii")
    output.write_text("earlier\n", encoding="ascii")
    script = "cat; (echo spoilt > /proc/self/fd/0) 2>/dev/null; (cat <&1) 2>/dev/null; echo done"
    with given.open() as source, output.open("a") as sink:
        done = subprocess.run(
            [SYSBOX, "run", *flags, "--name", "reader", "-i", image, "sh", "-c", script],
            stdin=source, stdout=sink, check=False, timeout=30 * SLOWNESS,
        )  # fmt: skip
    sysbox("rm", "reader")
    assert done.returncode == 0
    assert given.read_text(encoding="ascii") == "input\n"
    assert output.read_text(encoding="ascii") == "earlier\ninput\ndone\n"


# mounts of the user's own


def test_bind_mounts(containers: Containers, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    one = containers(
        "-v", f"{tmp_path}:/rw",
        "-v", f"{tmp_path}:/ro:ro",
        "-v", f"{tmp_path}/file:/etc/one-file:ro",
        "-v", f"{tmp_path}/missing:/made",
        "--mount", f"type=bind,src={tmp_path},dst=/long,readonly",
    )  # fmt: skip
    assert one.sh("cat /ro/file /etc/one-file") == "from the host\nfrom the host"
    one.sh("echo more >> /rw/file; echo x > /made/x")
    assert (tmp_path / "file").read_text() == "from the host\nmore\n"
    assert (tmp_path / "missing" / "x").exists()
    for path in ("/ro/new", "/long/new", "/etc/one-file"):
        assert READ_ONLY in one.sh(f"(echo x > {path}) 2>&1 || true")


def test_read_only_holds_below(containers: Containers, tmp_path: Path) -> None:
    """A mount below a read-only bind is read-only as well (CVE-free only if it is recursive)."""
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", below], check=True)
    try:
        one = containers("-v", f"{tmp_path}:/data:ro")
        assert READ_ONLY in one.sh("(echo x > /data/below/x) 2>&1 || true")
        one("rm", "-f")
    finally:
        subprocess.run(["umount", below], check=True)


def test_volumes(containers: Containers, sysbox: Sysbox) -> None:
    """A named volume outlives its containers and is shared; the image's content fills it once."""
    flags = ("-v", "testvolume:/home")
    one = containers(*flags)
    assert one.sh("ls /home") == "user"
    one.sh("echo kept > /home/file; rmdir /home/user")
    two = containers(*flags)
    assert two.sh("ls /home") == "file"
    one("rm", "-f", "-v")
    assert two.sh("cat /home/file") == "kept"
    two("rm", "-f", "-v")
    directory = Path(paths.VOLUMES) / "testvolume"
    assert (directory / "_data" / "file").exists()
    three = containers("-v", "testvolume:/fresh:nocopy")
    assert three.sh("cat /fresh/file") == "kept"
    three("rm", "-f")
    subprocess.run(["rm", "-r", directory], check=True)


def test_copy_up_keeps_owners_and_links(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("-v", "/etc")
    assert one.sh("cat /etc/os-release").startswith("ID=busybox")
    assert one.sh("stat -c %a /etc") == "755"
    # a volume over all of /etc does not hide its names
    assert one.sh("cat /etc/hostname") == one.id[:12]
    two = containers("-v", "/root", "-v", "/tmp")
    assert two.sh("stat -c %a /root /tmp").split() == ["700", "1777"]


def test_tmpfs(containers: Containers) -> None:
    one = containers("--tmpfs", "/small:size=64k,mode=700", "--tmpfs", "/run", "--shm-size", "1m")
    assert one.sh("stat -c %a /small /run").split() == ["700", "1777"]
    assert "No space left" in one.sh("dd if=/dev/zero of=/small/x bs=4k count=20 2>&1 || true")
    assert "No space left" in one.sh("dd if=/dev/zero of=/dev/shm/x bs=64k count=20 2>&1 || true")
    mounts = one.sh("grep ' /run ' /proc/mounts")
    for flag in ("nosuid", "nodev", "noexec"):
        assert flag in mounts


def test_read_only_root(containers: Containers) -> None:
    """--read-only: nothing but what was mounted for writing; /dev/shm and /dev work."""
    one = containers("--read-only", "--tmpfs", "/run", "-v", "/data")
    for path in ("/x", "/etc/x", "/etc/passwd", "/home/user/x"):
        assert READ_ONLY in one.sh(f"(echo x > {path}) 2>&1 || true"), path
    one.sh("echo x > /run/x; echo x > /data/x; echo x > /dev/shm/x; echo x > /dev/null")
    assert "overlay / overlay ro" in one.sh("cat /proc/mounts")


def test_a_symbolic_link_of_the_images_leads_nowhere(
    containers: Containers, tmp_path: Path
) -> None:
    """A mount target behind an absolute link of the container's stays in the container."""
    one = containers("--name", "linked", verb=("create",), command=("sleep", "1000"))
    upper = Path(one.inspect("GraphDriver.Data.UpperDir"))
    one("rm")
    assert not upper.exists()
    secret = tmp_path / "secret"
    secret.mkdir()
    # /var/run -> an absolute path that exists on the host
    two = containers(
        "-v", f"{tmp_path}:/src", command=("sh", "-c", f"ln -sfn {secret} /link; sleep 1000")
    )
    eventually(lambda: two.sh("readlink /link || true") == str(secret), "it has made the link")
    assert list(secret.iterdir()) == []


# names


def test_hosts_hostname_and_resolver(containers: Containers) -> None:
    one = containers(
        "-h", "box.example", "--add-host", "db:10.0.0.7", "--add-host", "gate:host-gateway"
    )
    assert one.sh("hostname") == "box.example"
    assert one.sh("cat /etc/hostname") == "box.example"
    address = one.inspect("NetworkSettings.IPAddress")
    hosts = [line.split() for line in one.sh("cat /etc/hosts").splitlines()]
    assert ["10.0.0.7", "db"] in hosts
    assert [one.inspect("NetworkSettings.Gateway"), "gate"] in hosts
    assert any(line[0] == address and "box.example" in line for line in hosts)
    assert any(line[:2] == ["127.0.0.1", "localhost"] for line in hosts)
    assert one.sh("grep -c ^nameserver /etc/resolv.conf") >= "1"
    assert one.sh("grep '^nameserver 127' /etc/resolv.conf || true") == ""
    two = containers()
    assert two.sh("hostname") == two.id[:12]
    # they are the container's to change, and nobody else's
    two.sh("echo 10.0.0.8 mine >> /etc/hosts")
    assert "mine" not in one.sh("cat /etc/hosts")
    assert "mine" not in Path("/etc/hosts").read_text(encoding="utf-8")


@pytest.mark.parametrize("mode", ["auto", "host"])
def test_with_a_directory_at_etc(
    containers: Containers, sysbox: Sysbox, tmp_path: Path, mode: str
) -> None:
    """Over the files of these names that it has; one that it lacks is made, or left out if none can be."""
    (tmp_path / "hosts").write_text("10.0.0.9 theirs\n")
    (tmp_path / "mine").touch()
    one = containers("--userns", mode, "--add-host", "db:10.0.0.7", "-v", f"{tmp_path}:/etc:ro")
    assert one.sh("ls /etc").split() == ["hosts", "mine"]
    assert "10.0.0.7\tdb" in one.sh("cat /etc/hosts")
    assert "theirs" not in one.sh("cat /etc/hosts")
    assert one.exec("hostname") == one.id[:12]
    one("restart", "-t", "0")
    one("stop", "-t", "0")
    # what is mounted for a copy is the same
    assert "10.0.0.7\tdb" in sysbox("cp", f"{one.id}:/etc/hosts", "-", check=True).stdout
    assert sysbox("cp", f"{one.id}:/etc/hostname", "-").returncode == 1
    own = tmp_path / "own"
    own.write_text("10.0.0.8 own\n")
    two = containers("--userns", mode, "-v", f"{tmp_path}:/etc:ro", "-v", f"{own}:/etc/hosts:ro")
    assert two.sh("cat /etc/hosts") == "10.0.0.8 own"
    three = containers("--userns", mode, "-v", f"{tmp_path}:/etc")
    assert three.sh("cat /etc/hostname") == three.id[:12]
    assert (tmp_path / "hostname").read_text() == ""
    assert (tmp_path / "hosts").read_text() == "10.0.0.9 theirs\n"


def test_the_hosts_names_with_the_hosts_network(containers: Containers) -> None:
    one = containers("--network", "host", "--uts", "host")
    assert one.sh("hostname") == os.uname().nodename


def test_the_working_directory(sysbox: Sysbox, image: str) -> None:
    done = sysbox(
        "run", "--rm", "-w", "/made/for/it", image, "sh", "-c", "pwd; cd ..; pwd", check=True
    )
    assert done.stdout.split() == ["/made/for/it", "/made/for"]
    for path in ("/proc/self/fd/7", "/proc/self/fd/8", "/proc/self/fd/9"):
        assert sysbox("run", "--rm", "-w", path, image, "pwd").returncode == 125


def test_the_image_host(sysbox: Sysbox) -> None:
    """The machine's /usr, read-only, below an /etc and /var of its own: no secrets, no homes."""
    # `!` before a command would take it from what -e ends the shell for
    script = """if touch /usr/x 2>/dev/null; then exit 3; fi
    if grep -q '^root:[^*!x:]' /etc/shadow; then exit 4; fi; ls -A /root /home"""
    done = sysbox("run", "--rm", "host", "/bin/sh", "-ec", script, check=True)
    assert done.stdout.split() in ([], ["/home:", "/root:"], ["/root:", "/home:"])
