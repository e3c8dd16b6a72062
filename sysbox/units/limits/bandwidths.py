"""Keep a disk's limits for reads and for writes on cgroup v1 across a daemon-reload.

systemd writes a list as an empty assignment, which resets it, followed by the values. When it reads that
back at a reload, `BlockIOWriteBandwidth=` resets both directions (config_parse_blockio_bandwidth up to 257),
so that the limits for reads, which come before it, are lost. Without the empty assignments it reads all of
them. systemd removes the files with the unit; until a reload it uses the values in its memory.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, SysboxError
from sysbox.base.files import read_file, unlink, write_file
from sysbox.linux import _sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sysbox.units.limits.properties import Property
    from sysbox.units.syntax import Entry

    _File = tuple[int, int]  # its inode, and when it was written in nanoseconds since 1970
    Limits = dict[tuple[str, str], str]  # (key, device) -> rate
    Resets = Callable[[str], tuple[str, ...]]  # the keys that an empty assignment to a key resets

READ, WRITE = "BlockIOReadBandwidth", "BlockIOWriteBandwidth"
_TRANSIENT = "/run/systemd/transient"


def protect(unit: str, properties: tuple[Property, ...]) -> None:
    """Rewrite the unit's files if a reload would lose one of the properties, which were just set.

    A unit that is gone is success. Raises KernelError.
    """
    if not any(one.name in (READ, WRITE) for one in properties):
        return
    from sysbox.units import syntax  # here and below: few containers limit a disk

    texts, files = {}, {}
    for name in (unit, *(f"{unit}.d/50-{key}.conf" for key in (READ, WRITE))):
        path = f"{_TRANSIENT}/{name}"
        files[name] = _file_at(path)
        try:
            data = read_file(path)
        except SysboxError:
            data = None  # ignoring: systemd is removing the unit
        texts[name] = syntax.decode(data or b"")
    fragment, *drop_ins = texts.values()
    for name, text in zip(texts, without_resets(fragment, tuple(drop_ins)), strict=True):
        if text != texts[name]:
            _replace(f"{_TRANSIENT}/{name}", text, files[name])


def _file_at(path: str) -> _File | None:
    """Which file has the name now, and when it was written, in nanoseconds; None without one."""
    try:
        status = posix.stat(path)
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns


def _replace(path: str, text: str, read: _File | None) -> None:
    """Write the file and keep its time: systemd takes a newer file for one that it has not read.

    Not if it is not the one any more that was read: what was set since would be lost at a reload. Whoever
    heeds that change does this again.
    """
    if read is None or _file_at(path) != read:
        return
    own = f"{path}.new"  # no name of a drop-in's
    try:
        write_file(own, text.encode("utf-8", "surrogateescape"), 0o644)
        posix.utime(own, ns=(read[1], read[1]))
        _exchange(own, path, read)
    except FileNotFoundError:
        pass  # the unit has just gone, and its directory with it
    except KernelError as error:
        if error.errno != errno.ENOENT:
            raise
    finally:
        unlink(own)


def _exchange(own: str, path: str, read: _File) -> None:
    """Put `own` in place of the file that was read; one that systemd has written since stays.

    A rename would not tell which file it has replaced. What is taken by an exchange and is not what should
    have been there is newer than what was put there, and goes back.
    """
    expected: _File | None = read
    while True:
        put = _file_at(own)
        _sys.exchange(own, path)
        if _file_at(own) == expected:
            return
        expected = put


def without_resets(fragment: str, drop_ins: tuple[str, ...]) -> tuple[str, ...]:
    """The texts of a unit's file and its drop-ins, in systemd's order, without the resets that lose limits.

    Unchanged if no limit would be lost. A key that a drop-in sets is removed from the unit's file.
    """
    texts = (fragment, *drop_ins)
    meant = _read(texts, lambda key: (key,))
    if _read(texts, lambda _: (READ, WRITE)) == meant:
        return texts
    from sysbox.units import syntax

    changed = {key for text in drop_ins for key, _ in _assignments(text)}
    lines = [
        syntax.assignment(key, f"{device} {rate}")
        for (key, device), rate in meant.items()
        if key not in changed
    ]
    return _with(fragment, lines), *(_with(text, None) for text in drop_ins)


def _read(texts: tuple[str, ...], resets: Resets) -> Limits:
    found: Limits = {}
    for key, value in (pair for text in texts for pair in _assignments(text)):
        if value:
            device, _, rate = value.partition(" ")
            found[key, device] = rate
        else:
            gone = resets(key)
            found = {one: rate for one, rate in found.items() if one[0] not in gone}
    return found


def _assignments(text: str) -> Iterable[tuple[str, str]]:
    from sysbox.units import syntax

    return ((one.key, one.value) for one in syntax.entries(text) if one.key in (READ, WRITE))


def _with(text: str, lines: list[str] | None) -> str:
    """The text with `lines` in place of its assignments; None removes only the empty assignments."""
    from sysbox.units import syntax

    left = iter(["".join(lines or ())])  # all lines go where the first assignment was

    def change(one: Entry) -> str | None:
        if one.key not in (READ, WRITE):
            return None
        if lines is None:
            return None if one.value else ""
        return next(left, "")

    return syntax.rewrite(text, change)
