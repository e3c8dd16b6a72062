"""A network with a resolver in a child: its addresses are loopback ones, its containers are processes."""

from __future__ import annotations

import gc
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dnsclient

from sysbox.base import codec
from sysbox.linux import process as linux_process
from sysbox.netns import names
from sysbox.resolver import upstream
from sysbox.resolver.serve import Resolver
from sysbox.resolver.upstream import Upstream

A_ID, B_ID, C_ID = "a" * 64, "b" * 64, "c" * 64
_SO_RCVBUFFORCE = 33  # socket(7); Python has no name for it


class Network:
    """One network: 127.1.0.0/16 and fd00::/64, with the gateway 127.1.0.1."""

    gateway = "127.1.0.1"
    python = sys.executable

    def __init__(
        self,
        path: Path,
        *,
        idle: float = 30.0,
        run: bool = True,
        internal: bool = False,
        servers: tuple[str, ...] = (),
        gateway: str = "127.1.0.1",
    ) -> None:
        self.gateway = gateway
        self.client = f"{gateway.rpartition('.')[0]}.9"
        self.directory = path / f"names-{gateway}"
        self.directory.mkdir()
        self.resolv_conf = path / f"resolv-{gateway}.conf"
        self.resolv_conf.write_text("nameserver 127.2.0.1\n")
        self._processes: list[subprocess.Popen[bytes]] = []
        self._servers: list[dnsclient.Server] = []
        base = gateway.rpartition(".")[0].rpartition(".")[0]
        settings = {
            "subnets": [f"{base}.0.0/16", "fd00::/64"],
            "gateways": [gateway],
            "servers": list(servers),
            "internal": internal,
        }
        (self.directory / names.SETTINGS).write_bytes(codec.dumps(settings))
        self.pid = 0
        if run:
            self._run(idle)

    def _run(self, idle: float) -> None:
        datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagram.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        port = upstream._PORT if upstream._PORT != 53 else 0
        datagram.bind((self.gateway, port))
        self.server: tuple[str, int] = datagram.getsockname()
        # other resolvers are asked at the port of this one, each at an address of its own
        upstream._PORT = self.server[1]
        stream = socket.create_server(self.server)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                # the resolver collects garbage: not that of a thousand tests, which takes seconds
                gc.freeze()
                passed = [datagram.detach(), stream.detach()]
                sockets = [socket.socket(fileno=fd) for fd in passed]
                Resolver(str(self.directory), sockets, Upstream(str(self.resolv_conf))).run(idle)
                os._exit(0)
            finally:
                os._exit(1)
        datagram.close()
        stream.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            assert os.waitpid(self.pid, 0)[1] == signal.SIGKILL, "the resolver has ended"
        for one in self._processes:
            one.kill()
            one.wait()
        for server in self._servers:
            server.close()
        upstream._PORT = 53

    def upstream(
        self, answer: Callable[[bytes], bytes | None], address: str = "127.2.0.1"
    ) -> dnsclient.Server:
        """A server that the resolver may ask."""
        server = dnsclient.Server((address, self.server[1]), answer)
        self._servers.append(server)
        return server

    def process(self) -> subprocess.Popen[bytes]:
        """A process that does nothing."""
        one = subprocess.Popen(["sleep", "600"])
        self._processes.append(one)
        return one

    def start(self, pid: int) -> int:
        return linux_process.start_time(pid)

    def add(
        self, container: str, name: str, *addresses: str, **more: object
    ) -> subprocess.Popen[bytes]:
        """A container whose first process runs."""
        process = self.process()
        self.write(container, name, list(addresses), process.pid, **more)
        return process

    def write(
        self,
        container: str,
        name: str,
        addresses: list[str],
        pid: int,
        start: int | None = None,
        **more: object,
    ) -> None:
        """Write a container's file as the start does, by rename."""
        data = {
            "pid": pid,
            "start": self.start(pid) if start is None else start,
            "name": name,
            "hostname": container[:12],
            "addresses": addresses,
            **more,
        }
        temporary = self.directory / f"{container}.1"
        temporary.write_bytes(codec.dumps(data))
        temporary.rename(self.directory / container)

    def exchange(
        self, data: bytes, source: str = "", timeout: float = dnsclient.TIMEOUT
    ) -> bytes | None:
        """The answer to a datagram of a container."""
        return dnsclient.exchange(self.server, data, source or self.client, timeout)

    def ask(
        self,
        name: str,
        kind: str = "A",
        source: str = "",
        *,
        size: int = 0,
        stream: bool = False,
    ) -> tuple[str, list[str]]:
        """What it answers to a container of the network."""
        source = source or self.client
        return dnsclient.ask(self.server, name, kind, source, size=size, stream=stream)
