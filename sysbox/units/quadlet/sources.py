"""Find the files that declare units, and read each with its drop-ins.

Where files are, which of two with one name counts, and which drop-ins a file has, are as in
podman-systemd.unit(5): so `web.container` of /etc/containers/systemd replaces the one of /usr/share.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import FormatError, KernelError
from sysbox.base.frozen import Frozen
from sysbox.units import syntax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PODMANS = (
    "/run/containers/systemd",
    "/etc/containers/systemd",
    "/usr/share/containers/systemd",
)
DIRECTORIES = ("/run/sysbox/units", "/etc/sysbox/units", "/usr/share/sysbox/units", *PODMANS)
USERS = "/etc/containers/systemd/users"  # those of ordinary users
# in the order in which a file may name one of another kind
KINDS = ("image", "volume", "network", "build", "container", "pod", "kube", "artifact")
SOCKET = "socket"  # of a file that belongs to a container's: see socketfiles.py
MAX_FILE = 1 << 20  # bytes of one file
# the generator must not delay a boot: a link in one of the directories may lead to any other
MAX_DIRECTORIES = 2000
MAX_FILES = 4096
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
    error: str = ""  # why it cannot be read, or what is wrong with its first wrong line
    more_errors: tuple[str, ...] = ()  # what is wrong with the next ones

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


def find(
    directories: Iterable[str] = DIRECTORIES,
    skipped: list[str] | None = None,
    beside: Iterable[str] = (),
) -> list[Source]:
    """All files that declare units, sorted by name; those that cannot be read have an `error`.

    Those in the directories `beside`, but not below them, come first. What is not read since there is too
    much of it gets a line in `skipped`: a link to / delays no boot.
    """
    places = _Places(beside, directories)
    found: dict[str, str] = {}
    for place, names in places.names.items():
        for name in filter(is_declaration, names):
            found.setdefault(name, f"{place}/{name}")
    chosen = sorted(found.items())
    if skipped is not None:
        skipped += places.skipped
        skipped += [f"{path}: not read, after {MAX_FILES} files" for _, path in chosen[MAX_FILES:]]
    return [read(path, places) for _, path in chosen[:MAX_FILES]]


def is_declaration(name: str) -> bool:
    """Whether a file of that name declares a unit."""
    stem, dot, kind = name.rpartition(".")
    return bool(dot and stem) and (kind in KINDS or kind == SOCKET)


def read(path: str, places: _Places | None = None) -> Source:
    """One file with its drop-ins, which are beside it, or in `places`."""
    above, _, name = path.rpartition("/")
    try:
        drop_ins = _drop_ins(name, places or _Places((above or "/",)))
        return parsed(path, [(file, _content(file)) for file in (path, *drop_ins)])
    except (FormatError, KernelError) as error:
        return Source(path=path, name=name, assignments=(), sections=(), error=error.message)


def parsed(path: str, contents: Iterable[tuple[str, bytes]]) -> Source:
    """The declaration at `path` from (file, content), of itself and of its drop-ins. Pure."""
    assignments: list[Assignment] = []
    sections: list[tuple[str, str, int]] = []
    wrong: list[FormatError] = []
    for file, content in contents:
        for entry in syntax.read(_joining(syntax.decode(content)), file, wrong):
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
    messages = tuple(one.message for one in wrong)
    return Source(
        path=path,
        name=path.rpartition("/")[2],
        assignments=tuple(assignments),
        sections=tuple(sections),
        error=messages[0] if messages else "",
        more_errors=messages[1:],
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


class _Places:
    """Directories with declarations and those below them, in the order in which they count."""

    def __init__(self, beside: Iterable[str], tops: Iterable[str] = ()) -> None:
        self.names: dict[str, list[str]] = {}  # of the files in each directory
        self.drop_ins: dict[str, list[str]] = {}  # name of a drop-in directory -> where it is
        self.skipped: list[str] = []
        self._seen: set[tuple[int, int]] = set()
        for one in beside:
            self._add(one)
        for top in tops:
            self._walk(top)

    def _walk(self, top: str) -> None:
        """A directory and all below it. What is behind links comes last: a link may lead to very much."""
        waiting: list[str] = [top]
        links: list[str] = []
        most = len(self.names) + MAX_DIRECTORIES
        while waiting or links:
            place = waiting.pop() if waiting else links.pop(0)
            if len(self.names) == most:
                self.skipped.append(f"{place}: not searched, after {MAX_DIRECTORIES} directories")
                return
            if place == USERS or not self._add(place):
                continue
            below = [f"{place}/{name}" for name in self.names[place] if not name.endswith(".d")]
            kinds = {path: _kind(path) for path in below}
            waiting += [path for path in reversed(below) if kinds[path] == _stat.S_IFDIR]
            links += [path for path in below if kinds[path] == _stat.S_IFLNK]

    def _add(self, place: str) -> bool:
        """Whether it is a directory that another path has not led to."""
        try:
            status = posix.stat(place)
        except OSError:
            return False
        identity = (status.st_dev, status.st_ino)
        if not _stat.S_ISDIR(status.st_mode) or identity in self._seen:
            return False
        self._seen.add(identity)
        self.names[place] = sorted(_listed(place))
        for name in self.names[place]:
            if name.endswith(".d"):
                self.drop_ins.setdefault(name, []).append(place)
        return True


def _kind(path: str) -> int:
    """The kind of a file, of a link itself; 0 where it is gone."""
    try:
        return _stat.S_IFMT(posix.lstat(path).st_mode)
    except OSError:
        return 0


def _listed(directory: str) -> list[str]:
    try:
        return posix.listdir(directory)
    except OSError:
        return []


def _drop_ins(name: str, places: _Places) -> list[str]:
    """The drop-ins of a file, in the order in which they count: by their names, the first place wins."""
    found: dict[str, str] = {}
    for directory in drop_in_directories(name):
        for place in places.drop_ins.get(directory, ()):
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
