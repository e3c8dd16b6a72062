"""Parse the option `idmap=` of `-v` and `--mount`, in podman's form (podman-run(1), `--volume`).

It has a module of its own since few containers have it.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.parse.common import bad, is_digits

_LAST = (1 << 32) - 2  # the highest id: 2^32 - 1 is (uid_t)-1
_FORM = "idmap=uids=ON-DISK-OUTSIDE-COUNT;gids=..., further ranges after #, as in uids=@0-1000-1#@1-1-999"


class Range(Frozen):
    """`count` ids: `on_disk` + n in the file system is `there` + n, which is an id of the host, or, where it
    is `relative`, one in the container.
    """

    on_disk: int
    there: int
    count: int
    relative: bool = False


class MountIds(Frozen):
    """The ranges of one mount; without ranges the ids are mapped as the container's."""

    uids: tuple[Range, ...] = ()
    gids: tuple[Range, ...] = ()


def parse_idmap(value: str, flag: str, whole: str) -> MountIds:
    """What follows `idmap=` in the argument `whole` of a flag. Raises SpecError."""
    found: dict[str, tuple[Range, ...]] = {}
    for part in value.split(";"):
        key, _, ranges = part.partition("=")
        if key not in ("uids", "gids"):
            bad(flag, whole, f"idmap= has no {key or 'empty part'}", _FORM)
        if key in found:
            bad(flag, whole, f"idmap= has {key} twice", _FORM)
        found[key] = tuple(_range(one, flag, whole) for one in ranges.split("#"))
    return MountIds(**found)


def _range(text: str, flag: str, whole: str) -> Range:
    numbers = text.removeprefix("@").split("-")
    if len(numbers) != 3:
        bad(flag, whole, f"{text or 'nothing'} is not a range of ids", _FORM)
    for one in numbers:
        if not is_digits(one) or len(one) > 10 or int(one) > _LAST + 1:
            bad(flag, whole, f"{one or 'nothing'} is not an id", f"{_FORM}; from 0 to {_LAST}")
    on_disk, there, count = map(int, numbers)
    if not count or max(on_disk, there) + count > _LAST + 1:
        reason = f"beyond the highest id, {_LAST}" if count else "a range of no ids"
        bad(flag, whole, f"{text}: {reason}", _FORM)
    return Range(on_disk=on_disk, there=there, count=count, relative=text.startswith("@"))
