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
from sysbox.image.web import WebFile, is_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values
    from sysbox.image.model import Image


def main(values: Values) -> int:
    """0; prints the new image's id."""
    name = values.name or ""
    if is_url(values.file):
        archive.check_name(name)  # before anything is fetched
        with WebFile(values.file) as file:
            image = _import(file.read, file.name, values)
    else:
        fd, what = _open(values.file)
        try:
            image = _import(fd, what, values)
        finally:
            if fd:
                posix.close(fd)
    events.image("import", image.id, image.config.labels, name)
    line(image.id)
    return 0


def _import(source: int | Callable[[int], bytes], what: str, values: Values) -> Image:
    with Progress("import") as progress:
        return archive.import_tar(
            Store(),
            source,
            values.name or "",
            what=what,
            changes=values.change,
            message=values.message or "",
            tell=progress,
        )


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
