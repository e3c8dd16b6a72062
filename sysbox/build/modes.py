"""COPY --chmod: octal modes, and symbolic ones as chmod(1) has them. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def parse(text: str) -> Callable[[int, bool], int]:
    """`--chmod=0644`, or symbolic as in u=rwX,go=rX. Raises SpecError."""
    if text.isascii() and text.isdecimal() and set(text) <= set("01234567") and len(text) <= 5:
        mode = int(text, 8)
        if mode <= 0o7777:
            return lambda _mode, _is_directory: mode
    clauses = [_clause(one, text) for one in text.split(",")]

    def apply(mode: int, is_directory: bool) -> int:  # noqa: FBT001 (as Target.mode)
        for who, operation, rights in clauses:
            mode = _changed(mode, who, operation, rights, is_directory=is_directory)
        return mode

    return apply


_SHIFTS = {"u": 6, "g": 3, "o": 0}
_RIGHTS = {"r": 4, "w": 2, "x": 1}


def _clause(text: str, whole: str) -> tuple[str, str, str]:
    """One clause of a symbolic mode: (who, operation, rights)."""
    for index, character in enumerate(text):
        if character in "+-=":
            who, rights = text[:index] or "a", text[index + 1 :]
            if set(who) <= set("ugoa") and set(rights) <= set("rwxXst"):
                return who.replace("a", "ugo"), character, rights
            break
    raise SpecError(f"--chmod={whole}: not a mode", hint="octal, as in 755, or as in u=rwX,go=rX")


def _changed(mode: int, who: str, operation: str, rights: str, *, is_directory: bool) -> int:
    bits, cleared = 0, 0
    for one in who:
        cleared |= 7 << _SHIFTS[one]
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
