"""The files of a disk's limits, rewritten while systemd writes them too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sysbox.linux import _sys
from sysbox.units.limits import bandwidths
from sysbox.units.limits.bandwidths import READ, WRITE
from sysbox.units.limits.properties import Property

UNIT = f"docker-{'ab' * 32}.scope"
SET = (Property(name=READ, signature="a(st)", value=[]),)


def drop_in(rate: int) -> str:
    return f"[Scope]\n{READ}=\n{READ}=/dev/a {rate}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The drop-ins of a scope that has a limit of each direction."""
    monkeypatch.setattr(bandwidths, "_TRANSIENT", str(tmp_path))
    (tmp_path / UNIT).write_text(f"[Scope]\n{WRITE}=\n{WRITE}=/dev/a 1\n")
    made = tmp_path / f"{UNIT}.d"
    made.mkdir()
    (made / f"50-{READ}.conf").write_text(drop_in(2))
    return made


def test_what_a_reload_would_lose_is_written_anew_with_its_time(place: Path) -> None:
    file = place / f"50-{READ}.conf"
    os.utime(file, (100, 100))
    bandwidths.protect(UNIT, SET)
    assert file.read_text() == f"[Scope]\n{READ}=/dev/a 2\n"
    assert file.stat().st_mtime == 100


def test_what_is_set_meanwhile_stays(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The older limit took its place in the file, and was there again at the next reload."""
    file, rewritten = place / f"50-{READ}.conf", bandwidths.without_resets

    def meanwhile(fragment: str, drop_ins: tuple[str, ...]) -> tuple[str, ...]:
        (place / "new").write_text(drop_in(3))
        (place / "new").rename(file)
        return rewritten(fragment, drop_ins)

    monkeypatch.setattr(bandwidths, "without_resets", meanwhile)
    bandwidths.protect(UNIT, SET)
    assert file.read_text() == drop_in(3)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_what_is_set_at_the_last_moment_stays(
    place: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """Once the file was looked at for the last time, and while what was set since is put back."""
    file, exchange, rates = place / f"50-{READ}.conf", _sys.exchange, iter(range(3, 3 + times))

    def meanwhile(own: str, path: str) -> None:
        if path == str(file) and (rate := next(rates, 0)):
            (place / "new").write_text(drop_in(rate))
            (place / "new").rename(file)
        exchange(own, path)

    monkeypatch.setattr(_sys, "exchange", meanwhile)
    bandwidths.protect(UNIT, SET)
    assert file.read_text() == drop_in(2 + times)
    assert [one.name for one in place.iterdir()] == [file.name]


def test_a_unit_that_goes_at_the_last_moment_is_no_error(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchange = _sys.exchange

    def meanwhile(own: str, path: str) -> None:
        Path(path).unlink(missing_ok=True)
        exchange(own, path)

    monkeypatch.setattr(_sys, "exchange", meanwhile)
    bandwidths.protect(UNIT, SET)
    assert list(place.iterdir()) == []
