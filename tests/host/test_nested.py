"""sysbox in a container with systemd and a user namespace of its own, without --privileged.

In the guest: on cgroup v2 its controllers are delegated, so that the inner containers have limits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from containers import V1, Container, Containers
from lane import SYSBOX, Sysbox
from test_inside import boot, tree

from sysbox.linux import capability
from sysbox.security import capabilities

INNER = str(SYSBOX)
PLACE = ("-v", f"{sys.prefix}:{sys.prefix}:ro")
STORE = ("-v", "/var/lib/sysbox")


@pytest.fixture
def outer(containers: Containers) -> Container:
    """A container in which sysbox works."""
    return boot(containers, *PLACE, *STORE)


def map_of(container: Container, pid: str = "self") -> list[str]:
    """The one line of a process's uid_map, as seen in the container."""
    return container.exec("cat", f"/proc/{pid}/uid_map").split()


def test_a_container_in_it(sysbox: Sysbox, outer: Container) -> None:
    done = sysbox("exec", outer.id, INNER, "run", "--rm", "host", "echo", "hello", check=True)
    assert done.stdout == "hello\n"
    (line,) = (one for one in done.stderr.splitlines() if "user namespace" in one)
    assert line.startswith("sysbox: no user namespace of its own, as with --userns host: ")
    made = outer.exec(INNER, "run", "-d", "--name", "inner", "host", "sleep", "1000")
    shown = outer.exec(INNER, "inspect", "-f", "{{.HostConfig.UsernsMode}} {{.State.Pid}}", made)
    mode, pid = shown.split()
    assert mode == "host"
    reason = outer.exec(INNER, "inspect", "-f", "{{.Sysbox.UserNamespace.Reason}}", made)
    assert "is in one already" in reason
    # root there is a stranger to the host, as root of the outer one is
    assert map_of(outer, pid) == map_of(outer)
    assert f"docker-{made}.scope" in tree(outer)
    uid_map = Path(f"/proc/{outer.pid}/uid_map").read_text(encoding="ascii").split()
    assert int(uid_map[1]) >= 100_000
    assert outer.exec(INNER, "exec", "inner", "cat", "/proc/self/uid_map").split() == map_of(outer)
    done = sysbox("exec", outer.id, INNER, "run", "--rm", "--userns", "auto", "host", "true")
    assert done.returncode == 125
    assert "--userns auto: sysbox is in one already" in done.stderr
    outer.exec(INNER, "stop", "-t", "0", "inner")
    outer.exec(INNER, "rm", "inner")


def test_its_network(outer: Container) -> None:
    address = outer.exec(INNER, "run", "--rm", "host", "hostname", "-I")
    assert address.startswith("10.91.")
    script = "cat /proc/net/route | wc -l; cat /proc/sys/net/ipv6/conf/eth0/accept_ra 2>/dev/null || echo 0"
    routes, advertisements = outer.exec(INNER, "run", "--rm", "host", "sh", "-c", script).split()
    assert (int(routes), advertisements) == (3, "0")
    made = outer.exec(INNER, "run", "-d", "-p", "127.0.0.1:8080:80", "host", "sleep", "1000")
    assert outer.exec(INNER, "port", made) == "80/tcp -> 127.0.0.1:8080"
    assert "published    to 10.91." in outer.exec(INNER, "network", "explain", made, "8080")
    outer.exec(INNER, "rm", "-f", made)
    found = outer.exec(INNER, "run", "--rm", "--network", "none", "host", "cat", "/proc/net/dev")
    assert [line.split(":")[0].strip() for line in found.splitlines()[2:]] == ["lo"]


def test_secrets_and_credentials(sysbox: Sysbox, outer: Container) -> None:
    """The outer container has a credential key of its own."""
    script = f"printf v4lue | {INNER} secret create one - && {INNER} secret ls --format '{{{{.Driver}}}}'"
    assert outer.sh(script).splitlines()[1] == "systemd-creds"
    flags = (
        "--secret",
        "one,target=/etc/key,uid=7",
        "--secret",
        "one",
        "--credential",
        "id:/etc/machine-id",
    )
    look = "cat /etc/key /run/secrets/one; stat -c ' %u %a' /etc/key $CREDENTIALS_DIRECTORY/id"
    shown = outer.exec(INNER, "run", "--rm", *flags, "host", "sh", "-c", look)
    assert shown.splitlines() == ["v4luev4lue 7 444", " 0 400"]


def test_it_is_confined_as_any_other(outer: Container) -> None:
    """By covers, capabilities, a filter and devices of its own, which it cannot change for the outer one."""
    look = "cat /proc/self/status; stat -c '%n %t:%T %a' /proc/timer_list /proc/keys /dev/null /dev/zero"
    *status, one, two, null, zero = outer.exec(
        INNER, "run", "--rm", "host", "sh", "-c", look
    ).splitlines()
    fields = dict(line.split(":\t", 1) for line in status)
    assert int(fields["CapBnd"], 16) == capability.mask(capabilities.DEFAULT)
    assert fields["Seccomp"] == "2"
    assert [line.split()[1:] for line in (one, two, null, zero)] == [
        ["1:3", "666"], ["1:3", "666"], ["1:3", "666"], ["1:5", "666"],
    ]  # fmt: skip
    attack = """
        chmod 000 /dev/null /dev/zero /proc/timer_list; chown 7 /dev/null; touch -d 2001-01-01 /dev/zero
        mknod /x c 1 3; umount /proc/timer_list; mount -t tmpfs none /mnt; unshare -m true
        echo x >/dev/null && head -c 3 /dev/zero | wc -c; echo 1 >/proc/sys/kernel/shmmni
        mkdir /sys/fs/cgroup/x /sys/fs/cgroup/systemd/x"""
    flags = ("run", "--rm", "host", "sh", "-c", f"({attack}) 2>/dev/null; true")
    assert outer.exec(INNER, *flags) == "3"
    assert outer.sh("stat -c '%a %u' /dev/null /dev/zero").split() == ["666", "0", "666", "0"]


@pytest.mark.guest("Linux 6.1 mounts its overlays")
def test_layers_and_what_they_hide(outer: Container, sysbox: Sysbox, archive: Path) -> None:
    """A directory that takes the place of one of the image: overlayfs marks it, in the user's attributes."""
    sysbox("cp", archive, f"{outer.id}:/var/lib/sysbox/rootfs.tar", check=True)
    outer.exec(INNER, "import", "/var/lib/sysbox/rootfs.tar", "box:1")
    script = (
        "cd /home/user; touch new; chown 1000 new; rm -r /var/tmp /etc/os-release; mkdir /var/tmp"
    )
    made = outer.exec(INNER, "run", "-d", "box:1", "sh", "-c", f"{script}; >/done; sleep 1000")
    outer.exec(INNER, "exec", made, "sh", "-c", "until [ -e /done ]; do sleep 0.1; done")
    assert outer.exec(INNER, "exec", made, "ls", "-A", "/var/tmp") == ""
    changed = outer.exec(INNER, "diff", made).splitlines()
    assert {"A /home/user/new", "D /etc/os-release", "C /var/tmp"} <= set(changed)
    outer.exec(INNER, "exec", made, "sh", "-c", "rm -r /home/user; mkdir /home/user")
    outer.exec(INNER, "commit", made, "box:2")
    shown = outer.exec(INNER, "run", "--rm", "box:2", "sh", "-c", "ls -A /home/user /etc")
    assert "new" not in shown
    assert "os-release" not in shown
    outer.exec(INNER, "restart", "-t", "0", made)
    assert outer.exec(INNER, "logs", made) == ""
    outer.exec(INNER, "rm", "-f", made)


@pytest.mark.guest("limits are delegated on v2")
def test_limits_and_the_freezer(outer: Container, sysbox: Sysbox) -> None:
    made = outer.exec(INNER, "run", "-d", "host", "sleep", "1000")
    outer.exec(INNER, "pause", made)
    assert outer.exec(INNER, "inspect", "-f", "{{.State.Status}}", made) == "paused"
    outer.exec(INNER, "unpause", made)
    words = ("run", "--rm", "-m", "64m", "host", "cat", "/sys/fs/cgroup/memory.max")
    done = sysbox("exec", outer.id, INNER, *words)
    if V1:
        # the controllers are not the container's: nobody but the host's root may change what they limit
        assert done.returncode == 125
        assert "--memory: the cgroup controller 'memory' is not available" in done.stderr
    else:
        assert done.stdout == f"{64 << 20}\n", done.stderr
    outer.exec(INNER, "rm", "-f", made)


def test_without_a_place_for_its_layers(sysbox: Sysbox, containers: Containers) -> None:
    outer = boot(containers, *PLACE)
    done = sysbox("exec", outer.id, INNER, "run", "--rm", "host", "true")
    assert done.returncode == 125
    assert "is on an overlay itself" in done.stderr
    assert "-v /var/lib/sysbox" in done.stderr


def test_what_the_doctor_says(outer: Container, sysbox: Sysbox) -> None:
    done = sysbox("exec", outer.id, INNER, "doctor")
    assert "Traceback" not in done.stderr
    (line,) = (one for one in done.stdout.splitlines() if "map ids" in one)
    assert "is in one already" in line
