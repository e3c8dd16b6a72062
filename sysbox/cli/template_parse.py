"""Go's text/template: from text to nodes. Without `re`, so that `inspect -f` stays a hot verb."""

from __future__ import annotations

from sysbox.errors import UsageError
from sysbox.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    Token = tuple[str, str]  # kind: string, number, field, variable, word, symbol
    Operand = tuple[str, object]  # kind: literal, path, function, group

_SPACE = " \t\r\n"
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", '"': '"', "\\": "\\", "'": "'"}


class Text(Frozen):
    """Literal text."""

    text: str


class Path(Frozen):
    """`.A.B`, `$x.A`, `$`, or `(...).A`: where to begin, and the fields to follow."""

    root: str  # ".": the dot; "$name": a variable; "": `inner`
    fields: tuple[str, ...] = ()
    inner: object = None  # a Pipeline


class Literal(Frozen):
    """A string, number, true, false or nil."""

    value: object


class Call(Frozen):
    """A command of a pipeline: an operand, or a function or method with arguments."""

    head: object  # Path, Literal, or a function's name
    arguments: tuple[object, ...] = ()


class Pipeline(Frozen):
    """Commands joined by `|`; perhaps assigned to variables."""

    commands: tuple[object, ...]
    source: str
    variables: tuple[str, ...] = ()
    declares: bool = True


class Block(Frozen):
    """`if`, `range` or `with`, with its branches."""

    kind: str
    pipeline: object
    body: tuple[object, ...]
    otherwise: tuple[object, ...] = ()


def fail(reason: str) -> NoReturn:
    """Raise docker's error for a template that cannot be understood."""
    raise UsageError(f"template parsing error: template: {reason}", status=64)


def split(text: str) -> list[tuple[bool, str]]:
    """(is an action, content) in order; trim markers applied, comments dropped."""
    pieces: list[tuple[bool, str]] = []
    trim = False
    while text:
        before, opened, text = text.partition("{{")
        if trim:
            before = before.lstrip(_SPACE)
        if not opened:
            pieces.append((False, before))
            break
        if text[:1] == "-" and text[1:2] in _SPACE:
            before = before.rstrip(_SPACE)
            text = text[1:]
        pieces.append((False, before))
        action, text = _until_end(text)
        trim = action.endswith("-") and action[-2:-1] in _SPACE
        action = (action[:-1] if trim else action).strip(_SPACE)
        if not action.startswith("/*"):
            pieces.append((True, action))
    return [piece for piece in pieces if piece[0] or piece[1]]


def _until_end(text: str) -> tuple[str, str]:
    """What stands before the closing braces, strings skipped, and what is after them."""
    at = 0
    while at < len(text):
        if text.startswith("}}", at):
            return text[:at], text[at + 2 :]
        if text[at] in "\"'`":
            at = _string_end(text, at)
        at += 1
    fail("unclosed action")


def _string_end(text: str, at: int) -> int:
    quote = text[at]
    end = at + 1
    while end < len(text) and text[end] != quote:
        end += 2 if text[end] == "\\" and quote != "`" else 1
    if end >= len(text):
        fail("unterminated quoted string")
    return end


def tokens(action: str) -> list[Token]:
    """The words of an action; a field that follows without a space is part of its operand."""
    found: list[Token] = []
    at = 0
    while at < len(action):
        start = at
        character = action[at]
        if character in _SPACE:
            found.append(("space", " "))
            while at < len(action) and action[at] in _SPACE:
                at += 1
            continue
        if character in "\"'`":
            at = _string_end(action, at) + 1
            found.append(_string(action[start:at]))
            continue
        if character in "()|,=":
            at += 1
            found.append(("symbol", character))
            continue
        if action.startswith(":=", at):
            at += 2
            found.append(("symbol", ":="))
            continue
        at += 1
        while at < len(action) and (
            action[at] in _WORD or (_number_start(action[start:at]) and action[at] == ".")
        ):
            at += 1
        found.append(_word(action[start:at]))
    return found


def _number_start(text: str) -> bool:
    return text.lstrip("-+")[:1].isdigit()


def _string(text: str) -> Token:
    body = text[1:-1]
    if text[0] != "`" and "\\" in body:
        letters = iter(body)
        body = "".join(
            _ESCAPES.get(after := next(letters, ""), after) if letter == "\\" else letter
            for letter in letters
        )
    return ("number", str(ord(body))) if text[0] == "'" and len(body) == 1 else ("string", body)


def _word(text: str) -> Token:
    if text[0] == ".":
        return ("field", text[1:])
    if text[0] == "$":
        return ("variable", text)
    if _number_start(text):
        return ("number", text)
    if text[0] not in _WORD:
        fail(f"unexpected {text!r} in command")
    return ("word", text)


class _Reader:
    """Recursive descent over the tokens of one action."""

    def __init__(self, found: list[Token], source: str) -> None:
        self.tokens = found
        self.at = 0
        self.source = source

    def skip_space(self) -> None:
        while self.peek()[0] == "space":
            self.at += 1

    def peek(self) -> Token:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("end", "")

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def pipeline(self) -> Pipeline:
        variables, declares = self.assignment()
        commands = [self.command()]
        while self.peek() == ("symbol", "|"):
            self.take()
            commands.append(self.command())
        return Pipeline(
            commands=tuple(commands), source=self.source, variables=variables, declares=declares
        )

    def assignment(self) -> tuple[tuple[str, ...], bool]:
        start = self.at
        names = []
        while True:
            self.skip_space()
            kind, name = self.take()
            if kind != "variable":
                break
            names.append(name)
            self.skip_space()
            symbol = self.take()
            if symbol in (("symbol", ":="), ("symbol", "=")):
                return tuple(names), symbol[1] == ":="
            if symbol != ("symbol", ","):
                break
        self.at = start
        return (), True

    def command(self) -> Call:
        operands: list[object] = []
        self.skip_space()
        while self.peek()[0] != "end" and self.peek() not in (("symbol", "|"), ("symbol", ")")):
            operands.append(self.operand(first=not operands))
            self.skip_space()
        if not operands:
            fail("missing value for command")
        return Call(head=operands[0], arguments=tuple(operands[1:]))

    def operand(self, *, first: bool) -> object:
        kind, text = self.take()
        if kind == "string":
            return Literal(value=text)
        if kind == "number":
            return Literal(value=_number(text))
        if kind == "word":
            if text in ("true", "false", "nil"):
                return Literal(value={"true": True, "false": False, "nil": None}[text])
            return text if first else Call(head=text)
        if kind == "field":
            return Path(root=".", fields=((text,) if text else ()) + self.fields())
        if kind == "variable":
            return Path(root=text, fields=self.fields())
        if (kind, text) == ("symbol", "("):
            inner = self.pipeline()
            if self.take() != ("symbol", ")"):
                fail("unclosed left paren")
            return Path(root="", fields=self.fields(), inner=inner)
        fail(f"unexpected {text!r} in operand")

    def fields(self) -> tuple[str, ...]:
        found = []
        while self.peek()[0] == "field" and self.peek()[1]:
            found.append(self.take()[1])
        return tuple(found)

    def finish(self) -> None:
        self.skip_space()
        if self.peek()[0] != "end":
            fail(f"unexpected {self.peek()[1]!r} in command")


def _number(text: str) -> int | float:
    try:
        return float(text) if "." in text else int(text, 0)
    except ValueError:
        fail(f"bad number syntax: {text!r}")


def parse(text: str) -> tuple[object, ...]:
    """The nodes of a template. Raises UsageError."""
    pieces = split(text)
    nodes, at, closer = _nodes(pieces, 0, 0)
    if closer:
        fail(f"unexpected {{{{{closer}}}}}")
    if at != len(pieces):
        fail("unexpected action")
    return nodes


def _nodes(
    pieces: list[tuple[bool, str]], at: int, depth: int
) -> tuple[tuple[object, ...], int, str]:
    """Nodes up to an `end` or `else` (returned as `closer`) or the end of the template."""
    found: list[object] = []
    if depth > 50:
        fail("nested too deeply")
    while at < len(pieces):
        is_action, content = pieces[at]
        at += 1
        if not is_action:
            found.append(Text(text=content))
            continue
        keyword = content.split(None, 1)[0] if content else ""
        if keyword in ("end", "else"):
            return tuple(found), at, content
        if keyword in ("if", "range", "with"):
            node, at = _block(pieces, at, keyword, content[len(keyword) :], depth)
            found.append(node)
        else:
            found.append(_pipeline(content))
    return tuple(found), at, ""


def _pipeline(source: str) -> Pipeline:
    if not source:
        fail("missing value for command")
    reader = _Reader(tokens(source), source)
    pipeline = reader.pipeline()
    reader.finish()
    return pipeline


def _block(
    pieces: list[tuple[bool, str]], at: int, kind: str, source: str, depth: int
) -> tuple[Block, int]:
    pipeline = _pipeline(source.strip())
    body, at, closer = _nodes(pieces, at, depth + 1)
    otherwise: tuple[object, ...] = ()
    chained = closer.split(None, 1)
    if chained[:1] == ["else"] and len(chained) == 2:
        keyword, _, rest = chained[1].partition(" ")
        if keyword not in ("if", "with"):
            fail(f"unexpected {closer!r}")
        node, at = _block(pieces, at, keyword, rest, depth + 1)
        return Block(kind=kind, pipeline=pipeline, body=body, otherwise=(node,)), at
    if closer == "else":
        otherwise, at, closer = _nodes(pieces, at, depth + 1)
    if closer != "end":
        fail("unexpected EOF")
    return Block(kind=kind, pipeline=pipeline, body=body, otherwise=otherwise), at
