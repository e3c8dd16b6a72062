"""`sysbox export`: a container's root file system as a tar archive."""

from __future__ import annotations

import _stat
import posix

from sysbox import events, state
from sysbox.cli.output import emit, write_all
from sysbox.errors import KernelError, UsageError
from sysbox.image.tarwriter import Archive
from sysbox.inside import Root
from sysbox.trees import Found

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0; nothing that is mounted in the container is part of it, but /usr of the image `host`."""
    record = state.find(values.container)
    if not values.output and posix.isatty(1):
        raise UsageError(
            "export: standard output is a terminal", hint="give a file with -o, or pipe it"
        )
    with Root(record, bare=True) as root:
        _export(root, values.output or "")
    events.container("export", record)
    return 0


def _export(root: Root, output: str) -> None:
    """To a file, which appears when it is complete; "" is standard output."""
    if not output:
        _write(root, 1)
    else:
        fd, temporary = _create(output)
        try:
            _write(root, fd)
            if temporary:
                posix.rename(temporary, output)
        except BaseException:
            if temporary:
                posix.unlink(temporary)
            raise
        finally:
            posix.close(fd)


def _write(root: Root, fd: int) -> None:
    held = [Found(".", posix.dup(root.fd))]
    grafts = {}
    if root.usr >= 0:
        grafts["usr"] = Found("usr", posix.dup(root.usr))
        held.append(grafts["usr"])
    archive = Archive(lambda data: write_all(fd, data), _changed)
    try:
        archive.tree(held[0], ".", grafts)
        archive.finish()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise KernelError.of("export", root.record.name, error) from None
    finally:
        for found in held:
            found.close()


def _changed(name: str) -> None:
    emit(f"sysbox: export: {name} became shorter while it was read: filled up with zeros\n", 2)


def _create(path: str) -> tuple[int, str]:
    """A descriptor to write to, and the file to be renamed in the end: "" where `path` is no plain file."""
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC
    try:
        try:
            plain = _stat.S_ISREG(posix.stat(path).st_mode)
        except FileNotFoundError:
            plain = True
        if not plain:
            return posix.open(path, flags), ""
        temporary = f"{path}.{posix.getpid()}"
        return posix.open(temporary, flags | posix.O_EXCL, 0o600), temporary
    except OSError as error:
        raise KernelError.of("write", path, error) from None
