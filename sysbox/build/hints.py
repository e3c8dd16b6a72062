"""Warnings about stages that are built: names that are probably meant otherwise. Pure."""

from __future__ import annotations

from sysbox.base.suggest import nearest
from sysbox.build import expansion, variables
from sysbox.build.errors import quoted
from sysbox.build.model import Arg, Containerfile, Env, Instruction, Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 50  # warnings of a plan


def of_stages(
    file: Containerfile, stages: tuple[Stage, ...], values: dict[str, str]
) -> tuple[str, ...]:
    """One line each. `values` are the variables before the first FROM."""
    found = [*_names(file, stages), *_variables(stages, values)]
    return tuple(dict.fromkeys(found))[:_MOST]


def _line(instruction: Instruction, what: str) -> str:
    return f"{instruction.file}:{instruction.line}:{instruction.column}: {what}"


def _names(file: Containerfile, stages: tuple[Stage, ...]) -> Iterator[str]:
    """Stages with one name, and images whose name is nearly that of a stage."""
    seen: set[str] = set()
    for parsed in file.stages:
        if parsed.start.name and parsed.start.name in seen:
            yield _line(parsed.start, f"a second stage has the name {quoted(parsed.start.name)}")
        seen.add(parsed.start.name)
    known = sorted(seen - {""})
    for stage in stages:
        for name, source in stage.sources.items():
            if source.kind == "image" and not {"/", ":", "@", "."} & {*name}:
                near = nearest(name, known)
                if near:
                    what = f"{quoted(name)} is an image: did you mean the stage {quoted(near)}?"
                    yield _line(stage.start, what)


def _variables(stages: tuple[Stage, ...], values: dict[str, str]) -> Iterator[str]:
    """Variables that stand before their ARG, or whose ARG is only before the first FROM."""
    after: dict[int, set[str]] = {}  # stage -> what is declared at its end
    for stage in stages:
        declared = set(after.get(stage.base.stage, ()))
        later = {
            name for one in stage.instructions if isinstance(one, Arg) for name, _ in one.pairs
        }
        for instruction in stage.instructions:
            for name in sorted(_used(instruction) - declared):
                if name in later:
                    what = "is used before its ARG"
                elif name in values:
                    what = f"needs `ARG {name}` in this stage"
                else:
                    continue
                yield _line(
                    instruction, f"{name} {what}: it is empty unless the base image sets it"
                )
            if isinstance(instruction, Arg | Env):
                declared |= {name for name, _ in instruction.pairs}
        after[stage.index] = declared


def _used(instruction: Instruction) -> set[str]:
    """The variables that an instruction replaces."""
    found: set[str] = set()
    for text, quotes in expansion.texts(instruction):
        if "$" in text:
            found |= variables.check(text, instruction.escape if quotes else "\\", quotes=quotes)
    return found
