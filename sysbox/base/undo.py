"""Undo the steps already done when a later one fails: one list in place of nested excepts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Undo:
    """A context manager: when its block raises, it calls the added steps, the last one first."""

    def __init__(self) -> None:
        self._steps: list[Callable[[BaseException], object]] = []

    def add(self, step: Callable[[BaseException], object]) -> None:
        """`step` gets the exception of the block. If a step raises, the earlier ones are still called."""
        self._steps.append(step)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            self._take_back(error)

    def _take_back(self, error: BaseException) -> None:
        if self._steps:
            try:
                self._steps.pop()(error)
            finally:
                self._take_back(error)
