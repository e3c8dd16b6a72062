"""`sysbox ps`: list containers."""

from __future__ import annotations

import time

from sysbox import health, state
from sysbox.cli.current import all_containers, usage_of
from sysbox.cli.output import human_duration, print_list
from sysbox.cli.port import endpoint
from sysbox.errors import UsageError
from sysbox.filters import labelled, split
from sysbox.units import names
from sysbox.values import parse_int, suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.cli.options import Values
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
_HEADERS = {
    **{key: header for header, key in _COLUMNS},
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "State": "STATE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "Networks": "NETWORKS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Slice": "SLICE",
    "CPUTime": "CPU TIME",
    "MemPeak": "MEM PEAK",
    "BlockRead": "BLOCK READ",
    "BlockWritten": "BLOCK WRITTEN",
}
_FILTERS = ("id", "name", "label", "status", "ancestor", "exited", "slice", "health")
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_COMMAND_WIDTH = 20
_PHRASES = {"starting": "health: starting"}  # docker's


def main(values: Values) -> int:
    """0, always, whatever was found."""
    filters = parse_filters(values.filter)
    everything = values.all or bool({"status", "exited"} & filters.keys())
    last = 1 if values.latest else parse_int(values.last or "0", "--last", 0, 1 << 31)
    rows = []
    limits = _limits_in(values.format or "")
    now = time.time()
    for record, status in all_containers():
        if not (everything or last) and status.state not in ("running", "paused", "restarting"):
            continue
        if filters and not matches(record, status, filters):
            continue
        rows.append(row(record, status, now, full=values.no_trunc))
        if values.format:
            rows[-1] |= _usage(record)
        if limits:
            rows[-1] |= _limits_now(record, status, limits)
        if last and len(rows) == last:
            break
    headers = _HEADERS | {name: _header(name) for name in limits}
    print_list(
        rows, _COLUMNS, headers=headers, format=values.format, quiet="ID" if values.quiet else ""
    )
    return 0


def _limits_in(format: str) -> tuple[str, ...]:
    """The limits, by their names in inspect's HostConfig, that a template shows."""
    if "." not in format:
        return ()
    from sysbox.units.resources import TABLE

    return tuple(one.inspect for one in TABLE if one.inspect and f".{one.inspect}" in format)


def _limits_now(
    record: state.Record, status: state.Status, names_: tuple[str, ...]
) -> dict[str, Any]:
    """Those in force, whoever set them; of a container that does not run those that it will have."""
    from sysbox.cli.inspect_data import limits_now

    found = limits_now(record, status.pid)
    return {name: found[name] for name in names_}


def _header(name: str) -> str:
    """CPU SHARES for CpuShares."""
    return "".join(f" {char}" if char.isupper() else char.upper() for char in name).strip()


def parse_filters(texts: list[str]) -> dict[str, list[str]]:
    """KEY=VALUE pairs by key; raises UsageError for a key that ps does not know."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, value = split(text, _FILTERS)
        if key == "status" and value not in _STATES:
            raise UsageError(f"--filter {text}: unknown status", hint=suggest(value, _STATES))
        if key == "exited":
            parse_int(value, "--filter exited=", 0, 255)
        if key == "slice":
            value = names.check_slice(value, "--filter slice")
        found.setdefault(key, []).append(value)
    return found


def matches(record: state.Record, status: state.Status, filters: dict[str, list[str]]) -> bool:
    """docker's rule: any of the values of a key, for labels all of them; all keys."""
    tests: dict[str, Callable[[str], bool]] = {
        "id": lambda want: record.id.startswith(want),
        "name": lambda want: _like(want, record.name),
        "status": lambda want: status.state == want,
        "health": lambda want: (_health_of(record, status) or "none") == want,
        "slice": lambda want: names.is_below(record.spec.slice, want),
        "ancestor": lambda want: _of_image(want, record),
        "exited": lambda want: status.state == "exited" and status.exit_code == int(want),
    }
    for key, wanted in filters.items():
        if key == "label":
            if not all(labelled(record.spec.labels, want) for want in wanted):
                return False
        elif not any(tests[key](want) for want in wanted):
            return False
    return True


def _like(pattern: str, name: str) -> bool:
    """docker matches names as regular expressions; most are plain words."""
    if not set(pattern) & set("^$.*+?[](){}|\\"):
        return pattern in name
    import re

    try:
        return re.search(pattern, name) is not None
    except re.error as error:
        raise UsageError(f"--filter name={pattern}: {error}") from None


def _of_image(want: str, record: state.Record) -> bool:
    digest = record.image_id.removeprefix("sha256:")
    names = (record.image_name, record.spec.image)
    return (
        want in names
        or f"{want}:latest" in names
        or (len(want) >= 4 and digest.startswith(want.removeprefix("sha256:")))
    )


def status_text(status: state.Status, now: float, well: str = "") -> str:
    """ "Up 5 minutes", "Exited (0) 3 hours ago"."""
    if status.state == "running":
        return f"Up {human_duration(now - status.started_at)}{well and f' ({_PHRASES.get(well, well)})'}"
    if status.state == "paused":
        return f"Up {human_duration(now - status.started_at)} (Paused)"
    if status.state == "restarting":
        return f"Restarting ({status.exit_code}) {human_duration(now - status.finished_at)} ago"
    if status.state == "exited":
        return f"Exited ({status.exit_code}) {human_duration(now - status.finished_at)} ago"
    return status.state.capitalize()


def ports_text(ports: tuple[Port, ...]) -> str:
    """ "0.0.0.0:8080->80/tcp, 0.0.0.0:8443->443/tcp"."""
    return ", ".join(f"{endpoint(port)}->{port.container_port}/{port.protocol}" for port in ports)


def _shorten(text: str, width: int, *, full: bool) -> str:
    return text if full or len(text) <= width else text[: width - 1] + "…"


def _usage(record: state.Record) -> dict[str, str]:
    from sysbox.cli.stats_rows import report

    return report(usage_of(record))


def _health_of(record: state.Record, status: state.Status) -> str:
    """starting, healthy, unhealthy, or "" without checks."""
    known = health.status(record) if status.pid else None
    return known.status if known else ""


def row(record: state.Record, status: state.Status, now: float, *, full: bool) -> dict[str, Any]:
    """Everything that a column or a template may show."""
    labels = record.spec.labels
    command = " ".join(record.argv).replace("\n", " ")
    mounts = [mount.source or mount.target for mount in record.spec.mounts if mount.kind != "tmpfs"]
    ports = state.network(record)[2] if status.state == "running" and record.spec.ports else ()
    return {
        "ID": record.id if full else record.id[:12],
        "Image": record.spec.image,
        "Command": f'"{_shorten(command, _COMMAND_WIDTH, full=full)}"',
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(record.created)),
        "RunningFor": f"{human_duration(now - record.created)} ago",
        "Ports": ports_text(ports),
        "State": status.state,
        "Status": status_text(status, now, _health_of(record, status)),
        "Names": record.name,
        "Labels": ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
        "Label": lambda key: labels.get(key, ""),
        "Mounts": ",".join(_shorten(mount, 15, full=full) for mount in mounts),
        "Networks": record.spec.namespaces.network.partition(":")[0],
        "LocalVolumes": str(sum(mount.kind == "volume" for mount in record.spec.mounts)),
        "Slice": names.check_slice(record.spec.slice),
    }
