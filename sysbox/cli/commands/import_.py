"""`sysbox import`: make an image of a root file system in a tar archive."""

from __future__ import annotations

import posix

from sysbox.base.errors import SpecError, UsageError
from sysbox.cli.output import line
from sysbox.cli.progress import Progress
from sysbox.container import events
from sysbox.embedded import caller_root
from sysbox.image import archive
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; prints the new image's id."""
    fd, what = _open(values.file)
    try:
        with Progress("import") as progress:
            image = archive.import_tar(
                Store(),
                fd,
                values.name or "",
                what=what,
                changes=values.change,
                message=values.message or "",
                tell=progress,
            )
    finally:
        if fd:
            posix.close(fd)
    events.image("import", image.id, image.config.labels, values.name or "")
    line(image.id)
    return 0


def _open(name: str) -> tuple[int, str]:
    """The archive's descriptor, and its name for messages; raises UsageError, SpecError, KernelError."""
    if name == "-":
        if posix.isatty(0):
            raise UsageError(
                "import -: standard input is a terminal", hint="pipe a tar archive into it"
            )
        return 0, "standard input"
    fd = caller_root.open_path(name, posix.O_RDONLY)
    try:
        posix.read(fd, 0)  # fails with EISDIR for a directory
    except OSError as error:
        posix.close(fd)
        raise SpecError(
            f"import {name}: {error.strerror}",
            hint=f"pack it: tar -C {name} -c . | sysbox import - NAME",
        ) from None
    return fd, name
