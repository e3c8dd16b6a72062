"""`--filter KEY=VALUE`, as the verbs that list or prune take it."""

from __future__ import annotations

from sysbox.errors import UsageError
from sysbox.values import suggest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def split(text: str, keys: tuple[str, ...]) -> tuple[str, str]:
    """The key and the value; raises UsageError for what is no pair, or for a key that is none of `keys`."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"--filter {text}: not KEY=VALUE", hint=f"keys: {', '.join(keys)}")
    if key not in keys:
        raise UsageError(f"--filter {text}: unknown key {key}", hint=suggest(key, keys))
    return key, value


def labelled(labels: Mapping[str, str], want: str) -> bool:
    """Whether there is a label KEY, or one KEY=VALUE."""
    key, equals, value = want.partition("=")
    return key in labels and (not equals or labels[key] == value)
