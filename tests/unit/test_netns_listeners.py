"""Who listens on a port of the host."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sysbox.base.errors import Conflict
from sysbox.netns import listeners, ports
from sysbox.spec import Port


@pytest.mark.parametrize(
    ("protocol", "kind"), [("tcp", socket.SOCK_STREAM), ("udp", socket.SOCK_DGRAM)]
)
@pytest.mark.parametrize(
    ("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")]
)
def test_the_program_is_named(protocol: str, kind: int, family: int, address: str) -> None:
    with socket.socket(family, kind) as server:
        server.bind((address, 0))
        if protocol == "tcp":
            server.listen()
        number = server.getsockname()[1]
        me = f"{Path('/proc/self/comm').read_text().strip()} (pid {os.getpid()})"
        assert listeners.owner(protocol, number) == me
        port = Port(container_port=80, host_port=number, protocol=protocol)
        with pytest.raises(Conflict) as caught:
            ports.resolve((port,), [], ("10.90.0.2", "fd00::2"))
        assert caught.value.message.endswith(f": {me} uses it")
    assert listeners.owner(protocol, number) == ""


def test_a_connection_is_no_listener() -> None:
    text = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:1F90 00000000:0000 0A 0:0 00:0 0 0 0 77 1\n"
        "   1: 0100007F:1F90 0100007F:9C40 01 0:0 00:0 0 0 0 78 1\n"
        "   2: 0100007F:1F91 00000000:0000 0A 0:0 00:0 0 0 0 79 1\n"
    )
    assert listeners.listening(text, 8080, "0A") == [77]
