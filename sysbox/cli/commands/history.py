"""`sysbox history`: the steps by which an image was made, as `docker history` shows them."""

from __future__ import annotations

import time

from sysbox.base.errors import SpecError
from sysbox.cli.output import print_list
from sysbox.docker.human import human_duration, human_size
from sysbox.image.history import steps
from sysbox.image.store import Store
from sysbox.parse.time import parse_moment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.image.history import Step

_MISSING = "<missing>"
_WIDTH = 45  # characters of CREATED BY
_COLUMNS = (
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
)
_HEADERS = {**{key: header for header, key in _COLUMNS}, "CreatedAt": "CREATED AT"}


def main(values: Values) -> int:
    """0, whatever was found."""
    store = Store()
    found = steps(store, store.resolve(values.image))
    now = time.time()
    rows = [_row(step, now, full=values.no_trunc, human=values.human) for step in found]
    print_list(
        rows, _COLUMNS, headers=_HEADERS, format=values.format, quiet="ID" if values.quiet else ""
    )
    return 0


def _row(step: Step, now: float, *, full: bool, human: bool) -> dict[str, Any]:
    """One line, under docker's keys."""
    created = _moment(step.created)
    # docker's: the local time with its zone
    at = time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(created))
    at = f"{at[:-2]}:{at[-2:]}" if not at.endswith("+0000") else f"{at[:-5]}Z"
    since = f"{human_duration(now - created)} ago" if created else "N/A"
    by = step.created_by.replace("\t", " ")
    if not full and len(by) > _WIDTH:
        by = f"{by[: _WIDTH - 1]}…"
    shown = step.image_id or _MISSING
    return {
        "ID": shown if full or not step.image_id else shown[7:19],
        "CreatedAt": at,
        "CreatedSince": since if human else at,
        "CreatedBy": by,
        "Size": human_size(step.size) if human else str(step.size),
        "Comment": step.comment,
    }


def _moment(created: str) -> float:
    """Seconds since 1970; 0 if the step does not say, or says the year 1 as some builders do."""
    try:
        return max(parse_moment(created, "created", 0.0), 0.0)
    except SpecError:
        return 0.0
