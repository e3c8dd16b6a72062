"""Find and read sysbox.conf and its drop-ins, as systemd does with its own configuration.

Only the main file of the directory with the highest priority is read. Then follow the drop-ins of all
directories, sorted by name; of two with the same name only that of the directory with the higher priority.
An empty file, or a link to /dev/null, masks a file (systemd-system.conf(5), "Configuration Directories and
Precedence"). An unknown section or key is an error, since its author meant it to have an effect.
"""

from __future__ import annotations

import _stat
import errno
import posix

from sysbox.base import paths
from sysbox.base.errors import FormatError, KernelError
from sysbox.base.files import LIMIT, check_size
from sysbox.base.frozen import Frozen
from sysbox.base.suggest import suggest
from sysbox.conf.table import BY_SECTION
from sysbox.conf.values import DROP_INS, FILE, Settings, is_there
from sysbox.embedded import caller_root
from sysbox.units import syntax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sysbox.conf.table import Key

_NULL = posix.makedev(1, 3)


class Loaded(Frozen):
    """The result of reading all files."""

    settings: Settings
    files: tuple[str, ...]  # paths of the files that are not empty, in the order of reading
    texts: dict[str, str]  # Key.title -> its value as written, for keys that are set


def load() -> Loaded:
    """Read all files. Raises FormatError, SpecError (see `merge`), KernelError."""
    return merge((path, read(path)) for path in find_files())


def merge(texts_of: Iterable[tuple[str, str]]) -> Loaded:
    """Merge the files, (path, text) each; a later assignment replaces an earlier one. Pure.

    Raises FormatError and SpecError, which name file, line, key and reason.
    """
    files = []
    values: dict[str, Any] = {}
    texts: dict[str, str] = {}
    for path, text in texts_of:
        if not text:
            continue  # an empty file masks one of lower priority
        files.append(path)
        for one in syntax.read(text, path):
            key = key_of(one, path)
            if key is None:
                continue
            values.pop(key.field, None)
            texts.pop(key.title, None)
            if one.value:  # an empty value resets the key to its default
                values[key.field] = key.parse(one.value, f"{path}:{one.line}: {one.key}")
                texts[key.title] = one.value
    return Loaded(settings=Settings(**values), files=tuple(files), texts=texts)


def key_of(one: syntax.Entry, path: str) -> Key | None:
    """The key that a line assigns to; None for a section header. Raises FormatError for an unknown one."""
    keys = BY_SECTION.get(one.section)
    where = f"{path}:{one.line}: "
    if keys is None:
        hint = suggest(one.section, BY_SECTION)
        raise FormatError(f"{where}[{one.section}]: there is no such section", hint=hint)
    if not one.key:
        return None
    if one.key not in keys:
        owner = next((name for name, others in BY_SECTION.items() if one.key in others), "")
        hint = f"it belongs to [{owner}]" if owner else suggest(one.key, keys)
        raise FormatError(f"{where}{one.key}=: [{one.section}] has no such key", hint=hint)
    return keys[one.key]


def find_files() -> list[str]:
    """The paths of the files in effect, in the order of reading. Raises KernelError."""
    mains = [f"{directory}/{FILE}" for directory in paths.CONFIGURATION]
    drop_ins: dict[str, str] = {}
    for directory in paths.CONFIGURATION:
        for name in _listed(f"{directory}/{DROP_INS}"):
            drop_ins[name] = f"{directory}/{DROP_INS}/{name}"
    main = [path for path in mains if is_there(path)][-1:]
    return [*main, *(drop_ins[name] for name in sorted(drop_ins))]


def _listed(directory: str) -> list[str]:
    if not is_there(directory):
        return []
    fd = _open(directory, posix.O_RDONLY | posix.O_DIRECTORY)
    try:
        names = posix.listdir(fd)
    finally:
        posix.close(fd)
    return [name for name in names if name.endswith(".conf") and not name.startswith(".")]


def _open(path: str, flags: int) -> int:
    """Open what was found. Raises FormatError for a link that leads nowhere, KernelError."""
    try:
        return caller_root.open_path(path, flags)
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
        raise FormatError(
            f"{path}: a link to a file that does not exist",
            hint="make that file, or remove the link; one to /dev/null masks other files of that name",
        ) from None


def read(path: str) -> str:
    """The text of one file; "" where it is empty or a link to /dev/null. Raises FormatError, KernelError."""
    fd = _open(path, posix.O_RDONLY | posix.O_NONBLOCK)
    try:
        status = posix.fstat(fd)
        if _stat.S_ISCHR(status.st_mode) and status.st_rdev == _NULL:
            return ""
        if not _stat.S_ISREG(status.st_mode):
            raise FormatError(
                f"{path}: not a regular file", hint="nor a link to one or to /dev/null"
            )
        data = b""
        while len(data) <= LIMIT and (more := posix.read(fd, LIMIT + 1 - len(data))):
            data += more
    except OSError as error:
        raise KernelError.of("read", path, error) from None
    finally:
        posix.close(fd)
    check_size(path, data)
    return syntax.decode(data)
