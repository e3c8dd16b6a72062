"""Declarations of containers and pods that exist."""

from __future__ import annotations

from sysbox.base.errors import Conflict, NotFound, SysboxError
from sysbox.cli.request import sockets_of, words
from sysbox.cli.request.words_network import network_flags
from sysbox.container import pods, store
from sysbox.fs import volume_options, volumes
from sysbox.image.store import Store
from sysbox.netns import networks
from sysbox.run import pod_slice
from sysbox.spec import ContainerSpec
from sysbox.units.quadlet import writer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.container.pods import Pod
    from sysbox.container.store import Record
    from sysbox.spec import Health
    from sysbox.units.quadlet.writer import Flag, Sockets

_JOINED = ("--pid", "--ipc", "--uts", "--cgroupns", "--timens", "--userns")


def of_containers(records: list[Record], pods_too: Iterable[Pod] = ()) -> dict[str, str]:
    """The `.container` of each, and a file for each pod, network and volume that they use and that exists.

    Texts by the names of files. Raises Conflict where two files would have one service, FormatError.
    """
    declared: dict[str, str] = {}
    own_pods = {one.name: one for one in (*pods_too, *_pods_of(records))}
    for spec in (*(one.spec for one in own_pods.values()), *(one.spec for one in records)):
        for name in _networks_of(spec):
            one = networks.load(name)
            comment = f"sysbox wrote this of the network {name}"
            text = writer.resource("network", network_flags(one), name, comment=comment)
            declared[f"{name}.network"] = text
        for name in _volumes_of(spec):
            flags = [("--label", f"{key}={value}") for key, value in volumes.labels(name).items()]
            given = volume_options.load(name).given
            flags += [("--opt", f"{key}={value}" if value else key) for key, value in given.items()]
            comment = f"sysbox wrote this of the volume {name}"
            declared[f"{name}.volume"] = writer.resource("volume", flags, name, comment=comment)
    for pod in own_pods.values():
        starts = any(one.spec.pod == pod.name and one.spec.restart.name != "no" for one in records)
        declared[f"{pod.name}.pod"] = _of_pod(pod, {*declared}, starts=starts)
    own = {f"{record.name}.container" for record in records}
    for record in records:
        sockets = sockets_of.find(record)
        name = f"{record.name}.container"
        declared[name] = _of_record(
            record, {*declared, *own}, own_pods.get(record.spec.pod), sockets
        )
        declared |= sockets.files(record.name)
        _check_service(name, declared)
    return declared


def _pods_of(records: list[Record]) -> Iterator[Pod]:
    for name in dict.fromkeys(one.spec.pod for one in records if one.spec.pod):
        yield pods.load(name)


def _of_pod(pod: Pod, declared: set[str], *, starts: bool) -> str:
    """The `.pod`; with `starts` it is enabled for the boot, since one of its containers is."""
    spec, parent = pod.spec, pod_slice.parent_of(pod.slice, pod.name)
    usual = ContainerSpec(image="").slice
    asked = spec.replace(name="", slice=usual if parent == pod_slice.PARENT else parent)
    flags = [*words.flags_of(asked), ("--exit-policy", pod.exit_policy)]
    if pod.share != pods.SHARED:
        kinds = ",".join("net" if kind == "network" else kind for kind in pod.share)
        flags.append(("--share", kinds or "none"))
    comment = f"sysbox wrote this of the pod {pod.name}"
    return writer.pod(flags, pod.name, comment=comment, declared=declared, starts=starts)


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


def _of_record(record: Record, declared: set[str], pod: Pod | None, sockets: Sockets) -> str:
    spec = record.spec
    if pod:
        spec = spec.replace(mounts=tuple(one for one in spec.mounts if one not in pod.spec.mounts))
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
        sockets=sockets,
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
        if name in _JOINED and kind == "container":
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
