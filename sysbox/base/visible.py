"""Print names from containers, images and users safely.

A name may hold control sequences, which a terminal obeys, and characters that reorder the line or are
invisible (CVE-2021-42574). They are shown by their numbers. A program that reads sysbox's output through a
pipe gets them unchanged, except in tables and errors, where a newline in a name would forge a line.
"""

from __future__ import annotations

import posix

RED, GREEN, YELLOW = "31", "32", "33"  # console_codes(4)

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def printable(text: str, keep: str = "") -> str:
    """The text with `\\x1b` and the like for characters that Unicode calls unprintable, except `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    """JSON's escape for one character; \\xNN for a control character and for a byte that is not UTF-8."""
    code = ord(character)
    if code < 0x20:
        return _SHORT.get(character, f"\\x{code:02x}")
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    if code > 0xFFFF:  # as a surrogate pair
        return f"\\u{0xD7C0 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"


def for_terminal(text: str, fd: int) -> str:
    """Lines of text to be written to `fd`: `printable`, except newline and tab, where that is a terminal."""
    return printable(text, "\n\t") if posix.isatty(fd) else text


def coloured(text: str, colour: str, fd: int = 1) -> str:
    """The text in a colour where `fd` is a terminal with colours; `colour` "" leaves it unchanged."""
    return f"\x1b[{colour}m{text}\x1b[m" if text and colour and _has_colours(fd) else text


def _has_colours(fd: int) -> bool:
    """Whether to colour output to `fd`: NO_COLOR (https://no-color.org) or TERM=dumb switches it off."""
    environ = posix.environ
    no = environ.get(b"NO_COLOR") or environ.get(b"TERM", b"") in (b"", b"dumb")
    return not no and posix.isatty(fd)
