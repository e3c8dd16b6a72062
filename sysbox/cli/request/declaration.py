"""Declarations of containers: of a command line of `run`, and of containers that exist."""

from __future__ import annotations

from sysbox.base.errors import Conflict, NotFound, SysboxError
from sysbox.base.frozen import Frozen
from sysbox.cli.request import env, words
from sysbox.cli.request.words_network import network_flags
from sysbox.cli.table.verbs import options_of
from sysbox.container import store
from sysbox.fs import volume_options, volumes
from sysbox.image.store import Store
from sysbox.netns import networks
from sysbox.parse import common as parse
from sysbox.parse import storage
from sysbox.parse.process import caller_env, read_lines
from sysbox.parse.seccomp import parse_profile
from sysbox.units.quadlet import writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.cli.table.options import Values
    from sysbox.container.store import Record
    from sysbox.spec import ContainerSpec, Health
    from sysbox.units.quadlet.writer import Flag

_OF_COMMAND_LINE = "sysbox wrote this of a command line of `sysbox run`"
_FILES = ("--env-file", "--label-file", "--cidfile", "--pidfile")  # flags whose values are paths
_JOINED = ("--network", "--pid", "--ipc", "--uts", "--cgroupns", "--timens", "--userns")


def of_command_line(given: Values) -> str:
    """The text of a `.container` for the container that `run` would make now.

    A service starts elsewhere and with another environment: paths become absolute, and variables that are to
    have the caller's value get it. Raises SpecError.
    """
    flags = list(_absolute(_given(given)))
    if any(name == "--env-file" for name, _ in flags) and _takes_callers(given.env_file):
        variables = env.build(given.env_file, given.env)
        flags = [one for one in flags if one[0] not in ("--env", "--env-file")]
        flags += [("--env", one) for one in variables]
    return writer.container(flags, given.image, given.command, comment=_OF_COMMAND_LINE)


def _given(values: Values) -> Iterator[Flag]:
    """The flags of a command line, in the order of the table."""
    for option in options_of(values.verb):
        value = getattr(values, option.dest)
        if option.repeat:
            yield from ((option.names[-1], one) for one in value)
        elif option.metavar and value is not None:
            yield option.names[-1], value
        elif not option.metavar and value != option.on:
            yield option.names[-1], None if value else "false"


def _absolute(flags: Iterable[Flag]) -> Iterator[Flag]:
    """The flags without what is relative to the caller: its working directory and its environment."""
    for name, value in flags:
        text = value or ""
        if name in _FILES:
            yield name, parse.absolute(text)
        elif name == "--volume":
            origin, colon, rest = text.partition(":")
            local = colon and (origin.startswith(("./", "../")) or origin in (".", ".."))
            yield name, f"{parse.absolute(origin)}:{rest}" if local else text
        elif name == "--mount":
            mount = storage.parse_mount(text, name)
            # as it was written, but for what may be relative
            is_bind = mount.kind == "bind" and f"={mount.source}" not in text
            yield next(iter(words.mount_flags(mount))) if is_bind else (name, text)
        elif name == "--security-opt" and text.startswith(("seccomp=", "seccomp:")):
            yield name, f"seccomp={parse_profile(text[8:], name, text)}"
        elif name == "--env" and "=" not in text:
            own = caller_env(text)
            if own is not None:
                yield name, f"{text}={own}"
        else:
            yield name, value


def _takes_callers(files: list[str]) -> bool:
    """Whether a line of these files takes the caller's value."""
    return any(
        "=" not in line for path in files for line in read_lines(path, "--env-file", "NAME=VALUE")
    )


class Declared(Frozen):
    """The files that declare a set of containers."""

    files: dict[str, str] = {}  # noqa: RUF012 (name -> text)


def of_containers(records: list[Record]) -> Declared:
    """The `.container` of each, and a file for each network and volume that they use and that exists.

    Raises Conflict where two files would have one service.
    """
    declared: dict[str, str] = {}
    for record in records:
        for name in _networks_of(record.spec):
            one = networks.load(name)
            comment = f"sysbox wrote this of the network {name}"
            text = writer.resource("network", network_flags(one), name, comment=comment)
            declared[f"{name}.network"] = text
        for name in _volumes_of(record.spec):
            flags = [("--label", f"{key}={value}") for key, value in volumes.labels(name).items()]
            given = volume_options.load(name).given
            flags += [("--opt", f"{key}={value}" if value else key) for key, value in given.items()]
            comment = f"sysbox wrote this of the volume {name}"
            declared[f"{name}.volume"] = writer.resource("volume", flags, name, comment=comment)
    own = {f"{record.name}.container" for record in records}
    for record in records:
        declared[f"{record.name}.container"] = _of_record(record, {*declared, *own})
        _check_service(f"{record.name}.container", declared)
    return Declared(files=declared)


def _check_service(name: str, declared: dict[str, str]) -> None:
    """The service of back.network is back-network.service, which a container can be called too."""
    stem, _, kind = name.removesuffix(".container").rpartition("-")
    if f"{stem}.{kind}" in declared:
        raise Conflict(
            f"{name} and {stem}.{kind} would both be {stem}-{kind}.service",
            hint="generate them one by one, and add ServiceName= to one of the files",
        )


def _networks_of(spec: ContainerSpec) -> list[str]:
    names = [one.network for one in spec.networks if one.network != "bridge"]
    return [name for name in dict.fromkeys(names) if networks.exists(name)]


def _volumes_of(spec: ContainerSpec) -> list[str]:
    names = [one.source for one in spec.mounts if one.kind == "volume" and one.source]
    return [name for name in dict.fromkeys(names) if volumes.exists(name)]


def _of_record(record: Record, declared: set[str]) -> str:
    spec = record.spec
    settings, own = spec.unit_settings, spec.properties[len(spec.unit_settings) :]
    asked = spec.replace(
        name=record.name, properties=(*own, *_tuned(record)), env=_env(record), host_env=()
    )
    flags = words.flags_of(asked, _name_of, _image_health(record))
    return writer.container(
        flags,
        spec.image,
        words.command_of(spec),
        comment=f"sysbox wrote this of the container {record.name}",
        declared=declared,
        unit=_joined(flags, declared),
        service=[(key, writer.escaped(value)) for key, _, value in map(_pair, settings)],
    )


def _env(record: Record) -> tuple[str, ...]:
    """Its variables, and those that --env-host took from another command's environment."""
    image = record.resolved.env if record.resolved else ()
    known = {one.partition("=")[0] for one in (*image, *record.spec.env)}
    host = (one for one in record.spec.host_env if one.partition("=")[0] not in known)
    return (*host, *record.spec.env)


def _pair(text: str) -> tuple[str, str, str]:
    return text.partition("=")


def _tuned(record: Record) -> Iterator[str]:
    """What `systemctl set-property` has set on its scope, now or before, as values of --property."""
    from sysbox.run import tuned

    found, _ = tuned.collect(record)
    for key, value in found.items():
        yield from (f"{key}={line}" for line in value.split("\n") if line)


def _joined(flags: list[Flag], declared: set[str]) -> list[tuple[str, str]]:
    """The keys of [Unit] that start the containers first whose namespaces it joins, and those it links to."""
    others = []
    for name, value in flags:
        kind, _, rest = (value or "").partition(":")
        if name in _JOINED[1:] and kind == "container":
            others.append(rest)
        elif name == "--link":
            others.append(kind)
    found = [f"{one}.container" for one in dict.fromkeys(others) if f"{one}.container" in declared]
    return [(key, one) for one in found for key in ("Requires", "After")]


def _name_of(container_id: str) -> str:
    try:
        return store.load(container_id).name
    except NotFound:
        return container_id


def _image_health(record: Record) -> Health | None:
    try:
        return Store().find(record.image_id)[1].config.health
    except SysboxError:
        return None  # the image is gone: the file says all of the check
