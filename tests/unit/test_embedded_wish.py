"""SYSBOX_HOST: what is not valid is not the default host."""

from __future__ import annotations

import pytest

from sysbox.base.errors import UsageError
from sysbox.embedded import state


@pytest.mark.parametrize(
    ("wish", "name"),
    [("", "default"), ("auto", "default"), ("system", "default"), ("embedded:a", "a")],
)
def test_valid(monkeypatch: pytest.MonkeyPatch, wish: str, name: str) -> None:
    monkeypatch.setenv("SYSBOX_HOST", wish)
    assert state.name_from_environment() == name


@pytest.mark.parametrize("wish", ["a", "system:a", "auto:", "embeded:a"])
def test_not_valid(monkeypatch: pytest.MonkeyPatch, wish: str) -> None:
    monkeypatch.setenv("SYSBOX_HOST", wish)
    with pytest.raises(UsageError, match="SYSBOX_HOST"):
        state.name_from_environment()
