"""The hot D-Bus connection against a peer that answers badly, slowly or not at all."""

from __future__ import annotations

import _socket
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import pytest

from sysbox.base.errors import SystemdError
from sysbox.units import wire
from sysbox.units.bus import MANAGER, MANAGER_PATH, Bus, is_lost

OK = b"OK 0123456789abcdef0123456789abcdef\r\n"


def message(kind: int, body: str, signature: str = "s", **fields: tuple[int, str, object]) -> bytes:
    """A reply, an error or a signal, by way of the encoder of calls."""
    out = bytearray(16)
    numbered = [*fields.values(), (8, "g", signature)]
    for number, code, value in numbered:
        out += bytes(-len(out) & 7)
        out.append(number)
        wire.marshal(out, "v", ((code, value),))
    content = bytearray()
    wire.marshal(content, signature, (body,))
    length = len(out) - 16
    out += bytes(-len(out) & 7)
    head = bytearray(b"l")
    wire.marshal(head, "yyyuuu", (kind, 0, 1, len(content), 1, length))
    out[:16] = head
    return bytes(out + content)


def answer(to: int, text: str = "fine") -> bytes:
    return message(wire.RETURN, text, reply=(5, "u", to))


def signal(member: str, text: str) -> bytes:
    return message(wire.SIGNAL, text, member=(3, "s", member))


@pytest.fixture
def pair() -> Iterator[tuple[Bus, socket.socket]]:
    ours, theirs = socket.socketpair()
    bus = Bus(_socket.socket(fileno=ours.detach()), private=True)
    theirs.settimeout(5)
    yield bus, theirs
    bus.close()
    theirs.close()


def ask(bus: Bus, timeout: float = 5) -> str:
    (text,) = bus.call(MANAGER_PATH, MANAGER, "Question", timeout=timeout)
    return str(text)


def in_background(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_authentication_and_the_first_call_leave_in_one_write(
    pair: tuple[Bus, socket.socket],
) -> None:
    bus, peer = pair
    bus.send(MANAGER_PATH, MANAGER, "Question")
    first = peer.recv(4096)
    assert first.startswith(b"\0AUTH EXTERNAL ")
    _, _, rest = first.partition(b"BEGIN\r\n")
    assert wire.parse(rest).member == "Question"


def test_a_server_that_read_too_far_is_woken(pair: tuple[Bus, socket.socket]) -> None:
    """sd-bus leaves a first call that it read together with BEGIN until more comes."""
    bus, peer = pair
    serial = bus.send(MANAGER_PATH, MANAGER, "Question")
    peer.recv(4096)
    peer.sendall(OK)
    thread = in_background(lambda: peer.sendall(answer(serial)) if peer.recv(4096) else None)
    assert bus.reply(serial) == ("fine",)
    thread.join()


def test_an_answer_in_pieces(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair

    def serve() -> None:
        for byte in OK + signal("JobRemoved", "noise") + answer(1):
            peer.sendall(bytes([byte]))

    thread = in_background(serve)
    assert ask(bus) == "fine"
    thread.join()


def test_replies_in_any_order(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair
    serials = [bus.send(MANAGER_PATH, MANAGER, "Question") for _ in range(3)]
    peer.sendall(OK + b"".join(answer(one, f"answer {one}") for one in reversed(serials)))
    assert [bus.reply(one) for one in serials] == [(f"answer {one}",) for one in serials]


def test_an_interrupted_wait_can_be_repeated(
    pair: tuple[Bus, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """ctrl-c during a start: what undoes it waits for the same reply."""
    bus, peer = pair
    serial = bus.send(MANAGER_PATH, MANAGER, "Question")
    with monkeypatch.context() as patched:
        patched.setattr(bus, "_readable", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bus.reply(serial)
    peer.sendall(OK + answer(serial))
    assert bus.reply(serial, timeout=1) == ("fine",)


def interrupted(_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_an_interrupt_loses_no_message(
    pair: tuple[Bus, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    bus, peer = pair
    serial = bus.send(MANAGER_PATH, MANAGER, "Question")
    peer.sendall(OK + answer(serial))
    with monkeypatch.context() as patched:
        patched.setattr(wire, "parse", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bus.reply(serial)
    assert bus.reply(serial, timeout=1) == ("fine",)


def test_signals_wait_to_be_asked_for(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair
    peer.sendall(
        OK
        + signal("JobRemoved", "a")
        + signal("Other", "x")
        + signal("JobRemoved", "b")
        + answer(1)
    )
    assert ask(bus) == "fine"
    assert bus.wait_signal("JobRemoved", lambda args: args == ("b",), 1) == ("b",)
    assert bus.wait_signal("JobRemoved", lambda args: True, 1) == ("a",)
    with pytest.raises(SystemdError):
        bus.wait_signal("Other", lambda args: True, 0.05)  # not kept: nobody had asked for it


def test_it_is_known_whether_all_signals_were_kept(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair
    assert not bus.has_all("JobNew")
    bus.watch("JobNew")
    peer.sendall(OK + signal("JobNew", "a") + answer(1))
    assert ask(bus) == "fine"
    assert bus.has_all("JobNew")
    assert bus.pending("JobNew") == [("a",)]
    one, other = socket.socketpair()
    with one, other:
        bus._use(one)  # as after a lost connection
        assert not bus.has_all("JobNew")


def test_a_signal_that_nobody_watches_is_not_even_read(pair: tuple[Bus, socket.socket]) -> None:
    """PID 1 sends its private peers whatever changes in any unit."""
    bus, peer = pair
    damaged = bytearray(signal("Other", "x"))
    damaged[-2] = 0xFF  # no UTF-8
    peer.sendall(OK + bytes(damaged) + answer(1))
    assert ask(bus) == "fine"


def test_noise_does_not_pile_up(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair

    def serve() -> None:
        peer.sendall(OK)
        for _ in range(10_000):
            peer.sendall(signal("JobRemoved", "noise"))
        peer.sendall(answer(1))

    thread = in_background(serve)
    assert ask(bus, 30) == "fine"
    assert len(bus._signals) <= 4096
    thread.join()


def test_an_error_reply(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair
    name = "org.freedesktop.DBus.Error.AccessDenied"
    peer.sendall(OK + message(wire.ERROR, "no", error=(4, "s", name), reply=(5, "u", 1)))
    with pytest.raises(SystemdError) as caught:
        ask(bus)
    assert caught.value.dbus_name == name
    assert "no" in caught.value.message
    assert caught.value.hint == "run it as root"


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"O",
        OK,
        OK + b"not a D-Bus message",
        OK + answer(1)[:20],
        OK + b"l\x02\x00\x01" + b"\xff" * 12,
        b"x" * 20_000,
    ],
    ids=["nothing", "half a line", "no answer", "garbage", "half an answer", "huge", "no line"],
)
def test_a_peer_that_goes_away(pair: tuple[Bus, socket.socket], sent: bytes) -> None:
    bus, peer = pair

    def serve() -> None:
        peer.recv(4096)
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)

    thread = in_background(serve)
    with pytest.raises(SystemdError) as caught:
        ask(bus)
    assert is_lost(caught.value)
    thread.join()


def test_refused_authentication(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair
    peer.sendall(b"REJECTED EXTERNAL\r\n")
    with pytest.raises(SystemdError) as caught:
        ask(bus)
    assert caught.value.hint == "run it as root"


def test_a_peer_that_is_silent(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair
    peer.sendall(OK)
    started = time.monotonic()
    with pytest.raises(SystemdError) as caught:
        ask(bus, 0.1)
    assert 0.05 < time.monotonic() - started < 10  # without a time of its own it is 25
    assert caught.value.dbus_name == "org.freedesktop.DBus.Error.Timeout"


def test_a_late_answer_is_not_taken_for_another(pair: tuple[Bus, socket.socket]) -> None:
    bus, peer = pair
    peer.sendall(OK)
    with pytest.raises(SystemdError):
        ask(bus, 0.05)
    peer.recv(4096)
    peer.sendall(answer(1, "late"))
    select.select([bus], [], [], 1)
    late = bus.send(MANAGER_PATH, MANAGER, "Question")
    peer.sendall(answer(late, "mine"))
    assert bus.reply(late) == ("mine",)


def test_no_systemd_says_what_was_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysbox.units.bus.PRIVATE_SOCKET", "/nonexistent/private")
    monkeypatch.setattr("sysbox.units.bus.SYSTEM_SOCKET", "/nonexistent/bus")
    with pytest.raises(SystemdError) as caught:
        Bus.connect()
    assert "no systemd to talk to" in caught.value.message or "SYSBOX_BUS" in caught.value.message


def test_all_that_is_asked_within_a_time() -> None:
    """A hint is not worth a call's usual time: its answer comes too late here."""
    ours, theirs = socket.socketpair()
    with theirs, Bus(_socket.socket(fileno=ours.detach()), private=True, within=0.1) as bus:
        late = threading.Timer(1, theirs.sendall, (OK + answer(1),))
        late.start()
        with pytest.raises(SystemdError, match="did not answer in time"):
            ask(bus, timeout=60)
        late.cancel()
