"""`sysbox rename`: give a container another name."""

from __future__ import annotations

from sysbox.container import store
from sysbox.lifecycle import control
from sysbox.parse.common import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0 once it is renamed."""
    control.rename(store.find(values.container), check_name(values.name, "rename"))
    return 0
