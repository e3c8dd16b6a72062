"""The declaration of a command line of `run`."""

from __future__ import annotations

from sysbox.cli.request import env, words
from sysbox.cli.table.verbs import options_of
from sysbox.parse import common as parse
from sysbox.parse import storage
from sysbox.parse.process import caller_env, read_lines
from sysbox.parse.seccomp import parse_profile
from sysbox.units.quadlet import writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.cli.table.options import Values
    from sysbox.units.quadlet.writer import Flag

_OF_COMMAND_LINE = "sysbox wrote this of a command line of `sysbox run`"
_FILES = ("--env-file", "--label-file", "--cidfile", "--pidfile")  # flags whose values are paths


def of_command_line(given: Values) -> str:
    """The text of a `.container` for the container that `run` would make now.

    A service starts elsewhere and with another environment: paths become absolute, and variables that are to
    have the caller's value get it. Raises SpecError.
    """
    flags = list(_absolute(_given(given)))
    if any(name == "--env-file" for name, _ in flags) and _takes_callers(given.env_file):
        variables = env.build(given.env_file, given.env)
        flags = [one for one in flags if one[0] not in ("--env", "--env-file")]
        flags += [("--env", one) for one in variables]
    return writer.container(flags, given.image, given.command, comment=_OF_COMMAND_LINE)


def _given(values: Values) -> Iterator[Flag]:
    """The flags of a command line, in the order of the table."""
    for option in options_of(values.verb):
        value = getattr(values, option.dest)
        if option.repeat:
            yield from ((option.names[-1], one) for one in value)
        elif option.metavar and value is not None:
            yield option.names[-1], value
        elif not option.metavar and value != option.on:
            yield option.names[-1], None if value else "false"


def _absolute(flags: Iterable[Flag]) -> Iterator[Flag]:
    """The flags without what is relative to the caller: its working directory and its environment."""
    for name, value in flags:
        text = value or ""
        if name in _FILES:
            yield name, parse.absolute(text)
        elif name == "--volume":
            origin, colon, rest = text.partition(":")
            local = colon and (origin.startswith(("./", "../")) or origin in (".", ".."))
            yield name, f"{parse.absolute(origin)}:{rest}" if local else text
        elif name == "--mount":
            mount = storage.parse_mount(text, name)
            # as it was written, but for what may be relative
            is_bind = mount.kind == "bind" and f"={mount.source}" not in text
            yield next(iter(words.mount_flags(mount))) if is_bind else (name, text)
        elif name == "--security-opt" and text.startswith(("seccomp=", "seccomp:")):
            yield name, f"seccomp={parse_profile(text[8:], name, text)}"
        elif name == "--env" and "=" not in text:
            own = caller_env(text)
            if own is not None:
                yield name, f"{text}={own}"
        else:
            yield name, value


def _takes_callers(files: list[str]) -> bool:
    """Whether a line of these files takes the caller's value."""
    return any(
        "=" not in line for path in files for line in read_lines(path, "--env-file", "NAME=VALUE")
    )
