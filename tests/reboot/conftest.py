"""Tests that reboot a guest. They run on this machine, and tell the guest what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools" / "vm"))
sys.path.insert(0, str(Path(__file__).parent))

from guest import Guest
from image import bundle, image
from machine import resume


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    """A guest of the file's own, in which sysbox is installed as `make install` does it."""
    machine = resume(image(), "smp", bundle())
    try:
        yield Guest(machine)
    finally:
        machine.end()
