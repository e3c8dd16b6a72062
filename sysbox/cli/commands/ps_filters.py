"""The filters of `sysbox ps`: docker's, and `slice`."""

from __future__ import annotations

from sysbox.base.errors import NotFound, SysboxError
from sysbox.container import store
from sysbox.container.status import read_networks
from sysbox.docker.known_images import KnownImages, exposed_ports
from sysbox.lifecycle.current import health_of, mount_name
from sysbox.netns.network import BUILTIN
from sysbox.parse.common import is_digits, parse_int
from sysbox.parse.filters import (
    check_bool,
    check_choice,
    grouped,
    has_label,
    invalid_filter,
    matches_pattern,
    parse_bool,
)
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sysbox.container.records import Record, Status

KEYS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name",
    "network", "pod", "publish", "since", "slice", "status", "volume",
)  # fmt: skip
_STATES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_HEALTH = ("none", "starting", "healthy", "unhealthy")
_PROTOCOLS = ("tcp", "udp", "sctp")
_PORT_MAX = 65535
_DIGEST_PREFIX = 4  # fewest digits of an image's id that `ancestor` takes

Filters = dict[str, list[str]]


def parse(texts: list[str]) -> Filters:
    """KEY=VALUE pairs by key.

    Raises UsageError for a key or a value that ps does not know, NotFound for a container in before or since.
    """
    return grouped(texts, KEYS, _CHECKS)


def _created_ns(name: str) -> str:
    try:
        return str(store.find(name).created_ns)
    except NotFound as error:
        raise NotFound(error.message, hint=error.hint, status=1) from None


def _exit_status(value: str) -> str:
    parse_int(value, "--filter exited=", 0, 255)
    return value


def _ports(key: str) -> Callable[[str], str]:
    def check(value: str) -> str:
        _port_range(key, value)
        return value

    return check


_CHECKS: dict[str, Callable[[str], str]] = {
    "before": _created_ns,
    "since": _created_ns,
    "exited": _exit_status,
    "expose": _ports("expose"),
    "publish": _ports("publish"),
    "health": lambda value: check_choice("health", value, _HEALTH),
    "is-task": lambda value: check_bool("is-task", value),
    "slice": lambda value: names.check_slice(value, "--filter slice"),
    "status": lambda value: check_choice("status", value, _STATES),
}


def _port_range(key: str, text: str) -> tuple[int, int, str]:
    """(first, last, protocol) of PORT[-PORT][/PROTOCOL]; tcp by default. Raises UsageError."""
    numbers, _, protocol = text.partition("/")
    first, dash, last = numbers.partition("-")
    ends = (first, last if dash else first)
    if (
        not all(is_digits(one) and len(one) <= 5 and int(one) <= _PORT_MAX for one in ends)
        or (protocol or "tcp") not in _PROTOCOLS
    ):
        raise invalid_filter(f"{key}={text}", "not PORT[-PORT][/PROTOCOL]")
    return int(ends[0]), int(ends[1]), protocol or "tcp"


def _any_port(key: str, text: str, ports: Iterable[tuple[int, str]]) -> bool:
    first, last, wanted = _port_range(key, text)
    return any(first <= number <= last and protocol == wanted for number, protocol in ports)


def matches(record: Record, status: Status, filters: Filters, images: KnownImages) -> bool:
    """docker's rule: each key must match, by any of its values; of `label` all values must match."""
    tests = _tests(record, status, images)
    for key, wanted in filters.items():
        if key == "label":
            if not all(has_label(record.spec.labels, want) for want in wanted):
                return False
        elif not any(tests[key](want) for want in wanted):
            return False
    return True


def _tests(record: Record, status: Status, images: KnownImages) -> dict[str, Callable[[str], bool]]:
    return {
        "ancestor": lambda want: _of_image(want, record),
        "before": lambda want: record.created_ns < int(want),
        "since": lambda want: record.created_ns > int(want),
        "exited": lambda want: status.state == "exited" and status.exit_code == int(want),
        "expose": lambda want: _any_port("expose", want, _exposed(record, images)),
        "publish": lambda want: _any_port("publish", want, _published(record)),
        "health": lambda want: (health_of(record, status) or "none") == want,
        "id": lambda want: matches_pattern("id", want, record.id),
        "is-task": lambda want: not parse_bool("is-task", want),
        # docker's names begin with a slash, which scripts may leave out
        "name": lambda want: (
            matches_pattern("name", want, record.name)
            or matches_pattern("name", want, f"/{record.name}")
        ),
        "network": lambda want: _on_network(want, record),
        "pod": lambda want: _in_pod(want, record),
        "slice": lambda want: names.is_below(record.spec.slice, want),
        "status": lambda want: status.state == want,
        "volume": lambda want: want in _mounted(record),
    }


def _in_pod(want: str, record: Record) -> bool:
    """Whether it is in the pod of this name or id."""
    if not record.spec.pod:
        return False
    from sysbox.container import pods

    try:
        return record.spec.pod == pods.resolve(want)
    except SysboxError:
        return False


def _exposed(record: Record, images: KnownImages) -> Iterable[tuple[int, str]]:
    for text in exposed_ports(record, images):
        number, _, protocol = text.partition("/")
        if is_digits(number):
            yield int(number), protocol or "tcp"


def _published(record: Record) -> Iterable[tuple[int, str]]:
    """(port on the host, protocol): those of the current run, else those that were asked for."""
    for port in read_networks(record)[1] or record.spec.ports:
        if port.is_chosen:
            yield port.host_port, port.protocol


def _on_network(want: str, record: Record) -> bool:
    """Whether it is on a network of this name or id."""
    mode = record.spec.namespaces.network
    if mode not in BUILTIN:
        return False
    names = {one.network for one in record.spec.networks} or {mode}
    return want in names or any(want == _network_id(name) for name in names)


def _network_id(name: str) -> str:
    if name in BUILTIN:
        return BUILTIN[name]
    from sysbox.netns import networks

    try:
        return networks.load(name).id
    except SysboxError:
        return ""  # it was removed


def _mounted(record: Record) -> set[str]:
    """The names of its volumes, the sources of its bind mounts, and where either is mounted."""
    mounts = [one for one in record.spec.mounts if one.kind != "tmpfs"]
    return {one.target for one in mounts} | {mount_name(record, one) for one in mounts}


def _of_image(want: str, record: Record) -> bool:
    digest = record.image_id.removeprefix("sha256:")
    known = (record.image_name, record.spec.image)
    return (
        want in known
        or f"{want}:latest" in known
        or (len(want) >= _DIGEST_PREFIX and digest.startswith(want.removeprefix("sha256:")))
    )
