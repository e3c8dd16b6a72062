"""docker's HostConfig of a container, what was asked of the host, with every key of API 1.41."""

from __future__ import annotations

from sysbox.base.errors import NotFound, SpecError
from sysbox.container import store
from sysbox.docker.shapes import (
    NULL,
    Map,
    NullList,
    NullMap,
    Strings,
    Struct,
    listed,
    mapped,
    pointer,
)
from sysbox.host import probe
from sysbox.security import paths
from sysbox.units.limits.table import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from sysbox.container.store import Record
    from sysbox.spec import ContainerSpec, Mount, Port

PROPAGATION = ("rprivate", "private", "rslave", "slave", "rshared", "shared")
# null in docker's JSON where nothing was asked; the other lists are empty then
_NULL_LISTS = (
    "BlkioDeviceReadBps", "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps",
    "DeviceCgroupRules", "Ulimits",
)  # fmt: skip
_POINTERS = ("MemorySwappiness", "OomKillDisable", "PidsLimit")


def host_config(record: Record, live: dict[str, Any]) -> dict[str, Any]:
    """As asked, but with the limits in `live`, those in force of a running container."""
    spec = record.spec
    return Struct(
        {
            "Binds": listed(_binds(spec.mounts)),
            "ContainerIDFile": spec.cidfile,
            "LogConfig": {"Type": spec.logging.driver, "Config": _log_options(spec)},
            "NetworkMode": spec.networks[0].network if spec.networks else spec.namespaces.network,
            "PortBindings": Map(bindings(spec.ports)),
            "RestartPolicy": {
                "Name": spec.restart.name,
                "MaximumRetryCount": spec.restart.retries,
            },
            "AutoRemove": spec.remove,
            "VolumeDriver": "",
            "VolumesFrom": NullList(),
            **_isolation(record),
            **_typed(_limits(spec) | live),
            **_protection(spec),
        }
    )


def _isolation(record: Record) -> dict[str, Any]:
    spec = record.spec
    security = spec.security
    return {
        "CapAdd": listed(_cap(name) for name in security.cap_add),
        "CapDrop": listed(_cap(name) for name in security.cap_drop),
        "CgroupnsMode": spec.namespaces.cgroup,
        "Dns": list(spec.dns.servers),
        "DnsOptions": list(spec.dns.options),
        "DnsSearch": list(spec.dns.search),
        "ExtraHosts": listed(spec.add_hosts),
        "GroupAdd": listed(spec.group_add),
        "IpcMode": spec.namespaces.ipc,
        **({"Annotations": spec.annotations} if spec.annotations else {}),
        "Cgroup": "",
        "Links": _links(record),
        "OomScoreAdj": spec.oom_score_adj,
        "PidMode": _own(spec.namespaces.pid),
        "Privileged": security.privileged,
        "PublishAllPorts": spec.publish_all,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": listed(_security_options(spec)),
        "StorageOpt": NullMap(),
        "Tmpfs": mapped(
            {one.target: ",".join(one.options) for one in spec.mounts if one.kind == "tmpfs"}
        ),
        "UTSMode": _own(spec.namespaces.uts),
        **_user_namespace(record),
        "ShmSize": spec.shm_size,
        "Sysctls": mapped(dict(spec.sysctls)),
        "Runtime": "sysbox",
        "ConsoleSize": [0, 0],
        "Isolation": "",
        "CgroupParent": spec.slice,
    }


def _links(record: Record) -> Any:
    """As docker shows them: "/NAME:/OWN-NAME/ALIAS"; the id for a container that was removed."""
    shown = []
    for link in record.spec.links:
        target, _, alias = link.partition(":")
        try:
            target = store.load(target).name
        except NotFound:
            pass  # ignoring: the link is shown as it was made
        shown.append(f"/{target}:/{record.name}/{alias}")
    return shown or NullList()


def _user_namespace(record: Record) -> dict[str, Any]:
    """Its mode: host, or as podman shows one with maps, private; and these, as podman."""
    mode = record.userns or record.spec.namespaces.user
    if not record.uids:
        return {"UsernsMode": mode}
    own = "" if mode.startswith(("container:", "ns:")) else "private"
    maps = {
        name: [f"{one.inside}:{one.outside}:{one.count}" for one in side]
        for name, side in (("UidMap", record.uids), ("GidMap", record.gids))
    }
    return {"UsernsMode": own or mode, "IDMappings": maps}


def _security_options(spec: ContainerSpec) -> Iterable[str]:
    security = spec.security
    yield from (f"label={one}" for one in security.label)
    if security.no_new_privileges:
        yield "no-new-privileges"
    if security.apparmor:
        yield f"apparmor={security.apparmor}"
    if security.seccomp != "default":
        yield f"seccomp={security.seccomp}"
    if security.landlock:
        yield "landlock=on"
    for name, values, between in (
        ("mask", security.mask, ":"),
        ("unmask", security.unmask, ":"),
        ("proc-opts", security.proc_options, ","),
    ):
        if values:
            yield f"{name}={between.join(values)}"


def _protection(spec: ContainerSpec) -> dict[str, Any]:
    try:
        masked, read_only = paths.plan(spec.security, probe().cpus)
    except SpecError:  # `start` refuses such a record; it is shown nevertheless
        masked, read_only = (), ()
    privileged = spec.security.privileged
    return {
        "Mounts": listed(_asked_mount(one) for one in spec.mounts if _by_mount_flag(one)),
        # docker: null in a privileged container, empty with systempaths=unconfined
        "MaskedPaths": NullList() if privileged and not masked else list(masked),
        "ReadonlyPaths": NullList() if privileged else list(read_only),
        "Init": spec.init or NULL,
    }


def _log_options(spec: ContainerSpec) -> dict[str, str]:
    logging = spec.logging
    found = Strings()
    if logging.driver == "json-file":
        found.update({"max-size": str(logging.max_size or -1), "max-file": str(logging.max_files)})
    for name, number in (("rate-limit", logging.rate_limit), ("rate-burst", logging.rate_burst)):
        if number >= 0:
            found[name] = str(number)
    if not logging.syslog:
        found["syslog"] = "false"
    given = {"tag": logging.tag, "labels": ",".join(logging.labels), "env": ",".join(logging.env)}
    found.update({name: text for name, text in given.items() if text})
    return found


def _cap(name: str) -> str:
    return name if name == "ALL" else f"CAP_{name}"


def _own(mode: str) -> str:
    """The mode of a namespace in docker's words: "" where the container has one of its own."""
    return "" if mode == "private" else mode


def limits_now(record: Record, pid: int) -> dict[str, Any]:
    """HostConfig's limits: those in force if it runs (`pid` is not 0), else those that were asked for."""
    asked = _limits(record.spec)
    if not pid:
        return _typed(asked)
    from sysbox.docker.live import live_limits

    return _typed(asked | live_limits(record, pid)[0])


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    """The limits as asked, under docker's names."""
    limits = spec.limits
    found = {one.inspect: _limit(getattr(limits, one.field)) for one in TABLE if one.inspect}
    return found | {
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": limits.cpuset_cpus or "",
        "CpusetMems": limits.cpuset_mems or "",
        "MemorySwap": limits.memory_swap or 2 * (limits.memory or 0),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": bool(limits.oom_kill_disable),
        "BlkioWeightDevice": [
            {"Path": path, "Weight": weight} for path, weight in limits.blkio_weight_device
        ],
        "DeviceCgroupRules": list(limits.device_rules),
        "DeviceRequests": NullList(),
        "Devices": [
            {
                "PathOnHost": one.source,
                "PathInContainer": one.target,
                "CgroupPermissions": one.access,
            }
            for one in spec.devices
        ],
        "KernelMemory": 0,
        "KernelMemoryTCP": 0,
        "PidsLimit": limits.pids if (limits.pids or 0) > 0 else None,
        "Ulimits": [{"Name": one.name, "Hard": one.hard, "Soft": one.soft} for one in spec.ulimits],
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _typed(limits: dict[str, Any]) -> dict[str, Any]:
    """The limits with docker's kinds of null."""
    return (
        limits
        | {name: listed(limits[name] or ()) for name in _NULL_LISTS}
        | {name: pointer(limits[name]) for name in _POINTERS}
    )


def _limit(value: Any) -> Any:
    """One limit in docker's form: 0 if it was not asked for, the rates of disks as a list."""
    if isinstance(value, tuple):
        return [{"Path": one[0], "Rate": one[1]} for one in value if not isinstance(one, str)]
    return value or 0


def _by_mount_flag(mount: Mount) -> bool:
    """Whether a bind mount was asked for with --mount: with -v, a missing source is made."""
    return mount.kind == "bind" and not mount.create


def _binds(mounts: Iterable[Mount]) -> Iterable[str]:
    """The arguments of -v, without those of anonymous volumes, which have no source to bind."""
    for mount in mounts:
        if mount.kind != "tmpfs" and mount.source and not _by_mount_flag(mount):
            options = ",".join(mount_options(mount))
            yield f"{mount.source}:{mount.target}" + (f":{options}" if options else "")


def mount_options(mount: Mount) -> list[str]:
    """The options of -v, as docker shows them."""
    options = ["ro"] if mount.read_only else []
    return options + list(mount.options) + (["nocopy"] if not mount.copy_up else [])


def propagation(mount: Mount) -> str:
    """The propagation of a mount: as asked, else rprivate for a bind mount and "" for a volume."""
    found = [option for option in mount.options if option in PROPAGATION]
    return found[0] if found else "rprivate" if mount.kind == "bind" else ""


def _asked_mount(mount: Mount) -> dict[str, Any]:
    return {
        "Type": mount.kind,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": mount.read_only,
        "Consistency": "",
        "BindOptions": {
            "Propagation": propagation(mount),
            "NonRecursive": not mount.recursive,
        },
        "VolumeOptions": NULL,
        "TmpfsOptions": NULL,
    }


def bindings(ports: Iterable[Port]) -> dict[str, Any]:
    """docker's map from a port (80/tcp) to the addresses and ports of the host that it is published on."""
    found: dict[str, Any] = {}
    for port in ports:
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(
            Struct({"HostIp": port.host_ip, "HostPort": port.host_text})
        )
    return found
