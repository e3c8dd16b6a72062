"""`sysbox stop`: send containers their stop signal, and SIGKILL after the timeout."""

from __future__ import annotations

from sysbox.cli.each import each, ignoring, named
from sysbox.cli.output import line
from sysbox.container import store
from sysbox.lifecycle import control

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values


def seconds(values: Values) -> int | None:
    """The value of --time; None means that there is none."""
    if values.time is None:
        return None
    from sysbox.parse.time import parse_seconds

    return parse_seconds(values.time, "--time")


def signal(values: Values) -> int | None:
    """The value of --signal; None means the container's own --stop-signal."""
    if values.signal is None:
        return None
    from sysbox.parse.time import parse_signal

    return parse_signal(values.signal, "--signal")


def stop_all(
    names: list[str],
    timeout: int | None,
    number: int | None,
    done: Callable[[str], object] | None = None,
    *,
    ignore: bool,
) -> int:
    """Stop containers at the same time, and call `done` with each that has stopped; the exit status.

    `ignore`: one that does not exist is no failure.
    """
    ids: dict[str, str] = {}
    asked: dict[str, control.Stop] = {}

    def begin(name: str) -> None:
        record = store.find(name)
        if record.id not in asked:  # it may have been named twice
            asked[record.id] = control.Stop(record, timeout, number)
        ids[name] = record.id

    def end(name: str) -> None:
        if stop := asked.pop(ids[name], None):
            stop.end()

    try:
        status = each(names, begin, ignore=ignore)
        # the shortest time first, so that none has to wait for another's
        deadlines = {one: stop.deadline for one, stop in asked.items()}
        waiting = sorted(filter(ids.get, names), key=lambda name: deadlines[ids[name]])
        return status | each(waiting, end, done, ignore=ignore)
    except BaseException:
        for stop in asked.values():
            stop.give_up()
        raise


def main(values: Values) -> int:
    """0, 1 if one of them could not be stopped."""
    timeout, number = seconds(values), signal(values)
    return stop_all(named(values, ignoring(values)), timeout, number, line, ignore=values.ignore)
