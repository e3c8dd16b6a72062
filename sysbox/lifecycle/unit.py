"""Unit files made of declarations: `sysbox unit install` and `uninstall`.

An installed unit is an ordinary file of /etc/systemd/system: `systemctl enable`, `disable` and `edit` treat
it as any other. It says of which file it was made, and has a digest of its own text: what an administrator
has changed is not overwritten.
"""

from __future__ import annotations

import posix

from sysbox import scope
from sysbox.base import program
from sysbox.base.errors import Conflict, FormatError, NotFound, SysboxError
from sysbox.base.files import names, read_file, unlink, write_file
from sysbox.base.frozen import Frozen
from sysbox.host import exists
from sysbox.units import serviceplan, syntax
from sysbox.units.bus import Bus
from sysbox.units.listing import list_units
from sysbox.units.quadlet import sources, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.units.quadlet.units import Service

DIRECTORY = serviceplan.ADMINISTRATORS
_SECTION = "X-Sysbox"
_SUFFIXES = (".service", ".socket")
_OTHER_NAME = "ServiceName= gives the service another name; --force installs it all the same"
_OF_SOCKETS = (".socket", "-proxy.service", "-proxy@.service")  # besides a container's own service
# where units of packages are, and those of this boot: a file in DIRECTORY takes their place
_OTHERS = (
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


class Installed(Frozen):
    """A unit file that `install` has written."""

    unit: str
    source: str  # the path of the declaration
    edited: bool  # its text is not the one that was written
    # what it is installed and removed with: as source, of a `.socket` its container's
    declared_by: str = ""
    text: str = ""


def launcher() -> str:
    """sysbox as a word of a command line."""
    return serviceplan.program_word(program.launcher)


def checked(service: Service) -> Service:
    """The service. Raises FormatError for one that is wrong."""
    if not units.is_valid(service.unit):
        raise FormatError(f"{service.source.path}: {service.unit!r} is not the name of a unit")
    if service.error:
        raise FormatError(service.error)
    return service


def text_of(service: Service) -> str:
    """The file that `install` writes."""
    body = units.text(service, launcher(), install=True)
    own = [("Digest", _digest(body))]
    if service.declared_by:
        own.append(("DeclaredBy", syntax.escape_specifiers(service.declared_by)))
    return body + "\n" + syntax.dump([(_SECTION, own)])


def is_outdated(service: Service) -> bool:
    """Whether the file that `install` has written of the same declaration is another than it would write."""
    found = _read(service.unit)
    if found is None or found.edited or service.error:
        return False
    return found.source == service.source.path and found.text != text_of(service)


def install(services: Iterable[Service], *, force: bool = False) -> list[str]:
    """Write the files, all or none, and have systemd read them; the changed units that are active.

    Raises Conflict, FormatError, KernelError.
    """
    services = list(services)
    texts = {checked(one).unit: text_of(one) for one in services}
    declared = {one.declared_by or one.source.path for one in services}
    known = installed()
    if not force:
        for one in services:
            _check_free(one.unit, one.source.path)
    for unit, text in texts.items():
        write_file(
            f"{DIRECTORY}/{unit}", text.encode("utf-8", "surrogateescape"), 0o644, durable=True
        )
    # the declaration had sockets when it was installed before
    before = [one for one in known if one.declared_by in declared]
    gone = [one for one in before if one.unit not in texts and one.unit.endswith(_OF_SOCKETS)]
    if gone := [one for one in gone if not one.edited]:
        _remove(gone)
    _reload()
    same = {one.unit for one in known if texts.get(one.unit) == one.text}
    # what a generator has made may be active, too
    changed = [unit for unit in texts if unit not in same and "@." not in unit]
    with Bus.connect() as bus:
        return [unit for unit in changed if scope.active_state(bus, unit) == "active"]


def _check_free(unit: str, source: str) -> None:
    """Raises Conflict for a unit that was edited, or is not of sysbox or not made of the file `source`."""
    found = _read(unit)
    if found is None:
        if path := _of_others(unit):
            raise Conflict(f"{unit} would take the place of {path}", hint=_OTHER_NAME)
        _check_generated(unit, source)
    elif found.edited or not found.source:
        what = "was edited" if found.source else "is not of sysbox"
        raise Conflict(
            f"{DIRECTORY}/{unit} {what}",
            hint="--force replaces it; `systemctl edit` makes a drop-in",
        )
    elif found.source != source and exists(found.source):
        raise Conflict(
            f"{unit} was made of {found.source}",
            hint="ServiceName= gives the service another name; --force replaces it",
        )


def _check_generated(unit: str, source: str) -> None:
    """Raises Conflict for a unit that a generator, as podman's, has made of another file than `source`."""
    for directory in serviceplan.GENERATED:
        path = f"{directory}/{unit}"
        try:
            text = syntax.decode(read_file(path) or b"")
        except SysboxError:
            continue  # ignoring: a link is another name of a unit that has a file
        keys = {one.key: one.value for one in syntax.entries(text)}
        other = syntax.unescape_specifiers(keys.get("SourcePath", ""))
        if other not in ("", source) and exists(other):
            raise Conflict(
                f"{unit} would take the place of {path}, made of {other}", hint=_OTHER_NAME
            )


def rival(service: Service) -> str:
    """A unit file of the same name that is made of no declaration, or of another one; "" for none."""
    found = _read(service.unit)
    if found is not None and found.source not in (service.source.path, service.declared_by):
        return f"{DIRECTORY}/{service.unit}"
    return "" if found else _of_others(service.unit)


def _of_others(unit: str) -> str:
    paths = (f"{directory}/{unit}" for directory in _OTHERS)
    return next((path for path in paths if exists(path)), "")


def uninstall(unit: str, *, force: bool = False) -> set[str]:
    """Stop and disable a unit and those made of the same declaration, and remove their files; their names.

    Raises NotFound, Conflict.
    """
    first = find(unit)
    found = [one for one in installed() if one.declared_by == first.declared_by]
    for one in found:
        if one.edited and not force:
            raise Conflict(f"{DIRECTORY}/{one.unit} was edited", hint="--force removes it")
    _remove(found)
    _reload()
    return {one.unit for one in found}


def _remove(found: Iterable[Installed]) -> None:
    """Stop units and remove their files, sockets first: they would start the others again."""
    found = sorted(found, key=lambda one: not one.unit.endswith(".socket"))
    with Bus.connect() as bus:
        for one in found:
            for instance in _instances(bus, one.unit):
                scope.request_stop(bus, instance)
            for instance in _instances(bus, one.unit):
                # without its file systemd would not run what is to come after the stop; that takes as long
                # as StopTimeout= says
                scope.await_inactive(bus, instance, float("inf"))
    for one in found:
        for directory in (DIRECTORY, "/run/systemd/system"):
            _remove_links(directory, one.unit)
        unlink(f"{DIRECTORY}/{one.unit}")


def _instances(bus: Bus, unit: str) -> list[str]:
    """The units of a file: of a template those that systemd has loaded. Raises SystemdError."""
    stem, template, suffix = unit.partition("@.")
    if not template:
        return [unit]
    return [one.name for one in list_units(bus, f"{stem}@*.{suffix}")]


def _remove_links(directory: str, unit: str) -> None:
    """Remove the links that `systemctl enable` has made: of other units, and its other names."""
    found = [
        name for name in names(directory) if name.endswith((".wants", ".requires", ".upholds"))
    ]
    for place in (directory, *(f"{directory}/{name}" for name in found)):
        for name in names(place):
            if _target(f"{place}/{name}") in (f"{DIRECTORY}/{unit}", f"../{unit}", unit):
                unlink(f"{place}/{name}")


def _target(path: str) -> str:
    """Where a link leads; "" for what is none."""
    try:
        return posix.readlink(path)
    except OSError:
        return ""


def full_name(name: str) -> str:
    """The name of a unit, also of a service without its suffix."""
    return name if name.endswith(_SUFFIXES) else f"{name}.service"


def find(name: str) -> Installed:
    """The unit file of that name, with or without its suffix, that `install` has written. Raises NotFound."""
    unit = full_name(name)
    if sources.is_declaration(name) and not name.endswith(_SUFFIXES):
        # a declaration, as `unit install` takes it
        made = [one for one in installed() if one.source.rpartition("/")[2] == name]
        unit = made[0].unit if made else unit
    found = _read(unit)
    if found is None or not found.source:
        raise NotFound(
            f"{unit} was not installed by sysbox", hint="`sysbox unit list` shows what was"
        )
    return found


def installed() -> list[Installed]:
    """The unit files that `install` has written, by name."""
    found = [_read(name) for name in names(DIRECTORY) if name.endswith(_SUFFIXES)]
    return [one for one in found if one is not None and one.source]


def _read(unit: str) -> Installed | None:
    """The unit file of that name; without a `source` it is not of sysbox. None where there is none."""
    path = f"{DIRECTORY}/{unit}"
    try:
        data = read_file(path)
    except SysboxError:
        return Installed(unit=unit, source="", edited=True)  # a link, as one that masks it
    if data is None:
        return None
    text = syntax.decode(data)
    keys = {(one.section, one.key): one.value for one in syntax.entries(text)}
    body, _, _ = text.partition(f"[{_SECTION}]")
    digest = keys.get((_SECTION, "Digest"))
    source = syntax.unescape_specifiers(keys.get(("Unit", "SourcePath"), ""))
    container = syntax.unescape_specifiers(keys.get((_SECTION, "DeclaredBy"), ""))
    return Installed(
        unit=unit,
        source=source if digest else "",
        edited=_digest(body) != digest,
        declared_by=container or source,
        text=text,
    )


def _digest(text: str) -> str:
    from hashlib import sha256

    return sha256(text.strip().encode("utf-8", "surrogateescape")).hexdigest()


def _reload() -> None:
    with Bus.connect() as bus:
        scope.reload(bus)
