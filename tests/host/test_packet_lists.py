"""--ip-deny and --ip-allow at a container's links: frames, which systemd's programs do not see; and a systemd
that has no such programs.

In the guest: its kernel is an older one, and has to have what filters and their hooks need.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import PATIENCE, Container, Containers, eventually, systemctl
from lane import SYSBOX, TIMEOUT, Sysbox

PROBE = Path(__file__).with_name("probe_packets.py")
GATEWAY = "10.90.0.1"
RAW = ("--cap-add", "NET_RAW")
BLIND = "blind"
BRIEF = 0.2  # seconds in which a frame comes that nothing holds up
ANSWERING = """import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 5353))
while True:
    server.sendto(b"answer", server.recvfrom(100)[1])
"""
# runs a program where bpf(2) fails: a systemd that is started so has none of its programs
WITHOUT_BPF = """
import os, sys, pyseccomp
rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
rules.set_attr(pyseccomp.Attr.CTL_NNP, 0)
rules.add_rule(pyseccomp.ERRNO(1), "bpf")
rules.load()
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def host() -> Iterator[socket.socket]:
    """A socket of the host that frames are sent to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        server.settimeout(BRIEF)
        yield server


def make(containers: Containers, *flags: str) -> Container:
    return containers("-v", f"{PROBE}:/probe.py:ro", *flags, image="host")


def comes(one: Container, server: socket.socket, seconds: float = PATIENCE) -> bool:
    """Whether a whole frame that it sends to the host comes there within so many seconds."""
    server.settimeout(seconds)
    one.exec("python3", "/probe.py", f"frame:{GATEWAY}:{server.getsockname()[1]}")
    try:
        return server.recvfrom(100)[0] == b"frame"
    except TimeoutError:
        return False


def applied(sysbox: Sysbox, one: Container) -> str:
    """By what --ip-deny is applied."""
    done = sysbox("explain", "--format", "{{.Now}}", one.id, "ip-deny", check=True)
    return done.stdout.strip()


@pytest.mark.guest("the filters' programs, and where they are attached")
def test_frames_do_not_pass(
    containers: Containers, sysbox: Sysbox, host: socket.socket, network: Callable[..., str]
) -> None:
    """Without the lists they do: that is the attack. The filters follow the properties of the scope."""
    one = make(containers, *RAW)
    assert comes(one, host)
    one("update", "--ip-deny", GATEWAY)
    assert not comes(one, host, BRIEF)
    assert applied(sysbox, one) == "BPF programs, filters of its links"
    told = sysbox("network", "explain", one.id, check=True).stdout
    assert f"--ip-deny: IPAddressDeny={GATEWAY}/32, by BPF programs, filters of its links\n" in told
    one("update", "--ip-allow", "10.90.0.0/24")
    assert comes(one, host)
    one("update", "--ip-allow", "unset")
    assert not comes(one, host, BRIEF)
    systemctl("set-property", one.scope, f"IPAddressAllow={GATEWAY}")
    eventually(lambda: comes(one, host, BRIEF), "what is set by hand is followed")
    systemctl("set-property", one.scope, "IPAddressAllow=")
    eventually(lambda: not comes(one, host, BRIEF), "and what is reset")
    network("lists-one")
    sysbox("network", "connect", "lists-one", one.id, check=True)
    assert applied(sysbox, one) == "BPF programs, filters of its links", "of each of them"
    sysbox("network", "disconnect", "lists-one", one.id, check=True)
    one("restart", "-t", "0")
    assert not comes(one, host, BRIEF)
    one("update", "--ip-deny", "unset")
    assert comes(one, host)
    assert applied(sysbox, one) == "-"


def test_not_even_its_first_frame_passes(sysbox: Sysbox, host: socket.socket) -> None:
    way = f"frame:{GATEWAY}:{host.getsockname()[1]}"
    flags = ("--rm", *RAW, "-v", f"{PROBE}:/probe.py:ro", "--ip-deny", "any")
    done = sysbox("run", *flags, "host", "python3", "/probe.py", way, check=True)
    assert done.stdout == "frame sent\n"
    with pytest.raises(TimeoutError):
        host.recvfrom(100)


def test_who_is_told_that_there_is_a_way_around(sysbox: Sysbox) -> None:
    for flags, told in (
        (("--cap-add", "NET_RAW"), ""),
        (("--cap-add", "NET_ADMIN"), "it can make tunnels whose packets --ip-deny does not see"),
        (("--cap-add", "NET_RAW", "--network", "host"), "it can make frames whose packets"),
    ):
        done = sysbox("run", "--rm", *flags, "--ip-deny", "192.0.2.1", "host", "true", check=True)
        assert told in done.stderr
        assert bool(told) == bool(done.stderr)


@pytest.mark.v1_only("the unified hierarchy is beside others, and can be unmounted")
def test_without_the_unified_hierarchy() -> None:
    """Where sysbox sees none, it does not rely on systemd's programs, and says so."""
    script = f"""
umount /sys/fs/cgroup/unified
{SYSBOX} run --rm --name legacy --ip-deny any host sleep 100 &
until {SYSBOX} exec legacy true 2>/dev/null; do sleep 0.1; done
{SYSBOX} explain --format "{{{{.Now}}}}" legacy ip-deny
{SYSBOX} run --rm --network host --ip-deny any host true 2>&1 || echo $?
{SYSBOX} rm -f legacy
wait
"""
    done = subprocess.run(
        ["unshare", "-m", "sh", "-ec", script],
        capture_output=True, text=True, check=True, timeout=TIMEOUT,
    )  # fmt: skip
    now, refused, advice, status, _ = done.stdout.splitlines()
    assert now == "filters of its links"
    assert refused.startswith("sysbox: --ip-deny: this host has no unified cgroup hierarchy")
    assert "needs a network of the container's own" in advice
    assert status == "125"


@pytest.fixture
def blind(no_leaks: None, sysbox: Sysbox) -> Iterator[Sysbox]:
    """`blind(WORDS...)`: sysbox on an embedded host whose systemd cannot use bpf(2)."""
    words = [SYSBOX, "host", "start", "--name", BLIND, "--private-network"]
    started = subprocess.run(
        [sys.executable, "-c", WITHOUT_BPF, *words],
        capture_output=True, text=True, check=False, timeout=TIMEOUT,
    )  # fmt: skip
    try:
        assert started.returncode == 0, started.stderr

        def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
            return sysbox("host", "exec", "--name", BLIND, "--", *words, check=check)

        yield run  # type: ignore[misc]
    finally:
        sysbox("host", "stop", "--name", BLIND, "--purge", check=True)


def test_a_systemd_without_bpf(blind: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """The lists are applied at the links alone: from the start, live by all ways, and kept."""
    program = str(SYSBOX)

    def run(*words: str) -> str:
        return blind(program, "run", "-d", *words).stdout.strip()

    near, far = (
        run("--name", name, "host", "python3", "-c", ANSWERING) for name in ("near", "far")
    )
    form = "{{.NetworkSettings.IPAddress}}"
    addresses = blind(program, "inspect", "-f", form, near, far).stdout.split()
    flags = ("-v", f"{PROBE}:/probe.py:ro", "--ip-deny", "any", "--ip-allow", addresses[0])
    one = run(*flags, "--name", "one", "host", "sleep", "1000")

    def asked() -> list[str]:
        ways = [f"udp:{address}:5353" for address in addresses]
        told = blind(program, "exec", one, "python3", "/probe.py", *ways).stdout
        return [line.split()[1] for line in told.splitlines()]

    eventually(lambda: asked() == ["answer", "-TimeoutError"], "near answers, far is denied")
    told = blind(program, "explain", "--format", "json", one).stdout
    rows = {row["Limit"]: row for row in map(json.loads, told.splitlines())}
    assert {rows[f"--ip-{name}"]["Now"] for name in ("deny", "allow")} == {"filters of its links"}
    assert rows["--ip-deny"]["Drift"] == ""
    scope = f"docker-{one}.scope"
    blind("systemctl", "set-property", scope, "IPAddressAllow=", f"IPAddressAllow={addresses[1]}")
    eventually(lambda: asked() == ["-TimeoutError", "answer"], "what is set by hand is followed")
    blind(program, "restart", "-t", "0", one)
    assert asked() == ["-TimeoutError", "answer"]
    blind(program, "update", "--ip-allow", "unset", "--ip-allow", addresses[0], one)
    assert asked() == ["answer", "-TimeoutError"]
    blind(program, "update", "--ip-deny", "unset", "--ip-allow", "unset", one)
    assert asked() == ["answer", "answer"]

    lines = blind(program, "doctor", "--format", "json", check=False).stdout.splitlines()
    (row,) = (row for row in map(json.loads, lines) if row["Name"] == "--ip-deny")
    assert row["State"] == "yes"
    assert "filters of a container's own links (no BPF programs" in row["Detail"]
    for words in (("--network", "host", "--ip-deny", "any"), ("--ip-accounting",)):
        done = blind(program, "run", "--rm", *words, "host", "true", check=False)
        assert done.returncode == 125
        assert "systemd has attached no BPF program to its cgroup" in done.stderr
    blind(program, "rm", "-f", near, far, one)
