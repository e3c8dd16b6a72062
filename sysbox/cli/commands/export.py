"""`sysbox export`: a container's root file system as a tar archive."""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import KernelError, UsageError
from sysbox.base.tree import TreeEntry, printable
from sysbox.cli.output import emit, write_all
from sysbox.cli.progress import Progress
from sysbox.container import events, store
from sysbox.content import layer
from sysbox.content.root import Root
from sysbox.docker.human import human_size
from sysbox.embedded import caller_root
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
    file = _File(output)
    try:
        _write(root, file.fd)
        file.done()
    finally:
        file.close()


def _write(root: Root, fd: int) -> None:
    held = [TreeEntry(".", posix.dup(root.fd))]
    grafts = {}
    if root.usr >= 0:
        grafts["usr"] = TreeEntry("usr", posix.dup(root.usr))
        held.append(grafts["usr"])
    progress = Progress("export")

    def write(data: bytes) -> None:
        write_all(fd, data)
        progress(len(data))

    archive = Archive(write, _note_shrunk)
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


class _File:
    """An output file that gets its name when it is complete; a device or pipe is written to directly."""

    def __init__(self, path: str) -> None:
        above, _, self._name = path.rpartition("/")
        self._path = path
        self._temporary = self._nameless = ""
        self._directory = self.fd = -1
        flags = posix.O_WRONLY | posix.O_CLOEXEC
        try:
            self.fd = caller_root.open_path(path, flags | posix.O_NONBLOCK)
        except KernelError as error:
            if error.errno != errno.ENOENT or not self._name:
                raise
        if self.fd >= 0 and not _stat.S_ISREG(posix.fstat(self.fd).st_mode):
            posix.set_blocking(self.fd, True)
            return
        self.close()
        self._directory = caller_root.open_path(
            above or ("/" if path.startswith("/") else "."), posix.O_RDONLY | posix.O_DIRECTORY
        )
        temporary = f"{self._name}.{posix.getpid()}"
        try:
            try:
                # without a name until it is complete: nothing is left, however this command ends
                self.fd = posix.open(".", flags | posix.O_TMPFILE, 0o600, dir_fd=self._directory)
                self._nameless = temporary
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                    raise
                exclusive = flags | posix.O_CREAT | posix.O_EXCL
                self.fd = posix.open(temporary, exclusive, 0o600, dir_fd=self._directory)
                self._temporary = temporary
        except OSError as error:
            raise KernelError.of("write", path, error) from None

    def done(self) -> None:
        """Give the complete file its name."""
        if not self._temporary and not self._nameless:
            return
        try:
            if self._nameless:
                origin = f"/proc/self/fd/{self.fd}"
                posix.link(origin, self._nameless, dst_dir_fd=self._directory, follow_symlinks=True)
                self._temporary = self._nameless
            posix.rename(
                self._temporary,
                self._name,
                src_dir_fd=self._directory,
                dst_dir_fd=self._directory,
            )
        except OSError as error:
            raise KernelError.of("write", self._path, error) from None
        self._temporary = ""

    def close(self) -> None:
        """Close the file; an incomplete one is removed."""
        if self._temporary:
            posix.unlink(self._temporary, dir_fd=self._directory)
            self._temporary = ""
        for fd in (self.fd, self._directory):
            if fd >= 0:
                posix.close(fd)
        self.fd = self._directory = -1
