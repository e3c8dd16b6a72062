"""Go's text/template, as far as docker's users need it: evaluation, over plain JSON values.

A callable in the data is a method: `{{.Label "key"}}`. `range`, and printing a map, sort its keys, as in Go.
The output and steps of a template are bounded: it may come from a script that its user did not write.
"""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.docker.template_parse import (
    Block,
    Call,
    Jump,
    Literal,
    Path,
    Pipeline,
    Text,
    Use,
    parse,
)
from sysbox.docker.template_values import NO_VALUE, go_string, truth, type_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    from sysbox.docker.template_parse import Nodes

_ALLOWANCE = 8 << 20  # characters that one evaluation may make; a step counts as _STEP
_STEP = 16  # so that no evaluation takes more than half a million steps
_DEPTH = 100  # of nested blocks and templates; each takes a few frames of the interpreter


def compiled(text: str, *, titles: bool = False) -> Callable[..., str]:
    """A function from data, and a function that each printed value goes through, to text.

    `titles`: the data are headings of columns. Raises UsageError, here or when it is called.
    """
    template = parse(text)

    def render(data: Any, shown: Callable[[str], str] = str) -> str:
        run = _Run(template.defined, shown, titles=titles)
        run.template(template.nodes, data)
        return "".join(run.out)

    return render


def _fail(source: str, reason: str) -> NoReturn:
    where = source if len(source) <= 100 else source[:97] + "..."
    raise UsageError(f'template: executing "{where}": {reason}', status=1)


class _Run:
    """One evaluation: the output, the variables, and what is left of the allowance."""

    def __init__(
        self, defined: dict[str, Nodes], shown: Callable[[str], str], *, titles: bool
    ) -> None:
        self.out: list[str] = []
        self.defined = defined
        self.shown = shown
        self.titles = titles
        self.left = _ALLOWANCE
        self.depth = 0
        self.source = ""
        self.variables: list[dict[str, Any]] = []

    def spend(self, amount: int) -> None:
        self.left -= amount
        if self.left < 0:
            _fail(self.source, "it makes too much text, or takes too many steps")

    def template(self, nodes: Nodes, dot: Any) -> None:
        """Evaluate nodes with `$` as the dot, and no other variable."""
        outside, self.variables = self.variables, [{"$": dot}]
        self.nodes(nodes, dot)
        self.variables = outside

    def nodes(self, nodes: Nodes, dot: Any) -> str:
        """Evaluate nodes; returns "break" or "continue" if one of them is that, else ""."""
        self.depth += 1
        if self.depth > _DEPTH:
            _fail(self.source, f"nested too deeply: more than {_DEPTH} templates and blocks")
        self.variables.append({})
        jump = ""
        for node in nodes:
            if isinstance(node, Text):
                self.spend(_STEP + len(node.text))
                self.out.append(node.text)
            elif isinstance(node, Pipeline):
                value = self.pipeline(node, dot)
                if not node.variables:
                    self.print(value)
            elif isinstance(node, Block):
                jump = self.block(node, dot)
            elif isinstance(node, Jump):
                jump = node.kind
            elif isinstance(node, Use):
                self.use(node, dot)
            if jump:
                break
        self.variables.pop()
        self.depth -= 1
        return jump

    def print(self, value: Any) -> None:
        text = go_string(value)
        self.spend(len(text))
        self.out.append(self.shown(text))

    def use(self, node: Use, dot: Any) -> None:
        self.source = f'template "{node.name}"'
        nodes = self.defined.get(node.name)
        if nodes is None:
            _fail(self.source, f'template "{node.name}" not defined')
        self.spend(_STEP)
        value = self.pipeline(node.pipeline, dot) if isinstance(node.pipeline, Pipeline) else None
        self.template(nodes, value)

    def block(self, block: Block, dot: Any) -> str:
        pipeline = block.pipeline
        assert isinstance(pipeline, Pipeline)
        self.variables.append({})
        if block.kind == "range":
            jump = self.range(block, pipeline, dot)
        else:
            value = self.pipeline(pipeline, dot)
            if truth(value):
                jump = self.nodes(block.body, value if block.kind == "with" else dot)
            else:
                jump = self.nodes(block.otherwise, dot)
        self.variables.pop()
        return jump

    def range(self, block: Block, pipeline: Pipeline, dot: Any) -> str:
        value = self.pipeline(pipeline.replace(variables=()), dot)
        empty = True
        for key, item in self.items(value, pipeline.source):
            empty = False
            self.spend(_STEP)
            # the variables of one round are gone in the next
            pair = (key, item) if len(pipeline.variables) == 2 else (item,)
            for name, one in zip(pipeline.variables, pair, strict=False):
                self.assign(pipeline, name, one)
            if self.nodes(block.body, item) == "break":
                break
        return self.nodes(block.otherwise, dot) if empty else ""

    def items(self, value: Any, source: str) -> Iterator[tuple[Any, Any]]:
        if isinstance(value, dict):
            return ((key, value[key]) for key in sorted(value) if not callable(value[key]))
        if isinstance(value, list | tuple):
            return iter(enumerate(value))
        if isinstance(value, int) and not isinstance(value, bool):
            return zip(range(value), range(value), strict=True)
        if value is None:
            return iter(())
        _fail(source, f"range can't iterate over {go_string(value)[:100]}")

    def pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = NO_VALUE
        for command in pipeline.commands:
            assert isinstance(command, Call)
            value = self.call(command, dot, value, pipeline.source)
        for name in pipeline.variables:
            self.assign(pipeline, name, value)
        return value

    def assign(self, pipeline: Pipeline, name: str, value: Any) -> None:
        if pipeline.declares:
            self.variables[-1][name] = value
            return
        for scope in reversed(self.variables):
            if name in scope:
                scope[name] = value
                return
        _fail(pipeline.source, f"undefined variable: {name}")

    def call(self, call: Call, dot: Any, piped: Any, source: str) -> Any:
        self.source = source
        self.spend(_STEP)
        head = call.head
        if head in ("and", "or"):
            return self.short_circuit(call, dot, piped, source)
        arguments = [self.operand(one, dot, source) for one in call.arguments]
        if piped is not NO_VALUE:
            arguments.append(piped)
        if isinstance(head, str):
            from sysbox.docker import template_functions

            return template_functions.call(
                head,
                arguments,
                lambda reason: _fail(source, reason),
                self.spend,
                titles=self.titles,
            )
        value = self.operand(head, dot, source, tuple(arguments))
        if arguments and not (isinstance(head, Path) and head.fields):
            _fail(source, "can't give argument to non-function")
        return value

    def short_circuit(self, call: Call, dot: Any, piped: Any, source: str) -> Any:
        """`and` and `or` stop at the operand that decides; the value is that of the last one evaluated."""
        value: Any = piped
        for argument in call.arguments:
            value = self.operand(argument, dot, source)
            if truth(value) == (call.head == "or"):
                return value
        if value is NO_VALUE:
            _fail(source, f"wrong number of args for {call.head}")
        return piped if piped is not NO_VALUE else value

    def operand(
        self, operand: object, dot: Any, source: str, arguments: tuple[Any, ...] = ()
    ) -> Any:
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Call):
            return self.call(operand, dot, NO_VALUE, source)
        assert isinstance(operand, Path)
        if operand.root == ".":
            value = dot
        elif operand.root:
            value = self.variable(operand.root, source)
        else:
            assert isinstance(operand.inner, Pipeline)
            value = self.pipeline(operand.inner, dot)
        for index, name in enumerate(operand.fields):
            last = index == len(operand.fields) - 1
            value = field(value, name, source, arguments if last else ())
        return value

    def variable(self, name: str, source: str) -> Any:
        for scope in reversed(self.variables):
            if name in scope:
                return scope[name]
        _fail(source, f"undefined variable: {name}")


def field(value: Any, name: str, source: str, arguments: tuple[Any, ...]) -> Any:
    """`.Name` of a value; a missing key is an error, as docker's `missingkey=error` has it."""
    if value is None:
        _fail(source, f'nil data; no entry for key "{name}"')
    if not isinstance(value, dict):
        _fail(source, f"can't evaluate field {name} in type {type_name(value)}")
    if name not in value:
        _fail(source, f'map has no entry for key "{name}"')
    found = value[name]
    if callable(found):
        if not (len(arguments) == 1 and isinstance(arguments[0], str)):
            _fail(source, f"wrong number or type of args for {name}")
        return found(*arguments)
    if arguments:
        _fail(source, f"{name} has arguments but cannot be invoked as function")
    return found
