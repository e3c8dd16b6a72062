"""Subordinate ids: the ranges of /etc/subuid and /etc/subgid (subuid(5), subgid(5)), and which are free.

Containers get ranges of the entries of `sysbox`, else of `containers` (which podman uses too), else of
`root`, without the ids of accounts and, for the last two, without entries that others have too. Where there
is none, and where those of the last two are used up, they get ranges of their own: between 524288 and
1879048191, which systemd keeps free for containers (https://systemd.io/UIDS-GIDS), where no entry, no user
and no group is.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, KernelError, NotFound
from sysbox.base.files import LIMIT
from sysbox.base.frozen import Frozen
from sysbox.embedded import caller_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Spans = list[tuple[int, int]]  # (start, end): the ids from `start` up to, not including, `end`

FILES = ("/etc/subuid", "/etc/subgid")
DATABASES = ("/etc/passwd", "/etc/group")
OWNERS = ("sysbox", "containers", "root")
FIRST, END = 524288, 1879048192
NSPAWN = "/run/systemd/nspawn-uid"  # has a file for each range that systemd-nspawn uses now
ALIGNED = 65536  # ranges between FIRST and END begin at a multiple of it
_DIGITS = 10  # of 2^32


class Entry(Frozen):
    """One line of a file: the ids from `start` up to, not including, `end`."""

    owner: str  # a login name, or a user's number
    start: int
    end: int


class Pools(Frozen):
    """Where the range of a container may be, for users and for groups: the first that has room."""

    owner: str = ""  # of the entries
    uids: tuple[Entry, ...] = ()
    gids: tuple[Entry, ...] = ()
    # ids between FIRST and END that others have; None: the entries are all that may be used
    others: tuple[tuple[int, int], ...] | None = None
    # ids from the first entry on that a user or a group has
    accounts: tuple[tuple[int, int], ...] = ()


def parse(text: str) -> list[Entry]:
    """The entries of one file. As in shadow, what is not NAME:START:COUNT is no entry."""
    found = []
    for line in text.split("\n"):
        owner, _, rest = line.partition(":")
        start, _, count = rest.partition(":")
        if owner and _is_number(start) and _is_number(count) and int(count):
            end = int(start) + int(count)
            if end < 1 << 32:
                found.append(Entry(owner=owner, start=int(start), end=end))
    return found


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdecimal() and len(word) <= _DIGITS


def read_file(path: str) -> str:
    """The text of a file of the caller's /etc, of which an embedded host has a copy; "" without one."""
    try:
        fd = caller_root.open_path(path, posix.O_RDONLY)
    except KernelError:
        return ""
    try:
        data = b""
        while more := posix.read(fd, LIMIT):
            data += more
    finally:
        posix.close(fd)
    return data.decode("utf-8", "replace")


def read() -> tuple[list[Entry], list[Entry]]:
    """The entries of both files; one that is not there has none."""
    return parse(read_file(FILES[0])), parse(read_file(FILES[1]))


def of_another(start: int, count: int, kind: int) -> str:
    """An entry of a user that overlaps a range of containers, as it is written; "" without one.

    `kind` 0 is /etc/subuid, 1 /etc/subgid.
    """
    for one in parse(read_file(FILES[kind])):
        if one.owner not in {*OWNERS, "0"} and one.start < start + count and start < one.end:
            return _line(one)
    return ""


def of(name: str, kind: int) -> tuple[tuple[int, int], ...]:
    """(start, count) of all entries of a user, by name or number; `kind` 0 is /etc/subuid, 1 /etc/subgid.

    Raises NotFound without one, Conflict where another one overlaps.
    """
    entries = parse(read_file(FILES[kind]))
    wanted = _names(name, read_file(DATABASES[0]))
    own = [one for one in entries if one.owner in wanted]
    if not own:
        raise NotFound(
            f"{FILES[kind]} has no entry of {name}",
            hint=f"add a line such as {name}:{FIRST}:65536, see usermod(8) --add-sub{'ug'[kind]}ids",
        )
    check(own, entries, FILES[kind])
    return tuple((one.start, one.end - one.start) for one in own)


def pools() -> Pools:
    """Where ranges for containers are. Raises Conflict where entries overlap, NotFound where one lacks."""
    uids, gids = read()
    passwd = ""
    for owner in OWNERS if uids or gids else ():
        wanted = {owner, "0"} if owner == "root" else {owner}
        if owner != "root" and any(one.owner.isdecimal() for one in (*uids, *gids)):
            passwd = passwd or read_file(DATABASES[0])
            wanted = _names(owner, passwd)
        own = [tuple(one for one in found if one.owner in wanted) for found in (uids, gids)]
        if owner != "sysbox":
            # other tools give one range to two users, as LXD does with root's: it is not for these containers
            own = [_undisputed(own[0], uids), _undisputed(own[1], gids)]
        if own[0] and own[1]:
            check(own[0], uids, FILES[0])
            check(own[1], gids, FILES[1])
            others = None if owner == "sysbox" else tuple(taken(uids, gids))
            # root has 0 even if the accounts cannot be read
            accounts = ((0, 1), *_accounts(min(one.start for one in (*own[0], *own[1]))))
            return Pools(owner=owner, uids=own[0], gids=own[1], others=others, accounts=accounts)
        if owner == "sysbox" and (own[0] or own[1]):
            has, lacks = FILES if own[0] else FILES[::-1]
            raise NotFound(
                f"{lacks} has no entry of sysbox, and {has} has one", hint=f"add it to {lacks} too"
            )
    return Pools(others=tuple(taken(uids, gids)))


def _names(name: str, passwd: str) -> set[str]:
    """The name and the number of a user, by either."""
    for line in passwd.split("\n"):
        fields = line.split(":", 3)
        if len(fields) > 3 and name in (fields[0], fields[2]):
            return {fields[0], fields[2]}
    return {name}


def check(own: Sequence[Entry], entries: Sequence[Entry], file: str) -> None:
    """Raise Conflict where an entry overlaps another one: two users would share ids."""
    for one in own:
        if other := _overlapping(one, entries):
            both = f"{_line(one)} and {_line(other)}"
            raise Conflict(
                f"{file}: {both} overlap", hint=f"give {one.owner} a range that nobody else has"
            )


def _undisputed(own: Sequence[Entry], entries: Sequence[Entry]) -> tuple[Entry, ...]:
    return tuple(one for one in own if not _overlapping(one, entries))


def _overlapping(one: Entry, entries: Sequence[Entry]) -> Entry | None:
    """Another entry that has ids of this one."""
    for other in entries:
        if other is not one and one.start < other.end and other.start < one.end:
            return other
    return None


def _line(one: Entry) -> str:
    return f"{one.owner}:{one.start}:{one.end - one.start}"


def taken(uids: Iterable[Entry], gids: Iterable[Entry]) -> Spans:
    """The ids from FIRST on that an entry, a user, a group or a container of systemd-nspawn has."""
    found = [(one.start, one.end) for one in (*uids, *gids) if one.end > FIRST]
    try:
        names = posix.listdir(NSPAWN)
    except OSError:
        names = []
    found += [(int(name), int(name) + ALIGNED) for name in names if _is_number(name)]
    return found + _accounts(FIRST)


def _accounts(first: int) -> Spans:
    """The ids from `first` on that a user or a group has."""
    found: Spans = []
    digits = len(str(first))
    for file in DATABASES:
        # any field: that a user's group, or a note that is a number, counts too does no harm, and lines would
        # take four times as long
        found += [
            (int(field), int(field) + 1)
            for field in read_file(file).split(":")
            if len(field) >= digits and _is_number(field) and int(field) >= first
        ]
    return found


def first_gap(
    low: int, high: int, size: int, used: Sequence[tuple[int, int]], step: int = 1
) -> int:
    """The first multiple of `step` from `low` on where `size` ids below `high` are free; -1 without one.

    `used` is sorted.
    """
    at = -(-low // step) * step
    for start, end in used:
        if start >= at + size:
            break
        if end > at:
            at = -(-end // step) * step
    return at if at + size <= high else -1


def choose(size: int, where: Pools, uids: Spans, gids: Spans) -> tuple[int, int]:
    """The first user and group of a range that is free and no account's; `uids` and `gids` are leased.

    Raises Conflict where no range is free.
    """
    if where.uids:
        uids, gids = sorted((*uids, *where.accounts)), sorted((*gids, *where.accounts))
        uid = _in_entries(size, where.uids, uids)
        gid = _in_entries(size, where.gids, gids)
        if uid >= 0 and gid >= 0:
            return uid, gid
        if where.others is None:
            raise _full(size, where, FILES[0] if uid < 0 else FILES[1])
    used = sorted({*uids, *gids, *(where.others or ())})
    start = first_gap(FIRST, END, size, used, ALIGNED)
    if start < 0:
        raise Conflict(
            f"no {size} ids in a row are free from {FIRST} to {END - 1}",
            hint="`sysbox gc` frees those of containers that are gone; --userns auto:size= takes fewer",
        )
    return start, start


def _in_entries(size: int, entries: Sequence[Entry], used: Spans) -> int:
    found = (first_gap(one.start, one.end, size, used) for one in entries)
    return next((start for start in found if start >= 0), -1)


def _full(size: int, where: Pools, file: str) -> Conflict:
    entries = where.uids if file == FILES[0] else where.gids
    largest = max(one.end - one.start for one in entries)
    if largest < size:
        reason = f"its largest range of {where.owner} has {largest} ids, the container takes {size}"
    elif any(one.start <= an_id < one.end for one in entries for an_id, _ in where.accounts):
        reason = f"no {size} ids of {where.owner} in a row are free, and no user's or group's"
    else:
        reason = f"{size} ids of {where.owner} in a row are not free any more"
    return Conflict(
        f"{file}: {reason}",
        hint=f"a larger range, or a further one, of {where.owner}; --userns auto:size= takes fewer ids",
    )
