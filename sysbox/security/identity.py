"""The uid, gid and groups of a container's process, from `-u` and the image's passwd and group.

Container runtimes have had escapes here: numbers that overflow to 0 (CVE-2024-40635), numeric-looking
names (CVE-2016-3697), "0x0" and "-1" read as root, the caller's groups left in place (CVE-2022-36109,
CVE-2023-25173). So an id is decimal digits only, 0 to 2^32-2, and groups are always set.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ID = 0xFFFFFFFE  # 2^32-1 is (uid_t)-1, "leave unchanged" to setresuid(2)
# bytes that callers read of passwd and of group at most (CVE-2024-3056, CVE-2026-47262)
MAX_FILE = 4 << 20
MAX_GROUPS = 65536  # NGROUPS_MAX, setgroups(2)


class Identity(Frozen):
    """The ids of a process. The child sets them in this order: groups, gid, uid."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()  # supplementary, sorted; always set, even when empty
    home: str = "/"
    name: str = ""  # the login name, "" where passwd has none


class _User(Frozen):
    name: str
    uid: int
    gid: int
    home: str


def resolve_user(user: str, group_add: tuple[str, ...], passwd: bytes, group: bytes) -> Identity:
    """The identity that `-u user` and `--group-add` mean in an image.

    `user` is "name|uid[:group|gid]", "" is uid 0, and "name:" is "name". Digits are always an id, never a
    name (CVE-2016-3697). Without `:group` the user has the supplementary groups of the group file, with it
    none; `group_add` is added to both. A uid without an entry has gid 0 and home "/". Raises SpecError for
    an unknown name, and for a number that is not a plain decimal id.
    """
    wanted, _, wanted_group = user.partition(":")
    if "\0" in user or "\n" in user or ":" in wanted_group:
        raise SpecError(f"user '{user}': must be NAME|UID[:GROUP|GID]")
    found = _find_user(wanted, passwd)
    groups: set[int] = set()
    gid = found.gid
    if wanted_group:
        gid = _group_id(wanted_group, group)
    elif found.name:
        groups.update(_groups_of(found.name, group))
    groups.update(_group_id(name, group) for name in group_add)
    if len(groups) > MAX_GROUPS:
        raise SpecError(f"user '{user}': more than {MAX_GROUPS} supplementary groups")
    # the primary group belongs in the list too: a setgid change must not shed it (CVE-2022-2989)
    groups.add(gid)
    return Identity(
        uid=found.uid, gid=gid, groups=tuple(sorted(groups)), home=found.home, name=found.name
    )


def has_names(user: str, group_add: tuple[str, ...]) -> bool:
    """Whether any user or group is given by name, so that passwd and group must be read."""
    return not all(one.isdecimal() for one in (*user.split(":"), *group_add) if one)


def parse_id(text: str) -> int:
    """A uid or gid in plain decimal. Raises SpecError for a sign, another base or a number too large."""
    # isdecimal alone would take the digits of other scripts
    if not (text.isascii() and text.isdecimal()):
        raise SpecError(f"'{text}' is not a decimal id", hint=f"0 to {MAX_ID}")
    if len(text) > 10 or int(text) > MAX_ID:
        raise SpecError(f"the id {text} is out of range", hint=f"0 to {MAX_ID}")
    return int(text)


def _find_user(wanted: str, passwd: bytes) -> _User:
    uid = 0 if not wanted else _number(wanted)
    if uid is not None:
        nobody = _User(name="", uid=uid, gid=0, home="/")
        return next((one for one in _users(passwd) if one.uid == uid), nobody)
    for one in _users(passwd):
        if one.name == wanted:
            return one
    raise SpecError(
        f"no user '{wanted}' in the image's /etc/passwd", hint="a uid works without an entry"
    )


def _number(wanted: str) -> int | None:
    """The id in a text, None if it is a name. Raises SpecError where it is neither."""
    if wanted.isascii() and wanted.isdecimal():
        return parse_id(wanted)
    if wanted[0] in "+-":
        raise SpecError(f"'{wanted}' is neither a name nor a decimal id")
    return None


def _users(passwd: bytes) -> Iterator[_User]:
    """The users of passwd(5); malformed lines are skipped, as in every C library."""
    for fields in _lines(passwd, 7):
        uid, gid = _file_id(fields[2]), _file_id(fields[3])
        if uid is not None and gid is not None:
            home = fields[5] if fields[5].startswith("/") else "/"
            yield _User(name=fields[0], uid=uid, gid=gid, home=home)


def _groups_of(name: str, group: bytes) -> Iterator[int]:
    for fields in _lines(group, 4):
        gid = _file_id(fields[2])
        if gid is not None and name in fields[3].split(","):
            yield gid


def _group_id(wanted: str, group: bytes) -> int:
    if not wanted or "\0" in wanted or "\n" in wanted or ":" in wanted:
        raise SpecError(f"group '{wanted}': must be a name or a decimal id")
    number = _number(wanted)
    if number is not None:
        return number
    for fields in _lines(group, 4):
        gid = _file_id(fields[2])
        if fields[0] == wanted and gid is not None:
            return gid
    raise SpecError(
        f"no group '{wanted}' in the image's /etc/group", hint="a gid works without an entry"
    )


def _lines(content: bytes, count: int) -> Iterator[list[str]]:
    # surrogateescape: a name is bytes to the kernel, and one odd line must not hide the others
    for line in content.decode("utf-8", "surrogateescape").split("\n"):
        fields = line.split(":")
        if len(fields) == count and fields[0] and not line.startswith("#"):
            yield fields


def _file_id(text: str) -> int | None:
    try:
        return parse_id(text)
    except SpecError:
        return None
