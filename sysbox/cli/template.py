"""Go's text/template, as far as docker's users need it: evaluation, over plain JSON values.

A callable in the data is a method: `{{.Label "key"}}`. Keys of maps are sorted by `range` and when a map
is printed, as Go does it.
"""

from __future__ import annotations

from sysbox.cli.template_parse import Block, Call, Literal, Path, Pipeline, Text, parse
from sysbox.cli.template_values import NO_VALUE, go_string, truth, type_name
from sysbox.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


def compiled(text: str) -> Callable[[Any], str]:
    """A function from data to text. Raises UsageError, here or when it is called."""
    nodes = parse(text)

    def render(data: Any) -> str:
        out: list[str] = []
        _Run(out, data).nodes(nodes, data)
        return "".join(out)

    return render


def _fail(source: str, reason: str) -> NoReturn:
    raise UsageError(f'template: executing "{source}": {reason}', status=1)


class _Run:
    """One evaluation: the output, the root, the variables."""

    def __init__(self, out: list[str], root: Any) -> None:
        self.out = out
        self.variables: list[dict[str, Any]] = [{"$": root}]

    def nodes(self, nodes: tuple[object, ...], dot: Any) -> None:
        self.variables.append({})
        for node in nodes:
            if isinstance(node, Text):
                self.out.append(node.text)
            elif isinstance(node, Pipeline):
                value = self.pipeline(node, dot)
                if not node.variables:
                    self.out.append(go_string(value))
            elif isinstance(node, Block):
                self.block(node, dot)
        self.variables.pop()

    def block(self, block: Block, dot: Any) -> None:
        pipeline = block.pipeline
        assert isinstance(pipeline, Pipeline)
        self.variables.append({})
        if block.kind == "range":
            self.range(block, pipeline, dot)
        else:
            value = self.pipeline(pipeline, dot)
            if truth(value):
                self.nodes(block.body, value if block.kind == "with" else dot)
            else:
                self.nodes(block.otherwise, dot)
        self.variables.pop()

    def range(self, block: Block, pipeline: Pipeline, dot: Any) -> None:
        value = self.pipeline(pipeline.replace(variables=()), dot)
        items: list[tuple[Any, Any]]
        if isinstance(value, dict):
            items = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, list | tuple):
            items = list(enumerate(value))
        elif isinstance(value, int) and not isinstance(value, bool):
            items = [(index, index) for index in range(value)]
        elif value is None:
            items = []
        else:
            _fail(pipeline.source, f"range can't iterate over {go_string(value)}")
        for key, item in items:
            if pipeline.variables:
                pair = (key, item) if len(pipeline.variables) == 2 else (item,)
                self.variables[-1].update(zip(pipeline.variables, pair, strict=True))
            self.nodes(block.body, item)
        if not items:
            self.nodes(block.otherwise, dot)

    def pipeline(self, pipeline: Pipeline, dot: Any) -> Any:
        value: Any = NO_VALUE
        for command in pipeline.commands:
            assert isinstance(command, Call)
            value = self.call(command, dot, value, pipeline.source)
        if pipeline.variables:
            self.assign(pipeline, value)
        return value

    def assign(self, pipeline: Pipeline, value: Any) -> None:
        name = pipeline.variables[0]
        if pipeline.declares:
            self.variables[-1][name] = value
            return
        for scope in reversed(self.variables):
            if name in scope:
                scope[name] = value
                return
        _fail(pipeline.source, f"undefined variable: {name}")

    def call(self, call: Call, dot: Any, piped: Any, source: str) -> Any:
        head = call.head
        if head in ("and", "or"):
            return self.short_circuit(call, dot, piped, source)
        arguments = [self.operand(one, dot, source) for one in call.arguments]
        if piped is not NO_VALUE:
            arguments.append(piped)
        if isinstance(head, str):
            from sysbox.cli import template_functions

            return template_functions.call(head, arguments, lambda reason: _fail(source, reason))
        value = self.operand(head, dot, source, tuple(arguments))
        if arguments and not (isinstance(head, Path) and head.fields):
            _fail(source, "can't give argument to non-function")
        return value

    def short_circuit(self, call: Call, dot: Any, piped: Any, source: str) -> Any:
        """`and` and `or` evaluate no further than they must; the value is that of the last operand."""
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
        _fail(source, f"nil data; no entry for key {name!r}".replace("'", '"'))
    if not isinstance(value, dict):
        _fail(source, f"can't evaluate field {name} in type {type_name(value)}")
    if name not in value:
        _fail(source, f'map has no entry for key "{name}"')
    found = value[name]
    if callable(found):
        try:
            return found(*arguments)
        except TypeError:
            _fail(source, f"wrong number of args for {name}")
    if arguments:
        _fail(source, f"{name} has arguments but cannot be invoked as function")
    return found
