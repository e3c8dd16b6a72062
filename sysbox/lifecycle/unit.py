"""Unit files made of declarations: `sysbox unit install` and `uninstall`.

An installed unit is an ordinary file of /etc/systemd/system: `systemctl enable`, `disable` and `edit` treat
it as any other. It says of which file it was made, and has a digest of its own text: what an administrator
has changed is not overwritten.
"""

from __future__ import annotations

import _stat
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
from sysbox.units.quadlet import convert, sources, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.units.quadlet.units import Service

DIRECTORY = serviceplan.ADMINISTRATORS
_SECTION = "X-Sysbox"
_SUFFIXES = (".service", ".socket")
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
    text: str = ""


def made(paths: Iterable[str]) -> list[Service]:
    """The units of declarations; what they refer to is beside them, or where declarations are."""
    given = [_source(path) for path in paths]
    beside = dict.fromkeys(one.path.rpartition("/")[0] for one in given)
    owners = {0, posix.geteuid(), *(_owner(one.path) for one in given)}
    for one in given:
        for path in _of_others(one, owners):
            raise FormatError(
                f"{path}: it is not of the owner of {one.path}, nor of root",
                hint="anyone may have put it there: remove it, or move the declaration elsewhere",
            )
    known = {
        one.name: one
        for one in sources.find(beside=beside)
        if one.path.rpartition("/")[0] not in beside or not _of_others(one, owners)
    }
    declared = units.Declared({**known, **{one.name: one for one in given}}.values())
    services = [unit for one in given for unit in convert.units_of(one, declared, launcher())]
    return list(units.one_each(services))


def _of_others(source: sources.Source, owners: set[int]) -> list[str]:
    """The file and its drop-in directories that others have made: in /tmp, anyone may."""
    files = {file for _, file, _ in source.sections} - {source.path}
    paths = {source.path, *(file.rpartition("/")[0] for file in files)}
    return sorted(path for path in paths if _owner(path) not in owners)


def _owner(path: str) -> int:
    """The uid of the owner of a file, of a link itself; -1 if it is gone, or a directory for everyone."""
    try:
        status = posix.lstat(path)
    except OSError:
        return -1
    if _stat.S_ISDIR(status.st_mode) and status.st_mode & 0o002:
        return -1
    return status.st_uid


def _source(path: str) -> sources.Source:
    full = path if path.startswith("/") else f"{posix.getcwd()}/{path}"
    if not sources.is_declaration(full.rpartition("/")[2]):
        kinds = ", ".join(f".{kind}" for kind in sources.KINDS[:6])
        raise FormatError(
            f"{path}: not the name of a declaration", hint=f"one that ends in {kinds}"
        )
    return sources.read(full)


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
    return body + "\n" + syntax.dump([(_SECTION, [("Digest", _digest(body))])])


def install(services: Iterable[Service], *, force: bool = False) -> None:
    """Write the files, all or none, and have systemd read them. Raises Conflict, FormatError, KernelError."""
    services = list(services)
    texts = {checked(one).unit: text_of(one) for one in services}
    before = [one for one in installed() if one.source in {each.source.path for each in services}]
    if not force:
        for unit in texts:
            _check_free(unit)
    for unit, text in texts.items():
        write_file(
            f"{DIRECTORY}/{unit}", text.encode("utf-8", "surrogateescape"), 0o644, durable=True
        )
    # the declaration had sockets when it was installed before
    gone = [one for one in before if one.unit not in texts and one.unit.endswith(_OF_SOCKETS)]
    if gone := [one for one in gone if not one.edited]:
        _remove(gone)
    _reload()


def _check_free(unit: str) -> None:
    """Raises Conflict for a unit that was edited, or is not of sysbox."""
    found = _read(unit)
    if found is None:
        for directory in _OTHERS:
            if exists(f"{directory}/{unit}"):
                raise Conflict(
                    f"{unit} would take the place of {directory}/{unit}",
                    hint="ServiceName= gives the service another name; --force installs it all the same",
                )
    elif found.edited or not found.source:
        what = "was edited" if found.source else "is not of sysbox"
        raise Conflict(
            f"{DIRECTORY}/{unit} {what}",
            hint="--force replaces it; `systemctl edit` makes a drop-in",
        )


def uninstall(unit: str, *, force: bool = False) -> set[str]:
    """Stop and disable a unit and those made of the same declaration, and remove their files; their names.

    Raises NotFound, Conflict.
    """
    first = find(unit)
    found = [one for one in installed() if one.source == first.source]
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
                scope.await_inactive(bus, instance)
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
    return Installed(
        unit=unit, source=source if digest else "", edited=_digest(body) != digest, text=text
    )


def _digest(text: str) -> str:
    from hashlib import sha256

    return sha256(text.strip().encode("utf-8", "surrogateescape")).hexdigest()


def _reload() -> None:
    with Bus.connect() as bus:
        scope.reload(bus)
