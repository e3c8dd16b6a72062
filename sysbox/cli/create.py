"""`sysbox create`: everything but the start; prints the id."""

from __future__ import annotations

from sysbox import running
from sysbox.cli import specbuild
from sysbox.cli.output import line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0 once the container is there."""
    line(running.create(specbuild.build(values)))
    return 0
