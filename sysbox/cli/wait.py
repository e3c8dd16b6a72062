"""`sysbox wait`: wait until containers stop, and print their exit statuses."""

from __future__ import annotations

from sysbox import lifecycle, state
from sysbox.cli.each import for_each
from sysbox.cli.output import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0, 1 if one of them does not exist."""

    def act(record: state.Record) -> None:
        line(str(lifecycle.wait(record)))

    return for_each(values.container, act, echo=False)
