"""`sysbox tag`: give an image further names."""

from __future__ import annotations

from sysbox.container import events
from sysbox.image.reference import is_host, parse
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; prints nothing, as docker."""
    store = Store()
    if is_host(values.image):
        store.resolve(values.image)  # the image `host` is made when it is first used
    for name in values.name:
        image = store.tag(values.image, name)
        events.image("tag", image.id, image.config.labels, parse(name).familiar())
    return 0
