"""What belongs to active units: a prune leaves it, and who removes it by name is told how it comes back.

The service of a `.network`, `.volume`, `.image` or `.build` file stays active once it has made its thing
(RemainAfterExit= of systemd.service(5)). A container that requires it finds it active, and nobody would make
the thing again. A declared container has no record between two starts: while its service is about to start it
again, or a socket, a timer or a path waits to, what its command names belongs to it as well. So does what
`run` names in a service written by hand.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import SysboxError, SystemdError
from sysbox.cli.output import note
from sysbox.cli.parse import hot
from sysbox.cli.table.verbs import VERBS
from sysbox.parse import storage
from sysbox.parse.network import parse_endpoint
from sysbox.units import listing, names
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from sysbox.cli.table.options import Values

NETWORK, VOLUME, IMAGE = "network", "volume", "image"
# verb -> (what it makes, the value that names it)
_MAKES = {
    "network create": (NETWORK, "network"),
    "volume create": (VOLUME, "volume"),
    "pull": (IMAGE, "image"),
    "build": (IMAGE, "tag"),
}
# what the service of a declared container or pod runs -> the verb that has its flags, as one by hand runs it
_DECLARED = {"_unit": "run", "_pod": "pod create"}
_TRIGGERS = ("*.socket", "*.timer", "*.path")
_PROGRAM = "sysbox"
_SHOWN = 4  # units that a note names
_PATIENCE = 1.0  # seconds that a hint may take


def of_kind(kind: str) -> dict[str, str]:
    """The names of that kind that belong to active units -> the unit. Raises SystemdError."""
    found: dict[str, str] = {}
    with Bus.connect() as bus:
        counted = list(_services(bus))
        commands = _commands(bus, [service for service, _ in counted])
    for service, unit in counted:
        for words in commands[service]:
            for name in _made_by(words, kind) + _needed_by(words, kind):
                found.setdefault(name, unit)
    return found


def _services(bus: Bus) -> Iterator[tuple[str, str]]:
    """(service, the active unit because of which it counts): itself, or one that waits to start it."""
    for unit in listing.list_units(bus, "*.service"):
        # that of a container with a record runs nothing of interest
        if unit.is_wanted and not names.container_of(unit.name):
            yield unit.name, unit.name
    for pattern in _TRIGGERS:
        for unit in listing.list_units(bus, pattern):
            if unit.is_wanted:
                for service in _listed(bus, unit.name, "Triggers"):
                    yield service, unit.name
                    # of a proxy, the container's
                    for other in _listed(bus, service, "BindsTo"):
                        yield other, unit.name


def _listed(bus: Bus, unit: str, name: str) -> list[str]:
    """The services that a property of a unit names."""
    found: list[str] = scope.properties(bus, unit, scope.UNIT, (name,)).get(name, [])
    return [one for one in found if one.endswith(".service")]


def networks() -> dict[str, str]:
    """The networks that belong to active units -> the unit. Raises SystemdError."""
    return of_kind(NETWORK)


def volumes() -> dict[str, str]:
    """Likewise their volumes."""
    return of_kind(VOLUME)


def images() -> dict[str, str]:
    """Likewise their images, by the names that the units have for them."""
    return of_kind(IMAGE)


def _commands(bus: Bus, services: list[str]) -> dict[str, list[list[str]]]:
    """The words of each ExecStart= that runs sysbox, without its name; systemd has expanded specifiers."""
    return {
        service: [
            [word.replace("$$", "$") for word in words[1:]]
            for path, words, *_ in commands
            if path.rpartition("/")[2] == _PROGRAM
        ]
        for service, commands in listing.commands(bus, services).items()
    }


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


def _needed_by(words: list[str], kind: str) -> list[str]:
    """What the container or the pod of a declaration, or of a command, is made with."""
    verb, rest = hot.find_verb(words)
    if words and words[0] in _DECLARED:
        # after --notify= and the name of the service
        at = next((at for at, word in enumerate(words) if word.endswith(".service")), len(words))
        verb, rest = VERBS[_DECLARED[words[0]]], words[at + 1 :]
    if verb is None or verb.name not in _DECLARED.values():
        return []
    try:
        return list(_of_values(hot.parse(verb, rest), kind))
    except (hot.Fallback, SysboxError):
        return []  # ignoring: a container that cannot start needs nothing


def _of_values(values: Values, kind: str) -> Iterator[str]:
    if kind == NETWORK:
        for text in values.network:
            if not text.startswith(("container:", "ns:")):
                yield parse_endpoint(text, "--network").network
    elif kind == VOLUME:
        mounts = [storage.parse_mount_v(text, "--volume") for text in values.volume]
        mounts += [storage.parse_mount(text, "--mount") for text in values.mount]
        yield from (one.source for one in mounts if one.kind == VOLUME and one.source)
    elif values.verb.name == "run":  # a pod has no image
        yield values.image.removeprefix("docker://")


def tell_left(left: list[tuple[str, str]]) -> None:
    """Say in one line what a prune has left: (kind, unit) of each."""
    if not left:
        return
    kinds = [kind for kind, _ in left]
    counts = [_count(kinds.count(kind), kind) for kind in dict.fromkeys(kinds)]
    units = sorted({unit for _, unit in left})
    rest = f" and {len(units) - _SHOWN} more" if len(units) > _SHOWN else ""
    note(
        f"left {', '.join(counts)} of active units ({', '.join(units[:_SHOWN])}{rest}): "
        f"`systemctl stop` them first"
    )


def _count(number: int, kind: str) -> str:
    return f"{number} {kind}{'' if number == 1 else 's'}"


def _makers(kind: str) -> dict[str, str]:
    """What active services have made, for a hint; empty where systemd does not say so at once."""
    try:
        with Bus.connect(_PATIENCE) as bus:
            # itself: what a timer starts is not made again by a restart of the timer
            units = listing.list_units(bus, "*.service")
            services = [unit.name for unit in units if unit.active_state == "active"]
            commands = _commands(bus, services)
    except SystemdError:
        return {}
    return {
        name: service
        for service in services
        for words in commands[service]
        for name in _made_by(words, kind)
    }


def tell_gone(
    kind: str, gone: Collection[str], meant: Callable[[str], set[str]] = lambda name: {name}
) -> None:
    """Say of each that was removed by name, and that a service has made, how it comes back.

    `meant` tells what a service's name for one may mean.
    """
    for name, unit in (_makers(kind) if gone else {}).items():
        if not meant(name).isdisjoint(gone):
            note(
                f"{kind} {name}: {unit} is active and has made it; "
                f"`systemctl restart {unit}` makes it again"
            )
