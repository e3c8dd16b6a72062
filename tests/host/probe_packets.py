"""Run inside containers: send packets in the ways that its arguments name, and print what became of each.

A way is KIND:ADDRESS:PORT. Of some the answer is printed, of others "sent"; a failure is "-" and its name.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys

_PATIENCE = float(os.environ.get("PATIENCE", "2"))  # seconds for an answer


def main() -> None:
    for word in sys.argv[1:]:
        kind, _, rest = word.partition(":")
        address, _, port = rest.rpartition(":")
        try:
            result = _WAYS[kind](address, int(port))
        except OSError as error:
            result = "-" + errno.errorcode.get(error.errno or 0, type(error).__name__)
        print(f"{kind} {result}")


def _udp(address: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as near:
        near.settimeout(_PATIENCE)
        near.sendto(b"question", (address, port))
        return near.recv(100).decode()


def _itself(address: str, port: int) -> str:
    """To a socket of this very process: both ways are filtered."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as far:
        far.settimeout(_PATIENCE)
        far.bind((address, port))
        with socket.socket(family, socket.SOCK_DGRAM) as near:
            near.bind((address, 0))
            near.sendto(b"itself", far.getsockname())
        return far.recv(100).decode()


def _ip_header(address: str, size: int, fragment: int, source: str = "0.0.0.0") -> bytes:
    ends = socket.inet_aton(source), socket.inet_aton(address)
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + size, 7, fragment, 64, 17, 0, *ends)


def _datagram(port: int, text: bytes) -> bytes:
    return struct.pack(">HHHH", 5000, port, 8 + len(text), 0) + text  # without a checksum


def _raw(address: str, port: int, source: str = "0.0.0.0") -> str:
    """A header of its own."""
    body = _datagram(port, b"raw")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as near:
        near.sendto(_ip_header(address, len(body), 0, source) + body, (address, 0))
    return "sent"


def _spoofed(address: str, port: int) -> str:
    return _raw(address, port, "127.0.0.1")


def _elsewhere(address: str, port: int) -> str:
    """The header names another address than the one that the packet is routed by."""
    body = _datagram(port, b"raw")
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as near:
        near.sendto(_ip_header(address, len(body), 0) + body, ("127.0.0.1", 0))
    return "sent"


def _fragments(address: str, port: int) -> str:
    body = _datagram(port, b"fragment".ljust(64, b"."))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as near:
        for at, more in ((0, 0x2000), (40, 0)):
            part = body[at : at + 40]
            header = _ip_header(address, len(part), more | at // 8)
            near.sendto(header + part, (address, 0))
    return "sent"


def _frame(address: str, port: int) -> str:
    """Past the network layer (packet(7)), to the gateway's MAC or to all."""
    body = _datagram(port, b"frame")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near:
        near.connect((address, port))
        source = near.getsockname()[0]
    packet = bytearray(_ip_header(address, len(body), 0, source))
    total = sum(struct.unpack(">10H", packet))
    total = (total & 0xFFFF) + (total >> 16)
    packet[10:12] = struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0x0800) as near:
        near.sendto(bytes(packet) + body, ("eth0", 0x0800, 0, 0, b"\xff" * 6))
    return "sent"


_WAYS = {
    "udp": _udp,
    "itself": _itself,
    "raw": _raw,
    "spoofed": _spoofed,
    "elsewhere": _elsewhere,
    "fragments": _fragments,
    "frame": _frame,
}

if __name__ == "__main__":
    main()
