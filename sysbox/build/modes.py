"""COPY --chmod: octal modes, and symbolic ones as chmod(1) has them. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.build.errors import quoted
from sysbox.parse.common import is_digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SHIFTS = {"u": 6, "g": 3, "o": 0}
_RIGHTS = {"r": 4, "w": 2, "x": 1}
_LETTERS = set("rwxXst")


def parse(text: str) -> Callable[[int, bool], int]:
    """`--chmod=0644`, or symbolic as in u=rwX,go=rX. Raises SpecError."""
    if is_digits(text):
        if {"8", "9"} & {*text} or len(text) > 5 or int(text, 8) > 0o7777:
            raise SpecError(f"--chmod={quoted(text)}: must be up to 7777 in octal digits")
        octal = int(text, 8)
        return lambda _mode, _is_directory: octal
    actions = [action for clause in text.split(",") for action in _actions(clause, text)]

    def apply(mode: int, is_directory: bool) -> int:  # noqa: FBT001 (as Target.mode)
        for who, operation, rights in actions:
            mode = _changed(mode, who, operation, rights, is_directory=is_directory)
        return mode

    return apply


def _actions(clause: str, whole: str) -> list[tuple[str, str, str]]:
    """(who, operation, rights) of each: [ugoa...][[-+=][rwxXst...|u|g|o]...]. Raises SpecError."""
    rest = clause.lstrip("ugoa")
    who = (clause[: len(clause) - len(rest)] or "a").replace("a", "ugo")
    starts = [at for at, character in enumerate(rest) if character in "+-="]
    ends = [*starts[1:], len(rest)]
    actions = [(who, rest[at], rest[at + 1 : end]) for at, end in zip(starts, ends, strict=False)]
    if starts[:1] != [0] or not all(one in _SHIFTS or set(one) <= _LETTERS for *_, one in actions):
        hint = "octal, as in 755, or symbolic, as in u=rwX,go=rX"
        raise SpecError(f"--chmod={quoted(whole)}: not a mode", hint=hint)
    return actions


def _changed(mode: int, who: str, operation: str, rights: str, *, is_directory: bool) -> int:
    bits, cleared = 0, 0
    for one in who:
        cleared |= 7 << _SHIFTS[one]
        if rights in _SHIFTS:
            bits |= (mode >> _SHIFTS[rights] & 7) << _SHIFTS[one]
            continue
        for right in rights:
            if right in _RIGHTS or (right == "X" and (is_directory or mode & 0o111)):
                bits |= _RIGHTS.get(right, 1) << _SHIFTS[one]
            elif right == "s":
                bits |= {"u": 0o4000, "g": 0o2000, "o": 0}[one]
            elif right == "t":
                bits |= 0o1000
    if operation == "+":
        return mode | bits
    return mode & ~bits if operation == "-" else mode & ~cleared | bits
