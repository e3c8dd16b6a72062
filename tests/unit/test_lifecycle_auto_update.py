"""Auto-updates: how long one service may keep the others waiting, and what is kept for the way back."""

from __future__ import annotations

from pathlib import Path

import pytest
from forked import in_child

from sysbox.base.errors import SysboxError
from sysbox.cli.commands.auto_update import _about
from sysbox.lifecycle import auto_update, way_back
from sysbox.spec import Health

_CHECKED = Health(
    command=("true",), interval=30_000_000, timeout=30_000_000, start_period=0, start_interval=1, retries=3
)  # fmt: skip
_YEAR = 365 * 86400 * 1_000_000


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(way_back, "RUN", str(tmp_path))
    monkeypatch.setattr(way_back, "PATH", str(tmp_path / "way-back.json"))
    return tmp_path / "way-back.json"


@pytest.mark.parametrize(
    "asked",
    [{"interval": _YEAR}, {"start_period": _YEAR}, {"timeout": _YEAR}, {"retries": 1 << 40}],
    ids=["interval", "start-period", "timeout", "retries"],
)
def test_no_image_says_how_long_others_wait(asked: dict[str, int]) -> None:
    assert auto_update.patience(_CHECKED) == 250
    assert auto_update.patience(_CHECKED.replace(**asked)) == 1800


def test_what_is_kept_while_an_update_goes_on(kept: Path) -> None:
    assert way_back.users_of("sha256:1") == ()
    with way_back.Kept("sha256:1", ["web", "db"]):
        assert way_back.users_of("sha256:1") == ("web", "db")
        assert way_back.users_of("sha256:2") == ()
    assert way_back.users_of("sha256:1") == ()
    assert not kept.exists()


def test_an_update_that_was_killed_keeps_nothing(kept: Path) -> None:
    in_child(lambda: way_back.Kept("sha256:1", ["web"]).__enter__())
    assert kept.exists()
    assert way_back.users_of("sha256:1") == ()
    kept.write_text("{")
    assert way_back.users_of("sha256:1") == ()


def test_an_error_of_a_registry_says_what_it_is_about() -> None:
    one = auto_update.Outcome(
        unit="web.service", container="a" * 64, name="web", image="quay.io/web:1", policy="registry",
        updated="failed",
    )  # fmt: skip
    about = _about(SysboxError("quay.io: no such host", hint="check its name"), one)
    assert about.message == "web.service: quay.io/web:1: quay.io: no such host"
    assert about.hint == "check its name"
    named = SysboxError("web.service does not start")
    assert _about(named, one) is named
    assert (
        _about(SysboxError("quay.io/web:1 is gone"), one).message
        == "web.service: quay.io/web:1 is gone"
    )
