"""Which stages a target needs, what each is built from, and in which order. Pure.

A name after FROM, in --from= and in from= is, in this order: a named context, a stage (FROM: an earlier
one), else an image. FROM a context is FROM scratch and a COPY of all that the context has.

What an image's ONBUILD says is known only when its configuration is: `make_plan` is called without it first,
and again with it if an image of the plan has any.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.base.suggest import did_you_mean
from sysbox.build import arguments, hints, parser, references
from sysbox.build.errors import FileError, at, quoted
from sysbox.build.model import (
    Containerfile,
    Copy,
    Env,
    From,
    Instruction,
    Onbuild,
    ParsedStage,
    Plan,
    Request,
    Source,
    Stage,
    Variables,
)  # fmt: skip
from sysbox.parse.common import is_digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_SCRATCH = "scratch"


def make_plan(
    file: Containerfile, request: Request, triggers: Mapping[str, tuple[str, ...]] | None = None
) -> Plan:
    """All that is built for the request's target.

    `triggers` has the ONBUILD of base images: the image's name as in `Source.name` -> its texts. Raises
    FileError for a stage that is not there, a cycle, a FROM that is no image; SpecError for the target.
    """
    given, values = arguments.global_arguments(file, request)
    known = Plan(file=file.file, target=0, stages=(), images=(), given=given, inherited=values)
    graph = _Graph(file, request, known, triggers or {})
    target = graph.target(request.target)
    order = graph.order(target)
    stages = tuple(graph.stage(index) for index in order)
    images = [
        source
        for stage in stages
        for source in (stage.base, *stage.sources.values())
        if source.kind == "image"
    ]
    return known.replace(
        target=target,
        stages=stages,
        images=tuple(dict.fromkeys(images)),
        unused=arguments.unused(file, given, arguments.platform_arguments(request)),
        warnings=(*file.warnings, *hints.of_stages(file, stages, values)),
    )


def user_of(plan: Plan, source: Source) -> str:
    """Who names an image of a plan first, as "Containerfile:3:1: FROM debian"."""
    for stage in plan.stages:
        if stage.base == source:
            return f"{_place(stage.start)}: FROM {source.name}"
        for one in stage.instructions:
            if any(stage.sources.get(name) == source for name in references.names(one)):
                keyword = one.text.partition(" ")[0]
                return f"{_place(one)}: {keyword} from {source.name}"
    return f"{plan.file}: {source.name}"


def _env(name: str, value: str) -> Env:
    """The ENV that --env is; the value is none to be expanded."""
    text = f"ENV {name}={value}"
    return Env(
        file="--env", line=1, column=1, last_line=1, text=text, pairs=((name, value),)
    )  # fmt: skip


class _Known(Frozen):
    """What is known of a stage whether it is needed or not."""

    start: From
    base: Source = Source(kind="scratch")
    platform: str = ""
    instructions: tuple[Instruction, ...] = ()
    triggers: int = 0
    end: Variables = Variables()  # those at its end, where a name in --from= has one
    fault: FileError | None = None  # counts only if the stage is needed


class _Graph:
    """All stages of a file, and what their names mean."""

    def __init__(
        self,
        file: Containerfile,
        request: Request,
        known: Plan,
        triggers: Mapping[str, tuple[str, ...]],
    ) -> None:
        """`known` has the arguments."""
        self.file = file
        self.known = known
        self.triggers = triggers
        self.contexts = frozenset(request.contexts)
        self.images = request.images
        self.env = tuple(_env(*pair) for pair in request.env)
        self.platform = request.platform or request.own_platform
        self.names: dict[str, list[int]] = {}
        for index, parsed in enumerate(file.stages):
            if parsed.start.name:
                self.names.setdefault(parsed.start.name, []).append(index)
        written = (
            one.instruction if isinstance(one, Onbuild) else one
            for parsed in file.stages
            for one in parsed.instructions
        )
        self.has_variables = references.any_variable((*written,)) or any(
            "$" in text for found in triggers.values() for text in found
        )
        self.stages: list[_Known] = []
        for parsed in file.stages:
            try:
                found = self.resolve(parsed)
            except FileError as error:
                found = _Known(start=parsed.start, fault=error)
            self.stages.append(found)

    def resolve(self, parsed: ParsedStage) -> _Known:
        """What is known of the next stage; those before it are resolved. Raises FileError."""
        start = arguments.resolve_from(parsed.start, self.known.inherited)
        platform = start.platform or self.platform
        base = self.source(start.image, platform, start, before=len(self.stages))
        first: tuple[Instruction, ...] = ()
        end = Variables()
        if base.kind == "stage":
            below = self.stages[base.stage]
            platform = start.platform or below.platform
            first = tuple(one.instruction for one in below.instructions if isinstance(one, Onbuild))
            end = below.end
        elif base.kind == "image":
            first = parser.triggers(self.triggers.get(base.name, ()), base.name)
        triggers = len(first)
        if base.kind == "context":
            base, first = Source(kind="scratch"), (_copy_of_context(start),)
        instructions = (*first, *self.env, *parsed.instructions)
        if self.has_variables:
            instructions, end = references.resolved(instructions, end, self.known)
        return _Known(
            start=start,
            base=base,
            platform=platform,
            instructions=instructions,
            triggers=triggers,
            end=end,
        )

    def source(self, name: str, platform: str, asking: Instruction, before: int = -1) -> Source:
        """What a name means; `before` is the stage whose FROM has it, else -1. Raises FileError."""
        if name in self.contexts:
            return Source(kind="context", name=name)
        if name in self.images:
            return Source(kind="image", name=self.images[name], platform=platform)
        if name == _SCRATCH:
            return Source(kind="scratch")
        stage = self.find(name, before)
        if stage >= 0:
            return Source(kind="stage", stage=stage)
        if is_digits(name) and before < 0:
            what = f"there is no stage {name}: the last one is {len(self.file.stages) - 1}"
            raise at(asking, what)
        return Source(kind="image", name=name, platform=platform)

    def find(self, name: str, before: int, at: int = -1) -> int:
        """The index of a stage by its name or number; -1 where there is none.

        Of several with one name it is the last one before stage `at`, else the last of all.
        """
        found = self.names.get(name.lower(), [])
        if is_digits(name) and len(name) < 6 and not found:
            found = [int(name)] if int(name) < len(self.file.stages) else []
        if before >= 0:
            found = [one for one in found if one < before]
        elif at >= 0:
            found = [one for one in found if one < at] or found
        return found[-1] if found else -1

    def target(self, name: str) -> int:
        """The index of the target's stage. Raises SpecError."""
        if not name:
            return len(self.file.stages) - 1
        found = self.find(name, before=-1)
        if found < 0:
            known = sorted(self.names)
            hint = did_you_mean(name, known) or f"stages: {', '.join(known) or 'none has a name'}"
            raise SpecError(f"{self.file.file}: no stage {quoted(name)} (--target)", hint=hint)
        return found

    def sources(self, index: int) -> dict[str, Source]:
        """What --from= and from= of a stage mean."""
        found: dict[str, Source] = {}
        for instruction in self.stages[index].instructions:
            for name in references.names(instruction):
                if name in found:
                    continue
                stage = self.find(name, before=-1, at=index)
                named = name in self.contexts or name in self.images or name == _SCRATCH
                if stage >= 0 and not named:
                    found[name] = Source(kind="stage", stage=stage)
                else:
                    found[name] = self.source(name, self.stages[index].platform, instruction)
        return found

    def needs(self, index: int) -> list[int]:
        """The stages that must be there before one. Raises FileError for what is wrong with it."""
        if fault := self.stages[index].fault:
            raise fault
        all_sources = (self.stages[index].base, *self.sources(index).values())
        return list(dict.fromkeys(one.stage for one in all_sources if one.kind == "stage"))

    def order(self, target: int) -> list[int]:
        """The target and all that it needs, each after what it needs itself. Raises FileError for a cycle."""
        done: list[int] = []
        path = [target]  # from the target down to the stage that is looked at
        on_path = {target}
        waiting = {target: self.needs(target)}
        while path:
            here = path[-1]
            if not waiting[here]:
                done.append(path.pop())
                on_path.remove(here)
                continue
            need = waiting[here].pop(0)
            if need in on_path:
                raise self.cycle([*path[path.index(need) :], need])
            if need not in waiting:
                waiting[need] = self.needs(need)
                path.append(need)
                on_path.add(need)
        return done

    def cycle(self, indexes: list[int]) -> FileError:
        """The error for stages that need each other."""
        start = self.stages[indexes[0]].start
        names = " -> ".join(self.title(index) for index in indexes)
        what = f"the stage {self.title(indexes[0])} needs itself: {names}"
        return FileError(start.file, start.line, start.column, what)

    def title(self, index: int) -> str:
        return self.file.stages[index].start.name or f"stage-{index}"

    def stage(self, index: int) -> Stage:
        found = self.stages[index]
        return Stage(
            index=index,
            name=found.start.name,
            start=found.start,
            base=found.base,
            platform=found.platform,
            instructions=found.instructions,
            triggers=found.triggers,
            needs=tuple(self.needs(index)),
            sources=self.sources(index),
        )


def _copy_of_context(start: From) -> Copy:
    """What makes the files of a stage that begins with a named context."""
    return Copy(
        file=start.file,
        line=start.line,
        column=start.column,
        last_line=start.last_line,
        text=f"FROM {start.image}",
        sources=(".",),
        destination="/",
        origin=start.image,
    )


def _place(one: Instruction) -> str:
    return f"{one.file}:{one.line}:{one.column}"
