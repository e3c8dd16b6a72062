"""A network to experiment in: a private "host" namespace, containers, and a neighbour outside.

`in_private_network` runs a test's body in a child process with a network and mount namespace of its
own, so that nothing the test does to links, rules or leases reaches the machine it runs on; `with_backends`
runs one for each packet filter, all at the same time, since they mostly wait for silence.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import json
import os
import signal
import socket
import subprocess
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lane import SLOWNESS

from sysbox.base import paths
from sysbox.base.files import make_private
from sysbox.linux import mount
from sysbox.netns import firewall, firewall_mark, leases, links, port_filter, rules, topology
from sysbox.netns.network import Network
from sysbox.netns.rules import Policy
from sysbox.spec import ContainerSpec, Namespaces, Port

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
OUTSIDE = "203.0.113.2"  # RFC 5737, TEST-NET-3: a server out there
UPLINK = "203.0.113.1"  # the host's address on that side
OUTSIDE6, UPLINK6 = "2001:db8::2", "2001:db8::1"  # RFC 3849
SUBNET6, GATEWAY6 = "fd00:90::/64", "fd00:90::1"
BOTH = Policy(bridge="sysbox0", subnet="10.90.0.0/24", subnet6=SUBNET6)
OTHER = Policy(bridge="sysbox1", subnet="10.91.0.0/24", subnet6="fd00:91::/64")
BACKENDS = ("nft", "iptables-nft", "iptables-legacy")
GATEWAY = topology.DEFAULT_NETWORK.gateway
_NUMBERS = {"sctp": socket.IPPROTO_SCTP}
TIMEOUT = 2.5  # seconds: a first SYN that is lost is sent again after one


def lease(container_id: str, network: Network) -> str:
    """The container's address on the network `bridge`."""
    with leases.NetworkLock():
        return leases.lease("", container_id, network.subnet, network.gateway)


def in_private_network(body: Callable[..., None]) -> Callable[..., None]:
    """A test that runs in namespaces of its own; its failure is reported with the child's traceback."""

    @functools.wraps(body)
    def test(*args: Any, **kwargs: Any) -> None:
        report = _report(*_begin(body, args, kwargs))
        assert report == "passed", report

    return test


def with_backends(*backends: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test that runs with each packet filter, each in namespaces of its own; what fails is named.

    Where the machine is emulated it runs with the first one alone: its one CPU would make it wait too long.
    """

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        def test(**kwargs: Any) -> None:
            chosen = backends if SLOWNESS == 1 else backends[:1]
            begun = {each: _begin(body, (each,), kwargs) for each in chosen}
            reports = {each: _report(*one) for each, one in begun.items()}
            failed = [f"{each}: {text}" for each, text in reports.items() if text != "passed"]
            assert not failed, "\n".join(failed)

        functools.update_wrapper(test, body)
        # pytest takes the names of fixtures from it
        signature = inspect.signature(body)
        others = [each for each in signature.parameters.values() if each.name != "backend"]
        test.__signature__ = signature.replace(parameters=others)  # type: ignore[attr-defined]
        return test

    return decorate


def _begin(body: Callable[..., None], args: Any, kwargs: Any) -> tuple[int, int]:
    """Run it in a child process: the pid, and a pipe with its report."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        os.setpgid(0, 0)
        report = _run_isolated(body, args, kwargs)
        os.write(write_end, report.encode()[:60_000])
        os._exit(0)
    os.close(write_end)
    return pid, read_end


def _report(pid: int, read_end: int) -> str:
    """Wait for its end: "passed", or the traceback."""
    with os.fdopen(read_end) as pipe:
        report = pipe.read()
    os.waitpid(pid, 0)
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    return report


def _run_isolated(body: Callable[..., None], args: Any, kwargs: Any) -> str:
    try:
        unshare(CLONE_NEWNS | CLONE_NEWNET)
        run("mount", "--make-rprivate", "/")
        assert paths.RUN.startswith("/run/")
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        run("mount", "-t", "sysfs", "sysfs", "/sys")
        run("ip", "link", "set", "lo", "up")
        body(*args, **kwargs)
    except BaseException:
        return traceback.format_exc()
    return "passed"


def unshare(flags: int) -> None:
    """unshare(2), which Python 3.11 lacks."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def run(*words: str) -> str:
    """Run a program; its output. AssertionError with its standard error when it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
    return done.stdout


class Node:
    """A process in a network namespace of its own that does what it is told."""

    def __init__(self) -> None:
        self._near, far = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            self._near.close()
            _obey(far)
        far.close()
        self.call("enter")

    def call(self, name: str, *args: Any) -> Any:
        """Call one of this module's `_do_` functions over there."""
        self.ask(name, *args)
        return self.answer()

    def ask(self, name: str, *args: Any) -> None:
        """Begin such a call."""
        self._near.sendall(json.dumps([name, *args]).encode() + b"\n")

    def answer(self) -> Any:
        """Wait for the end of the call that was begun; what it returns."""
        with self._near.makefile("r") as replies:
            answer = json.loads(replies.readline())
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def serve(self, port: int, protocol: str = "tcp") -> None:
        """Answer whoever connects with the address that they seem to come from."""
        self.call("serve", port, protocol)

    def fetch(self, host: str, port: int, protocol: str = "tcp") -> str:
        """What a server over there answers, or the name of the error."""
        return str(self.call("fetch", host, port, protocol))

    def call_out(self, host: str, port: int, source_port: int) -> str:
        """One UDP question from always the same source port, as a client does that goes on."""
        return str(self.call("call_out", host, port, source_port))

    def sh(self, command: str) -> str:
        """Run a shell command in the node's namespace; its output."""
        return str(self.call("sh", command))

    def die(self) -> None:
        """End the process, and with it the namespace."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self._near.close()


class Container(Node):
    """A node that is connected as a container is; with a policy of the test's instead of the network's."""

    def __init__(
        self,
        number: int,
        network: Network,
        ports: tuple[Port, ...] = (),
        policy: Policy | None = None,
        address6: str = "",
    ) -> None:
        self.id = f"{number:010x}" + "5b" * 27
        spec = ContainerSpec(image="x", ports=ports, namespaces=Namespaces(network="bridge"))
        self.plan = topology.plan_network(self.id, spec, network)
        super().__init__()
        (self.attachment,) = self.plan.attachments
        index = links.ensure_bridge(self.attachment)
        firewall.ensure_policies((policy or rules.policy_of(self.attachment),))
        self.address = lease(self.id, network)
        self.address6 = address6
        links.connect(self.plan, self.pid, -1, (index,))
        self.filter()
        self.call("configure", self.plan.to_data(), [f"{self.address} {address6}".rstrip()])
        self.ports = firewall.publish(self.plan, self.address, address6)

    def filter(self) -> None:
        """Let only frames with its own addresses leave its link."""
        own = self.attachment.replace(address=self.address, address6=self.address6)
        assert port_filter.install([own])


class Dual(Container):
    """A container on a network with IPv6 too."""

    def __init__(self, number: int, policy: Policy, ports: tuple[Port, ...] = ()) -> None:
        gateway6 = policy.subnet6.replace("/64", "1")
        network = Network(
            bridge=policy.bridge,
            subnet=policy.subnet,
            gateway=f"{policy.subnet.rpartition('.')[0]}.1",
            subnet6=policy.subnet6,
            gateway6=gateway6,
            icc=not policy.isolate,
        )
        super().__init__(number, network, ports, policy, f"{gateway6[:-1]}{number:x}f")


def choose(backend: str) -> None:
    """Have sysbox use this packet filter in this namespace, as Firewall= of sysbox.conf does."""
    make_private(paths.NETWORK)
    firewall_mark.write(firewall_mark.Mark(backend=backend))


class Outside(Node):
    """The world beyond the host's uplink, with a server address of its own."""

    def __init__(self) -> None:
        super().__init__()
        run(
            "ip",
            "link",
            "add",
            "uplink",
            "type",
            "veth",
            "peer",
            "name",
            "wan",
            "netns",
            str(self.pid),
        )
        run("ip", "address", "add", f"{UPLINK}/24", "dev", "uplink")
        run("ip", "link", "set", "uplink", "up")
        run("ip", "-6", "address", "add", f"{UPLINK6}/64", "dev", "uplink", "nodad")
        self.sh(
            f"ip address add {OUTSIDE}/24 dev wan; ip link set wan up; ip link set lo up;"
            f"ip -6 address add {OUTSIDE6}/64 dev wan nodad"
        )


def fetch_all(*questions: tuple[Node, str, int] | tuple[Node, str, int, str]) -> list[str]:
    """What each (node, host, port, protocol) fetches, all at the same time: silence takes its time once."""
    asked: dict[Node, list[tuple[Any, ...]]] = {}
    for node, *words in questions:
        asked.setdefault(node, []).append(tuple(words))
    for node, fetches in asked.items():
        node.ask("fetch_all", fetches)
    return [answer for node in asked for answer in node.answer()]


def serve(port: int, protocol: str = "tcp") -> None:
    """A server on the host itself."""
    _do_serve(port, protocol)


def fetch(host: str, port: int, protocol: str = "tcp") -> str:
    """What the host itself fetches there."""
    return _do_fetch(host, port, protocol)


def _obey(far: socket.socket) -> None:
    with far.makefile("rw") as stream:
        for line in stream:
            name, *args = json.loads(line)
            try:
                answer: dict[str, Any] = {"value": globals()[f"_do_{name}"](*args)}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            stream.write(json.dumps(answer) + "\n")
            stream.flush()
    os._exit(0)


def _do_enter() -> None:
    unshare(CLONE_NEWNET)
    links.prepare_inside(mount.open_procfs(), ipv6=True)


def _do_configure(plan: Any, addresses: list[str]) -> None:
    links.configure_inside(topology.NetPlan.from_data(plan), tuple(addresses))


def _do_sh(command: str) -> str:
    return run("sh", "-ec", command)


def _do_frame(link: str, frame: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as wire:
        wire.bind((link, 0))
        wire.send(bytes.fromhex(frame))


def _do_fetch_from(source: str, host: str, port: int) -> str:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
        client.settimeout(TIMEOUT)
        client.bind((source, 0))
        try:
            client.connect((host, port))
            return client.recv(100).decode()
        except OSError as error:
            return type(error).__name__


def _do_serve(port: int, protocol: str) -> None:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    server = socket.socket(socket.AF_INET6, kind, _NUMBERS.get(protocol, 0))
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    if protocol != "udp":
        server.listen()
    if os.fork():
        server.close()
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    while True:
        if protocol != "udp":
            connection, peer = server.accept()
            connection.sendall(peer[0].removeprefix("::ffff:").encode())
            connection.close()
        else:
            _, peer = server.recvfrom(100)
            server.sendto(peer[0].removeprefix("::ffff:").encode(), peer)


def _do_call_out(host: str, port: int, source_port: int) -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(TIMEOUT)
        client.bind(("0.0.0.0", source_port))
        try:
            client.sendto(b"?", (host, port))
            return client.recv(100).decode()
        except OSError as error:
            return type(error).__name__


def _do_fetch_all(fetches: list[Any]) -> list[str]:
    with ThreadPoolExecutor(len(fetches)) as pool:
        return list(pool.map(lambda words: fetch(*words), fetches))


def _do_fetch(host: str, port: int, protocol: str) -> str:
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, kind, _NUMBERS.get(protocol, 0)) as client:
        # an INIT that is lost is sent again after three seconds (RFC 9260, 16)
        client.settimeout(TIMEOUT * 3 if protocol == "sctp" else TIMEOUT)
        try:
            client.connect((host, port))
            if protocol == "udp":
                client.send(b"?")
            return client.recv(100).decode()
        except OSError as error:
            return type(error).__name__
