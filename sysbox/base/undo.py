"""What is taken back when the rest fails: one list, in place of nested excepts."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self


class Undo:
    """A context manager: where its block raises, the steps that were added are done, the last one first."""

    def __init__(self) -> None:
        self._steps: list[Callable[[BaseException], object]] = []

    def add(self, step: Callable[[BaseException], object]) -> None:
        """`step` is given what was raised. Where it raises itself, those before it are done all the same."""
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
