"""`sysbox system install-units|uninstall-units`: systemd's files of an installation by pip."""

from __future__ import annotations

from sysbox.base.errors import Unsupported
from sysbox.cli.output import line
from sysbox.host import booted
from sysbox.lifecycle import system_units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0. Raises Unsupported, Conflict, NotFound."""
    if values.user:
        raise Unsupported(
            "--user: containers of ordinary users are not there yet", hint="leave it out, as root"
        )
    if not booted():
        raise Unsupported(
            "systemd does not run here",
            hint="an embedded host has its generator and units by itself",
        )
    installs = values.verb.name == "system install-units"
    for path in system_units.install() if installs else system_units.uninstall():
        line(path)
    return 0
