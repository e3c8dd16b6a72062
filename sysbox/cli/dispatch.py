"""Dispatch: from argv to a verb's `main`, and back to an exit status.

A verb is a module of `cli/commands/` with `main(values) -> status`. The hot parser reads the command lines
of hot verbs; click (`parse/cold.py`) reads those of all other verbs, and whatever the hot parser rejects.
"""

from __future__ import annotations

import posix
import sys

from sysbox.base import program
from sysbox.base.errors import FAILED
from sysbox.cli import invoke

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def start(launcher: str, words: list[str]) -> NoReturn:
    """Run one command line, then exit the process with its status."""
    program.launcher = launcher
    _open_standard_fds()
    status = FAILED
    try:
        status = invoke.guarded(lambda: run(words))
        status = invoke.flush(status)
    finally:
        # skip the interpreter's shutdown: there is nothing to clean up, and it costs milliseconds
        posix._exit(status)


def _open_standard_fds() -> None:
    """Open /dev/null on each closed one of 0, 1 and 2.

    A file opened later would get that number otherwise, and the payload would inherit it.
    """
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError:
            if posix.open("/dev/null", posix.O_RDWR) != fd:
                posix._exit(FAILED)
    # Python sets the stream of a descriptor that was closed at its start to None
    sys.stdout = sys.stdout or open(1, "w", closefd=False)
    sys.stderr = sys.stderr or open(2, "w", closefd=False)


def run(words: list[str]) -> int:
    """Parse a command line and call its verb, here or in the embedded host; returns the exit status."""
    words = _global_flags(words)
    if words[:1] and words[0].startswith("_"):
        program.failed = FAILED
        from sysbox.cli import internal

        return internal.run(words)
    from sysbox.cli.parse import hot  # imports the verb table, which the commands above do not need

    verb = hot.find_verb(words)[0]
    if verb is not None and verb.passes_status:
        program.failed = FAILED
    values = hot.read(words)
    if values is not None:
        return invoke.invoke(values)
    program.load_site()  # click may be installed where only `site` looks
    from sysbox.cli.parse import cold

    return cold.main(words)


def _global_flags(words: list[str]) -> list[str]:
    at = 0
    while at < len(words) and words[at][:1] == "-":
        if words[at] in ("--debug", "-D"):
            program.debug = True
            at += 1
            continue
        from sysbox.cli.parse import global_flags  # docker's other global flags, which are rare

        taken = global_flags.take(words[at:])
        if not taken:
            break
        at += taken
    if words[at : at + 1] in (["--version"], ["-v"]):
        return ["version", "--format", "sysbox version {{.Client.Version}}"]
    return words[at:]
