"""Values as Go's text/template sees them."""

from __future__ import annotations

from sysbox.docker.shapes import NullPointer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NO_VALUE = object()  # the value of a pipeline without a result


def go_string(value: Any) -> str:
    """A value as Go's %v prints it."""
    if value is None or value is NO_VALUE:
        return "<no value>" if value is None else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return go_float(value)
    if isinstance(value, dict):
        shown = (
            f"{key}:{_nested(value[key])}" for key in sorted(value) if not callable(value[key])
        )
        return "map[" + " ".join(shown) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(_nested(one) for one in value) + "]"
    return str(value)


def plain(value: Any) -> Any:
    """The value; None (Go's nil) for a null pointer."""
    return None if isinstance(value, NullPointer) else value


def _nested(value: Any) -> str:
    return "<nil>" if value is None else go_string(value)


def go_float(value: float) -> str:
    """The fewest digits that mean this number; with an exponent below 0.0001 and from a million on (%g)."""
    if value - value != 0:
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    size = abs(value)
    if size == 0 or 1e-4 <= size < 1e6:
        return repr(value).removesuffix(".0")
    sign, text = ("-" if value < 0 else ""), repr(size)
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    power = int(exponent or "0") + len(whole) - 1
    digits = (whole + fraction).rstrip("0")
    rest = f".{digits[1:]}" if digits[1:] else ""
    return f"{sign}{digits[0]}{rest}e{'-' if power < 0 else '+'}{abs(power):02}"


def type_name(value: Any) -> str:
    """Go's name of the type."""
    for kind, name in ((bool, "bool"), (int, "int"), (float, "float64"), (str, "string")):
        if isinstance(value, kind):
            return name
    if isinstance(value, dict):
        return "map[string]interface {}"
    return "[]interface {}" if isinstance(value, list | tuple) else "interface {}"


def truth(value: Any) -> bool:
    """Go's rule: false, 0, nil and empty values are false."""
    return value is not NO_VALUE and bool(value)
