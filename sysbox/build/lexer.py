"""The lines of a Containerfile as statements: directives, comments, continuation lines, here-documents.

The rules are those of the Dockerfile reference, "Format", "Parser directives" and "Here-documents". The time
is linear in the size of the file.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.build.errors import FileError, quoted
from sysbox.build.model import MAX_FILE, MAX_INSTRUCTIONS, Heredoc
from sysbox.build.words import SPACE, heredoc_words

DIRECTIVES = ("check", "escape", "syntax")
_WITH_HEREDOCS = ("ADD", "COPY", "RUN")


class Piece(Frozen):
    """Where a part of a statement's text comes from; each part is of one line."""

    offset: int  # in the text
    line: int
    column: int


class Statement(Frozen):
    """An instruction before it is understood."""

    file: str
    keyword: str  # in upper case
    text: str  # the arguments, on one line, without here-documents; no space around
    line: int
    column: int  # of the keyword
    last_line: int
    pieces: tuple[Piece, ...]  # sorted; the first one has offset 0
    escape: str
    heredocs: tuple[Heredoc, ...] = ()

    def place(self, offset: int) -> tuple[int, int]:
        """The line and the column of a character of the text."""
        low, high = 0, len(self.pieces)
        while high - low > 1:
            middle = (low + high) // 2
            if self.pieces[middle].offset <= offset:
                low = middle
            else:
                high = middle
        piece = self.pieces[low]
        return piece.line, piece.column + offset - piece.offset

    def error(self, offset: int, what: str, hint: str = "") -> FileError:
        """The error for a character of the text; -1 is the keyword."""
        line, column = self.place(offset) if offset >= 0 else (self.line, self.column)
        return FileError(self.file, line, column, what, hint=hint)

    def rest(self, offset: int) -> Statement:
        """The statement in the arguments of ONBUILD, whose keyword is at `offset`."""
        keyword, text, start = split_keyword(self.text[offset:])
        line, column = self.place(offset)
        first = self.place(offset + start)
        pieces = [Piece(offset=0, line=first[0], column=first[1])]
        pieces += [
            piece.replace(offset=piece.offset - offset - start)
            for piece in self.pieces
            if piece.offset > offset + start
        ]
        return self.replace(
            keyword=keyword, text=text, line=line, column=column, pieces=tuple(pieces)
        )


class Lines(Frozen):
    """A whole file."""

    statements: tuple[Statement, ...]
    directives: dict[str, str]
    warnings: tuple[str, ...]


def read(data: bytes, file: str) -> Lines:
    """The statements of a file. Raises FileError."""
    return _Reader(decode(data, file), file).read()


def decode(data: bytes, file: str) -> list[str]:
    """The lines of a file, without their ends, or with \\r alone. Raises FileError for what is no text."""
    if len(data) > MAX_FILE:
        raise FileError(file, 1, 1, f"the file has {len(data)} bytes, more than {MAX_FILE}")
    data = data.removeprefix(b"\xef\xbb\xbf")
    nul = data.find(b"\0")
    if nul >= 0:
        line, column = data.count(b"\n", 0, nul) + 1, nul - data.rfind(b"\n", 0, nul)
        raise FileError(file, line, column, "a NUL byte: this is no text file")
    # a comment may have another encoding: `_Reader` looks at the other lines
    return data.decode("utf-8", "surrogateescape").split("\n")


def check_utf8(text: str, file: str, line: int) -> None:
    """Raises FileError for a byte that is not UTF-8: nothing of it could go into a configuration."""
    if text.isascii():
        return
    for at, character in enumerate(text):
        if "\udc80" <= character <= "\udcff":
            byte = ord(character) - 0xDC00
            raise FileError(file, line, at + 1, f"the byte 0x{byte:02x} is not UTF-8")


def split_keyword(text: str) -> tuple[str, str, int]:
    """(the first word in upper case, what comes after the space, its offset)."""
    end = 0
    while end < len(text) and text[end] not in SPACE:
        end += 1
    start = end
    while start < len(text) and text[start] in SPACE:
        start += 1
    return text[:end].upper(), text[start:].rstrip(SPACE), start


class _Reader:
    """Reads the lines of a file from the first to the last one."""

    def __init__(self, lines: list[str], file: str) -> None:
        self.lines = lines
        self.file = file
        self.at = 0  # index of the next line
        self.escape = "\\"
        self.directives: dict[str, str] = {}
        self.warnings: list[str] = []

    def read(self) -> Lines:
        self.read_directives()
        statements = []
        while (start := self.next_start()) is not None:
            statements.append(self.statement(start))
            if len(statements) > MAX_INSTRUCTIONS:
                raise FileError(
                    self.file, start + 1, 1, f"more than {MAX_INSTRUCTIONS} instructions"
                )
        if not statements:
            raise FileError(
                self.file, 1, 1, "no instruction in this file", hint="it must begin with FROM IMAGE"
            )
        return Lines(
            statements=tuple(statements),
            directives=self.directives,
            warnings=tuple(self.warnings),
        )

    def read_directives(self) -> None:
        """`# NAME=VALUE` at the very top, each once; the first other line ends them."""
        for number, line in enumerate(self.lines):
            found = _directive(line)
            if found is None:
                return
            name, value = found
            column = line.index("#") + 1
            check_utf8(line, self.file, number + 1)
            if name in self.directives:
                raise FileError(
                    self.file, number + 1, column, f"the directive '{name}' stands twice"
                )
            if name == "escape" and value not in ("\\", "`"):
                what = f"escape={quoted(value)}: must be \\ or `"
                raise FileError(self.file, number + 1, column, what)
            self.directives[name] = value
            self.escape = self.directives.get("escape", "\\")
            self.at = number + 1

    def next_start(self) -> int | None:
        """The index of the next line that is neither empty nor a comment; None at the end."""
        while self.at < len(self.lines):
            stripped = self.lines[self.at].lstrip(SPACE)
            self.at += 1
            # an escape character alone is a continuation of nothing
            if stripped and stripped[0] != "#" and self.unfinished(stripped) != "":
                return self.at - 1
        return None

    def unfinished(self, line: str) -> str | None:
        """The line without the escape character at its end, or None where it has none.

        Two escape characters are none, as in BuildKit.
        """
        bare = line.rstrip(SPACE)
        if bare.endswith(self.escape) and not bare.endswith(self.escape * 2):
            return bare[:-1]
        return None

    def statement(self, start: int) -> Statement:
        """The statement that begins with the line `start`, and its here-documents."""
        parts, places = self.logical_line(start)
        indent = len(parts[0]) - len(parts[0].lstrip(SPACE))
        whole = "".join(parts)[indent:]
        keyword, text, offset = split_keyword(whole)
        statement = Statement(
            file=self.file,
            keyword=keyword,
            text=text,
            line=start + 1,
            column=indent + 1,
            last_line=self.at,
            pieces=_pieces(parts, places, indent + offset),
            escape=self.escape,
        )
        heredocs = self.heredocs(statement)
        return statement.replace(heredocs=heredocs, last_line=self.at) if heredocs else statement

    def logical_line(self, start: int) -> tuple[list[str], list[int]]:
        """The parts of a line and of those that continue it, and the index of each one's line."""
        parts: list[str] = []
        places: list[int] = []
        at, line, empty = start, self.lines[start], 0
        while True:
            check_utf8(line, self.file, at + 1)
            shorter = self.unfinished(line)
            parts.append(line.rstrip("\r") if shorter is None else shorter)
            places.append(at)
            if shorter is None:
                break
            while self.at < len(self.lines):
                stripped = self.lines[self.at].lstrip(SPACE)
                if stripped and stripped[0] != "#":
                    break
                empty = empty or (0 if stripped else self.at + 1)
                self.at += 1
            if self.at == len(self.lines):
                break
            at, line = self.at, self.lines[self.at]
            self.at += 1
        if empty and empty < places[-1] + 1:
            self.warnings.append(f"{self.file}:{empty}:1: an empty line in an instruction")
        return parts, places

    def heredocs(self, statement: Statement) -> tuple[Heredoc, ...]:
        """Reads the here-documents that a statement announces."""
        inner = statement
        if statement.keyword == "ONBUILD":
            inner = statement.rest(0)
        if inner.keyword not in _WITH_HEREDOCS or "<<" not in inner.text:
            return ()
        found = []
        for offset, heredoc in heredoc_words(inner.text, self.escape):
            if inner.keyword != "RUN" and ("/" in heredoc.name or heredoc.name in (".", "..")):
                raise inner.error(
                    offset, f"{quoted(heredoc.name)} is not the name of a file", "without a slash"
                )
            content = self.until(heredoc)
            if content is None:
                raise inner.error(
                    offset, f"a here-document without its end: no line {quoted(heredoc.name)}"
                )
            found.append(heredoc.replace(content=content))
        return tuple(found)

    def until(self, heredoc: Heredoc) -> str | None:
        """The lines before the one that is the delimiter alone; None where there is none."""
        for at in range(self.at, len(self.lines)):
            line = self.lines[at].rstrip("\r")
            if (line.lstrip("\t") if heredoc.strips else line) == heredoc.name:
                lines = self.lines[self.at : at]
                for number, one in enumerate(lines, self.at + 1):
                    check_utf8(one, self.file, number)
                self.at = at + 1
                return "".join(f"{one}\n" for one in lines)
        return None


def _pieces(parts: list[str], places: list[int], skipped: int) -> tuple[Piece, ...]:
    """The places of a text that begins `skipped` characters after the parts' beginning."""
    pieces: list[Piece] = []
    offset = 0
    for part, at in zip(parts, places, strict=True):
        end = offset + len(part)
        if end > skipped or (not pieces and end == skipped):
            begin = max(offset, skipped)
            pieces.append(Piece(offset=begin - skipped, line=at + 1, column=begin - offset + 1))
        offset = end
    last = Piece(offset=0, line=places[-1] + 1, column=len(parts[-1]) + 1)
    return tuple(pieces) or (last,)


def _directive(line: str) -> tuple[str, str] | None:
    """`# NAME=VALUE` with a name that is known, or None."""
    stripped = line.strip(SPACE)
    if not stripped.startswith("#"):
        return None
    name, equals, value = stripped[1:].partition("=")
    name = name.strip(SPACE).lower()
    if name not in DIRECTIVES or not equals or not value.strip(SPACE):
        return None
    return name, value.strip(SPACE)
