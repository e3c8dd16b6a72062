"""Embedded hosts on the network of another host: one packet filter, and nobody's rules are lost.

tools/test-host.sh runs it first: after most of the lane, a published port was left or did not answer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
from containers import Container, Containers, eventually
from lane import SYSBOX, Sysbox

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
        with socket.create_connection((address, port), 2) as near:
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


def test_this_host_goes_on_when_the_other_is_stopped(
    sysbox: Sysbox,
    network: Callable[..., str],
    containers: Containers,
    inside: Callable[..., str],
) -> None:
    inside("network", "create", "far")
    inside("run", "-d", "--network", "far", "-p", "8472:80", "host", "sleep", "1000")
    network("front")
    web = containers("--network", "front", "-p", "8470:80", command=SERVER)
    eventually(lambda: answer("192.0.2.2", 8470) == "here", "it answers")
    sysbox("host", "stop", "--name", NAME, check=True)
    assert answer("192.0.2.2", 8470) == "here"
    again = containers("--network", "front", "-p", "8472:80", command=SERVER)
    eventually(lambda: answer("192.0.2.2", 8472) == "here", "the port is free again")
    sysbox("rm", "-f", web.id, again.id, check=True)
