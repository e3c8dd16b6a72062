"""The build context: a directory, an archive on standard input, a git repository, a file of a web server."""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base.errors import FormatError, KernelError, NotFound, SpecError
from sysbox.base.files import write_all
from sysbox.build import addresses, content, fetch
from sysbox.build.content import Target
from sysbox.build.content_sources import Origin, Rule, own_directories
from sysbox.build.model import MAX_FILE
from sysbox.embedded import caller_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.build.ignore import Ignore

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
NAMES = ("Containerfile", "Dockerfile")
_IGNORE = (".containerignore", ".dockerignore")
_CHUNK = 1 << 20


class Context:
    """A context that is open: `fd` is its root, `file` a Containerfile that came in its place."""

    def __init__(self, fd: int, title: str, *, here: bool, file: bytes | None = None) -> None:
        """`here`: it is a directory of the caller's, so that the Containerfile may be anywhere."""
        self.fd = fd
        self.title = title
        self.here = here
        self.file = file

    def origin(self, patterns: Ignore | None, most: int) -> Origin:
        """Its files without those that the ignore file leaves out; `most` in one directory."""
        rules = (Rule(patterns),) if patterns else ()
        own = own_directories() if self.here else frozenset()
        return Origin(self.fd, self.title, confined=True, rules=rules, own=own, most=most)

    def read(self, path: str) -> bytes | None:
        """A file of it, None where it has none. Raises SpecError, FormatError, KernelError."""
        origin = Origin(self.fd, self.title, confined=True)
        try:
            entry = origin.entry(path)
        except NotFound:
            return None
        entry.close()
        # before it is opened: a FIFO would be waited for, and a device may do anything
        if entry.kind != _stat.S_IFREG:
            raise SpecError(f"{path} in {self.title}: not a regular file")
        return _whole(origin.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC), path)

    def close(self) -> None:
        posix.close(self.fd)


def open_context(text: str, directory: Callable[[str], str], limits: fetch.Limits) -> Context:
    """The context that a word means; `directory` makes an empty directory of ours, as "context".

    Raises NotFound, SpecError, FormatError, KernelError, and as `fetch`.
    """
    if text == "-":
        return _of_stream(0, "standard input", directory, limits.size)
    if addresses.is_git(text):
        found = fetch.fetch(fetch.Wanted(url=text), directory("context"), limits)
        return Context(posix.open(found.path, _DIRECTORY), "the repository", here=False)
    if addresses.is_remote(text):
        fetched = fetch.fetch(fetch.Wanted(url=text), directory("fetched"), limits)
        fd = posix.open(fetched.path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return _of_stream(fd, text, directory, limits.size)
        finally:
            posix.close(fd)
    addresses.check(text, "the context")
    try:
        return Context(caller_root.open_path(text, _DIRECTORY), "the build context", here=True)
    except KernelError as error:
        what = posix.strerror(error.errno).lower()
        raise SpecError(
            f"the build context {text}: {what}",
            hint="give a directory, a git URL, or - for an archive or a Containerfile on standard input",
        ) from None


def _of_stream(fd: int, title: str, directory: Callable[[str], str], most: int) -> Context:
    """An archive of at most `most` bytes, or a Containerfile alone; with this the context is empty."""
    path = directory("context")
    spool = f"{directory('spool')}/stream"
    size = 0
    copy = posix.open(spool, posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        while data := posix.read(fd, _CHUNK):
            size += len(data)
            if size > most:
                raise FormatError(
                    f"{title}: more than {most} bytes",
                    hint="FetchSize= of sysbox.conf(5) is the bound",
                )
            write_all(copy, data)
        if content.is_archive(copy):
            root = posix.open(path, _DIRECTORY)
            try:
                everything = Target(path="/", is_directory=True, owner=None)
                content.unpack(root, posix.dup(copy), title, everything)
            finally:
                posix.close(root)
            return Context(posix.open(path, _DIRECTORY), "the build context", here=False)
        if size > MAX_FILE:
            raise FormatError(f"{title}: neither an archive nor a Containerfile: {size} bytes")
        posix.lseek(copy, 0, 0)
        text = posix.read(copy, MAX_FILE)
    finally:
        posix.close(copy)
        posix.unlink(spool)
    return Context(posix.open(path, _DIRECTORY), "the build context", here=False, file=text)


def containerfile(context: Context, path: str) -> tuple[str, bytes]:
    """(name, content) of the Containerfile: `path` is that of --file, "" for the usual names.

    Raises NotFound, FormatError, KernelError.
    """
    if path == "-":
        return "Containerfile", _whole(posix.dup(0), "standard input")
    if context.file is not None and not path:
        return "Containerfile", context.file
    if path:
        if context.here:
            return path, _callers(context, path)
        data = context.read(path)
        if data is None:
            raise NotFound(f"{path}: not in {context.title}")
        return path, data
    for name in NAMES:
        data = context.read(name)
        if data is not None:
            return name, data
    raise NotFound(
        f"{context.title} has no {' and no '.join(NAMES)}", hint="name the file: --file PATH"
    )


def _callers(context: Context, path: str) -> bytes:
    """A file of the caller's; where there is none at a relative path, the one of the context, as with podman.

    Raises NotFound, SpecError, FormatError, KernelError.
    """
    try:
        fd = caller_root.open_path(path, posix.O_RDONLY)
    except KernelError as error:
        data = None if path.startswith("/") or error.errno != errno.ENOENT else context.read(path)
        if data is None:
            raise NotFound(f"{path}: {posix.strerror(error.errno).lower()}") from None
        return data
    return _whole(fd, path)


def ignore_file(context: Context, path: str, given: str) -> Ignore | None:
    """The patterns of the ignore file: `given` (--ignorefile), else beside the Containerfile, else the
    context's; None without one. Raises FileError, FormatError, NotFound.
    """
    name, data = _ignore_data(context, path, given)
    if data is None:
        return None
    from sysbox.build import ignore  # which needs `re`

    return ignore.parse(data, name)


def _ignore_data(context: Context, path: str, given: str) -> tuple[str, bytes | None]:
    if given:
        try:
            fd = caller_root.open_path(given, posix.O_RDONLY)
        except KernelError as error:
            raise NotFound(f"{given}: {posix.strerror(error.errno).lower()}") from None
        return given, _whole(fd, given)
    beside = path if path != "-" and not path.startswith("/") else ""
    for name in (*(f"{beside}{one}" for one in _IGNORE if beside), *_IGNORE):
        if (data := context.read(name)) is not None:
            return name, data
    return "", None


def _whole(fd: int, what: str) -> bytes:
    """The content of an open file, which is closed then. Raises FormatError, KernelError."""
    data = b""
    try:
        while piece := posix.read(fd, _CHUNK):
            data += piece
            if len(data) > MAX_FILE:
                raise FormatError(f"{what}: larger than {MAX_FILE >> 20} MiB")
    except OSError as error:
        raise KernelError.of("read", what, error) from None
    finally:
        posix.close(fd)
    return data
