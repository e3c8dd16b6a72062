"""`sysbox stop`: send containers their stop signal, and SIGKILL after the timeout."""

from __future__ import annotations

from sysbox.cli.each import for_each, named
from sysbox.lifecycle import control

TYPE_CHECKING = False
if TYPE_CHECKING:
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


def main(values: Values) -> int:
    """0, 1 if one of them could not be stopped."""
    timeout, number = seconds(values), signal(values)
    return for_each(
        named(values, ignore=values.ignore),
        lambda record: control.stop(record, timeout, number),
        ignore=values.ignore,
    )
