"""From argv to a verb and back to an exit status.

A verb is a module of this package with `main(values) -> status`. Hot verbs come here through the hot
parser; what that does not accept, and every other verb, goes through click in `cold.py`.
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
    """The whole life of the process."""
    program.launcher = launcher
    _open_standard_fds()
    status = FAILED
    try:
        status = invoke.guarded(lambda: run(words))
        status = invoke.flush(status)
    finally:
        # nothing is left to clean up, and tearing the interpreter down costs milliseconds
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


def run(words: list[str]) -> int:
    """Find the verb, parse, and call it where its containers are."""
    words = _global_flags(words)
    if words[:1] and words[0].startswith("_"):
        program.failed = FAILED
        from sysbox.cli import internal

        return internal.run(words)
    from sysbox.cli.parse import hot  # with the table of verbs, which systemd's commands do without

    verb = hot.find_verb(words)[0]
    if verb is not None and verb.passes_status:
        program.failed = FAILED
    values = hot.read(words)
    if values is not None:
        return invoke.invoke(values)
    program.load_site()  # click may lie where only `site` looks
    from sysbox.cli.parse import cold

    return cold.main(words)


def _global_flags(words: list[str]) -> list[str]:
    at = 0
    while at < len(words) and words[at][:1] == "-":
        if words[at] in ("--debug", "-D"):
            program.debug = True
            at += 1
            continue
        from sysbox.cli.parse import global_flags  # docker's others, which few scripts give

        taken = global_flags.take(words[at:])
        if not taken:
            break
        at += taken
    if words[at : at + 1] in (["--version"], ["-v"]):
        return ["version", "--format", "sysbox version {{.Client.Version}}"]
    return words[at:]
