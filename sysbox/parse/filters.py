"""Parse `--filter KEY=VALUE` of the verbs that list or prune."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.base.suggest import suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


_REFUSED = 1  # docker's exit status for a filter with an unknown key or value
TRUTH = {"true": True, "1": True, "false": False, "0": False}
_SPECIAL = frozenset("^$.*+?[](){}|\\")  # in a regular expression


def split(text: str, keys: tuple[str, ...]) -> tuple[str, str]:
    """The key and the value. Raises UsageError for a text without "=", and for a key not in `keys`."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--filter {text}: not KEY=VALUE", hint=f"keys: {', '.join(keys)}")
    if key not in keys:
        raise invalid_filter(text, f"unknown key {key}", suggest(key, keys))
    return key, value


def grouped(
    texts: Iterable[str],
    keys: tuple[str, ...],
    checks: Mapping[str, Callable[[str], str]] = {},
) -> dict[str, list[str]]:
    """Key -> its values, each as the key's check returns it. Raises UsageError, and what a check raises."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, value = split(text, keys)
        found.setdefault(key, []).append(checks[key](value) if key in checks else value)
    return found


def invalid_filter(text: str, reason: str, hint: str = "") -> UsageError:
    """The error for an invalid filter."""
    return UsageError(f"--filter {text}: {reason}", hint=hint, status=_REFUSED)


def parse_bool(key: str, value: str) -> bool:
    """A boolean as docker's filters write it: true, 1, false, 0. Raises UsageError."""
    if value not in TRUTH:
        raise invalid_filter(f"{key}={value}", "not true or false")
    return TRUTH[value]


def check_bool(key: str, value: str) -> str:
    """The value, if it is a boolean. Raises UsageError."""
    parse_bool(key, value)
    return value


def check_choice(key: str, value: str, choices: tuple[str, ...]) -> str:
    """The value, if it is one of `choices`. Raises UsageError, whose hint names the nearest."""
    if value not in choices:
        raise invalid_filter(f"{key}={value}", f"unknown {key}", suggest(value, choices))
    return value


def matches_pattern(key: str, pattern: str, text: str) -> bool:
    """docker's rule for names and ids: a regular expression that matches anywhere. Raises UsageError."""
    if not _SPECIAL & set(pattern):
        return pattern in text  # the usual case, without importing `re`
    import re

    try:
        return re.search(pattern, text) is not None
    except re.error as error:
        raise invalid_filter(f"{key}={pattern}", str(error)) from None


def has_label(labels: Mapping[str, str], want: str) -> bool:
    """Whether `labels` has the key of `want`, "KEY" or "KEY=VALUE", and with "=" that value."""
    key, equals, value = want.partition("=")
    return key in labels and (not equals or labels[key] == value)
