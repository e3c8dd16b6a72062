"""`sysbox explain`: each limit as asked, as a property and in the kernel, and who set it."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.base.suggest import suggest
from sysbox.base.visible import YELLOW
from sysbox.cli.commands.explain_rows import rows
from sysbox.cli.output import print_fitted
from sysbox.container import store
from sysbox.lifecycle.repair import repaired
from sysbox.units.limits import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.commands.explain_rows import Row
    from sysbox.cli.table.options import Values

DRIFT = 3  # exit status
_COLUMNS = (
    ("LIMIT", "Limit"),
    ("ASKED", "Asked"),
    ("PROPERTY", "Property"),
    ("FILE", "File"),
    ("NOW", "Now"),
    ("SET BY", "SetBy"),
)


def main(values: Values) -> int:
    """0; 3 if a property and the kernel's file disagree, or something else has written the file."""
    record = store.find(values.container)
    found = rows(record, repaired(record).pid)
    if values.limit:
        found = _chosen(found, values.limit)
    print_fitted(
        [_cells(one) for one in found],
        _COLUMNS,
        headers={key: header for header, key in _COLUMNS},
        format=values.format,
        lead=1,
        titles=True,
        colour=lambda row, key: YELLOW if key == "Now" and row["Drift"] else "",
    )
    return DRIFT if any(one.drift for one in found) else 0


def _chosen(found: list[Row], word: str) -> list[Row]:
    """The rows that `word` names: a flag, a property or a file. Raises UsageError for an unknown one."""
    chosen = [one for one in found if word in one.words or word == one.file]
    if chosen:
        return chosen
    known = {one.flag for one in table.TABLE} | {one.limit for one in found}
    for one in table.TABLE:
        if word in (one.field, one.flag, one.flag[2:]):
            return []  # a limit that this host does not have
    raise UsageError(f"explain: no limit is called {word}", hint=suggest(word, known))


def _cells(one: Row) -> dict[str, str]:
    return {
        "Limit": one.limit,
        "Asked": one.asked or "-",
        "Property": one.property or "-",
        "File": one.file or "-",
        "Now": one.now or "-",
        "SetBy": one.set_by or "-",
        "Drift": one.drift,
    }
