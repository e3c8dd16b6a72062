"""RUN --mount: its value as a record (Dockerfile reference, "RUN --mount")."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.suggest import suggest
from sysbox.build.errors import quoted
from sysbox.build.flags import truth
from sysbox.build.model import RunMount
from sysbox.parse.common import is_digits, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_KEYS = {
    "bind": "from rw source target",
    "cache": "from gid id mode ro rw sharing source target uid",
    "tmpfs": "size target",
    "secret": "env gid id mode required source target uid",
    "ssh": "gid id mode required target uid",
}
_ALIASES = {
    "dst": "target", "destination": "target", "src": "source",
    "readonly": "ro", "readwrite": "rw",
}  # fmt: skip
_SWITCHES = ("ro", "rw", "required")
# of SELinux, for podman's users: what is mounted is a copy in sysbox's own storage
_IGNORED = ("z", "relabel", "u", "bind-propagation")
_SHARING = ("shared", "private", "locked")


class MountError(ValueError):
    """What is wrong with a value, and a hint."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


def parse(value: str, expand: Callable[[str], str] | None = None) -> RunMount:
    """The mount that a flag's value says.

    Without `expand`, keys whose value has a variable keep their default, and what depends on them is not
    checked. Raises MountError.
    """
    given, deferred = _given(value, expand)
    kind = given.pop("type", "bind").lower()
    if kind not in _KEYS:
        raise MountError(f"type={quoted(kind)}: there is no such mount", suggest(kind, _KEYS))
    if not deferred:
        _check(kind, given)
    return _record(kind, given)


def _given(value: str, expand: Callable[[str], str] | None) -> tuple[dict[str, str], bool]:
    """The keys with their values, each under its usual name; whether some are not known yet."""
    given: dict[str, str] = {}
    deferred = False
    for field in _fields(value):
        key, equals, text = field.partition("=")
        key = _ALIASES.get(key.lower(), key.lower())
        if key in _IGNORED:
            continue
        known = {"type", "ro", *" ".join(_KEYS.values()).split()}
        if key not in known:
            raise MountError(f"unknown key {quoted(key)}", suggest(key, known))
        if not equals and key not in _SWITCHES:
            raise MountError(f"{quoted(field)} needs a value: {key}=VALUE")
        if key in given:
            raise MountError(f"{key} is given twice")
        if expand is not None:
            text = expand(text)
        elif "$" in text and key != "from":  # the planner replaces those
            deferred = True
            continue
        given[key] = text if equals else "true"
    return given, deferred


def _fields(value: str) -> list[str]:
    """The fields of one line of CSV (RFC 4180), as encoding/csv of Go reads it."""
    fields, at = [], 0
    while at <= len(value):
        if value[at : at + 1] != '"':
            end = value.find(",", at)
            end = len(value) if end < 0 else end
            fields.append(value[at:end])
            at = end + 1
            continue
        letters = []
        at += 1
        while True:
            end = value.find('"', at)
            if end < 0:
                raise MountError('a " that is not closed')
            letters.append(value[at:end])
            at = end + 2
            if value[end + 1 : end + 2] != '"':
                break
            letters.append('"')
        if value[end + 1 : end + 2] not in ("", ","):
            raise MountError('a " in the middle of a field')
        fields.append("".join(letters))
    return fields


def _check(kind: str, given: dict[str, str]) -> None:
    """Raises MountError for keys that this kind of mount does not have, or lacks."""
    for key in given:
        # whether it is read-only can be said of any of them, as in BuildKit
        if key not in (*_KEYS[kind].split(), "ro", "rw"):
            raise MountError(f"a mount of type {kind} has no {key}", f"valid: {_KEYS[kind]}")
    if kind == "secret":
        if not any(given.get(key) for key in ("id", "source", "target")):
            raise MountError("a secret needs an id=")
        if "id" in given and "source" in given:
            raise MountError("a secret has an id= or a source=, not both")


def _record(kind: str, given: dict[str, str]) -> RunMount:
    fields: dict[str, Any] = {
        key: given[key] for key in ("target", "source", "id", "env") if given.get(key)
    }
    if kind not in ("secret", "ssh"):
        fields.setdefault("target", ".")
    if kind == "secret":
        target = given.get("target", "").rstrip("/")
        fields["id"] = given.get("id") or given.get("source") or target.rpartition("/")[2]
        fields.pop("source", None)
    elif kind == "ssh":
        fields.setdefault("id", "default")
    read_only = kind in ("bind", "secret", "ssh")
    if "ro" in given:
        read_only = _truth("ro", given["ro"])
    if "rw" in given:
        read_only = not _truth("rw", given["rw"])
    if "sharing" in given:
        fields["sharing"] = given["sharing"].lower()
        if fields["sharing"] not in _SHARING:
            hint = suggest(fields["sharing"], _SHARING)
            raise MountError(f"sharing={quoted(given['sharing'])}: there is no such mode", hint)
    for key in ("uid", "gid"):
        if key in given:
            fields[key] = _number(key, given[key], 10)
    if "mode" in given:
        fields["mode"] = _number("mode", given["mode"], 8)
    return RunMount(
        kind=kind,
        origin=given.get("from", ""),
        read_only=read_only,
        size=_size(given["size"]) if "size" in given else 0,
        required=_truth("required", given.get("required", "false")),
        **fields,
    )


def _truth(key: str, text: str) -> bool:
    found = truth(text)
    if found is None:
        raise MountError(f"{key}={quoted(text)}: must be true or false")
    return found


def _number(key: str, text: str, base: int) -> int:
    """An id, or a mode in octal digits."""
    highest = 0o7777 if base == 8 else (1 << 32) - 2
    digits = is_digits(text) and len(text) <= 11 and (base == 10 or not {*text} & {"8", "9"})
    number = int(text, base) if digits else -1
    if not 0 <= number <= highest:
        what = "a mode in octal digits, as in 0400" if base == 8 else f"from 0 to {highest}"
        raise MountError(f"{key}={quoted(text)}: must be {what}")
    return number


def _size(text: str) -> int:
    try:
        return parse_size(text, "size")
    except SpecError as error:
        raise MountError(error.message, error.hint) from None
