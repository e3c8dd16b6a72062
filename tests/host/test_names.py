"""What a container is called, what it resolves, and the files that say so (S16).

In the guest: the cgroups that a container's systemd makes are those of v2, and so is their bound.
"""

from __future__ import annotations

import posix
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from containers import V1, Containers
from lane import SYSBOX, Sysbox


def test_in_the_network_of_another_container(containers: Containers, sysbox: Sysbox) -> None:
    """It has the name that belongs to the address, and what the other resolves."""
    one = containers("--hostname", "first.example", "--add-host", "db:192.0.2.9")
    other = containers("--network", f"container:{one.id}")
    address = one.inspect("NetworkSettings.IPAddress")
    assert other.exec("hostname") == "first.example"
    assert other.inspect("Config.Hostname") == "first.example"
    assert other.exec("sh", "-c", "echo $HOSTNAME") == "first.example"
    assert other.exec("hostname", "-i") == address
    assert "192.0.2.9\tdb" in other.exec("cat", "/etc/hosts")
    assert other.exec("cat", "/etc/resolv.conf") == one.exec("cat", "/etc/resolv.conf")
    # its own file: nothing that it writes is the other's
    other.sh("echo 192.0.2.1 forged >>/etc/hosts")
    assert "forged" not in one.exec("cat", "/etc/hosts")


@pytest.mark.parametrize(
    "flags",
    [
        ("--network", "host"),
        ("--network", "host", "--hostname", "own.example"),
        ("--network", "host", "--uts", "host"),
        ("--network", "none"),
        ("--network", "ns:/proc/1/ns/net"),
        (),
    ],
)
def test_its_own_name_is_known(sysbox: Sysbox, image: str, flags: tuple[str, ...]) -> None:
    done = sysbox("run", "--rm", *flags, image, "sh", "-c", "hostname && hostname -i")
    assert done.returncode == 0, done.stderr
    name = done.stdout.split()[0]
    if "--uts" in flags:
        assert name == posix.uname().nodename


def test_read_only_means_the_three_files_too(sysbox: Sysbox, image: str) -> None:
    script = "for name in hosts hostname resolv.conf; do echo x >>/etc/$name || echo refused; done"
    done = sysbox("run", "--rm", "--read-only", "--network", "none", image, "sh", "-c", script)
    assert done.stdout.split() == ["refused"] * 3, done.stderr
    done = sysbox("run", "--rm", "--network", "none", image, "sh", "-c", script)
    assert done.stdout == ""


def test_ports_that_are_not_published(sysbox: Sysbox, image: str) -> None:
    for network in ("host", "none"):
        done = sysbox("run", "--rm", "--network", network, "-p", "80:80", image, "echo", "on")
        assert (done.returncode, done.stdout) == (0, "on\n")
        assert done.stderr == f"sysbox: --network {network}: nothing is published, -p is ignored\n"


def test_what_is_mounted_where_it_cannot_be(sysbox: Sysbox, image: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = sysbox("run", "--rm", "-v", f"{file}:/etc", image, "true")
    assert done.returncode == 125
    assert f"cannot mount the file {file} over the directory /etc" in done.stderr
    done = sysbox("run", "--rm", "--network", "none", "--tmpfs", "/dev", image, "true")
    assert done.returncode == 0 or "/dev" in done.stderr
    done = sysbox("run", "--rm", "-t", "--network", "none", "--tmpfs", "/dev", image, "true")
    assert done.returncode == 125
    assert "/dev/pts/ptmx" in done.stderr


LISTEN = """
import socket
one = socket.socket()
one.bind(("127.0.0.1", 80))
ping = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
ping.connect(("127.0.0.1", 0))
ping.send(bytes([8, 0, 0, 0, 0, 0, 0, 1]))
print(ping.recv(64)[0])
"""


def test_who_is_not_root_pings_and_serves(sysbox: Sysbox, requires: Any) -> None:
    python = str(Path(sys.executable).resolve())
    requires(python.startswith("/usr/bin/"), "the distribution's Python")
    for flags in ((), ("--cap-drop", "ALL"), ("-u", "1000:1000")):
        command = ("run", "--rm", "--network", "none", *flags, "host", python, "-I", "-c", LISTEN)
        assert sysbox(*command, check=True).stdout == "0\n"
    flag = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=1024", "-u", "1000:1000")
    command = ("run", "--rm", "--network", "none", *flag, "host", python, "-I", "-c", LISTEN)
    assert "PermissionError" in sysbox(*command).stderr


def test_a_terminal_has_its_size_before_the_command_runs(
    containers: Containers, image: str, requires: Any
) -> None:
    requires.program("script")
    one = containers("--network", "none", "--name", "sized")
    run = f"{SYSBOX} run --rm -it --network none {image} stty size"
    commands = {
        run: 4,
        run.replace("-it", "-t"): 4,
        f"{SYSBOX} exec -it {one.id} stty size": 6,
        f"{SYSBOX} exec -t {one.id} stty size": 4,
    }
    for command, times in commands.items():
        loop = f"stty rows 33 cols 101; for i in $(seq {times}); do {command}; done"
        done = subprocess.run(
            ["script", "-qec", loop, "/dev/null"], stdin=subprocess.DEVNULL, capture_output=True,
            text=True, check=True, timeout=60,
        )  # fmt: skip
        # script(1) tells of the end of its own input
        assert done.stdout.replace("^@", "").split() == ["33", "101"] * times, command


@pytest.mark.guest("cgroup.max.descendants is of v2")
def test_what_a_container_with_systemd_may_make_is_bounded(containers: Containers) -> None:
    one = containers(image="host", command=("/lib/systemd/systemd",))
    tree = one.cgroup("name=systemd")
    if V1:
        tree = Path("/sys/fs/cgroup/unified/system.slice") / one.scope
    bound = tree / "cgroup.max.descendants"
    if tree.is_dir():
        assert bound.read_text() == "1024\n"
        place = "/sys/fs/cgroup/unified" if V1 else "/sys/fs/cgroup"
        one.exec("sh", "-c", f"! echo max >{place}/cgroup.max.descendants")
        assert bound.read_text() == "1024\n"
