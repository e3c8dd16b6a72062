"""The ARGs before the first FROM, the platform's, and what FROM makes of them. Pure."""

from __future__ import annotations

from sysbox.build import expansion, variables
from sysbox.build.errors import FileError, at, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.build.model import Containerfile, From, Request

# --build-arg may name these though no ARG does
_WITHOUT_ARG = (*expansion.PROXIES, "SOURCE_DATE_EPOCH")
_WITHOUT_ARG_PREFIX = "BUILDKIT_"


def platform_arguments(request: Request) -> dict[str, str]:
    """TARGETPLATFORM, BUILDPLATFORM and their parts, and TARGETSTAGE."""
    found = {"TARGETSTAGE": request.target or "default"}
    target = request.platform or request.own_platform
    for prefix, platform in (("TARGET", target), ("BUILD", request.own_platform)):
        system, _, rest = platform.partition("/")
        architecture, _, variant = rest.partition("/")
        found[f"{prefix}PLATFORM"] = platform
        found[f"{prefix}OS"] = system
        found[f"{prefix}ARCH"] = architecture
        found[f"{prefix}VARIANT"] = variant
    return found


def global_arguments(
    file: Containerfile, request: Request
) -> tuple[dict[str, str], dict[str, str]]:
    """(--build-arg, the values before the first FROM). Raises FileError."""
    given = {name: value for name, value in request.arguments.items() if value is not None}
    values = platform_arguments(request)
    values.update({name: given[name] for name in values if name in given})
    for arg in file.arguments:
        for name, default in arg.pairs:
            if name in given:
                values[name] = given[name]
            elif default is not None:
                try:
                    values[name] = variables.expand(default, values, arg.escape)
                except variables.ExpansionError as error:
                    what = f"ARG {name}: {error}"
                    raise FileError(arg.file, arg.line, arg.column, what) from None
    return given, values


def unused(file: Containerfile, given: dict[str, str], known: dict[str, str]) -> tuple[str, ...]:
    """The names of --build-arg that no ARG of the whole file declares."""
    declared = {name for name, _ in _declared(file)}
    return tuple(
        name
        for name in given
        if name not in declared
        and name not in known
        and name not in _WITHOUT_ARG
        and not name.startswith(_WITHOUT_ARG_PREFIX)
    )


def _declared(file: Containerfile) -> Iterator[tuple[str, str | None]]:
    from sysbox.build.model import Arg

    for arg in file.arguments:
        yield from arg.pairs
    for stage in file.stages:
        for instruction in stage.instructions:
            if isinstance(instruction, Arg):
                yield from instruction.pairs


def resolve_from(start: From, values: dict[str, str]) -> From:
    """FROM with its variables replaced. Raises FileError."""
    replaced = []
    for text in (start.image, start.platform):
        try:
            replaced.append(variables.expand(text, values, start.escape))
            unset = sorted(variables.check(text, start.escape) - {*values})
        except variables.ExpansionError as error:
            raise at(start, str(error)) from None
        if text and (
            not replaced[-1] or replaced[-1][-1] in ":@/" or len(replaced[-1].split()) != 1
        ):
            hints = (
                f"${name} is not set: ARG {name} must stand before the first FROM" for name in unset
            )
            what = f"{quoted(text)} becomes {quoted(replaced[-1])}"
            raise at(start, what, next(hints, ""))
    image, platform = replaced
    if platform:
        check_platform(start, platform)
    return start.replace(image=image, platform=platform)


def check_platform(start: From, platform: str) -> None:
    """Raises FileError for what is not OS/ARCH[/VARIANT]."""
    parts = platform.split("/")
    if not 1 <= len(parts) <= 3 or not all(part.isascii() and part for part in parts):
        raise at(start, f"--platform={quoted(platform)}: must be OS/ARCH[/VARIANT]")
