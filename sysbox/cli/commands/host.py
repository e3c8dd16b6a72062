"""`sysbox host start|ls|status|shell|exec|stop`: the embedded host, where PID 1 is not systemd."""

from __future__ import annotations

import errno
import os
import sys

from sysbox.base import errors
from sysbox.embedded import state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values

USAGE = """\
Usage: sysbox host start  [--name NAME] [--private-network]
       sysbox host ls
       sysbox host status [--name NAME]
       sysbox host exec   [--name NAME] [--] COMMAND [ARG...]
       sysbox host shell  [--name NAME]
       sysbox host stop   [--name NAME] [--timeout SECONDS] [--purge]

NAME is that of SYSBOX_HOST=embedded:NAME, or "default".
"""


class Arguments:
    """What followed the verb."""

    def __init__(self) -> None:
        self.name = ""  # as SYSBOX_HOST has it
        self.private_network = False
        self.timeout = 60.0
        self.purge = False
        self.command: list[str] = []


def main(given: Values | list[str]) -> int:
    """Run one verb; returns its exit status. Raises SysboxError."""
    args = given if isinstance(given, list) else [given.action, *given.command]
    if args[:1] in ([], ["--help"], ["-h"]):
        sys.stdout.write(USAGE)
        return 0
    verb = VERBS.get(args[0])
    if verb is None:
        raise errors.UsageError(
            f"unknown command 'host {args[0]}'", hint="start, ls, status, exec, shell or stop"
        )
    arguments = _parse(args[0], args[1:])
    if os.geteuid() != 0:
        raise errors.Unsupported(
            "only root can use the embedded host",
            hint="run it as root, or use a machine that is booted with systemd",
        )
    return verb(arguments)


def _parse(verb: str, words: list[str]) -> Arguments:
    parsed = Arguments()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, equals, value = word.partition("=")
        if flag in ("--name", "--timeout") and verb in ("stop", *_NAMED[flag]):
            if not equals and not rest:
                raise errors.UsageError(f"{flag} needs a value")
            value = value if equals else rest.pop(0)
            if flag == "--name":
                parsed.name = state.check_name(value)
            else:
                parsed.timeout = _seconds(value)
        elif word == "--private-network" and verb == "start":
            parsed.private_network = True
        elif word == "--purge" and verb == "stop":
            parsed.purge = True
        elif verb == "exec" and (word == "--" or not word.startswith("-")):
            parsed.command = rest if word == "--" else [word, *rest]
            break
        else:
            raise errors.UsageError(
                f"unknown argument '{word}' for host {verb}", hint="sysbox host --help"
            )
    parsed.name = parsed.name or state.meant()
    if verb == "exec" and not parsed.command:
        raise errors.UsageError("host exec needs a command")
    return parsed


_NAMED = {"--name": ("start", "status", "exec", "shell"), "--timeout": ()}


def _seconds(text: str) -> float:
    if not text.isdecimal():
        raise errors.UsageError(f"--timeout={text}: must be a number of seconds")
    return float(text)


def _start(arguments: Arguments) -> int:
    from sysbox.embedded.boot import start

    host = start(arguments.name, private_network=arguments.private_network)
    if arguments.private_network and not host.private_network:
        raise errors.Conflict(
            f"the embedded host '{host.name}' is up already, on the machine's network",
            hint=f"sysbox host stop --name {host.name}",
        )
    return _print(host)


def _status(arguments: Arguments) -> int:
    host = state.running(arguments.name)
    if host is None:
        sys.stdout.write(f"name:    {arguments.name}\nstate:   stopped\n")
        return 3  # as `systemctl status` has it for a unit that is not active
    return _print(host)


def _ls(_: Arguments) -> int:
    from sysbox.cli.output import table

    rows = []
    for name in state.kept():
        host = state.running(name)
        network = "" if host is None else "private" if host.private_network else "the machine's"
        pid = str(host.pid) if host else ""
        rows.append((name, "running" if host else "stopped", pid, network))
    sys.stdout.write(table([("NAME", "STATE", "PID", "NETWORK"), *rows]))
    return 0


def _print(host: state.Host) -> int:
    from sysbox.embedded.boot import inside

    kept = state.sysbox_directory(host.name)
    network = "private" if host.private_network else "the machine's"
    sys.stdout.write(
        f"name:    {host.name}\n"
        f"state:   {inside(host, 'systemctl', 'is-system-running') or 'unknown'}\n"
        f"pid:     {host.pid}\n"
        f"network: {network}\n"
        f"kept in: {kept}, {state.state_directory(host.name)}/journal\n"
    )
    return 0


def _exec(arguments: Arguments) -> int:
    return _run(arguments.name, arguments.command)


def _shell(arguments: Arguments) -> int:
    return _run(arguments.name, [os.environ.get("SHELL") or "/bin/sh", "-l"])


def _run(name: str, command: list[str]) -> int:
    from sysbox.embedded.enter import forward

    return forward(_executor(command), name)


def _executor(command: list[str]) -> Callable[[], int]:
    def execute() -> int:
        environment = {key: value for key, value in os.environ.items() if key != "SYSBOX_HOST"}
        try:
            os.execvpe(command[0], command, environment)
        except OSError as error:
            missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
            sys.stderr.write(f"sysbox: {command[0]}: {errors.strerror(error.errno or 0)}\n")
            return errors.NOT_FOUND if missing else errors.NOT_EXECUTABLE

    return execute


def _stop(arguments: Arguments) -> int:
    from sysbox.embedded import stop

    stop.stop(arguments.name, arguments.timeout)
    if arguments.purge:
        stop.purge(arguments.name)
    return 0


VERBS = {
    "start": _start,
    "ls": _ls,
    "status": _status,
    "exec": _exec,
    "shell": _shell,
    "stop": _stop,
}
