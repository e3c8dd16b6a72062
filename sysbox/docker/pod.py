"""A pod in podman's shape: a row of `pod ps`, the JSON of `pod inspect`."""

from __future__ import annotations

import time

from sysbox.base.errors import FormatError, SystemdError
from sysbox.base.frozen import Frozen
from sysbox.container import pods
from sysbox.container.pods import Pod, PodRun
from sysbox.docker.human import human_duration
from sysbox.docker.inspect import timestamp
from sysbox.docker.shapes import Map
from sysbox.netns.topology import port_text
from sysbox.units.limits.properties import INFINITY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.container.store import Record, Status

STATES = ("Created", "Running", "Degraded", "Paused", "Exited")
_SHARED = {"network": "net", "ipc": "ipc", "uts": "uts", "user": "user"}
# limits of the slice as they are now: key of `pod inspect` -> properties of systemd, the first that is set
_LIMITS = {
    "MemoryMax": ("MemoryMax", "MemoryLimit"),
    "MemoryHigh": ("MemoryHigh",),
    "CPUQuotaPerSecUSec": ("CPUQuotaPerSecUSec",),
    "CPUWeight": ("CPUWeight",),
    "CPUShares": ("CPUShares",),
    "TasksMax": ("TasksMax",),
}


class Seen(Frozen):
    """A pod as it is now."""

    pod: Pod
    run: PodRun | None
    containers: tuple[tuple[Record, Status], ...]
    state: str


def see(pod: Pod, status_of: Callable[[Record], Status]) -> Seen:
    """Look at a pod and its containers."""
    try:
        run = pods.run_of(pod.name)
    except FormatError:
        run = None  # its state is lost: it counts as down
    run = run if run and run.ready else None
    found = tuple((one, status_of(one)) for one in pods.records_of(pod.name))
    states = [status.state for _, status in found]
    return Seen(pod=pod, run=run, containers=found, state=_state(states, up=run is not None))


def _state(states: list[str], *, up: bool) -> str:
    """podman's word for a pod in which containers have these states."""
    if not up:
        return "Exited" if any(one != "created" for one in states) else "Created"
    if states and all(one == "paused" for one in states):
        return "Paused"
    return "Running" if all(one == "running" for one in states) else "Degraded"


def networks_of(pod: Pod) -> list[str]:
    """The names of its networks."""
    mode = pod.spec.namespaces.network
    return [one.network for one in pod.spec.networks] or [mode] * ("network" in pod.share)


def row(seen: Seen, *, full: bool) -> dict[str, Any]:
    """What a column or a template may show."""
    pod, labels = seen.pod, seen.pod.spec.labels
    pod_id = pod.id if full else pod.id[:12]
    return {
        "ID": pod_id,
        "Id": pod_id,
        "Name": pod.name,
        "Status": seen.state,
        "Created": f"{human_duration(time.time() - pod.created_ns / 1e9)} ago",
        "NumberOfContainers": str(len(seen.containers)),
        "Ports": ", ".join(map(port_text, seen.run.ports)) if seen.run else "",
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Networks": ",".join(networks_of(pod)),
        "Cgroup": pod.slice,
        "ExitPolicy": pod.exit_policy,
    }


def describe(seen: Seen) -> dict[str, Any]:
    """The JSON of `pod inspect`: podman's keys, and what is sysbox's own below Sysbox."""
    pod = seen.pod
    return {
        "Id": pod.id,
        "Name": pod.name,
        "Created": timestamp(pod.created_ns / 1e9),
        "ExitPolicy": pod.exit_policy,
        "State": seen.state,
        "Hostname": pod.hostname if "uts" in pod.kinds else "",
        "Labels": Map(pod.spec.labels),
        "CreateCgroup": True,
        "CgroupParent": pod.slice,
        "CreateInfra": False,
        "InfraContainerID": "",
        "InfraConfig": _shared(seen),
        "SharedNamespaces": [_SHARED[kind] for kind in pod.kinds],
        "NumContainers": len(seen.containers),
        "Containers": [
            {"Id": record.id, "Name": record.name, "State": status.state}
            for record, status in seen.containers
        ],
        "Sysbox": {
            "Slice": pod.slice,
            "Limits": _limits(pod),
            "UserNamespace": {
                "Mode": pod.userns,
                "UIDMap": [one.text() for one in pod.uids],
                "GIDMap": [one.text() for one in pod.gids],
            },
            "Addresses": _addresses(seen),
            "Namespaces": Map({_SHARED[kind]: pod.namespace(kind) for kind in pod.kinds}),
        },
    }  # fmt: skip


def _shared(seen: Seen) -> dict[str, Any]:
    """What its containers have of it; podman has an infra container for that."""
    spec = seen.pod.spec
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in seen.run.ports if seen.run else spec.ports:
        key = f"{port.container_port}/{port.protocol}"
        bindings.setdefault(key, []).append(
            {"HostIp": port.host_ip or "0.0.0.0", "HostPort": port.host_text}
        )
    return {
        "PortBindings": Map(bindings),
        "HostNetwork": spec.namespaces.network == "host",
        "DNSServer": list(spec.dns.servers),
        "DNSSearch": list(spec.dns.search),
        "DNSOption": list(spec.dns.options),
        "HostAdd": list(spec.add_hosts),
        "Networks": networks_of(seen.pod),
    }


def _addresses(seen: Seen) -> Map:
    found = seen.run.networks if seen.run else ()
    return Map(
        {one.network: [text for text in (one.address, one.address6) if text] for one in found}
    )


def _limits(pod: Pod) -> dict[str, int | None]:
    """The limits of the slice now, also those that other tools have set; null is none."""
    from sysbox import scope
    from sysbox.units.bus import Bus

    names = tuple(name for group in _LIMITS.values() for name in group)
    try:
        with Bus.connect() as bus:
            found = scope.properties(bus, pod.slice, scope.INTERFACES[".slice"], names)
    except SystemdError:
        found = {}
    limits = {}
    for key, group in _LIMITS.items():
        values = [found[name] for name in group if found.get(name, INFINITY) != INFINITY]
        limits[key] = values[0] if values else None
    return limits
