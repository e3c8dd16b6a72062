"""`sysbox load`: read images from an archive or a directory."""

from __future__ import annotations

import os
import posix

from sysbox.base.errors import UsageError
from sysbox.cli.output import line
from sysbox.cli.progress import Progress
from sysbox.embedded import caller_root
from sysbox.image.registry.platform import parse
from sysbox.image.store import Store
from sysbox.lifecycle import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0; prints the names of the images, or the ids of those without a name, as docker does."""
    platform = parse(values.platform) if values.platform else None
    fd, what = _open(values.input or "-")
    # without links: a scope of policy.json is about where a file is
    path = os.readlink(f"/proc/self/fd/{fd}") if fd else ""
    try:
        with Progress("load", fd=-1 if values.quiet else 2) as progress:
            loaded = images.load(Store(), fd, what, progress, path=path, platform=platform)
    finally:
        if fd:
            posix.close(fd)
    for image in loaded:
        for name in image.names:
            if name in image.moved:
                line(
                    f"The image {name} already exists, renaming the old one with ID "
                    f"{image.moved[name]} to empty string"
                )
            line(f"Loaded image: {name}")
        if not image.names:
            line(f"Loaded image ID: {image.id}")
    return 0


def _open(name: str) -> tuple[int, str]:
    """The descriptor of what is read, and its name for messages; raises UsageError, KernelError."""
    if name != "-":
        return caller_root.open_path(name, posix.O_RDONLY), name
    if posix.isatty(0):
        raise UsageError(
            "load: standard input is a terminal",
            hint="give a file with -i, or pipe an archive into it",
        )
    return 0, "standard input"
