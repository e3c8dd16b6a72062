"""The files that the generator writes: services, and the links of their [Install] (systemd.generator(7)).

A generated unit cannot be enabled; the links are what `systemctl enable` would make of the same section.
"""

from __future__ import annotations

import _stat
import posix

from sysbox.base.errors import FormatError
from sysbox.base.files import write_all
from sysbox.base.frozen import Frozen
from sysbox.host import exists
from sysbox.units import serviceplan, syntax
from sysbox.units.quadlet import convert, cycles, sources, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.units.quadlet.sources import Source
    from sysbox.units.quadlet.units import Service

_PODMAN = "podman-system-generator"
_GENERATORS = (
    "/run/systemd/system-generators",
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
)
OF_PODMAN = ("kube", "artifact")  # what podman's generator alone makes units of
# an administrator's units, for good and for this boot
_ADMINISTRATORS = (serviceplan.ADMINISTRATORS, "/run/systemd/system")
# key of [Install] -> the directory of links beside the other unit
_LINKS = {"WantedBy": "wants", "RequiredBy": "requires", "UpheldBy": "upholds"}
_LINK_MAX = units.NAME_MAX - len(".requires")  # the directory of the links is a file name too
_WORDS = (*_LINKS, "Alias", "DefaultInstance")


class Generated(Frozen):
    """What to write into directories of generated units."""

    files: dict[str, str] = {}  # noqa: RUF012 (name -> text)
    links: dict[str, str] = {}  # noqa: RUF012 (path in the directory -> target)
    # they go where podman's generator writes nothing, and come before what it makes
    early: bool = False
    errors: tuple[str, ...] = ()  # what is wrong, a line each
    made_of: dict[str, str] = {}  # noqa: RUF012 (name of a unit, also its other ones -> path of the declaration)


def directories(*, takes_podmans: bool = False) -> tuple[str, ...]:
    """Where declarations are; podman's where its own generator reads them only with `takes_podmans`."""
    if not takes_podmans and podmans():
        return tuple(one for one in sources.DIRECTORIES if not is_podmans(one))
    return sources.DIRECTORIES


def podmans() -> str:
    """The path of podman's generator, "" where there is none."""
    return find(_PODMAN)


def find(name: str) -> str:
    """The path of a generator; "" where there is none, or where it is masked: an empty file or a link to
    /dev/null is in a directory that comes before its own (systemd.generator(7)).
    """
    for directory in _GENERATORS:
        path = f"{directory}/{name}"
        if exists(path):
            return path if is_executable(path) else ""
    return ""


def is_podmans(path: str) -> bool:
    """Whether a directory or a file is where podman's generator looks."""
    return any(f"{path}/".startswith(f"{one}/") for one in sources.PODMANS)


def ours(found: list[Source]) -> list[Source]:
    """Without those that sysbox refuses, and podman's generator, where it is, can make a unit of."""
    if not podmans():
        return found
    return [one for one in found if not (is_podmans(one.path) and one.kind in OF_PODMAN)]


def is_executable(path: str) -> bool:
    """Whether systemd would execute it. A mask is not."""
    try:
        status = posix.stat(path)
    except OSError:
        return False
    return _stat.S_ISREG(status.st_mode) and status.st_size > 0 and bool(status.st_mode & 0o111)


def generate(found: list[Source], launcher: str) -> Generated:
    """The units of all declarations; one that `sysbox unit install` has written is left out.

    Where podman's generator is, all are for the early directory: the two run at once, and must not write one
    file, or one through a link of the other's.
    """
    both = bool(podmans())
    found = ours(found)
    declared = units.Declared(found)
    files: dict[str, str] = {}
    links: dict[str, str] = {}
    made_of: dict[str, str] = {}
    errors: list[str] = []
    all_units = (unit for one in found for unit in _units_of(one, declared, launcher))
    for service in cycles.marked(units.one_each(all_units)):
        if service.error:
            errors.append(service.error)
            if service.source.kind == sources.SOCKET:
                continue  # a socket cannot fail with a reason
        if not units.is_valid(service.unit):
            errors.append(f"{service.source.path}: {service.unit!r} is not the name of a unit")
            continue
        if _is_administrators(service.unit, early=both):
            continue
        files[service.unit] = units.text(service, launcher)
        made_of.setdefault(service.unit, service.source.path)
        try:
            for path, target in _links(service):
                if not (both and _is_administrators(path, early=True)):
                    links[path] = target
                    made_of.setdefault(path, service.source.path)
        except FormatError as error:
            errors.append(error.message)
    return Generated(files=files, links=links, early=both, errors=tuple(errors), made_of=made_of)


def _is_administrators(unit: str, *, early: bool) -> bool:
    """Whether an administrator has a unit of that name, which units of the early directory would hide."""
    return any(exists(f"{place}/{unit}") for place in _ADMINISTRATORS[: 1 + early])


def _units_of(source: Source, declared: units.Declared, launcher: str) -> list[Service]:
    """As `convert.units_of`: whatever a file makes it do, the other files are not affected."""
    try:
        return list(convert.units_of(source, declared, launcher))
    except Exception as error:  # noqa: BLE001 (a boot must not lack all services for one)
        why = FormatError(f"{source.path}: cannot be converted: {error!r}")
        return [units.failed(source, why)]


def _links(service: Service) -> Iterator[tuple[str, str]]:
    """The links of its [Install]: path, target. Raises FormatError."""
    if not service.installs:
        return
    wanted: dict[str, list[str]] = {}
    for one in service.source.assignments:
        if one.section == "Install" and one.key in _WORDS:
            where = f"{one.file}:{one.line}: {one.key}="
            words = syntax.split(one.value, where)
            for word in words:
                if not units.is_valid(word) or len(word) > _LINK_MAX:
                    raise FormatError(f"{where}: {word!r} is not the name of a unit")
            # an empty one discards those before it
            if not words:
                wanted.pop(one.key, None)
            wanted.setdefault(one.key, []).extend(words)
    unit = service.unit
    if service.source.is_template:
        if not wanted.get("DefaultInstance"):
            return
        stem, _, suffix = unit.rpartition("@")
        unit = f"{stem}@{wanted['DefaultInstance'][-1]}{suffix}"
    for key, kind in _LINKS.items():
        for other in wanted.get(key, ()):
            yield f"{other}.{kind}/{unit}", f"../{service.unit}"
    for alias in wanted.get("Alias", ()):
        yield alias, service.unit


def write(made: Generated, normal: str, early: str) -> None:
    """Write the files and links below directories that systemd has made empty. Raises OSError."""
    directory = early if made.early else normal
    for name, text in made.files.items():
        _write(f"{directory}/{name}", text)
    for path, target in made.links.items():
        above = path.rpartition("/")[0]
        try:
            if above:
                posix.mkdir(f"{directory}/{above}", 0o755)
        except FileExistsError:
            pass
        try:
            posix.symlink(target, f"{directory}/{path}")
        except FileExistsError:
            pass  # two sections name one alias: the first one has it


def _write(path: str, text: str) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    try:
        write_all(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        posix.close(fd)
