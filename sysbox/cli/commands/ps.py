"""`sysbox ps`: list containers."""

from __future__ import annotations

import time

from sysbox.base.errors import SysboxError
from sysbox.cli.commands.port import endpoint
from sysbox.cli.output import print_list, warn
from sysbox.container import store
from sysbox.container.status import read_networks
from sysbox.docker.human import human_duration
from sysbox.docker.known_images import KnownImages, exposed_ports
from sysbox.lifecycle.current import health_of, mount_name, usage_of
from sysbox.lifecycle.repair import all_repaired
from sysbox.parse.common import parse_int
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.spec import Port

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)
_SIZE = ("SIZE", "Size")
_POD = ("POD", "PodName")
_HEADERS = {
    **{key: header for header, key in (*_COLUMNS, _SIZE)},
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "State": "STATE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Scope": "SCOPE",
    "Slice": "SLICE",
    "Pod": "POD ID",
    "PodName": "POD",
    "CPUTime": "CPU TIME",
    "MemPeak": "MEM PEAK",
    "BlockRead": "BLOCK READ",
    "BlockWritten": "BLOCK WRITTEN",
}
_COMMAND_WIDTH = 20
_PHRASES = {"starting": "health: starting"}  # docker's


def main(values: Values) -> int:
    """0, always, whatever was found."""
    images = KnownImages()
    wanted, everything = _wanted(values.filter, images)
    last = 1 if values.latest else parse_int(values.last or "0", "--last", 0, 1 << 31)
    rows: list[dict[str, Any]] = []
    with_size = values.size or _shows_size(values.format or "")
    limits = _limits_in(values.format or "")
    now = time.time()
    for record, status in all_repaired(warn):
        if not (values.all or everything or last) and status.state not in (
            "running",
            "paused",
            "restarting",
        ):
            continue
        if not wanted(record, status):
            continue
        rows.append(row(record, status, now, images, full=values.no_trunc))
        if with_size:
            rows[-1]["Size"] = _size(record, images)
        if values.format:
            rows[-1] |= _usage(record)
        if limits:
            rows[-1] |= _limits_now(record, status, limits)
        if last and len(rows) == last:
            break
    print_list(
        rows,
        (*_COLUMNS, *([_SIZE] * values.size), *([_POD] * values.pod)),
        headers=_HEADERS | {name: _header(name) for name in limits},
        format=values.format,
        quiet="ID" if values.quiet else "",
    )
    return 0


def _wanted(
    texts: list[str], images: KnownImages
) -> tuple[Callable[[store.Record, store.Status], bool], bool]:
    """(the test whether to list a container, whether to list those that do not run too)."""
    if not texts:
        return lambda *_: True, False
    from sysbox.cli.commands import ps_filters

    filters = ps_filters.parse(texts)
    everything = bool({"status", "exited"} & filters.keys())
    return lambda record, status: ps_filters.matches(record, status, filters, images), everything


def _shows_size(format: str) -> bool:
    """docker's rule: sizes are computed if the format shows them, or is JSON."""
    return ".Size" in format or "json" in format


def _size(record: store.Record, images: KnownImages) -> str:
    from sysbox.docker.sizes import size_text

    return size_text(record, images.get(record.image_id))


def _limits_in(format: str) -> tuple[str, ...]:
    """The limits that a template shows, by their names in inspect's HostConfig."""
    if "." not in format:
        return ()
    from sysbox.units.limits.table import TABLE

    return tuple(one.inspect for one in TABLE if one.inspect and f".{one.inspect}" in format)


def _limits_now(
    record: store.Record, status: store.Status, names_: tuple[str, ...]
) -> dict[str, Any]:
    """The limits in force, also those set by other tools; of a stopped container those of its next start."""
    from sysbox.docker.host_config import limits_now

    found = limits_now(record, status.pid)
    return {name: found[name] for name in names_}


def _header(name: str) -> str:
    """CPU SHARES for CpuShares."""
    return "".join(f" {char}" if char.isupper() else char.upper() for char in name).strip()


def status_text(status: store.Status, now: float, health: str = "") -> str:
    """ "Up 5 minutes", "Exited (0) 3 hours ago"."""
    if status.state == "running":
        up = f"Up {human_duration(now - status.started_at)}"
        return f"{up} ({_PHRASES.get(health, health)})" if health else up
    if status.state == "paused":
        return f"Up {human_duration(now - status.started_at)} (Paused)"
    if status.state == "restarting":
        return f"Restarting ({status.exit_code}) {human_duration(now - status.finished_at)} ago"
    if status.state == "exited":
        return f"Exited ({status.exit_code}) {human_duration(now - status.finished_at)} ago"
    return status.state.capitalize()


def ports_text(ports: tuple[Port, ...], exposed: Iterable[str] = ()) -> str:
    """ "99/tcp, 0.0.0.0:8080->80/tcp": what is only exposed, then what is published."""
    published = {f"{port.container_port}/{port.protocol}" for port in ports}
    texts = [name for name in exposed if name not in published]
    texts += (f"{endpoint(port)}->{port.container_port}/{port.protocol}" for port in ports)
    return ", ".join(texts)


def _command(argv: tuple[str, ...]) -> str:
    """As docker prints it: arguments that contain a space are in single quotes."""
    return " ".join((argv[0], *(f"'{one}'" if " " in one else one for one in argv[1:])))


def _quoted(text: str) -> str:
    """A command as docker shows it: as a string literal of Go, which scripts can decode."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    from sysbox.docker.template_format import quoted

    return quoted(text, "")


def _shorten(text: str, width: int, *, full: bool) -> str:
    return text if full or len(text) <= width else text[: width - 1] + "…"


def _usage(record: store.Record) -> dict[str, str]:
    from sysbox.docker.stats import report

    return report(usage_of(record))


def _ports(record: store.Record, status: store.Status, images: KnownImages) -> str:
    """The ports of a running container on the bridge, or its pod's; "" for any other, as docker shows it."""
    if not status.pid or not (record.spec.namespaces.network == "bridge" or record.spec.pod):
        return ""
    ports = read_networks(record)[1] if record.spec.ports or record.spec.pod else ()
    return ports_text(ports, exposed_ports(record, images))


def _network(record: store.Record) -> str:
    """The networks' names; "" for a container in a network namespace that is not its own."""
    mode = record.spec.namespaces.network
    if ":" in mode:
        return ""
    return ",".join(sorted(one.network for one in record.spec.networks)) or mode


def _pod_id(name: str, *, full: bool) -> str:
    from sysbox.container import pods

    try:
        pod_id = pods.load(name).id
    except SysboxError:
        return ""  # it was removed, or is damaged
    return pod_id if full else pod_id[:12]


def row(
    record: store.Record, status: store.Status, now: float, images: KnownImages, *, full: bool
) -> dict[str, Any]:
    """The keys that a column or a template may show, without those that `main` adds on demand."""
    labels = record.spec.labels
    command = _shorten(_command(record.argv), _COMMAND_WIDTH, full=full)
    mounts = [mount_name(record, one) for one in record.spec.mounts if one.kind != "tmpfs"]
    return {
        "ID": record.id if full else record.id[:12],
        "Image": record.spec.image,
        "Command": _quoted(command),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(record.created)),
        "RunningFor": f"{human_duration(now - record.created)} ago",
        "Ports": _ports(record, status, images),
        "State": status.state,
        "Status": status_text(status, now, health_of(record, status)),
        "Names": record.name,
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Label": lambda key: labels.get(key, ""),
        "Mounts": ",".join(_shorten(mount, 15, full=full) for mount in mounts),
        "Networks": _network(record),
        "LocalVolumes": str(sum(mount.kind == "volume" for mount in record.spec.mounts)),
        "Size": "",
        "Scope": names.scope_unit(record.id),
        "Slice": names.check_slice(record.spec.slice),
        "Pod": _pod_id(record.spec.pod, full=full) if record.spec.pod else "",
        "PodName": record.spec.pod,
    }
