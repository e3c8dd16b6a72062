"""The parts of the option table: options, verbs, arguments; and the values that the parsers return.

A switch has no metavar; a flag with `repeat` may be given many times and its value is a list. Values stay
text: `sysbox/parse/` parses them, so that an error can name the flag.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Option(Frozen):
    """One flag of one verb."""

    names: tuple[str, ...]  # shown: short ones first
    help: str
    metavar: str = ""  # "" is a switch
    repeat: bool = False
    dest: str = ""  # attribute of Values; never "" once made
    hidden: tuple[str, ...] = ()  # further spellings, accepted and completed but not shown
    choices: tuple[str, ...] = ()  # for completion and help; the verb checks the value
    on: bool | None = False  # value of a switch that is not given; None differs from `=false`
    # of a flag whose value may be left out, as in docker's `--pull`: what it means then. A value needs `=`
    bare: str = ""


class Verb(Frozen):
    """One verb; `args` is its usage line: upper case names, [optional], repeated..."""

    name: str
    module: str  # below sysbox.cli, with main(values) -> exit status
    args: str
    summary: str
    options: str = ""  # key of OPTIONS
    also: tuple[str, ...] = ()  # further spellings: "container ls"
    hot: bool = False  # imports no third-party package
    interspersed: bool = True  # False: options end at the first argument, as in docker run
    local: bool = False  # needs no systemd: never runs in the embedded host
    # returns the status of a command in the container; sysbox's own failures are 125 then
    passes_status: bool = False
    starts: bool = False  # systemd will move a process of it into a cgroup


class Values:
    """The values of a command line: an attribute for each option (its `dest`) and each argument."""

    def __init__(self, verb: Verb, given: dict[str, Any]) -> None:
        self.verb = verb
        self.__dict__.update(given)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def switch(
    names: str, help: str, hidden: str = "", dest: str = "", *, on: bool | None = False
) -> Option:
    """A flag without a value."""
    return _option(names, help, hidden, dest, on=on)


def value(
    names: str,
    metavar: str,
    help: str,
    hidden: str = "",
    dest: str = "",
    choices: str = "",
    bare: str = "",
) -> Option:
    """A flag with one value; the last one given counts."""
    known = tuple(choices.split())
    return _option(names, help, hidden, dest, metavar=metavar, choices=known, bare=bare)


def many(
    names: str, metavar: str, help: str, hidden: str = "", dest: str = "", choices: str = ""
) -> Option:
    """A flag that may be repeated."""
    return _option(
        names, help, hidden, dest, metavar=metavar, repeat=True, choices=tuple(choices.split())
    )


def _option(names: str, help: str, hidden: str, dest: str, **rest: Any) -> Option:
    shown = tuple(names.split())
    return Option(
        names=shown,
        help=help,
        hidden=tuple(hidden.split()),
        dest=dest or shown[-1].lstrip("-").replace("-", "_"),
        **rest,
    )


class Argument(Frozen):
    """One word of a usage line."""

    name: str
    dest: str
    required: bool
    repeat: bool


def arguments(verb: Verb) -> tuple[Argument, ...]:
    """The positional arguments that the usage line describes."""
    found = []
    for word in verb.args.split():
        bare = word.strip("[]")
        name = bare.removesuffix("...")
        found.append(
            Argument(
                name=name,
                dest=name.lower(),
                required=not word.startswith("["),
                repeat=bare.endswith("..."),
            )
        )
    return tuple(found)
