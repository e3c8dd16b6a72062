"""A container in docker's `inspect` shape: the names, the types and the order that scripts rely on."""

from __future__ import annotations

import time

from sysbox.base.paths import IMAGES
from sysbox.container import health, store, systemd_mode
from sysbox.docker import ip_rules
from sysbox.docker.config import capabilities_of, config, mounts
from sysbox.docker.host_config import host_config
from sysbox.docker.known_images import KnownImages, exposed_ports, resolved_by
from sysbox.docker.network_settings import network_settings
from sysbox.docker.shapes import NULL, Map, NullList, Strings, Struct
from sysbox.fs.drivers.driver import driver_of
from sysbox.lifecycle.current import traffic_of, usage_of
from sysbox.linux import apparmor
from sysbox.run import restart
from sysbox.units import names, unit_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def container(record: store.Record, status: store.Status, *, size: bool = False) -> dict[str, Any]:
    """Everything about one container, with the limits in force; with `size`, its size on disk too."""
    live: dict[str, Any] = {}
    own: dict[str, Any] = {}
    if status.pid:
        from sysbox.docker.live import live_limits

        live, own = live_limits(record, status.pid)
    images = KnownImages()
    final = store.final(record.id)
    return Struct(
        {
            "Id": record.id,
            "Created": timestamp(record.created),
            "Path": record.argv[0],
            "Args": list(record.argv[1:]),
            "State": _state(record, status, final),
            "Image": record.image_id,
            **_files(record),
            "Name": f"/{record.name}",
            "RestartCount": restart.restarts(record) if unit_file.has_policy(record) else 0,
            "Driver": driver_of(record).NAME,
            "Platform": "linux",
            "MountLabel": record.mount_label,
            "ProcessLabel": record.process_label,
            "AppArmorProfile": _profile(record, status.pid),
            **capabilities_of(record, images),
            "ExecIDs": NullList(),
            "HostConfig": host_config(record, live),
            "GraphDriver": _graph(record, images),
            **_sizes(record, images, wanted=size),
            "Mounts": mounts(record),
            "Config": config(record, images),
            "NetworkSettings": network_settings(record, status, exposed_ports(record, images)),
            "Sysbox": _beyond_docker(record, final, status.pid, own or _at_rest(record)),
        }
    )


def _profile(record: store.Record, pid: int) -> str:
    """The AppArmor profile of the first process; of a container that does not run, what was asked for."""
    return apparmor.profile_of(pid) if pid else record.spec.security.apparmor


def _files(record: store.Record) -> dict[str, str]:
    """The paths of the files that sysbox mounts into the container, and of its log."""
    return {
        "ResolvConfPath": f"{record.directory}/resolv.conf",
        "HostnamePath": f"{record.directory}/hostname",
        "HostsPath": f"{record.directory}/hosts",
        "LogPath": record.log_path if record.spec.logging.driver == "json-file" else "",
    }


def _sizes(record: store.Record, images: KnownImages, *, wanted: bool) -> dict[str, Any]:
    """The bytes of the writable layer and of the whole root file system; null unless `wanted`."""
    if not wanted:
        return {"SizeRw": NULL, "SizeRootFs": NULL}
    from sysbox.docker.sizes import sizes

    written, whole = sizes(record, images.get(record.image_id))
    return {"SizeRw": written, "SizeRootFs": whole}


def _beyond_docker(
    record: store.Record, final: store.Final | None, pid: int, limits: dict[str, Any]
) -> dict[str, Any]:
    return {
        **limits,
        # bits per second; 0 is no limit
        "NetworkBandwidth": {
            "Up": record.spec.bandwidth.up * 8,
            "Down": record.spec.bandwidth.down * 8,
        },
        "Pod": record.spec.pod,
        "Journal": _journal(record),
        "Usage": _usage(record, counted=limits["IPAccounting"]),
        "End": _end(final),
        "AtBoot": unit_file.boot_state(record),
        "UserNamespace": {
            "Mode": record.userns or "host",
            "Reason": record.userns_reason,
        },
        "TimeNamespace": _clocks(record, pid),
    }


def _clocks(record: store.Record, pid: int) -> dict[str, Any]:
    """Whose clocks the container has, why if nobody asked for them, and the offsets that were asked for."""
    from sysbox.container import clocks
    from sysbox.linux import capability, timens

    spec = record.spec
    # in a user namespace of its own it has every capability
    lack = timens.lack(-1 if record.uids else capability.grantable())
    by_name = spec.namespaces.time != "auto" or spec.time_offset
    found = clocks.decide(spec, "" if by_name or pid else lack)
    mode, reason = found.mode, found.reason
    if pid and mode == "private" and timens.is_shared(pid):
        # what a running container has
        mode, reason = "host", lack or "none could be made at its start"
    if mode == clocks.OF_PROCESS:
        mode = spec.namespaces.pid
    return {"Mode": mode, "Reason": reason, "Offset": Map(found.offsets)}


def _at_rest(record: store.Record) -> dict[str, Any]:
    return {
        "Scope": names.scope_unit(record.id),  # the name is the same in each run
        "ControlGroup": "",
        "Slice": record.spec.slice,
        "Tuned": record.tuned,
        "TunedUntilStop": [],
        "OfService": {},
        "WrittenDirectly": [],
        **ip_rules.at_next_start(record),
    }


def _journal(record: store.Record) -> str:
    """The directory of the journal of systemd inside; "" where there is none."""
    own = systemd_mode.keeps_journal(record.spec, record.argv)
    return systemd_mode.journal_directory(record.directory) if own else ""


def _usage(record: store.Record, *, counted: bool) -> dict[str, int | None]:
    """The usage of the current run, else of the last one, by systemd's names; null is unknown."""
    usage = usage_of(record)
    numbers = {
        "CPUUsageNSec": usage.cpu_ns,
        "MemoryPeak": usage.memory_peak,
        "IOReadBytes": usage.read_bytes,
        "IOWriteBytes": usage.written_bytes,
    }
    numbers |= ip_rules.by_name(traffic_of(record, counted=counted))
    return {name: None if number < 0 else number for name, number in numbers.items()}


def _graph(record: store.Record, images: KnownImages) -> dict[str, Any]:
    """docker's GraphDriver, from the container's storage driver."""
    driver = driver_of(record)
    layers = tuple(f"{IMAGES}/layers/{name}" for name in resolved_by(record, images).layers)
    return {"Data": Strings(driver.describe(layers, record.directory)), "Name": driver.NAME}


def timestamp(seconds: float) -> str:
    """RFC 3339 with nanoseconds, as docker prints a time; 0 is Go's zero time."""
    if not seconds:
        return _NEVER
    nanoseconds = round(seconds * 1e9) % 10**9
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(int(seconds))) + f".{nanoseconds:09}Z"


def _state(record: store.Record, status: store.Status, final: store.Final | None) -> dict[str, Any]:
    finished_at = status.finished_at
    if status.pid and final and final.started_ns:
        finished_at = final.finished_ns / 1e9  # of a container that runs, docker shows its last end
    return {
        "Status": status.state,
        "Running": status.state in ("running", "paused"),
        "Paused": status.state == "paused",
        "Restarting": status.state == "restarting",
        "OOMKilled": status.oom_killed or _was_short_of_memory(status.pid),
        "Dead": status.state == "dead",
        "Pid": status.pid,
        "ExitCode": status.exit_code,
        "Error": status.error,
        "StartedAt": timestamp(status.started_at),
        "FinishedAt": timestamp(finished_at),
        "Health": _health(record, status),
    }


def _was_short_of_memory(pid: int) -> bool:
    """Whether the kernel has killed a process of the current run for lack of memory; `pid` 0: no run."""
    if not pid:
        return False
    from sysbox.docker.live import was_short_of_memory

    return was_short_of_memory(pid)


def _end(final: store.Final | None) -> dict[str, Any] | None:
    """How the last run ended, or the start that failed; None before the first one."""
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


def _health(record: store.Record, status: store.Status) -> Any:
    """docker's Health of the current run; null without checks, and before the first run."""
    if not record.spec.health.command or not status.started_at:
        return NULL
    known = health.status(record) if status.pid else None
    if known is None:  # as docker shows a container that has ended
        return {"Status": "unhealthy", "FailingStreak": 0, "Log": []}
    log = [
        {
            "Start": timestamp(one.started_ns / 1e9),
            "End": timestamp(one.finished_ns / 1e9),
            "ExitCode": one.exit_code,
            "Output": one.output,
        }
        for one in known.log
    ]
    return {"Status": known.status, "FailingStreak": known.failing_streak, "Log": log}
