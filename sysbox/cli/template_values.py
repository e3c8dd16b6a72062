"""Values as Go's text/template sees them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_VALUE = object()  # what a pipeline without a result gives


def go_string(value: Any) -> str:
    """A value as Go's %v prints it."""
    if value is None or value is NO_VALUE:
        return "<no value>" if value is None else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}" if value != int(value) or abs(value) >= 1e21 else str(int(value))
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{_nested(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_nested(one) for one in value) + "]"
    return str(value)


def _nested(value: Any) -> str:
    return "<nil>" if value is None else go_string(value)


def type_name(value: Any) -> str:
    """What Go would call the type."""
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string")):
        if isinstance(value, kind):
            return name
    return "[]interface {}" if isinstance(value, list | tuple) else "interface {}"


def truth(value: Any) -> bool:
    """Go's rule: false, 0, nil and what is empty are false."""
    return value is not NO_VALUE and bool(value)
