"""A whole Containerfile: its stages, and what can be said of it before anything is built. Pure."""

from __future__ import annotations

from sysbox.build import expansion, lexer
from sysbox.build.errors import quoted
from sysbox.build.instructions import understand
from sysbox.build.model import Arg, Cmd, Containerfile, Entrypoint, From, Onbuild, ParsedStage, Run
from sysbox.build.variables import ExpansionError, check

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.build.lexer import Statement
    from sysbox.build.model import Instruction


def parse(data: bytes, file: str) -> Containerfile:
    """The Containerfile in `data`; `file` names it in errors. Raises FileError."""
    lines = lexer.read(data, file)
    warnings = [*lines.warnings, *_of_syntax(lines.directives.get("syntax", ""), file)]
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for statement in lines.statements:
        instruction = _checked(statement)
        warnings += _of_forms(statement, instruction)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            what = f"{statement.keyword} before the first FROM"
            raise statement.error(-1, what, "only ARG may stand there")
    if not stages:
        raise lines.statements[-1].error(-1, "no FROM in this file")
    return Containerfile(
        file=file,
        stages=tuple(
            ParsedStage(start=start, instructions=tuple(inner)) for start, inner in stages
        ),
        arguments=tuple(arguments),
        syntax=lines.directives.get("syntax", ""),
        check=lines.directives.get("check", ""),
        escape=lines.directives.get("escape", "\\"),
        warnings=tuple(warnings),
    )


def triggers(texts: Iterable[str], image: str) -> tuple[Instruction, ...]:
    """The instructions that an image's ONBUILD says. Raises FileError, which names the image.

    Each text is one instruction with its here-documents, as `Onbuild.trigger` has it.
    """
    found = []
    for number, text in enumerate(texts, 1):
        file = f"{image} (ONBUILD {number})"
        statements = lexer.read(text.encode("utf-8", "surrogateescape"), file).statements
        if len(statements) > 1:
            raise statements[1].error(-1, "a second instruction in one trigger")
        if statements[0].keyword in ("FROM", "MAINTAINER", "ONBUILD"):
            raise statements[0].error(-1, f"{statements[0].keyword} cannot be a trigger of ONBUILD")
        found.append(_checked(statements[0]))
    return tuple(found)


def _checked(statement: Statement) -> Instruction:
    """The instruction, with the syntax of all its variables checked."""
    instruction = understand(statement)
    inner = instruction.instruction if isinstance(instruction, Onbuild) else instruction
    for text, quotes in _texts(inner):
        try:
            check(text, statement.escape if quotes else "\\", quotes=quotes)
        except ExpansionError as error:
            at = statement.text.find(text)
            offset = at + error.offset if at >= 0 else -1
            hint = "the JSON form keeps spaces in a path" if "not closed" in str(error) else ""
            hint = hint if statement.keyword in ("COPY", "ADD", "VOLUME") else ""
            raise statement.error(offset, f"{statement.keyword}: {error}", hint) from None
    return instruction


def _texts(instruction: Instruction) -> Iterable[tuple[str, bool]]:
    if isinstance(instruction, From):
        return ((instruction.image, True), (instruction.platform, True))
    return expansion.texts(instruction)


def _of_syntax(syntax: str, file: str) -> list[str]:
    """A warning if another program's syntax is asked for: there is only one here."""
    name = syntax.partition(" ")[0].partition("@")[0].rpartition("/")[2].partition(":")[0]
    if not syntax or name in ("dockerfile", "dockerfile-upstream"):
        return []
    what = f"syntax={quoted(syntax)} is not used: the file is read as docker/dockerfile:1"
    return [f"{file}:1:1: {what}"]


def _of_forms(statement: Statement, instruction: Instruction) -> list[str]:
    """A warning if a shell form was meant to be the JSON form."""
    if not (isinstance(instruction, Run | Cmd | Entrypoint) and instruction.shell):
        return []
    text = instruction.command[0].strip()
    if not (text.startswith(('["', "['")) and text.endswith("]")):
        return []
    line, column = statement.place(0)
    what = f"{statement.keyword} is not JSON, so a shell runs it; words stand in double quotes"
    return [f"{statement.file}:{line}:{column}: {what}"]
