"""What gc leaves alone, on a host that is made up."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from sysbox.lifecycle import gc
from sysbox.units.listing import UnitStatus

KNOWN, LEFT, RUNS = ("a" * 64, "b" * 64, "c" * 64)


def path(container_id: str) -> str:
    return f"/system.slice/docker-{container_id}.scope"


def test_the_cgroups_of_a_scope_that_systemd_knows_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be just starting, and empty; or docker's, whose scopes have the same names."""
    removed: list[str] = []
    loaded = UnitStatus(
        name=f"docker-{KNOWN}.scope", description="", active_state="activating",
    )  # fmt: skip
    monkeypatch.setattr(gc, "probe", lambda: None)
    monkeypatch.setattr(gc.Bus, "connect", nullcontext)
    monkeypatch.setattr(
        gc.tree, "find_scope_cgroups", lambda _: list(map(path, (KNOWN, LEFT, RUNS)))
    )
    monkeypatch.setattr(gc.tree, "remove_if_empty", lambda one, _: bool(removed.append(one) or 1))
    monkeypatch.setattr(gc.listing, "list_units", lambda *_: [loaded])
    monkeypatch.setattr(gc, "_has_run", lambda container_id: container_id == RUNS)
    assert list(gc._cgroups()) == [f"removed the cgroups of {LEFT[:12]}"]
    assert removed == [path(LEFT)]
