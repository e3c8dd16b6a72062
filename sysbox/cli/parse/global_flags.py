"""docker's flags before the verb: accepted if they ask for what sysbox does anyway.

sysbox has no daemon to connect to, and no configuration of a client.
"""

from __future__ import annotations

from sysbox.base import program
from sysbox.base.errors import UsageError

_NAMES = {
    "-H": "--host", "-c": "--context", "-l": "--log-level",
    "--host": "--host", "--context": "--context", "--log-level": "--log-level", "--config": "--config",
}  # fmt: skip
_SHORT = 2  # characters
_LOCAL = tuple(f"unix://{path}" for path in ("/var/run/docker.sock", "/run/docker.sock", ""))
_LEVELS = ("debug", "info", "warn", "error", "fatal")


def take(words: list[str]) -> int:
    """The number of words that the first flag and its value take; 0 for none of these. Raises UsageError."""
    flag, equals, value = words[0].partition("=")
    taken = 1
    if flag not in _NAMES and words[0][:_SHORT] in _NAMES and words[0][1] != "-":
        flag, equals, value = words[0][:_SHORT], "=", words[0][_SHORT:].removeprefix("=")
    if flag not in _NAMES:
        return 0
    if not equals:
        if len(words) == 1:
            raise UsageError(f"{flag} needs a value", hint="see `sysbox --help`")
        value, taken = words[1], 2
    _check(_NAMES[flag], value)
    return taken


def _check(flag: str, value: str) -> None:
    if flag == "--host" and value not in _LOCAL:
        raise UsageError(
            f"--host {value}: sysbox has no daemon to connect to",
            hint="leave it out here; on another machine: `ssh MACHINE sysbox ...`",
        )
    if flag == "--context" and value != "default":
        raise UsageError(
            f"--context {value}: there is only `default`, this machine",
            hint="on another machine: `ssh MACHINE sysbox ...`",
        )
    if flag == "--log-level":
        if value not in _LEVELS:
            raise UsageError(f"--log-level {value}: unknown level", hint=", ".join(_LEVELS))
        program.debug = program.debug or value == "debug"
