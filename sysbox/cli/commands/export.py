"""`sysbox export`: a container's root file system as a tar archive."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError, UsageError
from sysbox.base.tree import TreeEntry, printable
from sysbox.cli.output import emit, write_all
from sysbox.cli.output_file import OutputFile
from sysbox.cli.progress import Progress
from sysbox.container import events, store
from sysbox.content import layer
from sysbox.content.root import Root
from sysbox.docker.human import human_size
from sysbox.image.tarwriter import Archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0. The archive has nothing that is mounted in the container, except /usr of the image `host`."""
    record = store.find(values.container)
    if not values.output and posix.isatty(1):
        raise UsageError(
            "export: standard output is a terminal", hint="give a file with -o, or pipe it"
        )
    with Root(record, bare=True) as root:
        _export(root, values.output or "")
    events.container("export", record)
    return 0


def _export(root: Root, output: str) -> None:
    """Write to a file, which gets its name when it is complete; "" is standard output."""
    if not output:
        _write(root, 1)
        return
    file = OutputFile(output)
    try:
        _write(root, file.fd)
        file.done()
    finally:
        file.close()


def _write(root: Root, fd: int) -> None:
    held = [TreeEntry(".", posix.dup(root.fd))]
    grafts = {}
    if root.usr >= 0:
        held.append(TreeEntry("usr", posix.dup(root.usr)))
        grafts["usr"] = held[-1], root.owners_of_usr()
    progress = Progress("export")

    def write(data: bytes) -> None:
        write_all(fd, data)
        progress(len(data))

    archive = Archive(write, _note_shrunk, owners=root.owners)
    try:
        if root.usr >= 0:
            _announce_size(root)
        archive.tree(held[0], ".", grafts)
        archive.finish()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise KernelError.of("export", root.record.name, error) from None
    finally:
        progress.clear()
        for found in held:
            found.close()


def _announce_size(root: Root) -> None:
    """Print the expected size: the archive contains the machine's own /usr, which surprises many."""
    size = layer.tree_size(root.fd) + layer.tree_size(root.usr)
    emit(f"sysbox: export: about {human_size(size)}, with the machine's own /usr\n", 2)


def _note_shrunk(name: str) -> None:
    name = printable(name)
    emit(f"sysbox: export: {name} became shorter while it was read: filled up with zeros\n", 2)
