"""Tests that need the guest (`make test-vm`). It is a host: what serves the tests of hosts serves these."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "host"))

from lane import *  # noqa: F403 (its fixtures and hooks too)


def pytest_itemcollected(item: pytest.Item) -> None:
    """All of this directory runs in the guest alone."""
    item.add_marker("guest")
