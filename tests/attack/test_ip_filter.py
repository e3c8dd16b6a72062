"""A container that wants to get around --ip-deny: forged packets, fragments, its own namespaces.

In the guest: the programs are on the unified hierarchy, which is the only one there.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers
from lane import Sysbox

PROBE = Path(__file__).parents[1] / "host" / "probe_packets.py"
GATEWAY = "10.90.0.1"
DENIED = ("--ip-deny", "any", "--ip-allow", "127.0.0.0/8")
REFUSED = "-EPERM"


@pytest.fixture
def host() -> Iterator[socket.socket]:
    """A socket of the host to which nothing of the container may come."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))
        server.settimeout(0.3)
        yield server


def nothing_came(server: socket.socket) -> bool:
    try:
        server.recvfrom(100)
    except TimeoutError:
        return True
    return False


def make(containers: Containers, *flags: str) -> Container:
    return containers("-v", f"{PROBE}:/probe.py:ro", *flags, image="host")


def send(one: Container, server: socket.socket, *kinds: str) -> list[str]:
    ways = [f"{kind}:{GATEWAY}:{server.getsockname()[1]}" for kind in kinds]
    return [line.split()[1] for line in one.exec("python3", "/probe.py", *ways).splitlines()]


@pytest.mark.guest("the hierarchy of the BPF programs is the only one")
def test_forged_headers_and_fragments(containers: Containers, host: socket.socket) -> None:
    one = make(containers, "--cap-add", "NET_RAW", *DENIED)
    kinds = "udp", "raw", "spoofed", "elsewhere", "fragments"
    assert send(one, host, *kinds) == [REFUSED] * len(kinds)
    assert nothing_came(host)


def test_a_packet_socket_takes_a_capability(containers: Containers, host: socket.socket) -> None:
    one = make(containers, *DENIED)
    assert send(one, host, "frame", "raw") == [REFUSED] * 2
    assert nothing_came(host)


def test_namespaces_of_its_own(containers: Containers, host: socket.socket) -> None:
    """In a user namespace that it makes it has every capability, but its network is as unreachable."""
    one = make(containers, "--security-opt", "seccomp=unconfined", *DENIED)
    way = f"frame:{GATEWAY}:{host.getsockname()[1]}"
    done = one.sh(
        f"unshare -Ur python3 /probe.py {way} udp:{GATEWAY}:1; unshare -Urn python3 /probe.py {way}"
    )
    assert [line.split()[1] for line in done.splitlines()][:2] == [REFUSED] * 2
    assert nothing_came(host)


@pytest.mark.guest("the hierarchy of the BPF programs is the only one")
def test_its_programs_are_not_its_own(containers: Containers, host: socket.socket) -> None:
    """With CAP_NET_ADMIN over its own network, and cgroups that are its own, they stay attached."""
    one = make(containers, "--cap-add", "NET_ADMIN", "--cap-add", "SYS_ADMIN", *DENIED)
    script = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
    try:
        fd = os.open(top, os.O_RDONLY)
    except FileNotFoundError:
        continue
    for kind in (0, 1):
        attributes = ctypes.create_string_buffer(struct.pack("IIII", fd, 0, kind, 0) + bytes(112))
        print(libc.syscall(321, 9, attributes, 128), ctypes.get_errno())  # BPF_PROG_DETACH
"""
    assert one.exec("python3", "-c", script)
    assert send(one, host, "udp") == [REFUSED]
    assert nothing_came(host)


def test_what_enters_it_is_filtered_too(
    containers: Containers, host: socket.socket, sysbox: Sysbox
) -> None:
    one = make(containers, *DENIED)
    way = f"udp:{GATEWAY}:{host.getsockname()[1]}"
    done = sysbox("exec", "--privileged", one.id, "python3", "/probe.py", way, check=True)
    assert done.stdout == f"udp {REFUSED}\n"
    # a container in its network namespace has its own scope, and no filter
    other = make(containers, "--network", f"container:{one.id}")
    send(other, host, "udp")
    assert not nothing_came(host)
