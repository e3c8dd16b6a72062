"""`sysbox create`: make a container without starting it; prints its id."""

from __future__ import annotations

from sysbox.base.errors import ImageNotFound
from sysbox.cli import notices
from sysbox.cli.output import line
from sysbox.cli.request import spec
from sysbox.lifecycle import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0 once the container exists."""
    wanted = spec.build(values)
    notices.of_profile(wanted, starts=False)
    if wanted.pull in ("always", "newer") or values.platform:
        from sysbox.cli import pulling

        wanted = pulling.refresh(wanted, quiet=values.quiet, asked=pulling.asked(values))
    try:
        container = run.create(wanted, notices.Notices(), replace=values.replace)
    except ImageNotFound as error:
        from sysbox.cli import pulling

        wanted = pulling.missing(wanted, error, quiet=values.quiet, asked=pulling.asked(values))
        container = run.create(wanted, notices.Notices(), replace=values.replace)
    line(container)
    return 0
