"""What a function costs, counted: calls of Python functions, and of C functions by their names."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType


def calls(function: Callable[[], object]) -> tuple[int, Counter[str]]:
    """(calls of Python functions, calls of C functions by name) of one run; the same on any machine."""
    python, native = 0, Counter[str]()

    def profile(_: FrameType, event: str, called: object) -> None:
        nonlocal python
        if event == "call":
            python += 1
        elif event == "c_call":
            native[getattr(called, "__name__", "")] += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    return python, native
