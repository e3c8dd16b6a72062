"""Read a seccomp profile in docker's or the OCI runtime specification's JSON.

An unknown key is an error, since a misspelt one would silently weaken the filter. An unknown system call
is not: profiles name calls that are newer than the library.
"""

from __future__ import annotations

import errno
import posix

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError
from sysbox.base.suggest import did_you_mean
from sysbox.security.profile import NOTIFY, Condition, Profile, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TOP = ("defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "flags")
_TOP_KEYS = (*_TOP, "syscalls", "comment", "listenerPath", "listenerMetadata")
_RULE_KEYS = ("names", "name", "action", "errnoRet", "errno", "args") + (
    "includes",
    "excludes",
    "comment",
)
_FILTER_KEYS = ("caps", "arches", "minKernel")
_ARG_KEYS = ("index", "value", "valueTwo", "op")
_MAP_KEYS = ("architecture", "subArchitectures")
_ACTIONS = (
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    NOTIFY,
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
)
_OPERATORS = tuple(f"SCMP_CMP_{op}" for op in ("EQ", "NE", "LT", "LE", "GE", "GT", "MASKED_EQ"))
_TOKENS = (
    ("X86_64", "X86", "X32", "ARM", "AARCH64", "PPC", "PPC64", "PPC64LE", "RISCV64", "S390")
    + ("S390X", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32")
    + ("PARISC", "PARISC64", "LOONGARCH64", "M68K", "SH", "SHEB")
)
_GO_NAMES = {"x86": "386"}
_MAX_ERRNO = 4095  # MAX_ERRNO of the kernel
_MAX_RULES = 4096
_MAX_NAMES = 65536  # in all rules together
_MAX_LISTENER = 107  # bytes: sun_path of unix(7), with a NUL
_MAX_METADATA = 1 << 15  # characters of what is sent to the listener
_KILLABLE = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
# flag -> its bit (linux/seccomp.h); TSYNC has no effect, since the process that loads it has one thread
_FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 0,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 1 << 2,
    _KILLABLE: 1 << 5,
}


def parse(content: bytes, path: str) -> Profile:
    """The profile in a file's content; `path` names it in errors.

    Raises FormatError where it is not strict JSON, SpecError, naming the key, for any other error.
    """
    where = f"seccomp profile {path}"
    data = _object(_document(content, where), _TOP_KEYS, where)
    rules = _items(data, "syscalls", where)
    if len(rules) > _MAX_RULES:
        raise SpecError(f"{where}: syscalls: more than {_MAX_RULES} rules")
    read = [_rule(rule, f"{where}: syscalls[{index}]") for index, rule in enumerate(rules)]
    if sum(len(rule.names) for rule in read if rule) > _MAX_NAMES:
        raise SpecError(f"{where}: syscalls: more than {_MAX_NAMES} names")
    profile = Profile(
        default_action=_choice(data, "defaultAction", _ACTIONS, where),
        default_errno=_errno(data, "defaultErrnoRet", "defaultErrno", where),
        sub_architectures=_architectures(data, where),
        rules=tuple(rule for rule in read if rule),
        flags=_flags(data, where),
        listener=_text(data, "listenerPath", where),
        metadata=_text(data, "listenerMetadata", where),
    )
    _check_listener(profile, where)
    return profile


def _document(content: bytes, where: str) -> Any:
    """The value of strict JSON. Raises FormatError, with line and column where that is what is wrong."""
    try:
        return codec.loads(content, where)
    except FormatError:
        from sysbox.security import json_place

        if said := json_place.why(content):
            raise FormatError(f"{where}: {said}") from None
        raise


def _flags(data: dict[str, Any], where: str) -> int:
    """The bits of seccomp(2)'s flags; null is none, as in runc."""
    bits = 0
    for index, flag in enumerate(_items(data, "flags", where)):
        if not isinstance(flag, str) or flag not in _FLAGS:
            hint = did_you_mean(flag, _FLAGS) if isinstance(flag, str) else ""
            raise SpecError(f"{where}: flags[{index}]: {flag!r} is not supported", hint=hint)
        bits |= _FLAGS[flag]
    return bits


def _text(data: dict[str, Any], key: str, where: str) -> str:
    value = data.get(key)
    if value is None:
        return ""
    if type(value) is not str or len(value) > _MAX_METADATA or "\0" in value:
        raise SpecError(f"{where}: {key}: must be a string of at most {_MAX_METADATA} characters")
    return value


def _check_listener(profile: Profile, where: str) -> None:
    """The rules for SCMP_ACT_NOTIFY, which are runc's too. Raises SpecError.

    Until the listener has its descriptor, nobody answers: write(2) is how that is passed on.
    """
    if profile.default_action == NOTIFY:
        raise SpecError(
            f"{where}: defaultAction: {NOTIFY} cannot be the default",
            hint="name the system calls that the listener answers",
        )
    asks = [rule for rule in profile.rules if rule.action == NOTIFY]
    if any("write" in rule.names for rule in asks):
        raise SpecError(
            f"{where}: write cannot be {NOTIFY}: sysbox needs it to pass the listener on"
        )
    if asks and not profile.listener:
        raise SpecError(f"{where}: {NOTIFY} needs a listenerPath: without it nobody would answer")
    if profile.listener and profile.listener[0] != "/":
        raise SpecError(f"{where}: listenerPath: {profile.listener!r} is not an absolute path")
    if len(profile.listener.encode("utf-8", "surrogateescape")) > _MAX_LISTENER:
        raise SpecError(
            f"{where}: listenerPath: longer than the {_MAX_LISTENER} bytes of a socket's path"
        )
    if profile.flags & _FLAGS[_KILLABLE] and not profile.listener:
        raise SpecError(
            f"{where}: flags: {_KILLABLE} needs a listenerPath: it is about calls that an agent answers"
        )


def _rule(data: Any, where: str) -> Rule | None:
    """One rule; None where its minKernel excludes this kernel."""
    data = _object(data, _RULE_KEYS, where)
    names = _strings(data, "names", where)
    if "name" in data:
        names += _strings({"name": [data["name"]]}, "name", where)
    if not names:
        raise SpecError(f"{where}: names: must not be empty")
    includes = _object(_given(data, "includes"), _FILTER_KEYS, f"{where}.includes")
    excludes = _object(_given(data, "excludes"), _FILTER_KEYS, f"{where}.excludes")
    at_least = _kernel(includes, f"{where}.includes")
    below = _kernel(excludes, f"{where}.excludes")
    running = _running()
    if (at_least and running < at_least) or (below and running >= below):
        return None
    return Rule(
        names=names,
        action=_choice(data, "action", _ACTIONS, where),
        errno=_errno(data, "errnoRet", "errno", where),
        args=tuple(
            _condition(item, f"{where}.args[{index}]")
            for index, item in enumerate(_items(data, "args", where))
        ),
        if_caps=_capabilities(includes, f"{where}.includes"),
        unless_caps=_capabilities(excludes, f"{where}.excludes"),
        if_arches=_arches(includes, f"{where}.includes"),
        unless_arches=_arches(excludes, f"{where}.excludes"),
    )


def _condition(data: Any, where: str) -> Condition:
    data = _object(data, _ARG_KEYS, where)
    return Condition(
        index=_integer(data, "index", 5, where),
        value=_integer(data, "value", 2**64 - 1, where),
        value_two=_integer({"valueTwo": 0, **data}, "valueTwo", 2**64 - 1, where),
        op=_choice(data, "op", _OPERATORS, where),
    )


def _architectures(data: dict[str, Any], where: str) -> dict[str, tuple[str, ...]]:
    """libseccomp's token of a CPU -> the other architectures that its filter covers."""
    plain = tuple(
        _token(name, f"{where}: architectures") for name in _items(data, "architectures", where)
    )
    if plain and data.get("archMap"):
        raise SpecError(f"{where}: archMap: cannot be given with architectures")
    found = {token: tuple(other for other in plain if other != token) for token in plain}
    for index, item in enumerate(_items(data, "archMap", where)):
        here = f"{where}: archMap[{index}]"
        item = _object(item, _MAP_KEYS, here)
        others = _items(item, "subArchitectures", here)
        found[_token(item.get("architecture"), here)] = tuple(_token(one, here) for one in others)
    return found


def _token(name: Any, where: str) -> str:
    token = name.removeprefix("SCMP_ARCH_") if isinstance(name, str) else ""
    if token not in _TOKENS:
        raise SpecError(f"{where}: unknown architecture {name!r}")
    return token


def _capabilities(data: dict[str, Any], where: str) -> tuple[str, ...]:
    return tuple(name.upper().removeprefix("CAP_") for name in _strings(data, "caps", where))


def _arches(data: dict[str, Any], where: str) -> tuple[str, ...]:
    return tuple(_GO_NAMES.get(name, name) for name in _strings(data, "arches", where))


def _kernel(data: dict[str, Any], where: str) -> tuple[int, int] | None:
    text = data.get("minKernel") or ""
    if not text:
        return None
    parts = text.split(".") if isinstance(text, str) else []
    if len(parts) != 2 or not all(
        part.isascii() and part.isdecimal() and len(part) < 6 for part in parts
    ):
        raise SpecError(f"{where}.minKernel: must be VERSION.REVISION, not {text!r}")
    return int(parts[0]), int(parts[1])


def _running() -> tuple[int, int]:
    """The kernel's version and revision."""
    return _release(posix.uname().release)


def _release(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    digits = ""
    for letter in rest:
        if not letter.isdecimal():
            break
        digits += letter
    return int(major), int(digits or "0")


def _object(data: Any, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    if type(data) is not dict:
        raise SpecError(f"{where}: must be an object, not {_kind(data)}")
    for key in data:
        if key not in keys:
            raise SpecError(f"{where}: unknown key '{key}'", hint=did_you_mean(key, keys))
    return data


def _kind(value: Any) -> str:
    """What JSON calls a value that is not what it should be."""
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "a string", bool: "true or false"}
    return kinds.get(type(value), "a number")


def _given(data: dict[str, Any], key: str) -> Any:
    return {} if data.get(key) is None else data[key]


def _items(data: dict[str, Any], key: str, where: str) -> list[Any]:
    """A list; null is an empty one, as in docker's own profile."""
    value = data.get(key)
    if value is None:
        return []
    if type(value) is not list:
        raise SpecError(f"{where}: {key}: must be a list, not {_kind(value)}")
    return value


def _strings(data: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    values = _items(data, key, where)
    for value in values:
        if type(value) is not str or not value.isascii() or not value.replace("_", "a").isalnum():
            raise SpecError(f"{where}: {key}: {value!r} is not a name")
    return tuple(values)


def _choice(data: dict[str, Any], key: str, values: tuple[str, ...], where: str) -> str:
    value = data.get(key)
    if value is None:
        raise SpecError(f"{where}: {key}: is missing", hint=f"one of {', '.join(values)}")
    if value not in values:
        hint = did_you_mean(value, values) if isinstance(value, str) else ""
        raise SpecError(f"{where}: {key}: {value!r} is not supported", hint=hint)
    return str(value)


def _integer(data: dict[str, Any], key: str, highest: int, where: str) -> int:
    value = data.get(key)
    if type(value) is not int or not 0 <= value <= highest:
        raise SpecError(f"{where}: {key}: must be an integer from 0 to {highest}")
    return value


def _errno(data: dict[str, Any], key: str, name_key: str, where: str) -> int | None:
    """An errno, from its number or else its name; containers-common writes both."""
    name = data.get(name_key)
    if name is not None and not (type(name) is str and hasattr(errno, name) and name[:1] == "E"):
        raise SpecError(f"{where}: {name_key}: {name!r} is not the name of an errno")
    if data.get(key) is not None:
        return _integer(data, key, _MAX_ERRNO, where)
    return None if name is None else int(getattr(errno, name))
