"""`sysbox trust show|set`: the policy of this machine about images, as podman's `image trust`."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.cli.output import emit, print_list
from sysbox.image.trust import edit, policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_COLUMNS = (
    ("TRANSPORT", "Transport"),
    ("NAME", "Name"),
    ("TYPE", "Type"),
    ("ID", "ID"),
    ("STORE", "Store"),
)
_HEADERS = {key: header for header, key in _COLUMNS}


def main(values: Values) -> int:
    """0."""
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def _show(values: Values) -> int:
    if values.raw:
        if values.registry or values.format:
            raise UsageError("--raw shows the whole file: it takes no REGISTRY and no --format")
        emit(edit.raw())
        return 0
    rows = edit.rows(policy.load(), values.registry or "")
    print_list(rows, _COLUMNS, headers=_HEADERS, format=values.format)
    return 0


def _set(values: Values) -> int:
    edit.change(values.registry, values.type or "signedBy", values.pubkeysfile)
    return 0


_VERBS = {"show": _show, "set": _set}
