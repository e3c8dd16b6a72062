"""Whose files count as declarations: in a directory that others can write, as /tmp, anyone may put some."""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import FormatError
from sysbox.units.quadlet import socketfiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.units.quadlet.sources import Source
    from sysbox.units.quadlet.units import Declared

_HINT = "remove it, or give it to root: chown root:root, chmod go-w"


def trusted() -> frozenset[int]:
    """The uids whose files always count: root's and the caller's."""
    return frozenset({0, posix.geteuid()})


def owner(path: str) -> int:
    """The uid of the owner of a file, of a link itself; -1 if it is gone."""
    try:
        return posix.lstat(path).st_uid
    except OSError:
        return -1


def check_found(source: Source) -> None:
    """Raises FormatError for a file of a given directory that belongs neither to root nor to the caller."""
    if why := _why_not(source.path, trusted()):
        raise FormatError(
            f"{source.path}: {why}: others may have put it into this directory",
            hint=f"{_HINT}; or name each file that is to count",
        )


def check_drop_ins(source: Source, owners: frozenset[int]) -> None:
    """Raises FormatError for a drop-in, or a directory of them, that is not of `owners` alone."""
    for path, why in _of_others(source, owners):
        raise _changed_by(path, why, source)


def check_sockets(containers: Iterable[Source], declared: Declared) -> None:
    """Raises FormatError for a `.socket` file that is not of root, the caller or its container's owner."""
    for container in containers:
        if container.kind != "container":
            continue
        owners = trusted() | {owner(container.path)}
        for one in socketfiles.of_container(container, declared):
            if why := _why_not(one.path, owners):
                raise _changed_by(one.path, why, container)
            for path, why in _of_others(one, owners):
                raise _changed_by(path, why, container)


def count(source: Source, owners: frozenset[int], beside: Iterable[str]) -> bool:
    """Whether a declaration that nobody has given counts, as far as it lies in the directories `beside`."""
    above = source.path.rpartition("/")[0]
    if above in beside and _why_not(source.path, owners):
        return False
    for path, _ in _of_others(source, owners):
        directory = path.rpartition("/")[0] if path.endswith(".conf") else path
        if directory.rpartition("/")[0] in beside:
            return False
    return True


def _changed_by(path: str, why: str, source: Source) -> FormatError:
    message = f"{path}: {why}: others may change with it what {source.path} runs"
    return FormatError(message, hint=_HINT)


def _of_others(source: Source, owners: frozenset[int]) -> Iterator[tuple[str, str]]:
    """(path, why) of its drop-ins and their directories that do not count."""
    files = sorted({file for _, file, _ in source.sections} - {source.path})
    for path in dict.fromkeys([file.rpartition("/")[0] for file in files] + files):
        if why := _why_not(path, owners):
            yield path, why


def _why_not(path: str, owners: frozenset[int]) -> str:
    """Why a file or directory does not count, "" where it does; of a link, what it leads to has to as well.

    A group with the number of the file's owner is that user's own.
    """
    try:
        link, found = posix.lstat(path), posix.stat(path)
    except OSError as error:
        return posix.strerror(error.errno or 0)
    for status in (link, found):
        if status.st_uid not in owners:
            return f"it belongs to uid {status.st_uid}"
    if not _stat.S_ISREG(found.st_mode) and not _stat.S_ISDIR(found.st_mode):
        return ""  # a link to /dev/null
    if found.st_mode & _stat.S_IWOTH:
        return "all users can write it"
    if found.st_mode & _stat.S_IWGRP and found.st_gid not in (0, found.st_uid):
        return f"group {found.st_gid} can write it"
    return ""
