"""`--filter KEY=VALUE`, as the verbs that list or prune take it."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.base.suggest import suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


_REFUSED = 1  # docker's status for a filter that it understands and does not know
TRUTH = {"true": True, "1": True, "false": False, "0": False}
_SPECIAL = frozenset("^$.*+?[](){}|\\")  # of a regular expression


def split(text: str, keys: tuple[str, ...]) -> tuple[str, str]:
    """The key and the value; raises UsageError for what is no pair, or for a key that is none of `keys`."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--filter {text}: not KEY=VALUE", hint=f"keys: {', '.join(keys)}")
    if key not in keys:
        raise refused(text, f"unknown key {key}", suggest(key, keys))
    return key, value


def refused(text: str, reason: str, hint: str = "") -> UsageError:
    """The error for a filter that cannot be taken."""
    return UsageError(f"--filter {text}: {reason}", hint=hint, status=_REFUSED)


def truth(key: str, value: str) -> bool:
    """A truth value as docker's filters have it; raises UsageError."""
    if value not in TRUTH:
        raise refused(f"{key}={value}", "not true or false")
    return TRUTH[value]


def chosen(key: str, value: str, choices: tuple[str, ...]) -> str:
    """One of `choices`; raises UsageError that names the nearest."""
    if value not in choices:
        raise refused(f"{key}={value}", f"unknown {key}", suggest(value, choices))
    return value


def like(key: str, pattern: str, text: str) -> bool:
    """docker's rule for names and ids: a regular expression that matches anywhere. Raises UsageError."""
    if not _SPECIAL & set(pattern):
        return pattern in text  # as most are
    import re

    try:
        return re.search(pattern, text) is not None
    except re.error as error:
        raise refused(f"{key}={pattern}", str(error)) from None


def labelled(labels: Mapping[str, str], want: str) -> bool:
    """Whether there is a label KEY, or one KEY=VALUE."""
    key, equals, value = want.partition("=")
    return key in labels and (not equals or labels[key] == value)
