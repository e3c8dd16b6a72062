"""Find the files that declare units, and read each with its drop-ins.

Where files are, which of two with one name counts, and which drop-ins a file has, are as in
podman-systemd.unit(5): so `web.container` of /etc/containers/systemd replaces the one of /usr/share.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import is_directory
from sysbox.base.frozen import Frozen
from sysbox.units import syntax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DIRECTORIES = (
    "/run/sysbox/units",
    "/etc/sysbox/units",
    "/usr/share/sysbox/units",
    "/run/containers/systemd",
    "/etc/containers/systemd",
    "/usr/share/containers/systemd",
)
_USERS = "/etc/containers/systemd/users"  # those of ordinary users
# in the order in which a file may name one of another kind
KINDS = ("image", "volume", "network", "build", "container", "pod", "kube", "artifact")
MAX_FILE = 1 << 20  # bytes of one file
_NULL = posix.makedev(1, 3)


class Assignment(Frozen):
    """One `Key=value` of a file or drop-in."""

    section: str
    key: str
    value: str
    file: str
    line: int


class Source(Frozen):
    """A file that declares a unit, with its drop-ins."""

    path: str
    name: str  # of the file, with the instance of a link: "web@a.container"
    assignments: tuple[Assignment, ...]
    sections: tuple[tuple[str, str, int], ...]  # (name, file, line) of each header
    error: str = ""  # why it cannot be read; it has no assignments then

    @property
    def stem(self) -> str:
        """The name without the suffix."""
        return self.name.rpartition(".")[0]

    @property
    def kind(self) -> str:
        return self.name.rpartition(".")[2]

    @property
    def is_template(self) -> bool:
        return self.stem.endswith("@")


def find(directories: Iterable[str] = DIRECTORIES) -> list[Source]:
    """All files that declare units, sorted by name; those that cannot be read have an `error`."""
    seen: set[tuple[int, int]] = set()
    places = [place for top in directories for place in _places(top, seen)]
    found: dict[str, str] = {}
    for place in places:
        for name in sorted(_listed(place)):
            if is_declaration(name):
                found.setdefault(name, f"{place}/{name}")
    return [read(path, places) for _, path in sorted(found.items())]


def is_declaration(name: str) -> bool:
    """Whether a file of that name declares a unit."""
    stem, dot, kind = name.rpartition(".")
    return bool(dot and stem) and kind in KINDS


def read(path: str, places: Iterable[str] = ()) -> Source:
    """One file with its drop-ins, which are looked for in `places` too."""
    name = path.rpartition("/")[2]
    above = path.rpartition("/")[0] or "."
    try:
        files = (path, *_drop_ins(name, dict.fromkeys((*places, above))))
        return parsed(path, [(file, _content(file)) for file in files])
    except (FormatError, KernelError) as error:
        return Source(path=path, name=name, assignments=(), sections=(), error=error.message)


def parsed(path: str, contents: Iterable[tuple[str, bytes]]) -> Source:
    """The declaration at `path` from (file, content), of itself and of its drop-ins. Pure."""
    assignments: list[Assignment] = []
    sections: list[tuple[str, str, int]] = []
    error = ""
    try:
        for file, content in contents:
            for entry in syntax.read(_joining(syntax.decode(content)), file):
                if not entry.key:
                    sections.append((entry.section, file, entry.line))
                    continue
                one = Assignment(
                    section=entry.section,
                    key=entry.key,
                    value=entry.value,
                    file=file,
                    line=entry.line,
                )
                assignments.append(one)
    except FormatError as wrong:
        error = wrong.message
        assignments, sections = [], []
    return Source(
        path=path,
        name=path.rpartition("/")[2],
        assignments=tuple(assignments),
        sections=tuple(sections),
        error=error,
    )


def _joining(text: str) -> str:
    """The text without blanks between a backslash and the end of its line: such a line goes on for podman."""
    if "\\ " not in text and "\\\t" not in text:
        return text
    lines = text.split("\n")
    for at, line in enumerate(lines):
        bare = line.rstrip(" \t")
        if bare.endswith("\\") and bare != line and line.lstrip()[0] not in "#;":
            lines[at] = bare
    return "\n".join(lines)


def _content(path: str) -> bytes:
    """The content of a regular file, or of what a link leads to; a link to /dev/null is empty."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    try:
        status = posix.fstat(fd)
        if _stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL:
            return b""
        if not _stat.S_ISREG(status.st_mode):
            raise FormatError(f"{path}: it is not a regular file")
        if status.st_size > MAX_FILE:
            raise FormatError(f"{path}: it is larger than {MAX_FILE >> 20} MiB")
        return posix.read(fd, MAX_FILE + 1)
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    finally:
        posix.close(fd)


def _places(top: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    """A directory and those below it, but for drop-in directories, those of users, and those in `seen`."""
    if top == _USERS or not is_directory(top):
        return
    status = posix.stat(top)
    if (status.st_dev, status.st_ino) in seen:
        return  # a link to a directory above, or to one that another link has led to
    seen.add((status.st_dev, status.st_ino))
    yield top
    for name in sorted(_listed(top)):
        if not name.endswith(".d"):
            yield from _places(f"{top}/{name}", seen)


def _listed(directory: str) -> list[str]:
    try:
        return posix.listdir(directory)
    except OSError:
        return []


def _drop_ins(name: str, places: Iterable[str]) -> list[str]:
    """The drop-ins of a file, in the order in which they count: by their names, the first place wins."""
    found: dict[str, str] = {}
    for directory in drop_in_directories(name):
        for place in places:
            for file in _listed(f"{place}/{directory}"):
                if file.endswith(".conf"):
                    found.setdefault(file, f"{place}/{directory}/{file}")
    return [path for _, path in sorted(found.items())]


def drop_in_directories(name: str) -> list[str]:
    """The directories of a file's drop-ins, the most specific one first (systemd.unit(5)).

    "web-a@x.container" has web-a@x.container.d, web-a@.container.d, web-.container.d and container.d.
    """
    stem, _, kind = name.rpartition(".")
    base, at, instance = stem.partition("@")
    found = [f"{name}.d"]
    if at and instance:
        found.append(f"{base}@.{kind}.d")
    parts = base.split("-")
    counts = range(len(parts) - 1, 0, -1)
    return [*found, *(f"{'-'.join(parts[:count])}-.{kind}.d" for count in counts), f"{kind}.d"]
