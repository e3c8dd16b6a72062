"""Files and directories that a verb writes for the caller: each gets its name when it is complete."""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import Conflict, KernelError
from sysbox.base.files import remove_at
from sysbox.embedded import caller_root

_FLAGS = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC


class OutputFile:
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


class OutputDirectory:
    """A directory that is made empty, and gets its name when it is complete; an empty one may be there.

    Raises Conflict for one that is not empty, KernelError.
    """

    def __init__(self, path: str) -> None:
        above, _, self._name = path.rstrip("/").rpartition("/")
        self._path = path
        self._above = caller_root.open_path(
            above or ("/" if path.startswith("/") else "."), posix.O_RDONLY | posix.O_DIRECTORY
        )
        self.fd = -1
        self._temporary = ""
        try:
            self._refuse_full()
            temporary = f".{self._name[:200]}.{posix.getpid()}"
            posix.mkdir(temporary, 0o755, dir_fd=self._above)
            self._temporary = temporary
            self.fd = posix.open(temporary, _FLAGS | posix.O_NOFOLLOW, dir_fd=self._above)
        except OSError as error:
            self.close()
            raise KernelError.of("write", path, error) from None
        except Conflict:
            self.close()
            raise

    def done(self) -> None:
        """Give the complete directory its name. Raises KernelError."""
        try:
            posix.rename(
                self._temporary, self._name, src_dir_fd=self._above, dst_dir_fd=self._above
            )
            self._temporary = ""
            posix.fsync(self._above)
        except OSError as error:
            raise KernelError.of("write", self._path, error) from None

    def close(self) -> None:
        """Close the directory; an incomplete one is removed."""
        if self._temporary:
            remove_at(self._above, self._temporary)
            self._temporary = ""
        for fd in (self.fd, self._above):
            if fd >= 0:
                posix.close(fd)
        self.fd = self._above = -1

    def _refuse_full(self) -> None:
        if self._name in ("", ".", ".."):
            raise Conflict(f"{self._path}: is not a name for a new directory")
        try:
            fd = posix.open(self._name, _FLAGS | posix.O_NOFOLLOW, dir_fd=self._above)
        except FileNotFoundError:
            return
        try:
            if posix.listdir(fd):
                raise Conflict(f"{self._path}: exists, and is not empty", hint="give another name")
        finally:
            posix.close(fd)
