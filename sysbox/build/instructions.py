"""Statements as instructions: one function for each keyword, which checks all that needs no variable.

The rules are those of the Dockerfile reference.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.suggest import suggest
from sysbox.build import addresses, mounts, words
from sysbox.build.errors import quoted
from sysbox.build.flags import Given
from sysbox.build.model import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
)  # fmt: skip
from sysbox.parse.common import parse_int
from sysbox.parse.time import parse_duration
from sysbox.spec import Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.build.lexer import Statement

_STAGE_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_./")  # BuildKit takes no /
_NETWORKS = ("default", "host", "none")
_SECURITY = ("insecure", "sandbox")


def understand(statement: Statement) -> Instruction:
    """The instruction that a statement is. Raises FileError."""
    make = _MAKERS.get(statement.keyword)
    if make is None:
        what = f"unknown instruction {quoted(statement.keyword)}"
        raise statement.error(-1, what, suggest(statement.keyword, _MAKERS))
    given = Given(statement)
    if given.end >= len(statement.text):
        raise statement.error(
            -1, f"{statement.keyword} needs an argument", _USAGE[statement.keyword]
        )
    return make(statement, given)


def _common(statement: Statement) -> dict[str, Any]:
    """The fields that all instructions have."""
    return {
        "file": statement.file, "line": statement.line, "column": statement.column,
        "last_line": statement.last_line, "text": f"{statement.keyword} {statement.text}".rstrip(),
        "escape": statement.escape,
    }  # fmt: skip


def _rest(statement: Statement, given: Given) -> str:
    return statement.text[given.end :]


def _json(statement: Statement, offset: int) -> tuple[str, ...] | None:
    """The JSON form of what begins at `offset`, or None."""
    try:
        return words.json_form(statement.text[offset:])
    except words.NotStrings as error:
        raise statement.error(offset, f"{statement.keyword}: {error}") from None


def _from(statement: Statement, given: Given) -> From:
    found = words.plain_words(_rest(statement, given))
    if len(found) not in (1, 3) or (len(found) == 3 and found[1][1].upper() != "AS"):
        at = given.end + found[min(len(found) - 1, 1)][0]
        raise statement.error(at, "FROM takes an image, and perhaps a name", _USAGE["FROM"])
    name = found[2][1].lower() if len(found) == 3 else ""
    if name and not ("a" <= name[0] <= "z" and _STAGE_LETTERS.issuperset(name)):
        what = f"{quoted(found[2][1])} is not a name for a stage"
        raise statement.error(
            given.end + found[2][0], what, "letters, then also digits and - _ . /"
        )
    return From(**_common(statement), image=found[0][1], name=name, platform=given.text("platform"))


def _run(statement: Statement, given: Given) -> Run:
    command = _json(statement, given.end)
    if command is not None and not (command and command[0]):
        raise statement.error(given.end, "RUN needs a command", _USAGE["RUN"])
    rest = _rest(statement, given)
    marks = {offset for offset, _ in words.heredoc_words(rest, statement.escape)}
    others = _without(words.quoted_words(rest, statement.escape), marks) if marks else []
    flags = given.many("mount")
    for name, known in (("network", _NETWORKS), ("security", _SECURITY)):
        value = given.text(name)
        if value and value not in known:
            what = f"--{name}={quoted(value)}: must be one of {', '.join(known)}"
            raise statement.error(given.offset(name), what)
    try:
        found = tuple(mounts.parse(flag) for flag in flags)
    except mounts.MountError as error:
        what = f"--mount: {error}"
        raise statement.error(given.offset("mount"), what, error.hint) from None
    return Run(
        **_common(statement),
        command=(rest,) if command is None else command,
        shell=command is None,
        heredocs=statement.heredocs,
        script=len(marks) == 1 and not others,
        mounts=found,
        mount_flags=flags,
        network=given.text("network"),
        security=given.text("security"),
    )


def _copy(statement: Statement, given: Given) -> Copy:
    return Copy(**_copied(statement, given), parents=bool(given.on("parents")))


def _add(statement: Statement, given: Given) -> Add:
    return Add(
        **_copied(statement, given),
        checksum=given.text("checksum"),
        keep_git_dir=bool(given.on("keep-git-dir")),
        unpack=given.on("unpack"),
    )


def _copied(statement: Statement, given: Given) -> dict[str, Any]:
    """The fields of COPY that ADD has too."""
    rest = _rest(statement, given)
    paths = _json(statement, given.end)
    if paths is None:
        marks = {offset for offset, _ in words.heredoc_words(rest, statement.escape)}
        found = _without(words.plain_words(rest), marks)
    else:
        marks = set()
        found = [(0, path) for path in paths]
    if len(found) + len(marks) < 2:
        what = f"{statement.keyword} needs a source and a destination"
        raise statement.error(given.end, what, _USAGE[statement.keyword])
    if not found or (marks and max(marks) > found[-1][0]):
        at = given.end + max(marks)
        raise statement.error(at, "a here-document cannot be the destination")
    if any(not path for _, path in found):
        raise statement.error(given.end, f"{statement.keyword}: an empty path")
    for offset, path in found[:-1]:
        if "$" in path:
            continue  # what it becomes is checked when it is known
        try:
            addresses.check(path, statement.keyword)
        except SpecError as error:
            what = f"{statement.keyword}: {error.message}"
            raise statement.error(given.end + offset, what, error.hint) from None
    return {
        **_common(statement),
        "sources": tuple(path for _, path in found[:-1]), "destination": found[-1][1],
        "heredocs": statement.heredocs, "origin": given.text("from"), "chown": given.text("chown"),
        "chmod": given.text("chmod"), "link": bool(given.on("link")), "exclude": given.many("exclude"),
    }  # fmt: skip


def _without(found: list[tuple[int, str]], marks: set[int]) -> list[tuple[int, str]]:
    """The words without those that announce here-documents, which begin at `marks`."""
    others = []
    skip = False
    for offset, word in found:
        if offset in marks:
            skip = word in ("<<", "<<-")  # the next word is the delimiter
        elif skip:
            skip = False
        else:
            others.append((offset, word))
    return others


def _pairs(statement: Statement, given: Given) -> tuple[tuple[str, str], ...]:
    """`KEY=VALUE...`, or the old `KEY VALUE`, where the value is all of the rest."""
    rest = _rest(statement, given)
    found = words.quoted_words(rest, statement.escape)
    offset, first = found[0]
    if "=" not in first:
        key, _, value = rest.replace("\t", " ").partition(" ")
        if not value.strip(words.SPACE):
            what = f"{statement.keyword} {quoted(key)} needs a value: {key}=VALUE"
            raise statement.error(given.end, what)
        return ((key, rest[len(key) :].strip(words.SPACE)),)
    pairs = []
    for offset, word in found:
        key, equals, value = word.partition("=")
        if not equals or not key:
            what = f"{quoted(word)} is not KEY=VALUE"
            hint = f'quotes keep spaces together: {key or "KEY"}="…"'
            raise statement.error(given.end + offset, what, hint)
        pairs.append((key, value))
    return tuple(pairs)


def _env(statement: Statement, given: Given) -> Env:
    return Env(**_common(statement), pairs=_pairs(statement, given))


def _label(statement: Statement, given: Given) -> Label:
    return Label(**_common(statement), pairs=_pairs(statement, given))


def _arg(statement: Statement, given: Given) -> Arg:
    pairs: list[tuple[str, str | None]] = []
    for offset, word in words.quoted_words(_rest(statement, given), statement.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise statement.error(given.end + offset, f"{quoted(word)} is not NAME or NAME=VALUE")
        pairs.append((name, value if equals else None))
    return Arg(**_common(statement), pairs=tuple(pairs))


def _workdir(statement: Statement, given: Given) -> Workdir:
    return Workdir(**_common(statement), path=_rest(statement, given))


def _user(statement: Statement, given: Given) -> User:
    return User(**_common(statement), user=_rest(statement, given))


def _stopsignal(statement: Statement, given: Given) -> Stopsignal:
    return Stopsignal(**_common(statement), signal=_rest(statement, given))


def _maintainer(statement: Statement, given: Given) -> Maintainer:
    return Maintainer(**_common(statement), name=_rest(statement, given))


def _expose(statement: Statement, given: Given) -> Expose:
    found = words.plain_words(_rest(statement, given))
    return Expose(**_common(statement), ports=tuple(word for _, word in found))


def _volume(statement: Statement, given: Given) -> Volume:
    paths = _json(statement, given.end)
    if paths is None:
        paths = tuple(word for _, word in words.plain_words(_rest(statement, given)))
    paths = tuple(path.strip() for path in paths)
    if not paths or not all(paths):
        raise statement.error(given.end, "VOLUME: an empty path", _USAGE["VOLUME"])
    return Volume(**_common(statement), paths=paths)


def _command(statement: Statement, given: Given) -> dict[str, Any]:
    command = _json(statement, given.end)
    return {
        "command": (_rest(statement, given),) if command is None else command,
        "shell": command is None,
    }


def _entrypoint(statement: Statement, given: Given) -> Entrypoint:
    return Entrypoint(**_common(statement), **_command(statement, given))


def _cmd(statement: Statement, given: Given) -> Cmd:
    return Cmd(**_common(statement), **_command(statement, given))


def _shell(statement: Statement, given: Given) -> Shell:
    command = _json(statement, given.end)
    if not command or not command[0]:
        raise statement.error(given.end, "SHELL needs the JSON form", _USAGE["SHELL"])
    return Shell(**_common(statement), command=command)


def _healthcheck(statement: Statement, given: Given) -> Healthcheck:
    rest = _rest(statement, given)
    kind = rest.split(None, 1)[0]
    after = len(rest) - len(rest[len(kind) :].lstrip(words.SPACE))
    at = given.end + after
    if kind.upper() == "NONE":
        if after < len(rest):
            raise statement.error(at, "HEALTHCHECK NONE takes no argument")
        return Healthcheck(**_common(statement), health=Health(disabled=True))
    if kind.upper() != "CMD":
        what = f"HEALTHCHECK {quoted(kind)}: must be CMD or NONE"
        raise statement.error(given.end, what, _USAGE["HEALTHCHECK"])
    command = _json(statement, at)
    if after == len(rest) or command == ():
        raise statement.error(given.end, "HEALTHCHECK CMD needs a command")
    return Healthcheck(
        **_common(statement),
        health=_health(statement, given),
        command=("CMD-SHELL", rest[after:]) if command is None else ("CMD", *command),
    )


def _health(statement: Statement, given: Given) -> Health:
    chosen: dict[str, Any] = {}
    for name in ("interval", "timeout", "start-period", "start-interval", "retries"):
        text = given.text(name)
        if not text:
            continue
        try:
            if name == "retries":
                chosen[name] = parse_int(text, "--retries", 0, (1 << 31) - 1)
                continue
            value = parse_duration(text, f"--{name}")
        except SpecError as error:
            raise statement.error(given.offset(name), error.message, error.hint) from None
        if 0 < value < 1000:
            raise statement.error(given.offset(name), f"--{name} {text}: must be at least 1ms")
        chosen[name.replace("-", "_")] = value
    return Health(**chosen)


def _onbuild(statement: Statement, given: Given) -> Onbuild:
    inner = statement.rest(given.end)
    if inner.keyword in ("FROM", "MAINTAINER", "ONBUILD"):
        raise inner.error(-1, f"{inner.keyword} cannot be a trigger of ONBUILD")
    instruction = understand(inner)
    trigger = _rest(statement, given)
    for heredoc in statement.heredocs:
        trigger += f"\n{heredoc.content}{heredoc.name}"
    return Onbuild(**_common(statement), trigger=trigger, instruction=instruction)


_MAKERS: dict[str, Callable[[Statement, Given], Instruction]] = {
    "ADD": _add, "ARG": _arg, "CMD": _cmd, "COPY": _copy, "ENTRYPOINT": _entrypoint, "ENV": _env,
    "EXPOSE": _expose, "FROM": _from, "HEALTHCHECK": _healthcheck, "LABEL": _label,
    "MAINTAINER": _maintainer, "ONBUILD": _onbuild, "RUN": _run, "SHELL": _shell,
    "STOPSIGNAL": _stopsignal, "USER": _user, "VOLUME": _volume, "WORKDIR": _workdir,
}  # fmt: skip
_USAGE = {
    "ADD": "ADD SOURCE... DESTINATION",
    "ARG": "ARG NAME[=DEFAULT]",
    "CMD": 'CMD ["program", "argument"], or a shell command',
    "COPY": "COPY SOURCE... DESTINATION",
    "ENTRYPOINT": 'ENTRYPOINT ["program", "argument"], or a shell command',
    "ENV": "ENV KEY=VALUE",
    "EXPOSE": "EXPOSE PORT[/PROTOCOL]",
    "FROM": "FROM [--platform=OS/ARCH] IMAGE [AS NAME]",
    "HEALTHCHECK": "HEALTHCHECK [--interval=30s ...] CMD command, or HEALTHCHECK NONE",
    "LABEL": "LABEL KEY=VALUE",
    "MAINTAINER": "MAINTAINER NAME",
    "ONBUILD": "ONBUILD INSTRUCTION",
    "RUN": 'RUN ["program", "argument"], or a shell command',
    "SHELL": 'SHELL ["/bin/sh", "-c"]',
    "STOPSIGNAL": "STOPSIGNAL SIGNAL",
    "USER": "USER NAME[:GROUP]",
    "VOLUME": "VOLUME PATH",
    "WORKDIR": "WORKDIR PATH",
}
