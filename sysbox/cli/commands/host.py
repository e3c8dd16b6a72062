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

_STOP_TIMEOUT = "60"  # seconds


def main(values: Values) -> int:
    """The verb's exit status. Raises SysboxError."""
    if os.geteuid() != 0:
        raise errors.Unsupported(
            "only root can use the embedded host",
            hint="run it as root, or use a machine that is booted with systemd",
        )
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def _name(values: Values) -> str:
    return state.check_name(values.name) if values.name else state.name_from_environment()


def _seconds(text: str) -> float:
    if not text.isdecimal():
        raise errors.UsageError(f"--timeout={text}: must be a number of seconds")
    return float(text)


def _start(values: Values) -> int:
    from sysbox.embedded.boot import start

    host = start(_name(values), private_network=values.private_network)
    if values.private_network and not host.private_network:
        raise errors.Conflict(
            f"the embedded host '{host.name}' is up already, on the machine's network",
            hint=f"sysbox host stop --name {host.name}",
        )
    return _print(host)


def _status(values: Values) -> int:
    name = _name(values)
    host = state.load_running(name)
    if host is None:
        sys.stdout.write(f"name:    {name}\nstate:   stopped\n")
        return 3  # as `systemctl status` has it for a unit that is not active
    return _print(host)


def _ls(_: Values) -> int:
    from sysbox.cli.output import note, table, warn

    if own := state.own_name():
        note(f"this is the embedded host '{own}': it lists only hosts that were started in it")
    rows = []
    for name in state.all_names():
        try:
            host = state.load_running(name)
        except errors.FormatError as error:
            warn(error)
            rows.append((name, "unknown", "", ""))
            continue
        network = "" if host is None else "private" if host.private_network else "the machine's"
        pid = str(host.pid) if host else ""
        rows.append((name, "running" if host else "stopped", pid, network))
    sys.stdout.write(table([("NAME", "STATE", "PID", "NETWORK"), *rows]))
    return 0


def _print(host: state.Host) -> int:
    from sysbox.embedded.boot import run_inside

    kept = state.sysbox_directory(host.name)
    network = "private" if host.private_network else "the machine's"
    sys.stdout.write(
        f"name:    {host.name}\n"
        f"state:   {run_inside(host, 'systemctl', 'is-system-running') or 'unknown'}\n"
        f"pid:     {host.pid}\n"
        f"network: {network}\n"
        f"kept in: {kept}, {state.state_directory(host.name)}/journal\n"
    )
    return 0


def _exec(values: Values) -> int:
    return _run(_name(values), values.command)


def _shell(values: Values) -> int:
    return _run(_name(values), [os.environ.get("SHELL") or "/bin/sh", "-l"])


def _run(name: str, command: list[str]) -> int:
    from sysbox.embedded.enter import run_on_host

    return run_on_host(_executor(command), name)


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


def _stop(values: Values) -> int:
    from sysbox.embedded import stop

    name = _name(values)
    stop.stop(name, _seconds(values.timeout or _STOP_TIMEOUT))
    if values.purge:
        stop.purge(name)
    return 0


_VERBS = {
    "start": _start,
    "ls": _ls,
    "status": _status,
    "exec": _exec,
    "shell": _shell,
    "stop": _stop,
}
