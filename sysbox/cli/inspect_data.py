"""A container in docker's `inspect` shape: the names, the types and the order that scripts rely on."""

from __future__ import annotations

import time

from sysbox import health, restarting, state, systemd_mode
from sysbox.cli.current import status_of, usage_of
from sysbox.errors import SysboxError
from sysbox.image.model import ImageConfig
from sysbox.image.store import Store
from sysbox.units.resources import TABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.spec import ContainerSpec, Mount, Port

_PROPAGATION = ("rprivate", "private", "rslave", "slave", "rshared", "shared")
_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time
_NO_NETWORK = ("none", "host")


def container(record: state.Record) -> dict[str, Any]:
    """Everything about one container, live limits included."""
    status = status_of(record)
    live: dict[str, Any] = {}
    own: dict[str, Any] = {}
    if status.pid:
        from sysbox.cli.inspect_live import live_limits

        live, own = live_limits(record, status.pid)
    spec = record.spec
    return {
        "Id": record.id,
        "Created": timestamp(record.created),
        "Path": record.argv[0],
        "Args": list(record.argv[1:]),
        "State": _state(record, status),
        "Image": record.image_id,
        "ResolvConfPath": f"{record.directory}/resolv.conf",
        "HostnamePath": f"{record.directory}/hostname",
        "HostsPath": f"{record.directory}/hosts",
        "LogPath": record.log_path if spec.logging.driver == "json-file" else "",
        "Name": f"/{record.name}",
        "RestartCount": restarting.restarts(record) if restarting.has_policy(record) else 0,
        "Driver": "overlay",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": {**_host_config(spec), **live},
        "GraphDriver": {"Name": "overlay", "Data": _graph(record)},
        "Mounts": [_mount(record, mount) for mount in spec.mounts if mount.kind != "tmpfs"],
        "Config": _config(record),
        "NetworkSettings": _network(record),
        "Sysbox": {**(own or _at_rest(record)), **_beyond_docker(record)},
    }


def _beyond_docker(record: state.Record) -> dict[str, Any]:
    return {"Journal": _journal(record), "Usage": _usage(record), "End": _end(record)}


def _at_rest(record: state.Record) -> dict[str, Any]:
    return {
        "Scope": "",
        "ControlGroup": "",
        "Slice": record.spec.slice,
        "Tuned": record.tuned,
        "TunedUntilStop": [],
        "WrittenDirectly": [],
    }


def _journal(record: state.Record) -> str:
    """The directory of the journal of systemd inside; "" where there is none."""
    own = systemd_mode.keeps_journal(record.spec, record.argv)
    return systemd_mode.journal_directory(record.directory) if own else ""


def _usage(record: state.Record) -> dict[str, int | None]:
    """Of the run that goes on, or of the last one, by systemd's names; null is not known."""
    usage = usage_of(record)
    numbers = {
        "CPUUsageNSec": usage.cpu_ns,
        "MemoryPeak": usage.memory_peak,
        "IOReadBytes": usage.read_bytes,
        "IOWriteBytes": usage.written_bytes,
    }
    return {name: None if number < 0 else number for name, number in numbers.items()}


def _graph(record: state.Record) -> dict[str, str]:
    return {"UpperDir": f"{record.directory}/upper", "WorkDir": f"{record.directory}/work"}


def timestamp(seconds: float) -> str:
    """RFC 3339 with nanoseconds, as docker prints a time; 0 is Go's zero time."""
    if not seconds:
        return _NEVER
    nanoseconds = round(seconds * 1e9) % 10**9
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds))) + f".{nanoseconds:09}Z"


def _state(record: state.Record, status: state.Status) -> dict[str, Any]:
    return {
        "Status": status.state,
        "Running": status.state in ("running", "paused"),
        "Paused": status.state == "paused",
        "Restarting": status.state == "restarting",
        "OOMKilled": status.oom_killed,
        "Dead": status.state == "dead",
        "Pid": status.pid,
        "ExitCode": status.exit_code,
        "Error": status.error,
        **_health(record, status),
        "StartedAt": timestamp(status.started_at),
        "FinishedAt": timestamp(status.finished_at),
    }


def _end(record: state.Record) -> dict[str, Any] | None:
    """How the last run ended, or the start that failed; None before the first one."""
    final = state.final(record.id)
    if final is None:
        return None
    return {
        "How": final.how,
        "Signal": final.signal,
        "Victims": list(final.victims),
        "Phase": final.phase,
        "Error": final.error,
        "StartedAt": timestamp(final.started_ns / 1e9),
        "FinishedAt": timestamp(final.finished_ns / 1e9),
    }


def _health(record: state.Record, status: state.Status) -> dict[str, Any]:
    known = health.status(record) if status.pid else None
    if known is None:
        return {}
    log = [
        {
            "Start": timestamp(one.started_ns / 1e9),
            "End": timestamp(one.finished_ns / 1e9),
            "ExitCode": one.exit_code,
            "Output": one.output,
        }
        for one in known.log
    ]
    return {"Health": {"Status": known.status, "FailingStreak": known.failing_streak, "Log": log}}


def _host_config(spec: ContainerSpec) -> dict[str, Any]:
    """What was asked; of a running container the limits are then replaced by what is in force."""
    return {
        "Binds": [_bind(mount) for mount in spec.mounts if mount.kind != "tmpfs"] or None,
        "LogConfig": {"Type": spec.logging.driver, "Config": _log_options(spec)},
        "NetworkMode": spec.namespaces.network,
        "PortBindings": _bindings(spec.ports),
        "RestartPolicy": {
            "Name": spec.restart.name,
            "MaximumRetryCount": spec.restart.retries,
        },
        "AutoRemove": spec.remove,
        **_isolation(spec),
        **_limits(spec),
    }


def _log_options(spec: ContainerSpec) -> dict[str, str]:
    logging = spec.logging
    if logging.driver != "json-file":
        return {}
    return {"max-size": str(logging.max_size or -1), "max-file": str(logging.max_files)}


def _isolation(spec: ContainerSpec) -> dict[str, Any]:
    security = spec.security
    options = [f"label={one}" for one in security.label]
    options += ["no-new-privileges"] if security.no_new_privileges else []
    options += [f"seccomp={security.seccomp}"] if security.seccomp != "default" else []
    return {
        "CapAdd": [_cap(name) for name in security.cap_add] or None,
        "CapDrop": [_cap(name) for name in security.cap_drop] or None,
        "CgroupnsMode": spec.namespaces.cgroup,
        "ExtraHosts": list(spec.add_hosts) or None,
        "GroupAdd": list(spec.group_add) or None,
        "Init": spec.init,
        "IpcMode": spec.namespaces.ipc,
        "PidMode": _own(spec.namespaces.pid),
        "Privileged": security.privileged,
        "ReadonlyRootfs": spec.read_only,
        "SecurityOpt": options or None,
        "ShmSize": spec.shm_size,
        "Sysctls": dict(spec.sysctls),
        "Tmpfs": {one.target: ",".join(one.options) for one in spec.mounts if one.kind == "tmpfs"},
        "UTSMode": _own(spec.namespaces.uts),
        "UsernsMode": "",
        "Runtime": "sysbox",
        "CgroupParent": spec.slice,
    }


def _cap(name: str) -> str:
    return name if name == "ALL" else f"CAP_{name}"


def _own(mode: str) -> str:
    """docker's word for a namespace of the container's own is the empty one."""
    return "" if mode == "private" else mode


def limits_now(record: state.Record, pid: int) -> dict[str, Any]:
    """HostConfig's limits: those in force if it runs (`pid` is not 0), else those that were asked for."""
    asked = _limits(record.spec)
    if not pid:
        return asked
    from sysbox.cli.inspect_live import live_limits

    return asked | live_limits(record, pid)[0]


def _limits(spec: ContainerSpec) -> dict[str, Any]:
    """As asked, in docker's words."""
    limits = spec.limits
    found = {one.inspect: _limit(getattr(limits, one.field)) for one in TABLE if one.inspect}
    return found | {
        "CpusetCpus": limits.cpuset_cpus or "",
        "CpusetMems": limits.cpuset_mems or "",
        "MemorySwap": limits.memory_swap or 2 * (limits.memory or 0),
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": bool(limits.oom_kill_disable),
        "BlkioWeightDevice": [
            {"Path": path, "Weight": weight} for path, weight in limits.blkio_weight_device
        ],
        "DeviceCgroupRules": list(limits.device_rules) or None,
        "Devices": [
            {
                "PathOnHost": one.source,
                "PathInContainer": one.target,
                "CgroupPermissions": one.access,
            }
            for one in spec.devices
        ],
        "PidsLimit": limits.pids,
        "Ulimits": [{"Name": one.name, "Hard": one.hard, "Soft": one.soft} for one in spec.ulimits],
    }


def _limit(value: Any) -> Any:
    """0 for what was not asked; the rates of disks as a list."""
    if isinstance(value, tuple):
        return [{"Path": one[0], "Rate": one[1]} for one in value if not isinstance(one, str)]
    return value or 0


def _bind(mount: Mount) -> str:
    options = ["ro"] if mount.read_only else []
    return ":".join([mount.source, mount.target, *([",".join(options)] if options else [])])


def _mount(record: state.Record, mount: Mount) -> dict[str, Any]:
    source = mount.source
    entry: dict[str, Any] = {"Type": mount.kind}
    if mount.kind == "volume":
        from sysbox.fs.volumes import directory

        name = mount.source or record.anonymous_volumes.get(mount.target, "")
        entry |= {"Name": name, "Driver": "local"}
        source = directory(name) if name else ""
    propagation = [option for option in mount.options if option in _PROPAGATION]
    return entry | {
        "Source": source,
        "Destination": mount.target,
        "Mode": ",".join(mount.options),
        "RW": not mount.read_only,
        "Propagation": propagation[0]
        if propagation
        else "rprivate"
        if mount.kind == "bind"
        else "",
    }


def _config(record: state.Record) -> dict[str, Any]:
    spec = record.spec
    image = _image_config(record)
    own = spec.namespaces.uts == "private"
    published = [f"{port.container_port}/{port.protocol}" for port in spec.ports]
    command = list(spec.command or (image.cmd if spec.entrypoint is None else ())) or None
    return {
        "Hostname": spec.hostname or (record.id[:12] if own else ""),
        "Domainname": "",
        "User": spec.user or image.user,
        "AttachStdin": spec.interactive and not spec.detach,
        "AttachStdout": not spec.detach,
        "AttachStderr": not spec.detach,
        "ExposedPorts": {name: {} for name in (*image.exposed_ports, *published)},
        "Tty": spec.tty,
        "OpenStdin": spec.interactive,
        "StdinOnce": False,
        "Env": _environment(image.env, spec.env),
        "Cmd": command,
        "Image": spec.image,
        "Volumes": {one.target: {} for one in spec.mounts if one.kind == "volume"} or None,
        "WorkingDir": spec.workdir or image.workdir,
        "Entrypoint": list(image.entrypoint if spec.entrypoint is None else spec.entrypoint)
        or None,
        "Labels": {**image.labels, **spec.labels},
        "StopSignal": spec.stop_signal
        or image.stop_signal
        or systemd_mode.stop_signal(spec, record.argv),
        "StopTimeout": spec.stop_timeout,
    }


def _image_config(record: state.Record) -> ImageConfig:
    """The image's own settings; empty once the image is gone."""
    try:
        return Store().resolve(record.image_id).config
    except SysboxError:
        return ImageConfig()


def _environment(image: tuple[str, ...], asked: tuple[str, ...]) -> list[str]:
    found = {one.partition("=")[0]: one for one in (*image, *asked)}
    return list(found.values())


def _bindings(ports: tuple[Port, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for port in ports:
        host = str(port.host_port) if port.host_port else ""
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(
            {"HostIp": port.host_ip, "HostPort": host}
        )
    return found


def _network(record: state.Record) -> dict[str, Any]:
    from sysbox.host import read_text
    from sysbox.netns.topology import default_network, split_subnet

    network = default_network(read_text("/proc/net/route"))
    mode = record.spec.namespaces.network
    address, mac, ports = state.network(record)
    bridged = mode == "bridge" and bool(address)
    prefix = split_subnet(network.subnet)[1] if bridged else 0
    ends = {
        "Gateway": network.gateway if bridged else "",
        "IPAddress": address,
        "IPPrefixLen": prefix,
        "MacAddress": mac,
    }
    named = mode == "bridge" or mode in _NO_NETWORK
    return {
        "Bridge": network.bridge if bridged else "",
        "SandboxKey": "",
        "Ports": {
            key: [{**one, "HostIp": one["HostIp"] or "0.0.0.0"} for one in bindings]
            for key, bindings in _bindings(ports).items()
        },
        **ends,
        "Networks": {mode: {"Aliases": None, "NetworkID": "", **ends}} if named else {},
    }
