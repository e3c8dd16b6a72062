"""Paths that are hidden or shown on request: mask=, unmask=, systempaths=, proc-opts= of --security-opt.

In `run`, in `exec` and after a restart.

In the guest: another kernel has other files, and one hierarchy of cgroups.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers
from lane import Sysbox

from sysbox.security import paths as protected


def runs(one: Container) -> Iterator[Container]:
    """The container in its first run, and in the next."""
    yield one
    one("restart", "-t", "0")
    yield one


def opts(*texts: str) -> tuple[str, ...]:
    return tuple(word for text in texts for word in ("--security-opt", text))


def mounts(one: Container) -> dict[str, set[str]]:
    """Mount point -> the options of what is mounted there, and of its file system."""
    lines = (line.split() for line in one.exec("cat", "/proc/mounts").splitlines())
    return {fields[1]: set(fields[3].split(",")) for fields in lines}


@pytest.fixture
def secrets(tmp_path: Path) -> str:
    """A directory with a secret file, and a directory with another."""
    (tmp_path / "directory").mkdir()
    for path in (tmp_path / "file", tmp_path / "directory" / "file", tmp_path / "shown"):
        path.write_text("secret\n")
    return str(tmp_path)


# --- mask= -----------------------------------------------------------------------------------------


@pytest.mark.guest("another kernel")
@pytest.mark.parametrize("more", [(), ("--privileged",)], ids=["plain", "privileged"])
def test_what_is_masked_shows_nothing(
    containers: Containers, secrets: str, more: tuple[str, ...]
) -> None:
    wanted = opts("mask=/data/file:/data/directory/", "mask=/proc/uptime:/nosuch:/sys/fs/cgroup")
    one = containers(*more, "-v", f"{secrets}:/data", *wanted)
    for again in runs(one):
        assert again.sh("cat /data/file /proc/uptime; ls -A /data/directory /sys/fs/cgroup") == (
            "/data/directory:\n\n/sys/fs/cgroup:"
        )
        assert again.sh("cat /data/shown; ls -d /nosuch || true") == "secret"
        # a mask is read-only, and the container cannot take it away
        assert again.sh("(echo x >/data/directory/new) 2>&1 || true").endswith(
            "Read-only file system"
        )
    if not more:
        assert "not permitted" in one.sh("umount /data/directory 2>&1 || true")
    assert Path(secrets, "file").read_text() == "secret\n"
    asked = ["/data/file", "/data/directory", "/proc/uptime", "/nosuch", "/sys/fs/cgroup"]
    assert one.inspect("HostConfig.MaskedPaths")[-len(asked) :] == asked
    assert one.inspect("HostConfig.SecurityOpt") == ["mask=" + ":".join(asked)]


def test_a_link_of_the_image_does_not_lead_a_mask_away(
    containers: Containers, secrets: str
) -> None:
    """The path that was named shows nothing, and no other file is covered for it."""
    Path(secrets, "link").symlink_to("/data/shown")
    Path(secrets, "up").symlink_to("../../../../etc")
    one = containers("-v", f"{secrets}:/data", *opts("mask=/data/link:/data/up/os-release"))
    assert one.sh("cat /data/link 2>/dev/null || true; cat /data/shown") == "secret"
    # a link on the way is resolved inside the container
    assert one.sh("cat /data/up/os-release /etc/os-release") == ""
    assert "ID" in Path("/etc/os-release").read_text()


# --- unmask= and systempaths= ----------------------------------------------------------------------


def test_one_path_is_unmasked(containers: Containers) -> None:
    one = containers(*opts("unmask=/proc/keys:/proc/[s]ys/"))
    for again in runs(one):
        assert "keyring" in again.exec("cat", "/proc/keys")
        assert "/proc/sys" not in mounts(again)
        assert "ro" in mounts(again)["/sys"]
    masked, read_only = (
        one.inspect(f"HostConfig.{name}") for name in ("MaskedPaths", "ReadonlyPaths")
    )
    assert set(protected.MASKED) - set(masked) == {"/proc/keys"}
    assert set(protected.READ_ONLY) - set(read_only) == {"/proc/sys"}
    assert one.inspect("HostConfig.SecurityOpt") == ["unmask=/proc/keys:/proc/[s]ys"]


def test_a_pattern_stays_in_its_directory(containers: Containers) -> None:
    """podman's rule: `*` matches no slash, and a directory does not stand for what is below it."""
    one = containers(*opts("unmask=/proc/*", "unmask=/sys"))
    masked = one.inspect("HostConfig.MaskedPaths")
    assert masked
    assert all(path.startswith("/sys/") for path in masked)
    assert one.inspect("HostConfig.ReadonlyPaths") == []
    assert "rw" in mounts(one)["/sys"]
    assert one.sh("ls -A /sys/firmware") == ""
    assert "keyring" in one.exec("cat", "/proc/keys")


@pytest.mark.parametrize("text", ["systempaths=unconfined", "unmask=ALL", "unmask=all"])
def test_all_of_them(containers: Containers, text: str) -> None:
    one = containers(*opts(text, "mask=/proc/uptime"))
    for again in runs(one):
        assert "keyring" in again.exec("cat", "/proc/keys")
        assert not {"/proc/sys", "/sys/firmware", "/proc/sysrq-trigger"} & set(mounts(again))
        assert again.exec("cat", "/proc/uptime") == ""
    assert one.inspect("HostConfig.MaskedPaths") == ["/proc/uptime"]
    assert one.inspect("HostConfig.ReadonlyPaths") == []
    assert one.inspect("HostConfig.SecurityOpt") == ["mask=/proc/uptime", "unmask=ALL"]


# --- proc-opts= ------------------------------------------------------------------------------------


@pytest.mark.guest("another kernel")
def test_processes_of_others_are_hidden(containers: Containers) -> None:
    one = containers(*opts("proc-opts=hidepid=2"))
    for again in runs(one):
        assert mounts(again)["/proc"] & {"hidepid=2", "hidepid=invisible"}
        assert again.sh("ls -d /proc/1") == "/proc/1"
        seen = "ls -d /proc/1 2>/dev/null; ls -d /proc/self/"
        assert again.exec("sh", "-c", seen, flags=("-u", "user")) == "/proc/self/"
    assert one.inspect("HostConfig.SecurityOpt") == ["proc-opts=hidepid=2"]
    # it is the container's own mount
    assert "hidepid" not in Path("/proc/mounts").read_text(encoding="utf-8")
    other = containers()
    assert other.exec("ls", "-d", "/proc/1", flags=("-u", "user")) == "/proc/1"


def test_but_not_from_a_group(containers: Containers) -> None:
    one = containers(*opts("proc-opts=hidepid=invisible,gid=2000"))
    # user is in the group 2000
    assert one.exec("ls", "-d", "/proc/1", flags=("-u", "user")) == "/proc/1"
    seen = "ls -d /proc/1 2>/dev/null; ls -d /proc/self/"
    assert one.exec("sh", "-c", seen, flags=("-u", "31337:31337")) == "/proc/self/"


def test_proc_without_the_rest(containers: Containers) -> None:
    one = containers(*opts("proc-opts=subset=pid"))
    assert one.sh("ls /proc | grep -v '^[0-9]*$'") == "self\nthread-self"


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (opts("mask=relative"), "'relative' is not an absolute path"),
        (opts("mask=/a/../b"), "'/a/../b' is not an absolute path"),
        (opts("mask=/proc/keys:"), "'' is not an absolute path"),
        (opts("mask=/"), "/ cannot be masked"),
        (opts("mask=/a:/proc/"), "/proc cannot be masked"),
        ((*opts("mask=/data"), "-v", "/usr:/data"), "a bind is mounted there"),
        ((*opts("mask=/data"), "--tmpfs", "/data"), "a tmpfs is mounted there"),
        (opts("mask="), "mask=: it lacks a value"),
        (opts("unmask=proc/keys"), "'proc/keys' is not an absolute path"),
        (opts("unmask=/proc/[a"), "/proc/[a is not a pattern"),
        (opts("systempaths=confined"), "'confined' is not a value of systempaths"),
        (opts("proc-opts=hidepid=9"), "'hidepid=9' is not an option of /proc"),
        (opts("proc-opts=hidepid=2,rw"), "'rw' is not an option of /proc"),
        (opts("proc-opts=gid=4294967295"), "'gid=4294967295' is not an option of /proc"),
        (opts("proc-opts="), "proc-opts=: it lacks a value"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "create"])
def test_bad_input(
    sysbox: Sysbox, image: str, verb: str, flags: tuple[str, ...], says: str
) -> None:
    done = sysbox(verb, *flags, image, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_the_proc_of_another_container_is_as_it_is(
    containers: Containers, sysbox: Sysbox, image: str
) -> None:
    one = containers()
    done = sysbox(
        "run", "--rm", "--pid", f"container:{one.id}", *opts("proc-opts=hidepid=2"), image, "true"
    )
    assert done.returncode == 125
    assert f"/proc is that of --pid container:{one.id}" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
