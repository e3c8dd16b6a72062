"""From declarations to services: the command that each runs, and the keys of its unit file."""

from __future__ import annotations

from sysbox.base.errors import FormatError, SysboxError
from sysbox.units.quadlet import container, units
from sysbox.units.quadlet.conversion import Conversion
from sysbox.units.quadlet.units import Service

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.sources import Source
    from sysbox.units.quadlet.units import Declared

    Keys = list[tuple[str, str]]

# what the service of a container is; the file may change the others
_FIXED = {"Type": ("notify",), "KillMode": ("mixed", "control-group")}
_REFUSED = {
    "ExecStart": "the container's command is Exec= in [Container]",
    "User": "the user inside is User= in [Container]; UserNS= chooses who that is outside",
    "Group": "the group inside is Group= in [Container]",
    "DynamicUser": "UserNS=auto gives each container ids of its own",
}


def service_of(source: Source, declared: Declared, launcher: str) -> Service:
    """The service of one declaration; a wrong one becomes a service that fails with the reason."""
    try:
        return _service(source, declared, launcher)
    except SysboxError as error:
        return units.failed(source, error)


def _service(source: Source, declared: Declared, launcher: str) -> Service:
    if source.error:
        raise FormatError(source.error)
    made = Conversion(source, declared, launcher)
    units.check_sections(source, made.section.name)
    _MADE[source.kind](made)
    return Service(
        unit=declared.service_of(source.name),
        source=source,
        words=tuple(made.words) if source.kind == "container" else (),
        unit_keys=(*made.unit, *declared.translated(source)),
        service_keys=(*made.service, *_own_keys(source)),
    )


def _own_keys(source: Source) -> Keys:
    """The file's own [Service]. Raises FormatError for what would make it another service."""
    found = []
    for one in source.assignments:
        if one.section != "Service":
            continue
        where = f"{one.file}:{one.line}: {one.key}="
        if one.key in _REFUSED and source.kind == "container":
            raise FormatError(f"{where}: not in [Service]", hint=_REFUSED[one.key])
        valid = _FIXED.get(one.key)
        if valid and source.kind == "container" and one.value not in valid:
            raise FormatError(f"{where} must be {' or '.join(valid)}")
        found.append((one.key, one.value))
    return found


def _container(made: Conversion) -> None:
    made.unit.append(("After", "network.target dbus.socket"))
    container.convert(made)
    notify = ("--notify=healthy",) if made.healthy else ()
    made.service[:0] = [
        ("Type", "notify"),
        # health checks are processes of their own
        ("NotifyAccess", "all" if made.healthy else "main"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        ("SyslogIdentifier", "%N"),
        ("ExecStart", made.command("_unit", *notify, "%n", *made.words)),
        ("ExecStopPost", made.command("_unit", "%n")),
    ]


def _once(made: Conversion, *verb: str) -> None:
    """A service that runs one command and stays active."""
    section = made.section
    words = [*verb, *section.flags(), *section.words("PodmanArgs"), *made.words]
    made.service += [
        ("Type", "oneshot"),
        ("RemainAfterExit", "yes"),
        ("SyslogIdentifier", "%N"),
        ("ExecStart", made.command(*words)),
    ]


def _volume(made: Conversion) -> None:
    made.words.append(made.declared.resource_of(made.source.name))
    _once(made, "volume", "create")


def _network(made: Conversion) -> None:
    name = made.declared.resource_of(made.source.name)
    made.words.append(name)
    _once(made, "network", "create", "--ignore")
    if made.section.is_true("NetworkDeleteOnStop"):
        made.service.append(("ExecStopPost", made.command("network", "rm", name)))


def _image(made: Conversion) -> None:
    image = made.section.one("Image")
    if not image:
        raise FormatError(f"{made.section.path}: [Image] has no Image=")
    made.words.append(image)
    _once(made, "pull", "--quiet")
    # a pull takes as long as it takes
    made.service.append(("TimeoutStartSec", "infinity"))


def _build(made: Conversion) -> None:
    section = made.section
    if not section.all("ImageTag"):
        raise FormatError(f"{section.path}: [Build] has no ImageTag=")
    arch = section.one("Arch")
    if arch:
        made.words.append(
            "--platform=" + "/".join(filter(None, ("linux", arch, section.one("Variant"))))
        )
    for name in section.all("Network"):
        if name.endswith(".network"):
            made.needs("Network", name)
            name = made.declared.resource_of(name)
        made.words.append(f"--network={name}")
    made.words.append(_context(made))
    _once(made, "build", "--progress=plain")
    made.service.append(("TimeoutStartSec", "infinity"))


def _context(made: Conversion) -> str:
    """The context of a build: where the unit is, where the Containerfile is, a path, a URL."""
    section = made.section
    wanted, file = section.one("SetWorkingDirectory"), section.one("File")
    if wanted == "unit":
        return made.path(".").removesuffix("/.")
    if wanted and wanted != "file":
        return made.path(wanted)
    if not file.startswith("/"):
        raise FormatError(
            f"{section.path}: [Build] has neither SetWorkingDirectory= nor an absolute File=",
            hint="SetWorkingDirectory=unit is the directory of this file",
        )
    return file.rpartition("/")[0] or "/"


_MADE = {
    "container": _container, "volume": _volume, "network": _network, "image": _image, "build": _build,
}  # fmt: skip
