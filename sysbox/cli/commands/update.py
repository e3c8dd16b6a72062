"""`sysbox update`: change the limits or the restart policy of containers, running or not."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.cli.each import for_each
from sysbox.cli.output import emit
from sysbox.cli.request import limits as limitbuild
from sysbox.cli.table.options import Values
from sysbox.lifecycle import update as updating
from sysbox.lifecycle.update_plan import Change
from sysbox.parse.common import bad
from sysbox.parse.security import parse_ulimit
from sysbox.units.limits import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.store import Record
    from sysbox.spec import RestartPolicy

UNSET = "unset"
_NETWORKS = ("ip_allow", "ip_deny")
# flags for which docker's "no limit", 0 or -1, is a value like any other
_VALUES = {
    "cpu_quota": ("-1",),
    "cpuset_cpus": ("0",),
    "cpuset_mems": ("0",),
    "memory_swap": ("-1",),
    "memory_swappiness": ("0",),
    "net_cls": ("0",),
    "pids": ("-1", "0"),
}


def main(values: Values) -> int:
    """0, 1 if one of them could not be changed."""
    policy = _policy(values.restart)
    change = parse(values, anything=policy is not None or values.kernel_memory is not None)

    def update(record: Record) -> None:
        if policy is not None:
            from sysbox.lifecycle import control  # not needed for a limit

            if not control.set_policy(record, policy):
                emit(f"sysbox: {record.name}: --restart acts from the next start on\n", 2)
        if change == Change():
            return
        for flag in updating.update(record, change):
            emit(f"sysbox: {record.name}: {flag} acts from the next start on\n", 2)

    return for_each(values.container, update)


def _policy(text: str | None) -> RestartPolicy | None:
    if text is None:
        return None
    from sysbox.parse.service import parse_restart

    return parse_restart(text, "--restart")


def parse(values: Values, *, anything: bool = False) -> Change:
    """The changes that a command line asks for.

    Raises SpecError, and UsageError if there are none, unless `anything` else changes.
    """
    given = dict(values.__dict__)
    limits: dict[str, Any] = {}  # cleared ones first
    devices: dict[str, tuple[tuple[str, Any], ...]] = {}
    single = []
    for one in table.TABLE:
        dest = one.flag[2:].replace("-", "_")
        text = given[dest]
        if isinstance(text, list):
            given[dest], devices[one.field], everything = _of_list(one.field, text)
            if everything:
                limits[one.field] = ()
        elif text is False or (text is not None and _clears(one.field, text)):
            given[dest] = limits[one.field] = None
        elif text is not None:
            single.append(one.field)
    found = limitbuild.limits(Values(values.verb, given))
    limits |= {field: getattr(found, field) for field in single}
    for field in devices:
        devices[field] += _entries(field, getattr(found, field))
    rules = limitbuild.device_rules(given["device_cgroup_rule"])
    devices["device_rules"] += tuple((rule.rpartition(" ")[0], rule) for rule in rules)
    ulimits, no_ulimits = _ulimits(given["ulimit"])
    change = Change(
        limits=limits,
        devices={field: entries for field, entries in devices.items() if entries},
        properties=tuple(_property(text) for text in given["property"]),
        ulimits=ulimits,
        no_ulimits=no_ulimits,
        bandwidth=_bandwidth(given["network_bandwidth"]),
        forget=given["forget"],
    )
    if change == Change() and not anything:
        raise UsageError("update: nothing to change", hint="give a limit, --restart or --forget")
    return change


def _bandwidth(text: str | None) -> dict[str, int]:
    if text is None:
        return {}
    from sysbox.parse.bandwidth import parse_change

    return parse_change(text, "--network-bandwidth")


def _entries(field: str, values: tuple[Any, ...]) -> tuple[tuple[str, Any], ...]:
    return tuple((one, one) for one in values) if field in _NETWORKS else values


def _clears(field: str, text: str) -> bool:
    return text in ("", UNSET) or (text in ("0", "-1") and text not in _VALUES.get(field, ()))


def _of_list(field: str, texts: list[str]) -> tuple[list[str], tuple[tuple[str, None], ...], bool]:
    """(entries to set, devices whose entry is removed, whether all earlier entries are removed)."""
    entries: list[str] = []
    gone: list[tuple[str, None]] = []
    everything = False
    none = (UNSET,) if field in ("device_rules", *_NETWORKS) else (UNSET, "-1", "0")
    for text in texts:
        # a size of huge pages has `=` instead of `:`
        device, separator, value = text.rpartition(":" if ":" in text else "=")
        if text == UNSET:
            entries, gone, everything = [], [], True
        elif separator and value in none:
            if field in _NETWORKS:  # in the form that the record has
                (device,) = limitbuild.networks([device], table.by_field(field).flag)
            gone.append((device, None))
        else:
            entries.append(text)
    return entries, tuple(gone), everything


def _ulimits(texts: list[str]) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    found, gone = {}, []
    for text in texts:
        name, _, value = text.partition("=")
        if value == UNSET:
            # -1 stands for a value, so that the name is checked
            gone.append(parse_ulimit(f"{name}=-1", "--ulimit").name)
        else:
            found[name] = parse_ulimit(text, "--ulimit")
    return tuple(found.values()), tuple(gone)


def _property(text: str) -> tuple[str, str | None]:
    key, equals, value = text.partition("=")
    if not equals or not key.isalnum():
        bad("--property", text, "not KEY=VALUE")
    return key, None if value in ("", UNSET) else value
