"""Variables in --from= and from=: the planner replaces them, since they say which stages are needed. Pure.

BuildKit takes none there, buildah does. What ENV and ARG of the file say counts, what a base image's
environment says is not known yet.
"""

from __future__ import annotations

from sysbox.build import expansion, variables
from sysbox.build.errors import at, quoted
from sysbox.build.model import Arg, Copy, Env, Instruction, Plan, Run, Variables

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def names(instruction: Instruction) -> Iterator[str]:
    """The names in --from= and from= of an instruction."""
    if isinstance(instruction, Copy) and instruction.origin:
        yield instruction.origin
    elif isinstance(instruction, Run):
        yield from (mount.origin for mount in instruction.mounts if mount.origin)


def any_variable(instructions: tuple[Instruction, ...]) -> bool:
    """Whether one of the names has a variable."""
    return any("$" in name for one in instructions for name in names(one))


def resolved(
    instructions: tuple[Instruction, ...], begin: Variables, plan: Plan
) -> tuple[tuple[Instruction, ...], Variables]:
    """The instructions of a stage without variables in these names, and the variables at its end.

    `begin` are those that the stage it is built from has at its end. Raises FileError.
    """
    found = []
    state = begin
    for one in instructions:
        if isinstance(one, Env | Arg):
            state = expansion.after(state, expansion.expand(one, state), plan)
        found.append(_resolved(one, state) if any_variable((one,)) else one)
    return tuple(found), state


def _resolved(instruction: Instruction, state: Variables) -> Instruction:
    if isinstance(instruction, Copy):
        return instruction.replace(origin=_name(instruction, instruction.origin, state))
    assert isinstance(instruction, Run)
    flags = list(instruction.mount_flags)
    mounts = list(instruction.mounts)
    for index, mount in enumerate(mounts):
        if "$" in mount.origin:
            name = _name(instruction, mount.origin, state)
            flags[index] = flags[index].replace(mount.origin, name, 1)
            mounts[index] = mount.replace(origin=name)
    return instruction.replace(mount_flags=tuple(flags), mounts=tuple(mounts))


def _name(instruction: Instruction, written: str, state: Variables) -> str:
    values = state.all()
    try:
        name = variables.expand(written, values, instruction.escape)
        unset = sorted(variables.check(written, instruction.escape) - {*values})
    except variables.ExpansionError as error:
        raise at(instruction, str(error)) from None
    if not name or name[-1] in ":@/" or len(name.split()) != 1 or "," in name:
        hints = (f"${one} is not set by ARG or ENV before this" for one in unset)
        what = f"from {quoted(written)} becomes {quoted(name)}"
        raise at(instruction, what, next(hints, ""))
    return name
