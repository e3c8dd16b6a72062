"""What COPY and ADD copy: paths of a tree, their patterns, and what is below them.

A tree is the build context, or the root of a stage or an image. A path of the context is opened with
RESOLVE_BENEATH, so one that a symbolic link would lead out is an error; in a stage's root links are followed
within it. Entries are pinned before anything is done with them (`base/tree.py`).
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import paths, patterns, tree
from sysbox.base.errors import KernelError, NotFound, SpecError
from sysbox.base.tree import TreeEntry
from sysbox.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.build.ignore import Ignore, Seen

_HANDLE = posix.O_PATH | posix.O_CLOEXEC
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_WILD = frozenset("*?[\\")
_REMEMBERED = 10_000  # directories of which it is known what the patterns say
_OWN = (paths.STATE, paths.RUN, f"{paths.IMAGES}/temporary")


class Rule:
    """Patterns that leave things out of a tree; paths are relative to `base` in it."""

    def __init__(self, ignore: Ignore, base: str = "") -> None:
        from sysbox.build.ignore import Seen  # which a build without an ignore file does not need

        self._ignore = ignore
        self._nothing = Seen()
        self._base = f"{base}/" if base else ""
        self.of_whole = not base
        self._known: dict[str, Seen] = {"": self._nothing}  # of directories

    def leaves_out(self, path: str) -> bool:
        return self._look(path).excluded

    def may_hold_more(self, path: str) -> bool:
        """Whether something below a directory that is left out may not be."""
        return self._ignore.may_hold_more(path.removeprefix(self._base), self._look(path))

    def _look(self, path: str) -> Seen:
        if not path.startswith(self._base):
            return self._nothing
        return self._below(path.removeprefix(self._base))

    def _below(self, path: str) -> Seen:
        above = path.rpartition("/")[0]
        if above not in self._known:
            if len(self._known) > _REMEMBERED:
                self._known = {"": self._nothing}
            self._known[above] = self._below(above)
        return self._ignore.look(path, self._known[above])


class Origin:
    """A tree to copy from; `fd` is its root, "" as a path is the root itself."""

    def __init__(
        self,
        fd: int,
        title: str,
        *,
        confined: bool,
        rules: tuple[Rule, ...] = (),
        own: frozenset[tuple[int, int]] = frozenset(),
        most: int = 0,
    ) -> None:
        """`confined`: a link that leads out is an error, and is not followed within the tree instead.

        `own` are directories that nothing is copied from, as `own_directories`; no directory may have more
        than `most` entries, 0 is no bound.
        """
        self.fd = fd
        self.title = title
        self.confined = confined
        self._rules = rules
        self._own = own
        self.most = most
        self._places: dict[str, str] = {}  # of directories: what `place` says

    def without(self, *rules: Rule) -> Origin:
        """The same tree, with less in it."""
        both = (*self._rules, *rules)
        return Origin(
            self.fd, self.title, confined=self.confined, rules=both, own=self._own, most=self.most
        )

    def is_own(self, found: TreeEntry) -> bool:
        """Whether an entry is a directory of sysbox's, which would be copied into itself."""
        return found.is_directory and found.identity in self._own

    def leaves_out(self, path: str, *, is_directory: bool) -> bool:
        """Whether a path is left out; a directory is not where something in it may be taken back."""
        for rule in self._rules if path else ():
            shown = self._named(path) if rule.of_whole else path
            if rule.leaves_out(shown) and not (is_directory and rule.may_hold_more(shown)):
                return True
        return False

    def hides(self, path: str) -> bool:
        """Whether a path itself is left out."""
        return path != "" and any(
            rule.leaves_out(self._named(path) if rule.of_whole else path) for rule in self._rules
        )

    def _named(self, path: str) -> str:
        """A path as an ignore file names it: no directory above it is a symbolic link."""
        above, _, name = path.rpartition("/")
        if not above:
            return path
        if above not in self._places:
            if len(self._places) > _REMEMBERED:
                self._places = {}
            self._places[above] = self.place(above)
        return f"{self._places[above]}/{name}".lstrip("/")

    def place(self, path: str) -> str:
        """A path with links followed; the path itself if there is nothing."""
        try:
            fd = self.open(path)
        except (NotFound, SpecError):
            return path
        try:
            top = posix.readlink(f"/proc/self/fd/{self.fd}").rstrip("/")
            found = posix.readlink(f"/proc/self/fd/{fd}")
        finally:
            posix.close(fd)
        return found[len(top) + 1 :] if found == top or found.startswith(f"{top}/") else path

    def open(self, path: str, flags: int = _HANDLE) -> int:
        """A descriptor of a path, links followed. Raises NotFound, SpecError, KernelError."""
        where = path.strip("/") or "."
        try:
            if self.confined:
                return mount.open_beneath(self.fd, where, flags)
            return mount.open_in_root(self.fd, where, flags)
        except KernelError as error:
            shown = tree.printable(path)
            if error.errno == errno.EXDEV:
                raise SpecError(
                    f"{shown}: leads out of {self.title}",
                    hint="nothing outside of it can be copied, through a symbolic link neither",
                ) from None
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(f"{shown}: not in {self.title}") from None
            if error.errno == errno.ELOOP:
                raise SpecError(f"{shown}: too many symbolic links in {self.title}") from None
            raise

    def entry(self, path: str) -> TreeEntry:
        """What is at a path, links followed; the caller closes it.

        Raises as `open`, SpecError for what is no part of any context.
        """
        found = TreeEntry(path.rpartition("/")[2], self.open(path))
        why = self._refusal(found) if self.confined else ""
        if why:
            found.close()
            raise SpecError(f"{tree.printable(path) or '.'}: {why}, which nothing is copied from")
        return found

    def _refusal(self, found: TreeEntry) -> str:
        if self.is_own(found):
            return "it is a directory of sysbox's"
        return "it is in a file system of the kernel's" if tree.is_pseudo(found) else ""


def own_directories() -> frozenset[tuple[int, int]]:
    """(device, inode) of the directories of sysbox's that a context may have in it, as / has."""
    found = set()
    for path in _OWN:
        try:
            status = posix.stat(path)
        except OSError:
            continue  # it is not there
        found.add((status.st_dev, status.st_ino))
    return frozenset(found)


def clean(text: str) -> str:
    """A source path without leading slashes, "." and doubled ones. Raises SpecError if it leads out."""
    parts: list[str] = []
    for part in text.split("/"):
        if part == "..":
            if not parts:
                raise SpecError(
                    f"{text}: leads out of the build context",
                    hint="copy from the context, or give the other directory with --build-context",
                )
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def expand(origin: Origin, pattern: str) -> list[str]:
    """The paths that a source means, sorted. Raises NotFound, SpecError, KernelError."""
    path = clean(pattern)
    _check(path)
    if not _WILD & {*path}:
        found_entry = origin.entry(path)
        is_directory = found_entry.is_directory
        found_entry.close()
        if any(
            origin.leaves_out(one, is_directory=is_directory) for one in {path, origin.place(path)}
        ):
            raise NotFound(f"{pattern}: the ignore file leaves it out of {origin.title}")
        return [path]
    found, exact = [""], True
    for part in path.split("/"):
        found = [one for above in found for one in _matches(origin, above, part, exact=exact)]
        exact = exact and not _WILD & {*part}
    if not found:
        raise NotFound(f"{pattern}: nothing in {origin.title} matches")
    return found


def _check(path: str) -> None:
    try:
        patterns.check(path)
    except ValueError as error:
        raise SpecError(f"{path}: a malformed pattern: {error}") from None


def _matches(origin: Origin, above: str, part: str, *, exact: bool) -> list[str]:
    """What a part of a pattern means in one directory; `exact`: no pattern has led there."""
    prefix = f"{above}/" if above else ""
    try:
        directory = origin.open(above, _DIRECTORY)
    except NotFound:
        return []
    except SpecError:
        if exact:
            raise
        return []  # a link that leads out, and only happens to match
    try:
        if not _WILD & {*part}:
            there = tree.open_entry(directory, part)
            if there is None:
                return []
            there.close()
            return [prefix + part]
        names = [one for one in sorted(posix.listdir(directory)) if patterns.matches(part, one)]
        return [
            prefix + name
            for name in names
            if not origin.leaves_out(prefix + name, is_directory=_is_directory(directory, name))
        ]
    finally:
        posix.close(directory)


def _is_directory(directory: int, name: str) -> bool:
    try:
        return _stat.S_ISDIR(posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except OSError:
        return False


def walk(origin: Origin, top: TreeEntry, path: str) -> Iterator[tuple[str, TreeEntry]]:
    """(path below the top, entry) of everything that is copied with it, the top as "" first, sorted.

    Each entry is closed when the next is requested. Raises OSError, FormatError for a tree that is too deep.
    """
    yield "", top
    if top.is_directory:
        yield from _below(origin, top, path, "", 0)


def _below(
    origin: Origin, above: TreeEntry, path: str, inner: str, depth: int
) -> Iterator[tuple[str, TreeEntry]]:
    tree.check_depth(depth, inner)
    try:
        directory = above.open()
    except tree.Gone:
        return  # removed since
    try:
        for found in tree.entries(directory, inner, origin.most):
            name = f"{inner}{found.name}"
            whole = f"{path}/{name}" if path else name
            if is_left_out(origin, found, whole):
                continue
            yield name, found
            if found.is_directory and not tree.is_pseudo_mount(found, above.status.st_dev):
                yield from _below(origin, found, path, f"{name}/", depth + 1)
    finally:
        posix.close(directory)


def is_left_out(origin: Origin, found: TreeEntry, path: str) -> bool:
    """Whether an entry is not copied; a directory is copied for what is in it that was taken back."""
    if origin.is_own(found):
        return True
    if origin.leaves_out(path, is_directory=found.is_directory):
        return True
    return found.is_directory and origin.hides(path) and not _has_any(origin, found, path)


def _has_any(origin: Origin, above: TreeEntry, path: str) -> bool:
    directory = above.open()
    try:
        return any(
            not is_left_out(origin, found, f"{path}/{found.name}")
            for found in tree.entries(directory, path, origin.most)
        )
    finally:
        posix.close(directory)
