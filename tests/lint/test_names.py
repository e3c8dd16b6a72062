"""Test files of lanes that run together have names of their own: pytest imports each by its name alone."""

from __future__ import annotations

from collections import Counter

import source

LANES = ("host", "attack", "vm")


def test_no_two_files_have_one_name() -> None:
    names = Counter(
        path.name for lane in LANES for path in (source.ROOT / "tests" / lane).glob("*.py")
    )
    twice = [name for name, count in names.items() if count > 1 and name != "conftest.py"]
    assert not twice
