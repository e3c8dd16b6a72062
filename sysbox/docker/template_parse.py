"""Go's text/template: from the tokens of its actions to nodes."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.docker.template_lex import fail, quote, split, string_end, tokens

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.docker.template_lex import Token

    Nodes = tuple[object, ...]

DEPTH = 50  # of nested blocks, and of nested parentheses: a real template needs three

FUNCTIONS = frozenset(
    """and call eq ge gt html index join js json le len lower lt ne not or pad print printf println slice
    split title truncate upper urlquery""".split()
)
_CONSTANTS = {"true": True, "false": False, "nil": None}


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


class Jump(Frozen):
    """`break` or `continue`."""

    kind: str


class Use(Frozen):
    """`{{template "name" pipeline}}`; `block` is replaced by one as well."""

    name: str
    pipeline: object = None  # a Pipeline; None: nil is the dot


class Template(Frozen):
    """A parsed template: its nodes, and those of the templates that it defines."""

    nodes: tuple[object, ...]
    defined: dict[str, tuple[object, ...]]


class _Reader:
    """Recursive descent over the tokens of one action."""

    def __init__(self, source: str) -> None:
        self.tokens = tokens(source)
        self.at = 0
        self.depth = 0
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
            command = self.command()
            if isinstance(command.head, Literal):
                fail(f"non executable command in pipeline stage {len(commands) + 1}")
            commands.append(command)
        return Pipeline(
            commands=tuple(commands), source=self.source, variables=variables, declares=declares
        )

    def assignment(self) -> tuple[tuple[str, ...], bool]:
        start = self.at
        names: list[str] = []
        while True:
            self.skip_space()
            kind, name = self.take()
            if kind != "variable":
                break
            names.append(str(name))
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
            if self.peek()[0] not in ("space", "end", "symbol"):
                fail(f"unexpected {quote(str(self.peek()[1]))} in operand")
            self.skip_space()
        if not operands:
            fail("missing value for command")
        head = operands[0]
        if isinstance(head, Literal) and (head.value is None or operands[1:]):
            fail("nil is not a command" if head.value is None else "can't give argument to a value")
        return Call(head=head, arguments=tuple(operands[1:]))

    def operand(self, *, first: bool) -> object:
        kind, value = self.take()
        text = str(value)
        if kind in ("string", "number"):
            return Literal(value=value)
        if kind == "word" and text in _CONSTANTS:
            return Literal(value=_CONSTANTS[text])
        if kind == "word":
            if text not in FUNCTIONS:
                fail(f"function {quote(text)} not defined")
            return text if first and self.peek()[0] != "field" else self.called(text)
        if kind == "field":
            return Path(root=".", fields=((text,) if text else ()) + self.fields())
        if kind == "variable":
            return Path(root=text, fields=self.fields())
        if (kind, text) != ("symbol", "("):
            fail(f"unexpected {quote(text)} in operand")
        return self.group()

    def called(self, name: str) -> object:
        """A function without arguments, as an operand; perhaps with fields of its value."""
        call = Call(head=name)
        fields = self.fields()
        if not fields:
            return call
        return Path(root="", fields=fields, inner=Pipeline(commands=(call,), source=self.source))

    def group(self) -> Path:
        self.depth += 1
        if self.depth > DEPTH:
            fail(f"parentheses nested too deeply: more than {DEPTH}")
        inner = self.pipeline()
        if self.take() != ("symbol", ")"):
            fail("unclosed left paren")
        self.depth -= 1
        return Path(root="", fields=self.fields(), inner=inner)

    def fields(self) -> tuple[str, ...]:
        found: list[str] = []
        while self.peek()[0] == "field" and self.peek()[1]:
            found.append(str(self.take()[1]))
        return tuple(found)

    def finish(self) -> None:
        self.skip_space()
        if self.peek()[0] != "end":
            fail(f"unexpected {quote(str(self.peek()[1]))} in command")


def _pipeline(source: str, kind: str = "command") -> Pipeline:
    if not source:
        fail(f"missing value for {kind}")
    reader = _Reader(source)
    pipeline = reader.pipeline()
    reader.finish()
    most = 2 if kind == "range" else 1
    if len(pipeline.variables) > most:
        fail(f"too many declarations in {kind}: at most {most}")
    return pipeline


def parse(text: str) -> Template:
    """The nodes of a template. Raises UsageError."""
    parser = _Parser(split(text))
    nodes, closer = parser.nodes()
    if closer:
        fail(f"unexpected {{{{{closer[:40]}}}}}")
    return Template(nodes=nodes, defined=parser.defined)


class _Parser:
    """Recursive descent over texts and actions."""

    def __init__(self, pieces: list[tuple[bool, str]]) -> None:
        self.pieces = pieces
        self.at = 0
        self.depth = 0
        self.ranges = 0  # `range` blocks around the position
        self.defined: dict[str, Nodes] = {}

    def nodes(self) -> tuple[Nodes, str]:
        """The nodes up to an `end` or `else`, and that action; "" at the end of the template."""
        found: list[object] = []
        while self.at < len(self.pieces):
            is_action, content = self.pieces[self.at]
            self.at += 1
            if not is_action:
                found.append(Text(text=content))
                continue
            keyword = _keyword(content)
            rest = content[len(keyword) :].strip()
            if keyword in ("end", "else"):
                return tuple(found), content
            found.append(self.action(keyword, rest, content))
        return tuple(found), ""

    def action(self, keyword: str, rest: str, content: str) -> object:
        if keyword in ("if", "range", "with"):
            return self.block(keyword, rest)
        if keyword in ("break", "continue"):
            if rest:
                fail(f"unexpected {quote(rest)} in {keyword}")
            if not self.ranges:
                fail(f"{{{{{keyword}}}}} outside {{{{range}}}}")
            return Jump(kind=keyword)
        if keyword == "define":
            if self.depth:
                fail("unexpected {{define}}: not at the top")
            self.define(*_name(rest, keyword))
            return Text(text="")
        if keyword in ("template", "block"):
            name, argument = _name(rest, keyword)
            if keyword == "block":
                self.define(name, "")
                if not argument:
                    fail("missing value for block clause")
            return Use(name=name, pipeline=_pipeline(argument) if argument else None)
        return _pipeline(content)

    def define(self, name: str, rest: str) -> None:
        if rest:
            fail(f"unexpected {quote(rest)} in define clause")
        outside, self.ranges = self.ranges, 0
        body, closer = self.inner()
        self.ranges = outside
        if closer != "end":
            fail("unexpected EOF" if not closer else f"unexpected {{{{{closer[:40]}}}}}")
        if self.defined.get(name) and body:
            fail(f"multiple definition of template {quote(name)}")
        self.defined[name] = body or self.defined.get(name, ())

    def inner(self) -> tuple[Nodes, str]:
        """As `nodes`, one block deeper."""
        self.deeper()
        found = self.nodes()
        self.depth -= 1
        return found

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEPTH:
            fail(f"nested too deeply: more than {DEPTH} blocks")

    def block(self, kind: str, source: str) -> Block:
        pipeline = _pipeline(source, kind)
        self.ranges += kind == "range"
        body, closer = self.inner()
        self.ranges -= kind == "range"
        otherwise: Nodes = ()
        if closer != "end" and _keyword(closer) == "else":
            chained = closer[len("else") :].strip()
            keyword = _keyword(chained)
            if keyword in ("if", "with") and kind != "range":
                self.deeper()  # as if it were `else` and a block in it
                otherwise = (self.block(keyword, chained[len(keyword) :].strip()),)
                self.depth -= 1
                return Block(kind=kind, pipeline=pipeline, body=body, otherwise=otherwise)
            if chained:
                fail(f"unexpected {quote(closer)}")
            otherwise, closer = self.inner()
        if closer != "end":
            fail("unexpected EOF" if not closer else f"unexpected {{{{{closer[:40]}}}}}")
        return Block(kind=kind, pipeline=pipeline, body=body, otherwise=otherwise)


def _keyword(content: str) -> str:
    """The word that an action begins with."""
    at = 0
    while at < len(content) and content[at].isascii() and content[at].isalpha():
        at += 1
    follows = content[at : at + 1]
    return content[:at] if not follows or follows.isspace() or follows in '"`($.' else ""


def _name(rest: str, keyword: str) -> tuple[str, str]:
    """The quoted name that `template`, `define` and `block` have, and what follows it."""
    words = tokens(rest)
    if not words or words[0][0] != "string":
        fail(f"unexpected {quote(rest)} in {keyword} clause: a quoted name is missing")
    if len(words) > 1 and words[1][0] != "space":
        fail(f"unexpected {quote(str(words[1][1]))} in {keyword} clause")
    return str(words[0][1]), rest[string_end(rest, 0) + 1 :].strip()
