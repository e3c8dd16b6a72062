"""`sysbox run`: create a container, run its command and return its exit status."""

from __future__ import annotations

import posix

from sysbox.base.errors import ImageNotFound, UsageError
from sysbox.cli import notices
from sysbox.cli.request.spec import build
from sysbox.lifecycle import run

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """The payload's own status in the foreground, 0 once a detached container runs."""
    spec = build(values, detach=values.detach)
    if values.unit_file is not None:
        from sysbox.cli.commands import unit_generate

        return unit_generate.write_command_line(values)
    foreground = not (spec.detach or values.dry_run)
    if foreground and spec.tty and spec.interactive and not posix.isatty(0):
        raise UsageError(
            "the input device is not a terminal",
            hint="leave out -t, or run it from a terminal",
        )
    wanted = values.platform or ""
    if (spec.pull in ("always", "newer") or wanted) and not values.dry_run:
        from sysbox.cli import pulling

        spec = pulling.refresh(spec, quiet=values.quiet, wanted=wanted)
    try:
        return run.run(spec, dry_run=values.dry_run, notices=notices.Notices())
    except ImageNotFound as error:
        if values.dry_run:
            raise
        from sysbox.cli import pulling

        spec = pulling.missing(spec, error, quiet=values.quiet, wanted=wanted)
    return run.run(spec, notices=notices.Notices())
