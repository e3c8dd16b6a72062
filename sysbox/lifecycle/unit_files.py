"""The declarations that `sysbox unit` is about: files and directories that are given, or all there are."""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen
from sysbox.base.suggest import nearest
from sysbox.host import exists
from sysbox.lifecycle import unit_makers, unit_owners
from sysbox.lifecycle.unit import launcher, text_of
from sysbox.units.quadlet import convert, cycles, generate, socketfiles, sources, units, users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.lifecycle.unit import Installed
    from sysbox.units.quadlet.sources import Source
    from sysbox.units.quadlet.units import Declared, Service


class Chosen(Frozen):
    """Declarations, and those that they may refer to."""

    sources: tuple[Source, ...]
    declared: Declared
    of_users: bool = False  # of ordinary users, whose containers are not started yet

    def services(self) -> list[Service]:
        """The units that they become; of one name there is one, which says what is wrong."""
        made = (
            unit
            for one in self.sources
            for unit in convert.units_of(one, self.declared, launcher())
        )
        return list(cycles.marked(units.one_each(made)))


def made(paths: Iterable[str]) -> list[Service]:
    """The units of declarations; `paths` are files, or directories of them. Raises FormatError."""
    return [service for one in chosen(paths) for service in one.services()]


def chosen(paths: Iterable[str]) -> list[Chosen]:
    """What is given; what it refers to is beside it, or where declarations are. Raises FormatError."""
    paths = list(paths)
    given = list(dict.fromkeys(file for path in paths for file in _files(path)))
    places = [users.callers(), users.common(), *users.each()]
    found = []
    rest = given
    for place in places:
        own = [path for path in rest if place.have(path)]
        rest = [path for path in rest if path not in own]
        if own:
            found.append(_of_users(_read(own), place))
    named = {path for path in map(_absolute, paths) if _is_file(path)}
    return _of_the_system(_read(rest), named) + found


def state_of(installed: list[Installed]) -> dict[str, str]:
    """What has become of the declarations of installed units: same, changed, wrong or gone, by unit."""
    there = [path for path in {one.declared_by: None for one in installed} if exists(path)]
    now = {one.unit: one for path in _readable(there) for one in path}
    wrong = {one.source.path for one in now.values() if one.error}
    return {
        one.unit: _state(one, now.get(one.unit), wrong) if one.declared_by in there else "gone"
        for one in installed
    }


def _readable(paths: list[str]) -> Iterator[list[Service]]:
    """The units of declarations, together; where one of them cannot be read, of each by itself."""
    try:
        yield made(paths)
    except FormatError:
        for path in paths:
            try:
                yield made([path])
            except FormatError:
                continue


def _state(one: Installed, now: Service | None, wrong: set[str]) -> str:
    """Of a file that was edited, nobody knows what it was made of."""
    if one.declared_by in wrong:
        return "wrong"
    if one.edited:
        return ""
    return "same" if now is not None and text_of(now) == one.text else "changed"


def everything() -> list[Chosen]:
    """All declarations; those of podman's generator and of ordinary users by themselves."""
    own = tuple(unit_makers.left_to_sysbox())
    sets = [Chosen(sources=own, declared=units.Declared(own))]
    if podmans := tuple(unit_makers.left_to_podman(takes=unit_makers.takes_podmans())):
        sets.append(Chosen(sources=podmans, declared=units.Declared(podmans)))
    for place in users.sets():
        own = tuple(sources.find(place.tops, beside=place.only))
        if own:
            sets.append(_of_users(own, place))
    return sets


def _of_users(given: tuple[Source, ...], place: users.Places) -> Chosen:
    common = users.common()
    known = sources.find((*place.tops, *common.tops), beside=(*place.only, *common.only))
    return _with(given, known, of_users=True)


def _of_the_system(given: tuple[Source, ...], named: set[str]) -> list[Chosen]:
    """Those of one owner together: of what nobody has given, each sees what its own owner may add.

    A file that is `named` may be anyone's, one that is found in a directory not. Raises FormatError.
    """
    beside = dict.fromkeys(one.path.rpartition("/")[0] for one in given)
    sets: dict[frozenset[int], list[Source]] = {}
    for one in given:
        owners = unit_owners.trusted()
        if one.path in named:
            owners |= {unit_owners.owner(one.path)}
        else:
            unit_owners.check_found(one)
        unit_owners.check_drop_ins(one, owners)
        sets.setdefault(owners, []).append(one)
    found = []
    there = sources.find(_tops(beside), beside=beside) if sets else []
    for owners, own in sets.items():
        known = [one for one in there if unit_owners.count(one, owners, beside)]
        chosen = _with(tuple(own), [*known, *given], of_users=False)
        unit_owners.check_sockets(chosen.sources, chosen.declared)
        found.append(chosen)
    return found


def _tops(beside: Iterable[str]) -> tuple[str, ...]:
    """The directories of what else is declared: those of podman's only for files that are there themselves,
    where its own generator reads them.
    """
    podmans = any(generate.is_podmans(one) for one in beside)
    return sources.DIRECTORIES if podmans else unit_makers.directories()


def _with(given: tuple[Source, ...], known: list[Source], *, of_users: bool) -> Chosen:
    every = {**{one.name: one for one in known}, **{one.name: one for one in given}}
    declared = units.Declared(every.values())
    named = {one.name for one in given}
    more = [one for one in _containers(given, declared) if one.name not in named]
    return Chosen(sources=(*given, *more), declared=declared, of_users=of_users)


def _containers(given: tuple[Source, ...], declared: Declared) -> Iterator[Source]:
    """The containers of `.socket` files, which become units together."""
    for one in given:
        if one.kind == sources.SOCKET:
            try:
                yield socketfiles.container_of(one, declared)
            except FormatError:
                continue  # its conversion says so


def _files(path: str) -> list[str]:
    """The absolute path of a file, or those of the declarations in a directory. Raises FormatError."""
    full = _absolute(path)
    if _is_file(full):
        return [full]
    try:
        names = sorted(filter(sources.is_declaration, posix.listdir(full)))
    except OSError:
        kinds = ", ".join(f".{kind}" for kind in (*sources.KINDS[:6], sources.SOCKET))
        near = nearest(full.rpartition(".")[2], (*sources.KINDS[:6], sources.SOCKET))
        hint = f"did you mean .{near}?" if near else f"one that ends in {kinds}"
        if path == "-":
            hint = (
                "it has no name, and the name of the service is that of the file: write it to one"
            )
        raise FormatError(f"{path}: not the name of a declaration", hint=hint) from None
    if not names:
        raise FormatError(f"{path}: no declaration is in this directory")
    return [f"{full}/{name}" for name in names]


def _absolute(path: str) -> str:
    whole = path if path.startswith("/") else f"{posix.getcwd()}/{path}"
    # not "..": what is before it may be a link
    return "/" + "/".join(part for part in whole.split("/") if part not in ("", "."))


def _is_file(path: str) -> bool:
    """Whether it is a declaration by its name; else it is a directory of them."""
    return sources.is_declaration(path.rpartition("/")[2])


def _read(paths: list[str]) -> tuple[Source, ...]:
    return tuple(sources.read(path) for path in paths)
