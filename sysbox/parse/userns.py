"""Parse `--userns`, `--uidmap`, `--gidmap`, `--subuidname` and `--subgidname`, in podman's forms.

podman-run(1).
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.linux.userns import IdMap, read_maps
from sysbox.parse.common import bad, is_digits, parse_int, parse_mode
from sysbox.parse.process import check_account
from sysbox.security.idmap import extend, problem
from sysbox.spec import UserNamespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MODES = ("host", "auto", "keep-id", "nomap")
_OPTIONS = {"auto": ("size", "uidmapping", "gidmapping"), "keep-id": ("uid", "gid", "size")}
_LAST = (1 << 32) - 2  # the highest id: 2^32 - 1 is (uid_t)-1
_FORM = "[FLAGS]INSIDE:OUTSIDE[:COUNT], as in 0:100000:65536"


def parse(
    mode: str, uidmap: Sequence[str], gidmap: Sequence[str], subuid: str, subgid: str
) -> tuple[str, UserNamespace]:
    """(Namespaces.user, the options) of all five flags. Raises SpecError."""
    maps = [flag for flag, given in (("--uidmap", uidmap), ("--gidmap", gidmap)) if given]
    names = [flag for flag, given in (("--subuidname", subuid), ("--subgidname", subgid)) if given]
    given = [*(["--userns"] if mode else []), *maps[:1], *names[:1]]
    if len(given) > 1:
        raise SpecError(
            f"{given[0]} and {given[1]} exclude each other", hint="each says all of the maps"
        )
    if maps:
        uids, gids = parse_maps(uidmap, gidmap)
        return "mapped", UserNamespace(uids=uids, gids=gids)
    if names:
        for flag, text in (("--subuidname", subuid), ("--subgidname", subgid)):
            if text:
                check_account(text, flag, text)
        return "mapped", UserNamespace(subuid=subuid or subgid, subgid=subgid or subuid)
    return parse_userns(mode, "--userns")


def parse_userns(text: str, flag: str) -> tuple[str, UserNamespace]:
    """(Namespaces.user, the options) of one mode; "" is the default."""
    kind, colon, rest = text.partition(":")
    if kind in ("container", "ns") and rest:
        return parse_mode(text, flag, MODES), UserNamespace()
    if kind not in MODES:
        bad(
            flag, text, "unknown mode", f"valid: {', '.join((*MODES, 'container:NAME', 'ns:PATH'))}"
        )
    if colon and kind not in _OPTIONS:
        bad(flag, text, f"{kind} has no options")
    return kind, _options(kind, rest.split(",") if colon else [], flag, text)


def _options(kind: str, words: list[str], flag: str, text: str) -> UserNamespace:
    single: dict[str, int] = {}
    maps: dict[str, tuple[IdMap, ...]] = {"uids": (), "gids": ()}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in _OPTIONS[kind]:
            bad(
                flag,
                text,
                f"unknown option {word or 'nothing'}",
                f"{', '.join(_OPTIONS[kind])}, each with =",
            )
        if key in ("uidmapping", "gidmapping"):
            one = _map(value, f"{flag} {kind}:{key}", 0 if key[0] == "u" else 1)
            maps[f"{key[0]}ids"] += (one,)
        else:
            low, high = (1, _LAST + 1) if key == "size" else (0, _LAST)
            single[key] = parse_int(value, f"{flag} {kind}:{key}", low, high)
    _check(maps["uids"], f"{flag} {kind}:uidmapping")
    _check(maps["gids"], f"{flag} {kind}:gidmapping")
    return UserNamespace(
        size=single.get("size", 0),
        uid=single.get("uid", -1),
        gid=single.get("gid", -1),
        uids=maps["uids"],
        gids=maps["gids"],
    )


def parse_maps(
    uidmap: Sequence[str], gidmap: Sequence[str]
) -> tuple[tuple[IdMap, ...], tuple[IdMap, ...]]:
    """The maps of users and of groups. Where only one flag is given, it is for both.

    FLAGS are `+` (in place of what earlier ranges say of these ids) and, where one flag is for both, `u` or
    `g` (for users or groups only). An OUTSIDE that begins with @ is the host's id, even if sysbox itself
    runs in a user namespace.
    """
    uids = _maps(
        uidmap or gidmap, "--uidmap" if uidmap else "--gidmap", 0, both=not uidmap or not gidmap
    )
    gids = _maps(
        gidmap or uidmap, "--gidmap" if gidmap else "--uidmap", 1, both=not uidmap or not gidmap
    )
    return uids, gids


def _maps(texts: Sequence[str], flag: str, side: int, *, both: bool) -> tuple[IdMap, ...]:
    own = "ug"[side]
    found: tuple[IdMap, ...] = ()
    for text in texts:
        bare = text.lstrip("+ug")
        flags = text[: len(text) - len(bare)]
        if len(set(flags)) < len(flags) or (not both and {"u", "g"} & set(flags) - {own}):
            bad(flag, text, f"the flags {flags} do not go together", _FORM)
        wanted = {"u", "g"} & set(flags)
        one = _map(bare, flag, side, text)
        if both and wanted and own not in wanted:
            continue
        found = extend(found, one) if "+" in flags else (*found, one)
    _check(found, flag)
    return found


def _map(text: str, flag: str, side: int, whole: str = "") -> IdMap:
    whole = whole or text
    words = text.split(":")
    if len(words) not in (2, 3):
        bad(flag, whole, "not a map of ids", _FORM)
    on_host = words[1].startswith("@")
    words[1] = words[1].removeprefix("@")
    numbers = []
    for word in words:
        if not is_digits(word) or len(word) > 10 or int(word) > _LAST + 1:
            bad(flag, whole, f"{word or 'nothing'} is not an id", f"{_FORM}; from 0 to {_LAST}")
        numbers.append(int(word))
    inside, outside, count = (*numbers, 1)[:3]
    if on_host:
        outside = _own_id(outside, count, flag, whole, read_maps()[side])
    one = IdMap(inside=inside, outside=outside, count=count)
    if one.wrong():
        reason = "a range of no ids" if not count else f"beyond the highest id, {_LAST}"
        bad(flag, whole, reason, _FORM)
    return one


def _own_id(number: int, count: int, flag: str, whole: str, own: tuple[IdMap, ...]) -> int:
    """The id in this process's user namespace of an id of the host."""
    fits = (
        number - one.outside + one.inside
        for one in own
        if one.outside <= number and number + count <= one.outside + one.count
    )
    found = next(fits, -1)
    if found < 0:
        bad(flag, whole, f"the host's id {number} has no map here", "see /proc/self/uid_map")
    return found


def _check(maps: tuple[IdMap, ...], flag: str) -> None:
    if maps and (wrong := problem(maps)):
        raise SpecError(f"{flag}: {wrong}", hint="ranges must not overlap, on neither side")
