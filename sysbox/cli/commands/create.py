"""`sysbox create`: make a container without starting it; prints its id."""

from __future__ import annotations

from sysbox.cli.output import line
from sysbox.cli.request import spec
from sysbox.lifecycle import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0 once the container exists."""
    line(run.create(spec.build(values)))
    return 0
