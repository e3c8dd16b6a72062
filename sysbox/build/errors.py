"""Errors in a Containerfile or an ignore file: each names its place as FILE:LINE:COLUMN."""

from __future__ import annotations

from sysbox.base.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.build.model import Instruction

_SHOWN = 60  # characters of a text that a message quotes


class FileError(SpecError):
    """What is wrong at one place of a file; lines and columns count from 1."""

    def __init__(self, file: str, line: int, column: int, what: str, *, hint: str = "") -> None:
        super().__init__(f"{file}:{line}:{column}: {what}", hint=hint)
        self.file = file
        self.line = line
        self.column = column


def at(instruction: Instruction, what: str, hint: str = "") -> FileError:
    """The error for an instruction; its message begins with the keyword."""
    keyword = instruction.text.partition(" ")[0]
    place = (instruction.file, instruction.line, instruction.column)
    return FileError(*place, f"{keyword}: {what}", hint=hint)


def quoted(text: str) -> str:
    """A text for a message: in quotes, shortened where it is long."""
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
    return f"'{shown}'"
