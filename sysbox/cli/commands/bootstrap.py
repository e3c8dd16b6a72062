"""`sysbox bootstrap`: make a Debian or Ubuntu image with mmdebstrap."""

from __future__ import annotations

import time

from sysbox.cli.output import emit, line
from sysbox.container import events
from sysbox.image import bootstrap
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; the steps go to standard error, the new image's id to standard output."""
    request = bootstrap.Request(
        values.name,
        name=values.tag or "",
        include=values.include,
        mirror=values.mirror or "",
        variant=values.variant or "",
    )
    begin = time.monotonic()

    def say(step: str) -> None:
        emit(f"sysbox: {request.name}: {step} ({time.monotonic() - begin:.0f} s)\n", 2)

    image = bootstrap.bootstrap(Store(), request, say)
    events.image("import", image.id, image.config.labels, request.name)
    say("done")
    line(image.id)
    return 0
