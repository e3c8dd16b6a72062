"""`sysbox untag`: take names from an image, which stays, as `podman untag` does."""

from __future__ import annotations

from sysbox.container import events
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; prints nothing, as podman."""
    for one in Store().untag(values.image, values.name):
        events.image(one.action, one.image_id, one.labels, one.name)
    return 0
