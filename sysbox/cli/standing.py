"""What active services have made: a prune leaves it, and who removes it by name is told how it comes back.

The service of a `.network`, `.volume`, `.image` or `.build` file stays active once it has made its thing
(RemainAfterExit= of systemd.service(5)). A container that requires it finds it active, and nobody would make
the thing again.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import SystemdError
from sysbox.cli.output import note
from sysbox.cli.parse import hot
from sysbox.units import listing, names
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.cli.table.options import Values

NETWORK, VOLUME, IMAGE = "network", "volume", "image"
# verb -> (what it makes, the value that names it)
_MAKES = {
    "network create": (NETWORK, "network"),
    "volume create": (VOLUME, "volume"),
    "pull": (IMAGE, "image"),
    "build": (IMAGE, "tag"),
}
_STANDING = ("active", "activating", "reloading")
_PROGRAM = "sysbox"
_SHOWN = 4  # services that a note names


def of_kind(kind: str) -> dict[str, str]:
    """The names of that kind that active services have made -> the service. Raises SystemdError."""
    found: dict[str, str] = {}
    with Bus.connect() as bus:
        for unit in listing.list_units(bus, "*.service"):
            # a container's own makes nothing of that
            if unit.active_state in _STANDING and not names.container_of(unit.name):
                for words in _commands(bus, unit.name):
                    for name in _made_by(words, kind):
                        found.setdefault(name, unit.name)
    return found


def networks() -> dict[str, str]:
    """The networks that active services have made. Raises SystemdError."""
    return of_kind(NETWORK)


def volumes() -> dict[str, str]:
    """Likewise their volumes."""
    return of_kind(VOLUME)


def images() -> dict[str, str]:
    """Likewise their images, by the names that these services give them."""
    return of_kind(IMAGE)


def _commands(bus: Bus, unit: str) -> Iterator[list[str]]:
    """The words of each ExecStart= that runs sysbox, without its name; systemd has expanded specifiers."""
    asked = scope.properties(bus, unit, scope.INTERFACES[".service"], ("ExecStart",))
    for path, words, *_ in asked.get("ExecStart", ()):
        if path.rpartition("/")[2] == _PROGRAM:
            yield [word.replace("$$", "$") for word in words[1:]]


def _made_by(words: list[str], kind: str) -> list[str]:
    verb, rest = hot.find_verb(words)
    made, dest = _MAKES.get(verb.name, ("", "")) if verb else ("", "")
    if verb is None or made != kind:
        return []
    try:
        values: Values = hot.parse(verb, rest)
    except hot.Fallback:
        return []  # ignoring: a command that fails makes nothing
    named = getattr(values, dest)
    return [named] if isinstance(named, str) else list(named or ())


def tell_left(left: list[tuple[str, str]]) -> None:
    """Say in one line what a prune has left: (kind, service) of each."""
    if not left:
        return
    kinds = [kind for kind, _ in left]
    counts = [_count(kinds.count(kind), kind) for kind in dict.fromkeys(kinds)]
    units = sorted({unit for _, unit in left})
    rest = f" and {len(units) - _SHOWN} more" if len(units) > _SHOWN else ""
    note(
        f"left {', '.join(counts)}: made by active services, which would not make it again "
        f"({', '.join(units[:_SHOWN])}{rest}); `systemctl stop` them first"
    )


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}{'' if number == 1 else 's'}"


def makers(kind: str) -> dict[str, str]:
    """As `of_kind`, for a hint: empty where systemd cannot be asked."""
    try:
        return of_kind(kind)
    except SystemdError:
        return {}


def tell_removed(kind: str, name: str, unit: str) -> None:
    """Say how what was removed by name comes back."""
    note(
        f"{kind} {name}: {unit} is active and has made it; `systemctl restart {unit}` makes it again"
    )
