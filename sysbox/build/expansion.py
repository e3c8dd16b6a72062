"""Where instructions replace variables, and what a variable is at each point of a stage. Pure.

ADD COPY ENV ARG EXPOSE LABEL STOPSIGNAL USER VOLUME WORKDIR replace them, and RUN in --mount; FROM does too,
with the ARGs before it (`graph`). In RUN, CMD, ENTRYPOINT and HEALTHCHECK the shell does it, in ONBUILD the
later build. One instruction sees one state: `ENV a=1 b=$a` gives b the earlier value of a.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.build import addresses, checks, mounts
from sysbox.build.errors import at, quoted
from sysbox.build.model import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Instruction,
    Label,
    Plan,
    Run,
    Stopsignal,
    User,
    Variables,
    Volume,
    Workdir,
)  # fmt: skip
from sysbox.build.variables import ExpansionError
from sysbox.build.variables import expand as expand_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Replace = Callable[[str], str]

# --build-arg sets these without an ARG; they are in the environment of RUN, and in no key or history
PROXIES = tuple(
    spelling
    for name in ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
    for spelling in (name.upper(), name)
)
_MAX_VALUE = 128 << 10  # bytes: execve(2) takes no longer string (MAX_ARG_STRLEN)
_MOST_PORTS = 1 << 18  # of one EXPOSE: each port with each protocol, and some twice
_MAX_ENVIRONMENT = 2 << 20  # bytes of all variables


def texts(instruction: Instruction) -> Iterator[tuple[str, bool]]:
    """Every text of an instruction in which variables are replaced, and whether quotes count in it."""
    if isinstance(instruction, Copy):
        words = [*instruction.sources, instruction.destination, *instruction.exclude]
        words += [instruction.chown, instruction.chmod]
        if isinstance(instruction, Add):
            words.append(instruction.checksum)
        yield from ((word, True) for word in words)
        yield from ((one.content, False) for one in instruction.heredocs if one.expands)
    elif isinstance(instruction, Env | Label | Arg):
        for key, value in instruction.pairs:
            yield key, True
            yield value or "", True
    elif isinstance(instruction, Expose):
        yield from ((port, True) for port in instruction.ports)
    elif isinstance(instruction, Volume):
        yield from ((path, True) for path in instruction.paths)
    elif isinstance(instruction, Workdir):
        yield instruction.path, True
    elif isinstance(instruction, User):
        yield instruction.user, True
    elif isinstance(instruction, Stopsignal):
        yield instruction.signal, True
    elif isinstance(instruction, Run):
        yield from ((flag, True) for flag in instruction.mount_flags)


def expand(instruction: Instruction, variables: Variables) -> Instruction:
    """The instruction with its variables replaced, and all of its values checked. Raises FileError."""
    values = variables.all()

    def replace(text: str) -> str:
        return expand_text(text, values, instruction.escape)

    try:
        if isinstance(instruction, Copy):
            return _copy(instruction, replace, values)
        if isinstance(instruction, Env | Label | Arg):
            return _pairs(instruction, replace)
        if isinstance(instruction, Run):
            if not instruction.mount_flags:
                return instruction
            found = tuple(mounts.parse(flag, replace) for flag in instruction.mount_flags)
            return instruction.replace(mounts=found)
        return _words(instruction, replace)
    except ExpansionError as error:
        raise at(instruction, str(error)) from None
    except mounts.MountError as error:
        raise at(instruction, f"--mount: {error}", error.hint) from None
    except SpecError as error:
        raise at(instruction, error.message, error.hint) from None


def _copy(instruction: Copy, replace: Replace, values: dict[str, str]) -> Copy:
    # in a here-document the escape character is always \
    documents = tuple(
        one.replace(content=expand_text(one.stripped(), values, "\\", quotes=False), strips=False)
        if one.expands
        else one
        for one in instruction.heredocs
    )
    sources = tuple(checks.path(replace(source), source) for source in instruction.sources)
    for source in sources:
        addresses.check(source, "ADD" if isinstance(instruction, Add) else "COPY")
    changes: dict[str, object] = {
        "sources": sources,
        "destination": checks.path(replace(instruction.destination), instruction.destination),
        "exclude": tuple(replace(pattern) for pattern in instruction.exclude),
        "chown": checks.owner(replace(instruction.chown)),
        "chmod": checks.mode(replace(instruction.chmod)),
        "heredocs": documents,
    }
    if isinstance(instruction, Add):
        changes["checksum"] = checks.checksum(replace(instruction.checksum))
    return instruction.replace(**changes)


def _pairs(instruction: Env | Label | Arg, replace: Replace) -> Env | Label | Arg:
    found = []
    for key, value in instruction.pairs:
        name, text = replace(key), None if value is None else replace(value)
        if isinstance(instruction, Label):
            if not name:
                raise SpecError(f"{quoted(key)}: an empty name")
        else:
            checks.variable(name, key)
            if text is not None and len(text) + len(name) > _MAX_VALUE:
                raise SpecError(f"{name} has more than {_MAX_VALUE} characters")
        found.append((name, text))
    return instruction.replace(pairs=tuple(found))


def _words(instruction: Instruction, replace: Replace) -> Instruction:
    if isinstance(instruction, Expose):
        return instruction.replace(ports=_ports(instruction, replace))
    if isinstance(instruction, Volume):
        paths = [checks.path(replace(path), path) for path in instruction.paths]
        return instruction.replace(paths=tuple(paths))
    if isinstance(instruction, Workdir):
        return instruction.replace(path=checks.path(replace(instruction.path), instruction.path))
    if isinstance(instruction, User):
        return instruction.replace(user=checks.user(replace(instruction.user), instruction.user))
    if isinstance(instruction, Stopsignal):
        return instruction.replace(signal=checks.signal(replace(instruction.signal)))
    return instruction


def _ports(instruction: Expose, replace: Replace) -> tuple[str, ...]:
    """All ports of EXPOSE, each once."""
    found: dict[str, None] = {}
    count = 0
    for word in instruction.ports:
        for one in replace(word).split():  # a variable may hold several
            ports = checks.ports(one)
            count += len(ports)
            if count > _MOST_PORTS:
                raise SpecError(f"more than {_MOST_PORTS} ports in one instruction")
            found.update(dict.fromkeys(ports))
    return tuple(found)


def after(variables: Variables, instruction: Instruction, plan: Plan) -> Variables:
    """The variables after an instruction whose own variables are replaced. Raises FileError."""
    if isinstance(instruction, Env):
        environment = {**variables.environment, **dict(instruction.pairs)}
        changed = variables.replace(environment=environment)
    elif isinstance(instruction, Arg):
        arguments = dict(variables.arguments)
        for name, default in instruction.pairs:
            value = argument(name, default, plan)
            if value is not None:
                arguments[name] = value
        changed = variables.replace(arguments=arguments)
    else:
        return variables
    size = sum(len(name) + len(value) for name, value in changed.all().items())
    if size > _MAX_ENVIRONMENT:
        raise at(instruction, f"all variables have more than {_MAX_ENVIRONMENT} characters")
    return changed


def argument(name: str, default: str | None, plan: Plan) -> str | None:
    """The value of an ARG: --build-arg, its default, or the ARG before the first FROM; None is not set."""
    if name in plan.given:
        return plan.given[name]
    return plan.inherited.get(name) if default is None else default


def proxies(plan: Plan) -> dict[str, str]:
    """What --build-arg says of proxies: for the environment of RUN, and for no key or history."""
    return {name: plan.given[name] for name in PROXIES if name in plan.given}
