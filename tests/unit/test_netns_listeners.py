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


def test_who_listens_on_a_port_of_sctp() -> None:
    text = (
        " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n"
        "00000000a 00000000b 2   10  31   8080      0 41234 0.0.0.0 \n"
        "00000000c 00000000d 2   7   31   8080      0 41235 0.0.0.0 \n"
        "00000000e 00000000f 2   10  32   8081      0 41236 0.0.0.0 \n"
    )
    assert listeners.sctp_listening(text, 8080) == [41234]
