"""From declarations to services: the command that each runs, and the keys of its unit file."""

from __future__ import annotations

from sysbox.base.errors import FormatError, SysboxError
from sysbox.units.quadlet import (
    build,
    container,
    globalargs,
    online,
    pod,
    socketfiles,
    sockets,
    units,
    volume,
)
from sysbox.units.quadlet.conversion import Conversion
from sysbox.units.quadlet.keys import QUADLET
from sysbox.units.quadlet.sources import SOCKET
from sysbox.units.quadlet.units import Service
from sysbox.units.quadlet.values import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.sources import Source
    from sysbox.units.quadlet.units import Declared

    Keys = list[tuple[str, str]]

# what the service of a container is; the file may change the others
_FIXED = {"Type": ("notify", "oneshot"), "KillMode": ("mixed", "control-group")}
_REFUSED = {
    "ExecStart": "the container's command is Exec= in [Container]",
    "User": "the user inside is User= in [Container]; UserNS= chooses who that is outside",
    "Group": "the group inside is Group= in [Container]",
    "DynamicUser": "UserNS=auto gives each container ids of its own",
}


def service_of(source: Source, declared: Declared, launcher: str) -> Service:
    """The service of one declaration; a wrong one becomes a service that fails with the reason."""
    try:
        made = _service(source, declared, launcher)
        units.check_text(made)
        return made
    except SysboxError as error:
        return units.failed(source, error)


def _service(source: Source, declared: Declared, launcher: str) -> Service:
    if source.error:
        raise FormatError(source.error)
    made = Conversion(source, declared, launcher)
    units.check_sections(source, made.section.name)
    if "GlobalArgs" in made.section:
        globalargs.check(made.section)
    _MADE[source.kind](made)
    made.unit += online.dependencies(made)
    return Service(
        unit=declared.service_of(source.name),
        source=source,
        verb=made.verb,
        words=tuple(made.words),
        image=made.image,
        unit_keys=(*made.unit, *declared.translated(source)),
        service_keys=(*made.service, *_own_keys(source)),
        installs=made.installs,
        more=tuple(made.more),
    )


def units_of(source: Source, declared: Declared, launcher: str) -> tuple[Service, ...]:
    """Every unit that one declaration becomes, its service first; a `.socket` file is its container's."""
    if source.kind == SOCKET:
        return socketfiles.stray(source, declared)
    service = service_of(source, declared, launcher)
    return (service, *service.more)


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
    every = Section(made.source, "Quadlet", QUADLET)
    network = "network.target " if every.is_true("DefaultDependencies", default=True) else ""
    made.unit.append(("After", f"{network}dbus.socket"))
    sockets.convert(made)
    container.convert(made)
    made.verb = "run"
    made.service += made.section.resources
    notify = (f"--notify={made.ready}",) if made.ready else ()
    if _is_job(made.source):
        _add_job(made)
        return
    made.service[:0] = [
        ("Type", "notify"),
        # health checks are processes of their own
        ("NotifyAccess", "all" if made.ready == "healthy" else "main"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        ("SyslogIdentifier", "%N"),
        ("ExecStart", made.command("_unit", *notify, "%n", *made.words)),
        ("ExecStopPost", made.command("_unit", "%n")),
    ]


def _is_job(source: Source) -> bool:
    """Whether the service is started once the container has ended, with Type=oneshot."""
    types = [
        one.value for one in source.assignments if (one.section, one.key) == ("Service", "Type")
    ]
    return types[-1:] == ["oneshot"]


def _add_job(made: Conversion) -> None:
    """The service of a container that does a job and ends."""
    if made.ready and "Notify" in made.section:
        raise made.section.wrong("Notify", "a service of Type=oneshot is started by its end alone")
    made.service[:0] = [
        ("Type", "oneshot"),
        ("KillMode", "mixed"),
        ("OOMPolicy", "continue"),
        ("SyslogIdentifier", "%N"),
        ("ExecStart", made.command("_unit", "%n", *made.words)),
        # with RemainAfterExit= that of ExecStopPost= comes only with its stop
        ("ExecStartPost", made.command("_unit", "%n")),
        ("ExecStopPost", made.command("_unit", "%n")),
    ]


def _once(made: Conversion, *verb: str) -> None:
    """A service that runs one command, a verb with flags, and stays active."""
    section = made.section
    flags = [one for one in verb if one.startswith("--")]
    made.verb = " ".join(one for one in verb if one not in flags)
    made.words[:0] = [*flags, *section.flags(), *section.words("PodmanArgs")]
    made.service += [
        ("Type", "oneshot"),
        ("RemainAfterExit", "yes"),
        ("SyslogIdentifier", "%N"),
        ("ExecStart", made.command(*made.verb.split(), *made.words)),
    ]


def _volume(made: Conversion) -> None:
    volume.convert(made)
    made.words.append(made.declared.resource_of(made.source.name))
    _once(made, "volume", "create", "--ignore")


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
    # a pull takes as long as it takes, and says how far it is
    made.service += [("NotifyAccess", "main"), ("TimeoutStartSec", "infinity")]


def _build(made: Conversion) -> None:
    build.convert(made)
    _once(made, "build", "--progress=plain")
    made.service.append(("TimeoutStartSec", "infinity"))


_MADE = {
    "container": _container, "volume": _volume, "network": _network, "image": _image, "build": _build,
    "pod": pod.convert,
}  # fmt: skip
