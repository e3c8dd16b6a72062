"""Embedded hosts on the network of another host: one packet filter, and nobody's rules are lost."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
from containers import PATIENCE, Container, Containers, eventually
from host_firewalls import CONF, configure, run
from lane import SYSBOX, Sysbox

from sysbox.embedded import state

NAME = "inner"
SERVER = ("nc", "-ll", "-p", "80", "-e", "echo", "here")
PROGRAM = (
    "import socket; server = socket.create_server(('', 80))\n"
    "while True: server.accept()[0].sendall(b'there')\n"
)


@pytest.fixture
def inside(no_leaks: None, sysbox: Sysbox) -> Iterator[Callable[..., str]]:
    """`inside(WORDS...)` runs sysbox on an embedded host that shares this one's network; its output."""
    sysbox("host", "start", "--name", NAME, check=True)

    def run(*words: str, status: int = 0) -> str:
        done = sysbox("host", "exec", "--name", NAME, "--", SYSBOX, *words)
        assert done.returncode == status, done.stderr
        return done.stdout + done.stderr

    yield run
    sysbox("host", "stop", "--name", NAME, "--purge", check=True)


def answer(address: str, port: int) -> str:
    try:
        with socket.create_connection((address, port), PATIENCE) as near:
            return near.recv(20).decode().strip()
    except OSError as error:
        return type(error).__name__


def reached(container: Container, address: str) -> bool:
    return "here" in container.sh(f"nc -w 1 {address} 80 </dev/null || true")


def test_the_rules_of_both_are_there(
    sysbox: Sysbox,
    network: Callable[..., str],
    containers: Containers,
    inside: Callable[..., str],
) -> None:
    network("front")
    network("back")
    web = containers("--network", "front", "-p", "8470:80", command=SERVER)
    other = containers("--network", "back")
    own = str(web.inspect("NetworkSettings.Networks.front.IPAddress"))
    eventually(lambda: answer("192.0.2.2", 8470) == "here", "it answers")
    assert not reached(other, own)

    refused = inside("run", "-d", "-p", "8470:80", "host", "sleep", "1000", status=125)
    assert "port 0.0.0.0:8470->80/tcp: already used by container" in refused
    inside("network", "create", "far")
    inside("run", "-d", "--name", "far", "--network", "far", "-p", "8471:80", "host",
           "/usr/bin/python3", "-c", PROGRAM)  # fmt: skip
    eventually(lambda: answer("192.0.2.2", 8471) == "there", "the other host's answers")
    # what the other host has made cost this one neither its port nor its policy
    assert answer("192.0.2.2", 8470) == "here"
    assert not reached(other, own)
    sysbox("network", "explain", web.id, check=True)
    done = sysbox("run", "--rm", "-p", "8471:80", "host", "true")
    assert (done.returncode, "already used" in done.stderr) == (125, True)

    # nor does what the other host removes, and this one's next start leaves the other its rules
    sysbox("restart", "-t", "0", other.id, check=True)
    assert answer("192.0.2.2", 8471) == "there"
    inside("rm", "-f", "far")
    inside("network", "rm", "far")
    eventually(lambda: answer("192.0.2.2", 8471) == "ConnectionRefusedError", "it is withdrawn")
    assert answer("192.0.2.2", 8470) == "here"
    assert not reached(other, own)


@pytest.fixture
def filtered(sysbox: Sysbox) -> Iterator[Callable[[str], None]]:
    """`filtered(NAME)` moves all rules to a packet filter, which sysbox.conf does not name later."""

    def move(name: str) -> None:
        configure(sysbox, f"Firewall={name}")
        CONF.unlink()
        assert backend(sysbox) == name

    yield move
    move("nft")


def backend(sysbox: Sysbox) -> str:
    shown = sysbox("info", "-f", "{{.Sysbox.Firewall.Backend}}", check=True)
    return shown.stdout.strip()


def rules() -> dict[str, bool]:
    """Packet filter -> whether it has rules of sysbox."""
    return {
        "nft": "table inet sysbox" in run("nft", "list", "tables"),
        "iptables-nft": "SYSBOX" in run("iptables-nft-save"),
        "iptables-legacy": "SYSBOX" in run("iptables-legacy-save"),
    }


def test_all_have_the_packet_filter_that_one_has(
    sysbox: Sysbox,
    network: Callable[..., str],
    containers: Containers,
    inside: Callable[..., str],
    filtered: Callable[[str], None],
) -> None:
    """Whoever has another one in sysbox.conf moves the rules of all, and each removes its own from there."""
    network("front")
    web = containers("--network", "front", "-p", "8470:80", command=SERVER)
    eventually(lambda: answer("192.0.2.2", 8470) == "here", "it answers")
    filtered("iptables-legacy")
    inside("network", "create", "far")
    inside("run", "-d", "--name", "far", "--network", "far", "-p", "8471:80", "host",
           "/usr/bin/python3", "-c", PROGRAM)  # fmt: skip
    eventually(lambda: answer("192.0.2.2", 8471) == "there", "the other host's answers")
    assert rules() == {**dict.fromkeys(rules(), False), "iptables-legacy": True}
    again = containers("--network", "front", "-p", "8473:80", command=SERVER)
    filtered("nft")
    assert rules() == {**dict.fromkeys(rules(), False), "nft": True}
    inside("rm", "-f", "far")
    sysbox("rm", "-f", again.id, check=True)
    for port in (8471, 8473):
        assert answer("192.0.2.2", port) == "ConnectionRefusedError"
    assert answer("192.0.2.2", 8470) == "here"
    # known without the other host too
    sysbox("host", "stop", "--name", NAME, check=True)
    assert backend(sysbox) == "nft"
    sysbox("rm", "-f", web.id, check=True)
    assert answer("192.0.2.2", 8470) == "ConnectionRefusedError"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_this_host_goes_on_when_the_other_ends(
    sysbox: Sysbox,
    network: Callable[..., str],
    containers: Containers,
    inside: Callable[..., str],
    how: str,
) -> None:
    inside("network", "create", "far")
    inside("run", "-d", "--network", "far", "-p", "8472:80", "--stop-signal", "KILL", "host",
           "sleep", "1000")  # fmt: skip
    network("front")
    web = containers("--network", "front", "-p", "8470:80", command=SERVER)
    eventually(lambda: answer("192.0.2.2", 8470) == "here", "it answers")
    if how == "killed":
        # so nobody in it has withdrawn its port
        other = state.load(NAME)
        assert other
        os.kill(other.pid, signal.SIGKILL)
    sysbox("host", "stop", "--name", NAME, check=True)
    assert answer("192.0.2.2", 8470) == "here"
    assert answer("192.0.2.2", 8472) == "ConnectionRefusedError"
    again = containers("--network", "front", "-p", "8472:80", command=SERVER)
    eventually(lambda: answer("192.0.2.2", 8472) == "here", "the port is free again")
    sysbox("rm", "-f", web.id, again.id, check=True)
