"""From argv to a verb and back to an exit status.

A verb is a module of this package with `main(values) -> status`. Hot verbs come here through the hot
parser; what that does not accept, and every other verb, goes through click in `cold.py`.
"""

from __future__ import annotations

import posix
import sys

from sysbox import program
from sysbox.cli import hotparse, invoke
from sysbox.cli.options import Values, Verb
from sysbox.cli.verbs import GROUPS, VERBS
from sysbox.errors import FAILED, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def start(launcher: str, words: list[str]) -> NoReturn:
    """The whole life of the process."""
    program.launcher = launcher
    _open_standard_fds()
    status = FAILED
    try:
        status = invoke.guarded(lambda: run(words))
    finally:
        # nothing is left to clean up, and tearing the interpreter down costs milliseconds
        _flush()
        posix._exit(status)


def _open_standard_fds() -> None:
    """A descriptor that we open must never become 0, 1 or 2 by accident: a payload would inherit it."""
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError:
            if posix.open("/dev/null", posix.O_RDWR) != fd:
                posix._exit(FAILED)
    # the interpreter has none for a descriptor that was closed when it started
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # the reader is gone: nobody to tell


def run(words: list[str]) -> int:
    """Find the verb, parse, and call it where its containers are."""
    words = _global_flags(words)
    internal = _internal(words)
    if internal is not None:
        return internal
    verb, rest = find_verb(words)
    if verb is not None and verb.raw and not {"--help", "-h"} & set(rest[:1]):
        return invoke.invoke(Values(verb, {"words": words[1:]}))
    if verb is not None and verb.hot:
        try:
            values = hotparse.parse(verb, rest)
        except hotparse.Fallback:
            pass
        else:
            return invoke.invoke(values)
    program.load_site()  # click may lie where only `site` looks
    from sysbox.cli import cold

    return cold.main(words)


def _global_flags(words: list[str]) -> list[str]:
    at = 0
    while at < len(words) and words[at] in ("--debug", "-D"):
        program.debug = True
        at += 1
    if words[at : at + 1] in (["--version"], ["-v"]):
        return ["version", "--format", "sysbox version {{.Version}}"]
    return words[at:]


_INTERNAL = ("_supervise", "_cleanup", "_stop", "_health", "_weights")


def _internal(words: list[str]) -> int | None:
    """`_supervise ID` and its like, which systemd starts, already in place."""
    if words == ["_boot"]:
        from sysbox import gc

        return gc.at_boot()
    if len(words) != 2 or words[0] not in _INTERNAL:
        return None
    from sysbox import state, supervising

    if not state.is_id(words[1]):  # it becomes part of a path
        raise UsageError(f"{words[0]}: not a container's id: {words[1]}")
    if words[0] == "_supervise":
        return supervising.supervise(words[1])
    if words[0] == "_health":
        from sysbox import probing

        return probing.check(words[1])
    if words[0] == "_weights":
        from sysbox import weights

        return weights.again(words[1])
    if words[0] == "_cleanup":
        return supervising.cleanup(words[1])
    return supervising.stop_for_scope(words[1])


def find_verb(words: list[str]) -> tuple[Verb | None, list[str]]:
    """The verb that a command line begins with, and the words after it."""
    if len(words) > 1 and words[0] in GROUPS:
        verb = VERBS.get(f"{words[0]} {words[1]}")
        if verb is not None:
            return verb, words[2:]
    verb = VERBS.get(words[0]) if words and " " not in words[0] else None
    return verb, words[1:]
