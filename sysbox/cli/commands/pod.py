"""`sysbox pod create|start|stop|kill|rm|pause|unpause|restart|exists`."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.base.files import write_file
from sysbox.cli.commands.stop import seconds
from sysbox.cli.each import each, exists
from sysbox.cli.output import line
from sysbox.container import pods
from sysbox.lifecycle import pod as lifecycle
from sysbox.lifecycle import pod_run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0, 1 if one of several pods failed."""
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def _create(values: Values) -> int:
    from sysbox.cli.request import pod as request  # only this verb has its flags

    made = lifecycle.create(request.build(values))
    if values.pod_id_file:
        write_file(values.pod_id_file, f"{made.id}\n".encode(), 0o644)
    line(made.id)
    return 0


def chosen(values: Values) -> list[str]:
    """The pods that are named, or all. Raises UsageError."""
    if values.all:
        if values.pod:
            raise UsageError("--all and POD: give one of them")
        return pods.known()
    if not values.pod:
        raise UsageError("no pod is given", hint="name one, or give --all")
    return list(values.pod)


def _on_each(values: Values, act: Callable[[str], object], *, ignore: bool = False) -> int:
    """Call `act` with the name of each pod, and print what was given."""
    return each(chosen(values), lambda word: act(pods.resolve(word)), line, ignore=ignore)


def _start(values: Values) -> int:
    return _on_each(values, pod_run.start)


def _stop(values: Values) -> int:
    timeout = seconds(values)
    return _on_each(values, lambda name: pod_run.stop(name, timeout), ignore=values.ignore)


def _kill(values: Values) -> int:
    from sysbox.parse.time import parse_signal

    signal = parse_signal(values.signal or "KILL", "--signal")
    return _on_each(values, lambda name: pod_run.kill(name, signal))


def _remove(values: Values) -> int:
    timeout = seconds(values)
    return _on_each(
        values,
        lambda name: lifecycle.remove(name, force=values.force, timeout=timeout),
        ignore=values.ignore,
    )


def _pause(values: Values) -> int:
    return _on_each(values, pod_run.pause)


def _unpause(values: Values) -> int:
    return _on_each(values, pod_run.unpause)


def _restart(values: Values) -> int:
    return _on_each(values, pod_run.restart)


def _exists(values: Values) -> int:
    return exists(pods.resolve, values.pod)


_VERBS: dict[str, Callable[[Values], int]] = {
    "create": _create,
    "pause": _pause,
    "unpause": _unpause,
    "restart": _restart,
    "exists": _exists,
    "start": _start,
    "stop": _stop,
    "kill": _kill,
    "rm": _remove,
}
