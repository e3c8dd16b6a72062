"""Run inside containers: send or receive as fast as it goes, for a number of seconds.

`send HOST PORT SECONDS`, `receive HOST PORT SECONDS` (prints bytes per second), and `flood SECONDS`: frames
of many kinds by a packet(7) socket, past the network layer.
"""

from __future__ import annotations

import socket
import struct
import sys
import time

_CHUNK = bytes(1 << 16)
_GATEWAY = socket.inet_aton("10.90.0.1")
_ALL = b"\xff" * 6
_OTHER = b"\x02\0\0\0\0\7"  # not the link's address


def rate_of(conn: socket.socket, seconds: float) -> float:
    """Bytes per second that come from a connection, counted from the first on."""
    total = len(conn.recv(1 << 16))
    begin = time.monotonic()
    while time.monotonic() - begin < seconds and (data := conn.recv(1 << 16)):
        total += len(data)
    return total / (time.monotonic() - begin)


def send(conn: socket.socket, seconds: float) -> None:
    """Until then, or until the other end has had enough."""
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            conn.sendall(_CHUNK)
    except OSError:
        pass


def _header(source: bytes, fragment: int) -> bytes:
    """A valid header of IPv4: a bridge may drop others (br_netfilter)."""
    bare = (0x45, 0, 1400, 7, fragment, 64, 17)
    total = sum(struct.unpack(">10H", struct.pack(">BBHHHBBH4s4s", *bare, 0, source, _GATEWAY)))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~(total + (total >> 16)) & 0xFFFF
    return struct.pack(">BBHHHBBH4s4s", *bare, checksum, source, _GATEWAY)


def flood(seconds: float) -> None:
    """IPv4 and fragments of it, and what else might pass: IPv6, an unknown protocol, a VLAN, nothing."""
    with open("/sys/class/net/eth0/address", encoding="ascii") as file:
        own = bytes.fromhex(file.read().strip().replace(":", ""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.connect((socket.inet_ntoa(_GATEWAY), 9))
        address = socket.inet_aton(near.getsockname()[0])
    whole, part = _header(address, 0), _header(address, 0x2000 | 5)
    kinds = (
        b"\x08\0" + whole + bytes(1380),
        b"\x08\0" + part + bytes(1380),
        b"\x86\xdd" + b"\x60" + bytes(1400),
        b"\x88\xb5" + bytes(1400),
        b"\x81\0" + b"\0\7\x88\xb5" + bytes(1400),
        b"\x88\xb5",
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as near:
        near.bind(("eth0", 0))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for kind in kinds:
                try:
                    near.send(_ALL + own + kind)
                    near.send(_ALL + _OTHER + kind)
                except OSError:
                    continue  # the queue of the link is full


def main() -> None:
    verb, *words = sys.argv[1:]
    if verb == "flood":
        flood(float(words[0]))
        return
    host, port, seconds = words
    with socket.create_connection((host, int(port)), timeout=20) as conn:
        if verb == "send":
            send(conn, float(seconds))
        else:
            print(rate_of(conn, float(seconds)))


if __name__ == "__main__":
    main()
