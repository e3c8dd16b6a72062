"""`sysbox save`: write images to an archive or a directory."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError, SpecError, UsageError
from sysbox.base.suggest import suggest
from sysbox.cli.output import write_all
from sysbox.cli.output_file import OutputDirectory, OutputFile
from sysbox.cli.progress import Progress
from sysbox.image.formats.save import DIRECTORIES, DOCKER_ARCHIVE, FORMATS, choose
from sysbox.image.formats.sinks import ArchiveSink, DirectorySink, Sink
from sysbox.image.store import Store
from sysbox.lifecycle import images

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values

    Write = Callable[[Sink], None]


def main(values: Values) -> int:
    """0; the file gets its name when it is complete."""
    form = values.format or DOCKER_ARCHIVE
    if form not in FORMATS:
        raise SpecError(f"--format {form}: unknown format", hint=suggest(form, FORMATS))
    if form in DIRECTORIES and not values.output:
        raise UsageError(f"save --format {form}: needs a directory", hint="give its name with -o")
    if not values.output and posix.isatty(1):
        raise UsageError(
            "save: standard output is a terminal", hint="give a file with -o, or pipe it"
        )
    store = Store()
    chosen = choose(store, values.image)
    with Progress("save", fd=-1 if values.quiet else 2) as progress:

        def write(sink: Sink) -> None:
            images.save(store, chosen, form, sink)

        try:
            _write(form, values.output or "", write, progress)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise KernelError.of("save", values.output or "standard output", error) from None
    return 0


def _write(form: str, output: str, write: Write, progress: Progress) -> None:
    if not output:
        write(ArchiveSink(1, progress, write_all))
        return
    if form in DIRECTORIES:
        directory = OutputDirectory(output)
        try:
            write(DirectorySink(directory.fd, progress))
            directory.done()
        finally:
            directory.close()
        return
    file = OutputFile(output)
    try:
        write(ArchiveSink(file.fd, progress))
        file.done()
    finally:
        file.close()
