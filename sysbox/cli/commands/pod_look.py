"""`sysbox pod ps` and `pod inspect`."""

from __future__ import annotations

from sysbox.cli.each import inspect_each
from sysbox.cli.output import print_list, warn
from sysbox.container import pods
from sysbox.docker import pod as shown
from sysbox.lifecycle.repair import repaired
from sysbox.parse.filters import check_choice, grouped, has_label, matches_pattern

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.docker.pod import Seen

_COLUMNS = (
    ("POD ID", "ID"),
    ("NAME", "Name"),
    ("STATUS", "Status"),
    ("CREATED", "Created"),
    ("# OF CONTAINERS", "NumberOfContainers"),
    ("PORTS", "Ports"),
)
_HEADERS = {
    **{key: header for header, key in _COLUMNS},
    "Id": "POD ID",
    "Labels": "LABELS",
    "Networks": "NETWORKS",
    "Cgroup": "SLICE",
    "ExitPolicy": "EXIT POLICY",
}
_FILTERS = ("id", "label", "name", "network", "status")
_STATES = tuple(map(str.lower, shown.STATES))
_CHECKS: dict[str, Callable[[str], str]] = {
    "status": lambda value: check_choice("status", value, _STATES)
}


def main(values: Values) -> int:
    """0; 1 if one of several could not be found."""
    return _list(values) if values.verb.name == "pod ps" else _inspect(values)


def _list(values: Values) -> int:
    wanted = grouped(values.filter, _FILTERS, _CHECKS)
    seen = (
        shown.see(one, repaired)
        for one in sorted(pods.all_pods(warn), key=lambda one: -one.created_ns)
    )
    rows = [shown.row(one, full=values.no_trunc) for one in seen if _matches(one, wanted)]
    quiet = "ID" if values.quiet else ""
    print_list(rows, _COLUMNS, headers=_HEADERS, format=values.format, quiet=quiet)
    return 0


def _matches(seen: Seen, wanted: dict[str, list[str]]) -> bool:
    pod = seen.pod
    tests: dict[str, Callable[[str], bool]] = {
        "id": lambda want: matches_pattern("id", want, pod.id),
        "name": lambda want: matches_pattern("name", want, pod.name),
        "network": lambda want: want in shown.networks_of(pod),
        "status": lambda want: want == seen.state.lower(),
    }
    labels = wanted.get("label", [])
    return all(has_label(pod.spec.labels, want) for want in labels) and all(
        any(test(want) for want in wanted[key]) for key, test in tests.items() if key in wanted
    )


def _inspect(values: Values) -> int:
    def describe(word: str) -> dict[str, Any]:
        return shown.describe(shown.see(pods.find(word), repaired))

    return inspect_each(values.pod, describe, values.format)
