"""The records of containers: what needs no container."""

from __future__ import annotations

import posix

import pytest

from sysbox import naming, state


def test_an_id_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """inet_aton(3) reads a hostname of digits alone as an address, and it never resolves."""
    drawn = iter([bytes.fromhex("12" * 32), bytes.fromhex("ab" * 32)])
    monkeypatch.setattr(posix, "urandom", lambda _: next(drawn))
    assert naming.new_id() == "ab" * 32
    assert state.is_id("ab" * 32)
    assert not state.is_id("AB" * 32)
