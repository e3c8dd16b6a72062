"""--ip-allow, --ip-deny and --ip-accounting, with packets: live, kept, shown, whatever network it is on.

In the guest: the programs are on the unified hierarchy, which is the only one there.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import PATIENCE, Container, Containers, eventually, systemctl
from lane import Sysbox

PROBE = Path(__file__).with_name("probe_packets.py")
GATEWAY = "10.90.0.1"
REFUSED = "-EPERM"


@pytest.fixture
def host() -> Iterator[int]:
    """The port of a server on the host that answers each datagram, on every address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", 0))

        def serve() -> None:
            while True:
                text, peer = server.recvfrom(100)
                if text == b"end":
                    return
                server.sendto(b"answer", peer)

        thread = threading.Thread(target=serve)
        thread.start()
        port = server.getsockname()[1]
        yield port
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
            near.sendto(b"end", ("127.0.0.1", port))
        thread.join()


def make(containers: Containers, *flags: str) -> Container:
    return containers("-v", f"{PROBE}:/probe.py:ro", *flags, image="host")


def ask(one: Container, *ways: str) -> list[str]:
    """What becomes of packets that are sent in it."""
    # what is refused is refused at once: no test waits for silence
    flags = ("-e", f"PATIENCE={PATIENCE}")
    told = one.exec("python3", "/probe.py", *ways, flags=flags)
    return [line.split()[1] for line in told.splitlines()]


def rules(one: Container) -> tuple[Any, Any]:
    return one.inspect("Sysbox.IPAddressAllow"), one.inspect("Sysbox.IPAddressDeny")


@pytest.mark.parametrize("network", ["bridge", "none", "host"])
def test_on_each_network(containers: Containers, network: str) -> None:
    one = make(containers, "--network", network, "--ip-deny", "any", "--ip-allow", "127.7.0.0/16")
    ways = "itself:127.0.0.1:0", "itself:::1:0", "itself:127.7.0.1:0"
    assert ask(one, *ways) == [REFUSED, REFUSED, "itself"]
    assert rules(one) == (["127.7.0.0/16"], ["0.0.0.0/0", "::/0"])


@pytest.mark.guest("the hierarchy of the BPF programs is the only one")
def test_over_the_bridge(containers: Containers, host: int) -> None:
    one = make(containers, "--ip-deny", GATEWAY)
    way = f"udp:{GATEWAY}:{host}"
    assert ask(one, way) == [REFUSED]
    one("update", "--ip-allow", "10.90.0.0/24")
    assert ask(one, way) == ["answer"]
    # an answer that comes in is filtered like a question that goes out
    one("update", "--ip-allow", "unset", "--ip-deny", "unset", "--ip-deny", "192.0.2.0/24")
    assert ask(one, way) == ["answer"]
    assert rules(one) == ([], ["192.0.2.0/24"])


def test_changed_by_hand_and_kept(containers: Containers, host: int) -> None:
    one = make(containers)
    way = f"udp:{GATEWAY}:{host}"
    assert ask(one, way) == ["answer"]
    systemctl("set-property", one.scope, "IPAddressDeny=any", "IPAddressAllow=localhost")
    assert ask(one, way, "itself:127.0.0.1:0") == [REFUSED, "itself"]
    systemctl("daemon-reload")
    assert ask(one, way, "itself:127.0.0.1:0") == [REFUSED, "itself"]
    one("restart", "-t", "0")
    assert ask(one, way, "itself:127.0.0.1:0") == [REFUSED, "itself"]
    assert rules(one) == (["127.0.0.0/8", "::1/128"], ["0.0.0.0/0", "::/0"])
    one("stop", "-t", "0")
    assert rules(one) == (["127.0.0.0/8", "::1/128"], ["0.0.0.0/0", "::/0"])
    one("start")
    one("update", "--forget")
    assert ask(one, way) == ["answer"]
    assert rules(one) == ([], [])


def test_one_network_of_a_list(containers: Containers, host: int) -> None:
    one = make(containers, "--ip-deny", "any", "--ip-allow", GATEWAY, "--ip-allow", "fd00::1")
    assert ask(one, f"udp:{GATEWAY}:{host}") == ["answer"]
    one("update", "--ip-allow", f"{GATEWAY}/32:unset")
    assert ask(one, f"udp:{GATEWAY}:{host}") == [REFUSED]
    assert rules(one)[0] == ["fd00::1/128"]
    one("update", "--ip-allow", "fd00::1:unset")
    assert rules(one) == ([], ["0.0.0.0/0", "::/0"])


def test_explain(containers: Containers, sysbox: Sysbox) -> None:
    one = make(containers, "--ip-deny", "192.0.2.7/24")
    systemctl("set-property", one.scope, "IPAddressAllow=192.0.2.1")

    done = sysbox("explain", "--format", "json", one.id, check=True)
    found = {one["Limit"]: one for one in map(json.loads, done.stdout.splitlines())}
    deny, allow, count = (found[f"--ip-{name}"] for name in ("deny", "allow", "accounting"))
    assert (deny["Asked"], deny["Property"]) == ("192.0.2.0/24", "IPAddressDeny=192.0.2.0/24")
    assert (deny["Now"], deny["SetBy"]) == ("BPF programs", "run")
    assert allow["Property"] == "IPAddressAllow=192.0.2.1/32"
    assert allow["SetBy"].startswith("systemctl set-property, ")
    assert count["Now"] == "-"


def traffic(one: Container) -> list[int | None]:
    usage = one.inspect("Sysbox.Usage")
    return [
        usage[f"IP{way}{what}"] for way in ("Ingress", "Egress") for what in ("Bytes", "Packets")
    ]


@pytest.mark.guest("the hierarchy of the BPF programs is the only one")
def test_counted(containers: Containers, sysbox: Sysbox, host: int) -> None:
    one = make(containers, "--ip-accounting")
    assert ask(one, *[f"udp:{GATEWAY}:{host}"] * 3) == ["answer"] * 3
    # three of 20 + 8 + 8 bytes, answered with 20 + 8 + 6
    assert traffic(one) == [102, 3, 108, 3]
    shown = sysbox("stats", "--no-stream", "--format", "{{.IPIO}}", one.id, check=True)
    assert shown.stdout == "102B / 108B\n"
    shown = sysbox("stats", "--no-stream", "--format", "json", one.id, check=True)
    assert json.loads(shown.stdout)["Sysbox"]["IPEgressBytes"] == 108
    one("stop", "-t", "0")
    assert traffic(one) == [102, 3, 108, 3]
    one("start")
    assert traffic(one) == [0, 0, 0, 0]
    one("update", "--ip-accounting=false")
    assert traffic(one) == [None] * 4
    assert one.inspect("Sysbox.Tuned") == {}
    shown = sysbox("stats", "--no-stream", "--format", "{{.IPIO}}", one.id, check=True)
    assert shown.stdout == "--\n"


def test_counted_by_hand(containers: Containers, host: int) -> None:
    one = make(containers)
    systemctl("set-property", one.scope, "IPAccounting=yes")
    assert ask(one, f"udp:{GATEWAY}:{host}") == ["answer"]
    assert traffic(one) == [34, 1, 36, 1]
    eventually(lambda: one.inspect("Sysbox.Tuned") == {"IPAccounting": "yes"}, "it is noticed")
    one("restart", "-t", "0")
    assert traffic(one) == [0, 0, 0, 0]


def test_counted_in_the_foreground(containers: Containers, sysbox: Sysbox) -> None:
    command = ("python3", "/probe.py", "itself:127.0.0.1:0")
    flags = (
        "--name",
        "counted",
        "--ip-accounting",
        "--network",
        "none",
        "-v",
        f"{PROBE}:/probe.py",
    )
    assert sysbox("run", *flags, "host", *command, check=True).stdout == "itself itself\n"
    one = containers.known_ended("counted")
    assert traffic(one) == [34, 1, 34, 1]


def test_allow_alone_is_noted(sysbox: Sysbox) -> None:
    done = sysbox("run", "--rm", "--ip-allow", "any", "host", "true", check=True)
    assert "--ip-allow alone" in done.stderr


@pytest.mark.parametrize(
    "text", ["10.0.0.0/33", "somewhere", "1.2.3.4 5.6.7.8", "", "fe80::1%eth0", "10.0.0.0/"]
)
def test_what_is_no_network(sysbox: Sysbox, text: str) -> None:
    done = sysbox("run", "--rm", "--ip-deny", text, "host", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("sysbox: --ip-deny")
    assert text in done.stderr.partition("\n")[0]
