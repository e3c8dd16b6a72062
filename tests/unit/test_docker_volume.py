"""`volume inspect` of what changes while it looks."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import NotFound
from sysbox.docker import volume
from sysbox.fs import volumes


def test_one_that_is_removed_meanwhile_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was there at the first look, and no directory had its name at the second."""
    monkeypatch.setattr(volumes, "VOLUMES", str(tmp_path))
    look = volumes.check

    def check(name: str) -> None:
        look(name)
        volumes.remove(name)

    volumes.ensure("goes")
    assert volume.describe("goes")["Name"] == "goes"
    monkeypatch.setattr(volumes, "check", check)
    with pytest.raises(NotFound, match="no such volume: goes"):
        volume.describe("goes")
