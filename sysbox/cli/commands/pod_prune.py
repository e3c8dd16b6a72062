"""`sysbox pod prune`: remove pods that are down and whose containers have all ended."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.cli.commands.prune import CANCELLED, agreed
from sysbox.cli.each import each
from sysbox.cli.output import line, warn
from sysbox.container import pods
from sysbox.docker import pod as shown
from sysbox.lifecycle import pod as lifecycle
from sysbox.lifecycle.repair import repaired

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_WARNING = "WARNING! This will remove all pods that are stopped, with their containers."


def main(values: Values) -> int:
    """0, 1 if one of them could not be removed. As with podman, one that was never started stays.

    Raises SysboxError where the user does not agree.
    """
    if not values.force and not agreed(_WARNING):
        raise SysboxError("pod prune: cancelled, nothing was removed", status=CANCELLED)
    stopped = [
        one.name for one in pods.all_pods(warn) if shown.see(one, repaired).state == "Exited"
    ]
    return each(stopped, lifecycle.remove, line)
