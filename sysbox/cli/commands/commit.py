"""`sysbox commit`: make an image from a container and its changes."""

from __future__ import annotations

from sysbox.cli.output import line
from sysbox.cli.progress import Progress
from sysbox.container import events, store
from sysbox.content import layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; prints the new image's id."""
    record = store.find(values.container)
    with Progress("commit") as progress:
        image = layer.commit(
            record,
            values.name or "",
            values.change,
            author=values.author or "",
            message=values.message or "",
            pause=values.pause and not values.no_pause,
            tell=progress,
        )
    events.container("commit", record, imageID=image.id, comment=values.message or "")
    line(image.id)
    return 0
