"""The handshake between parent and child: what the other end says is checked, whoever holds it."""

from __future__ import annotations

import _socket

import pytest

from sysbox.base.errors import FAILED, NOT_FOUND, StartError
from sysbox.run.handshake import BORN, UNSHARED, Channel


@pytest.fixture
def ends() -> tuple[Channel, _socket.socket]:
    """Ours, and the bare socket of the other."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return Channel(one), other


@pytest.mark.parametrize(
    "message",
    [
        b"F",
        b"F[1,2]",
        b"B[1]",
        b"B1",
        b"Fnull",
        b'F{"status":"abc"}',
        b"F" + b"[" * 5000,
        b"B\xff",
        b'B{"pid":1,"pid":2}',
    ],
)
def test_a_malformed_message_is_one_line(
    ends: tuple[Channel, _socket.socket], message: bytes
) -> None:
    ours, other = ends
    other.send(message)
    with pytest.raises(StartError) as raised:
        ours.receive(BORN if message[:1] == BORN else UNSHARED)
    assert raised.value.status == FAILED
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(("status", "found"), [(0, FAILED), (1, FAILED), (NOT_FOUND, NOT_FOUND)])
def test_what_has_not_run_has_not_succeeded(
    ends: tuple[Channel, _socket.socket], status: int, found: int
) -> None:
    ours, other = ends
    other.send(b'F{"phase":"exec","message":"m","hint":"","status":%d}' % status)
    with pytest.raises(StartError) as raised:
        ours.receive(UNSHARED)
    assert raised.value.status == found
