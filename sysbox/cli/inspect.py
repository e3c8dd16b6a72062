"""`sysbox inspect`: everything about containers or images, in docker's shape."""

from __future__ import annotations

from sysbox import state
from sysbox.cli.output import emit, print_inspect
from sysbox.errors import NotFound, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.options import Values


def main(values: Values) -> int:
    """0; 1 when something is missing: what was found is printed all the same, `[]` for nothing."""
    if values.type not in (None, "container", "image"):
        raise UsageError(f"--type {values.type}: unknown type", hint="container or image")
    found: list[dict[str, Any]] = []
    missing = []
    for name in values.name:
        try:
            found.append(_object(name, values.type))
        except NotFound:
            missing.append(name)
    if found or not values.format:
        print_inspect(found, values.format)
    for name in missing:
        emit(f"Error: no such {values.type or 'object'}: {name}\n", 2)
    return 1 if missing else 0


def _object(name: str, kind: str | None) -> dict[str, Any]:
    if kind != "image":
        try:
            record = state.find(name)
        except NotFound:
            if kind:
                raise
        else:
            from sysbox.cli import inspect_data

            return inspect_data.container(record)
    from sysbox.cli.image_inspect import describe

    return describe(name)
