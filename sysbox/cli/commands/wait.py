"""`sysbox wait`: wait for containers to stop, and print their exit statuses."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.base.suggest import suggest
from sysbox.cli.each import for_each
from sysbox.cli.output import line
from sysbox.container import store
from sysbox.lifecycle import wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_ALIASES = {"stopped": wait.NOT_RUNNING, "exited": wait.NOT_RUNNING}  # podman's


def main(values: Values) -> int:
    """0, 1 if one of them does not exist."""
    given = values.condition or wait.NOT_RUNNING
    condition = _ALIASES.get(given, given)
    if condition not in wait.CONDITIONS:
        raise UsageError(
            f"--condition {given}: unknown condition", hint=suggest(given, wait.CONDITIONS)
        )

    def act(record: store.Record) -> None:
        line(str(wait.wait(record, condition)))

    return for_each(values.container, act, echo=False)
