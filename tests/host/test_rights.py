"""What a container's processes may do by their user: capabilities of a user, groups of the caller, umask.

In `run`, in `exec` and after a restart, read from the kernel.

In the guest: another kernel.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers
from lane import SYSBOX, TIMEOUT, Sysbox

from sysbox.linux import capability
from sysbox.security import capabilities

DEFAULT = capability.mask(capabilities.DEFAULT)
ADDED = capability.mask(("NET_ADMIN", "SYS_TIME"))
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
GROUPS = (4242, 4343)


def fields(text: str) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def sets(text: str) -> tuple[int, ...]:
    """Inheritable, permitted, effective, bounding and ambient set."""
    found = fields(text)
    return tuple(int(found[name], 16) for name in SETS)


def first(one: Container) -> str:
    """The status of its first process, from the host."""
    return Path(f"/proc/{one.pid}/status").read_text(encoding="ascii")


def entered(one: Container, *flags: str) -> str:
    """The status of a process of `exec`."""
    return one.exec("cat", "/proc/self/status", flags=flags)


def runs(one: Container) -> Iterator[Container]:
    """The container in its first run, and in the next."""
    yield one
    one("restart", "-t", "0")
    yield one


def named(*names: str) -> list[str]:
    return [f"CAP_{name}" for name in sorted(names)]


# --- capabilities ----------------------------------------------------------------------------------


@pytest.mark.guest("another kernel")
def test_what_is_added_is_for_the_containers_user(containers: Containers) -> None:
    one = containers("-u", "user", "--cap-add", "net_admin", "--cap-add", "CAP-SYS-TIME")
    whole = DEFAULT | ADDED
    users = (ADDED, ADDED, ADDED, whole, ADDED)
    for again in runs(one):
        assert sets(first(again)) == users
        assert sets(entered(again)) == users
        assert sets(entered(again, "-u", "user")) == users
        assert sets(entered(again, "-u", "0")) == (0, whole, whole, whole, 0)
        # podman's rule: a third user was given nothing
        assert sets(entered(again, "-u", "2000")) == (0, 0, 0, whole, 0)
        assert again.exec("sh", "-c", "id -u; ip link set lo mtu 1400 && echo set") == "1000\nset"
    assert one.inspect("EffectiveCaps") == named("NET_ADMIN", "SYS_TIME")
    assert one.inspect("BoundingCaps") == named(*capabilities.DEFAULT, "NET_ADMIN", "SYS_TIME")
    assert one.inspect("HostConfig.CapAdd") == ["CAP_NET_ADMIN", "CAP_SYS_TIME"]


def test_what_root_has_is_never_ambient(containers: Containers) -> None:
    """An inheritable set of root's could be raised by the capabilities of a file (CVE-2022-24769)."""
    one = containers("-u", "0:0", "--cap-add", "net_admin", "--cap-drop", "MKNOD")
    whole = DEFAULT & ~capability.mask(("MKNOD",)) | capability.mask(("NET_ADMIN",))
    assert sets(first(one)) == (0, whole, whole, whole, 0)
    assert sets(entered(one)) == (0, whole, whole, whole, 0)
    assert one.inspect("EffectiveCaps") == named(*capability.names(whole))
    assert one.inspect("HostConfig.CapDrop") == ["CAP_MKNOD"]


def test_the_user_of_the_image_counts(sysbox: Sysbox, containers: Containers) -> None:
    sysbox("commit", "-c", "USER user", containers().id, "of-a-user:test", check=True)
    try:
        one = containers("--cap-add", "net_admin", image="of-a-user:test")
        added = capability.mask(("NET_ADMIN",))
        assert sets(first(one)) == (added, added, added, DEFAULT | added, added)
        assert sets(entered(one)) == (added, added, added, DEFAULT | added, added)
        one("rm", "-f")
    finally:
        sysbox("rmi", "of-a-user:test", check=True)


@pytest.mark.parametrize(
    ("flags", "effective"),
    [
        ((), 0),
        (("--privileged",), 0),
        (("--privileged", "--cap-add", "net_admin"), capability.mask(("NET_ADMIN",))),
        (("--cap-drop", "ALL", "--cap-add", "kill"), capability.mask(("KILL",))),
        (("--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"), ~capability.mask(("SYS_ADMIN",))),
        (("--security-opt", "no-new-privileges", "--cap-add", "net_admin"), capability.mask(("NET_ADMIN",))),
        (("--security-opt", "seccomp=unconfined", "--cap-add", "chown"), capability.mask(("CHOWN",))),
    ],
)  # fmt: skip
def test_a_user_with(sysbox: Sysbox, image: str, flags: tuple[str, ...], effective: int) -> None:
    words = ("run", "--rm", "--network", "none", "-u", "1000:1000", *flags, image)
    found = sets(sysbox(*words, "cat", "/proc/self/status", check=True).stdout)
    # ALL is more in a user namespace of the container's own than this process has
    bounding = found[3]
    wanted = effective & bounding
    assert found == (wanted, wanted, wanted, bounding, wanted)


# --- groups ----------------------------------------------------------------------------------------


def readable_by_group(directory: Path) -> None:
    """Make a file in it that only one of the GROUPS may read."""
    directory.chmod(0o755)
    file = directory / "file"
    file.write_text("read\n")
    file.chmod(0o640)
    os.chown(file, 0, GROUPS[0])


def test_the_groups_of_the_caller(containers: Containers, image: str, tmp_path: Path) -> None:
    """They are the container's for good: of each run and each `exec`, whoever starts them.

    They are groups of the host, so a mount on which they count has the host's ids.
    """
    readable_by_group(tmp_path)
    words = (
        "run", "-d", "--name", "keeping", "--group-add", "keep-groups", "-u", "1000:1000",
        "-v", f"{tmp_path}:/data:ro,noidmap", image, "sleep", "1000",
    )  # fmt: skip
    subprocess.run(
        [SYSBOX, *words], extra_groups=GROUPS, capture_output=True, check=True, timeout=TIMEOUT
    )
    for one in runs(containers.known("keeping")):
        assert set(GROUPS) <= set(map(int, fields(first(one))["Groups"].split()))
        assert one.exec("cat", "/data/file") == "read"
        assert one.exec("cat", "/data/file", flags=("-u", "user")) == "read"
    assert one.inspect("HostConfig.GroupAdd") == ["keep-groups"]


def test_they_are_not_kept_unless_asked(image: str, tmp_path: Path) -> None:
    readable_by_group(tmp_path)
    words = (
        "run",
        "--rm",
        "-u",
        "1000:1000",
        "-v",
        f"{tmp_path}:/data:ro",
        image,
        "cat",
        "/data/file",
    )
    done = subprocess.run(
        [SYSBOX, *words],
        extra_groups=GROUPS, capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (1, "")
    assert "Permission denied" in done.stderr


# --- umask -----------------------------------------------------------------------------------------


def test_umask(containers: Containers) -> None:
    one = containers("--umask", "027")
    for again in runs(one):
        assert fields(first(again))["Umask"] == "0027"
        assert again.sh("umask; echo >/tmp/made; stat -c %a /tmp/made; rm /tmp/made") == "0027\n640"
        assert again.exec("sh", "-c", "umask", flags=("-u", "user")) == "0027"
    assert one.inspect("Config.Umask") == "0027"
    assert containers().inspect("Config.Umask") == "0022"


# --- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--umask 8", "--umask 8: not a mode"),
        ("--umask 01000", "octal, as in 022 or 0077"),
        ("--umask 7777", "--umask 7777"),
        ("--umask -1", "--umask -1"),
        ("--cap-add net_admn", "did you mean NET_ADMIN?"),
        ("--cap-drop 12", "--cap-drop 12: unknown capability"),
        ("--group-add keep-groups --group-add 5", "--group-add 5: keep-groups excludes other groups"),
        ("--group-add a/b", "--group-add a/b"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["run", "create"])
def test_bad_input(sysbox: Sysbox, image: str, verb: str, flags: str, says: str) -> None:
    done = sysbox(verb, *flags.split(), image, "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 2
