"""What is taken back when the rest fails."""

from __future__ import annotations

import pytest

from sysbox.base.undo import Undo


def test_nothing_is_taken_back_of_what_succeeds() -> None:
    done: list[str] = []
    with Undo() as undo:
        undo.add(lambda _: done.append("first"))
    assert done == []


def test_the_last_step_comes_first_and_each_is_told_why() -> None:
    done: list[tuple[str, str]] = []
    undo = Undo()
    undo.add(lambda error: done.append(("first", str(error))))
    undo.add(lambda error: done.append(("second", str(error))))
    with pytest.raises(ValueError, match="why"), undo:
        raise ValueError("why")
    assert done == [("second", "why"), ("first", "why")]


def test_a_step_that_fails_keeps_no_other_from_being_done() -> None:
    done: list[str] = []

    def fail(_: BaseException) -> None:
        raise OSError("the step")

    undo = Undo()
    undo.add(lambda _: done.append("first"))
    undo.add(fail)
    undo.add(lambda _: done.append("third"))
    with pytest.raises(OSError, match="the step"), undo:
        raise KeyboardInterrupt
    assert done == ["third", "first"]
