"""`sysbox run`: create a container, run its command and return its exit status."""

from __future__ import annotations

import posix

from sysbox.base.errors import ImageNotFound, SpecError, UsageError
from sysbox.cli import notices
from sysbox.cli.request.spec import build
from sysbox.lifecycle import run
from sysbox.linux import unix
from sysbox.parse import common as parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.spec import ContainerSpec


def main(values: Values) -> int:
    """The payload's own status in the foreground, 0 once a detached container runs."""
    spec = _told(build(values, detach=values.detach), values.sdnotify)
    if values.unit_file is not None:
        from sysbox.cli.commands import unit_generate

        return unit_generate.write_command_line(values)
    notices.of_profile(spec)
    foreground = not (spec.detach or values.dry_run)
    if foreground and spec.tty and spec.interactive and not posix.isatty(0):
        raise UsageError(
            "the input device is not a terminal",
            hint="leave out -t, or run it from a terminal",
        )
    if (spec.pull in ("always", "newer") or values.platform) and not values.dry_run:
        from sysbox.cli import pulling

        spec = pulling.refresh(spec, quiet=values.quiet, asked=pulling.asked(values))
    try:
        return run.run(
            spec, dry_run=values.dry_run, replace=values.replace, notices=notices.Notices()
        )
    except ImageNotFound as error:
        if values.dry_run:
            raise
        from sysbox.cli import pulling

        spec = pulling.missing(spec, error, quiet=values.quiet, asked=pulling.asked(values))
    return run.run(spec, replace=values.replace, notices=notices.Notices())


def _told(spec: ContainerSpec, mode: str | None) -> ContainerSpec:
    """Add who tells the caller's service manager that the container is ready; without a manager nobody does,
    as with podman. Raises SpecError.
    """
    if not mode:
        return spec
    if mode not in ("conmon", "container", "healthy", "ignore"):
        parse.bad("--sdnotify", mode, "unknown mode", "conmon, container, healthy or ignore")
    if mode == "ignore" or not unix.notify_address():
        return spec
    if mode == "healthy" or spec.detach or run.needs_service(spec):
        # systemd hears a service's own processes only
        raise SpecError(
            f"--sdnotify {mode}: the container has a service of its own, for which the caller's cannot wait",
            hint="leave out -d, -it and health checks, or declare the container: Notify= in [Container]",
        )
    return spec.replace(ready=mode)
