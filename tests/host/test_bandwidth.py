"""--network-bandwidth, by the bytes that pass: both directions, live, kept, gone with the container.

In the guest: the token bucket, u32 and ifb are modules of an older kernel.
"""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from containers import Container, Containers, eventually
from lane import SLOWNESS, SYSBOX, Sysbox
from probe_rate import rate_of, send

PROBE = Path(__file__).with_name("probe_rate.py")
GATEWAY = "10.90.0.1"
# an emulated guest is as quick as this needs, but for the begin
SECONDS = 2.0 if SLOWNESS == 1 else 4.0
MBIT = 125_000  # bytes
# a quarter above the limit: what the bucket holds, and what passed before the first byte was read
HIGH = 1.25


def make(containers: Containers, *flags: str) -> Container:
    return containers("-v", f"{PROBE}:/probe.py:ro", *flags, image="host")


def up(one: Container, host: str = GATEWAY) -> float:
    """Bytes per second that it sends to the host."""
    found: list[float] = []
    with socket.create_server((host, 0), family=_family(host)) as server:
        server.settimeout(20 * SLOWNESS)

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                found.append(rate_of(conn, SECONDS))

        thread = threading.Thread(target=serve)
        thread.start()
        port = str(server.getsockname()[1])
        one.exec("python3", "/probe.py", "send", host, port, str(SECONDS + 2))
        thread.join()
    return found[0]


def down(one: Container, host: str = GATEWAY) -> float:
    """Bytes per second that it receives from the host."""
    with socket.create_server((host, 0), family=_family(host)) as server:
        server.settimeout(20 * SLOWNESS)

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                send(conn, SECONDS + 10 * SLOWNESS)

        thread = threading.Thread(target=serve)
        thread.start()
        port = str(server.getsockname()[1])
        rate = float(one.exec("python3", "/probe.py", "receive", host, port, str(SECONDS)))
        thread.join()
    return rate


def both(one: Container) -> tuple[float, float]:
    """`up` and `down`, at the same time: neither is limited by the other."""
    if SLOWNESS > 1:  # an emulated machine has no time for both
        return up(one), down(one)
    with ThreadPoolExecutor(2) as pool:
        sent, received = pool.submit(up, one), pool.submit(down, one)
        return sent.result(), received.result()


def up_by_both(one: Container, *hosts: str) -> float:
    """Bytes per second that it sends to these addresses of the host, at the same time."""
    with ThreadPoolExecutor(len(hosts)) as pool:
        return sum(pool.map(lambda host: up(one, host), hosts))


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def devices(one: Container) -> set[str]:
    """The devices of its limits that there are."""
    return {name for name in os.listdir("/sys/class/net") if name.endswith(one.id[:10])} - {
        f"sb{one.id[:10]}"
    }


@pytest.mark.guest("modules of an older kernel")
def test_both_directions(containers: Containers) -> None:
    one = make(containers, "--network-bandwidth", "up=4mbit,down=8mbit")
    sent, received = both(one)
    assert sent < 4 * MBIT * HIGH
    assert received < 8 * MBIT * HIGH
    assert one.inspect("Sysbox.NetworkBandwidth") == {"Up": 4_000_000, "Down": 8_000_000}
    one("update", "--network-bandwidth", "unset")
    free = both(one)
    assert free[0] > 4 * sent
    assert free[1] > 4 * received
    assert devices(one) == set()
    assert one.inspect("Sysbox.NetworkBandwidth") == {"Up": 0, "Down": 0}


def test_live_and_kept(containers: Containers) -> None:
    one = make(containers)
    free = up(one)
    one("update", "--network-bandwidth", "up=8mbit")
    sent, received = both(one)
    assert sent < min(8 * MBIT * HIGH, free / 4)
    assert received > 4 * sent
    one("update", "--network-bandwidth", "up=2mbit")
    slower = up(one)
    assert slower < 2 * MBIT * HIGH
    assert sent > 2 * slower
    one("restart", "-t", "0")
    assert up(one) < 2 * MBIT * HIGH
    one("stop", "-t", "0")
    assert devices(one) == set()
    one("update", "--network-bandwidth", "up=unset,down=4mbit")
    one("start")
    sent, received = both(one)
    assert received < 4 * MBIT * HIGH
    assert sent > 4 * received


def test_all_its_networks_together(containers: Containers, sysbox: Sysbox) -> None:
    """Of two networks, one with IPv6, and one of them connected later."""
    sysbox(
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:7::/64",
        "--subnet",
        "10.77.0.0/24",
        "six",
        check=True,
    )
    try:
        one = make(containers, "--network-bandwidth", "up=4mbit,down=4mbit")
        sysbox("network", "connect", "six", one.id, check=True)
        assert up(one, "fd00:7::1") < 4 * MBIT * HIGH
        assert down(one, "10.77.0.1") < 4 * MBIT * HIGH
        # their seconds are not quite the same, and on a busy machine a second apart: then once more
        assert any(up_by_both(one, GATEWAY, "fd00:7::1") < 4 * MBIT * HIGH * 1.25 for _ in range(3))
        sysbox("network", "disconnect", "six", one.id, check=True)
        assert up(one) < 4 * MBIT * HIGH
        one("rm", "-f")
    finally:
        sysbox("network", "rm", "six", check=True)


def test_gone_with_a_killed_start_and_a_killed_supervisor(sysbox: Sysbox, tmp_path: Path) -> None:
    """Nothing is left of a start that fails after its links were made, nor after `gc`."""
    flags = ("--name", "shaped", "--network-bandwidth", "up=1mbit,down=1mbit")
    done = sysbox("run", *flags, "host", "/no/such/command")
    assert done.returncode == 127
    before = set(os.listdir("/sys/class/net"))
    assert not [name for name in before if name.startswith(("sbup", "sbdn"))]
    with subprocess.Popen([SYSBOX, "run", "--rm", *flags, "host", "sleep", "100"]) as running:
        eventually(
            lambda: sysbox("inspect", "-f", "{{.State.Running}}", "shaped").stdout == "true\n",
            "it runs",
        )
        running.kill()
    eventually(lambda: sysbox("gc") and "shaped" not in sysbox("ps", "-a").stdout, "it is gone")
    eventually(
        lambda: (
            not [one for one in os.listdir("/sys/class/net") if one.startswith(("sbup", "sbdn"))]
        ),
        "its devices are gone",
    )


def test_no_frame_passes_it(containers: Containers) -> None:
    """With packet(7) sockets and CAP_NET_ADMIN over its own end: frames of any kind, length and source."""
    flags = (
        "--cap-add",
        "NET_RAW",
        "--cap-add",
        "NET_ADMIN",
        "--network-bandwidth",
        "up=1mbit,down=1mbit",
    )
    one = make(containers, *flags)
    limited = flooded(one)
    assert limited < MBIT * HIGH
    # its own end is its own: queues, addresses, a link on top of it
    one.sh(
        "tc qdisc replace dev eth0 root pfifo; tc qdisc del dev eth0 clsact || :;"
        " ip link set eth0 txqueuelen 10000"
    )
    assert flooded(one) < MBIT * HIGH
    one("update", "--network-bandwidth", "unset")
    assert flooded(one) > 4 * limited


def flooded(one: Container) -> float:
    """Bytes per second of frames of a container that the host's bridge gets."""
    own = bytes.fromhex(one.sh("cat /sys/class/net/eth0/address").replace(":", ""))
    sources = own, b"\x02\0\0\0\0\7"  # that of probe_rate.py
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as bridge:
        bridge.bind(("sysbox0", 0))
        bridge.settimeout(20 * SLOWNESS)
        flood = threading.Thread(
            target=lambda: one.exec("python3", "/probe.py", "flood", str(SECONDS + 1))
        )
        flood.start()
        total = 0
        begin = 0.0
        while not begin or time.monotonic() - begin < SECONDS:
            frame, (_, _, kind, _, _) = bridge.recvfrom(2000)
            if kind == socket.PACKET_OUTGOING or frame[6:12] not in sources:
                continue
            begin = begin or time.monotonic()
            total += len(frame)
        flood.join()
    return total / SECONDS


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("10mbit", "not up=RATE, down=RATE"),
        ("up=0", "out of range"),
        ("up=7kbit", "out of range"),
        ("down=33gbit", "out of range"),
        ("up=1mbit,up=2mbit", "up is given twice"),
        ("up=10mb", "not a rate"),
        ("sideways=1mbit", "not up=RATE"),
        ("up=unset", "not a rate"),
    ],
)
def test_what_is_no_limit(sysbox: Sysbox, text: str, why: str) -> None:
    done = sysbox("run", "--rm", "--network-bandwidth", text, "host", "true")
    assert done.returncode == 125
    assert why in done.stderr.splitlines()[0]


def test_a_network_that_is_not_its_own(containers: Containers, sysbox: Sysbox) -> None:
    for mode in ("host", f"container:{make(containers).id}"):
        done = sysbox(
            "run", "--rm", "--network", mode, "--network-bandwidth", "up=1mbit", "host", "true"
        )
        assert done.returncode == 125
        assert "a network of the container's own" in done.stderr
    one = make(containers, "--network", "host")
    done = sysbox("update", "--network-bandwidth", "up=1mbit", one.id)
    assert done.returncode == 1
    assert "a network of the container's own" in done.stderr
