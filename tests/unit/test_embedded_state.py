"""The leader file of an embedded host: what is no leader is no host."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base import files
from sysbox.base.errors import FormatError
from sysbox.embedded import state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{\n",
        "\0\0",
        "1 2 running",
        "-1 2 running shared",
        f"{1 << 31} 2 running shared",
        f"{'9' * 4000} 2 running x",
    ],
)
def test_what_is_no_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(state, "RUN", str(tmp_path))
    (tmp_path / "one").mkdir()
    (tmp_path / "one/leader").write_text(text, encoding="ascii")
    assert state.load("one") is None


def test_a_leader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "RUN", str(tmp_path))
    (tmp_path / "one").mkdir()
    host = state.Host(name="one", pid=7, start=8, phase=state.RUNNING, private_network=True)
    state.save(host)
    assert state.load("one") == host


@pytest.mark.parametrize("kind", ["directory", "link", "large"])
def test_what_is_no_file_is_no_leader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(state, "RUN", str(tmp_path))
    leader = tmp_path / "one/leader"
    leader.parent.mkdir()
    if kind == "directory":
        leader.mkdir()
    elif kind == "link":
        leader.symlink_to("nowhere")
    else:
        leader.write_bytes(b"x" * 5000)
    assert state.load("one") is None


def test_a_leader_that_cannot_be_read_is_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "RUN", str(tmp_path))
    (tmp_path / "one").mkdir()
    (tmp_path / "one/leader").touch()

    def fails(*_: object) -> bytes:
        raise FormatError("Too many open files")

    monkeypatch.setattr(files, "read_file", fails)
    with pytest.raises(FormatError):
        state.load("one")
