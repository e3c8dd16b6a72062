"""Parse security values: capabilities, sysctls, rlimits, --security-opt."""

from __future__ import annotations

from sysbox.base.suggest import nearest, suggest
from sysbox.parse.common import NAME, bad, is_digits
from sysbox.parse.seccomp import parse_profile
from sysbox.spec import Security, Ulimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ULIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack".split()
)


def parse_ulimit(text: str, flag: str) -> Ulimit:
    """`NAME=SOFT[:HARD]`, in the units of setrlimit(2); -1 or "unlimited" is no limit."""
    name, equals, limits = text.partition("=")
    if not equals:
        bad(flag, text, "not NAME=SOFT[:HARD]", "as in nofile=1024:4096")
    if name not in _ULIMITS:
        bad(flag, text, f"unknown limit {name}", suggest(name, _ULIMITS))
    soft_text, colon, hard_text = limits.partition(":")
    soft = _ulimit(soft_text, flag, text)
    hard = _ulimit(hard_text, flag, text) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        bad(flag, text, "the soft limit is above the hard one")
    return Ulimit(name=name, soft=soft, hard=hard)


def _ulimit(number: str, flag: str, text: str) -> int:
    if number in ("-1", "unlimited"):
        return -1
    if not is_digits(number) or len(number) > 18:  # at most 18 digits stay below 2^63
        bad(flag, text, f"{number or 'nothing'} is not a limit", "a whole number, or -1")
    return int(number)


def parse_cap(text: str, flag: str) -> str:
    """A capability's name in upper case without CAP_ ("sys-admin" is SYS_ADMIN), or ALL."""
    name = text.upper().replace("-", "_").removeprefix("CAP_")
    if name == "ALL":
        return name
    from sysbox.linux import capability

    if name not in capability.NAMES:
        bad(flag, text, "unknown capability", suggest(name, capability.NAMES))
    last = capability.last_cap()
    if capability.number(name) > last:
        hint = f"its last one is {capability.NAMES[last]}: leave out {flag} {text}"
        bad(flag, text, "this kernel has no such capability", hint)
    return name


_SECURITY_OPTS = (
    "no-new-privileges", "seccomp=", "label=", "mask=", "unmask=", "proc-opts=", "systempaths=", "apparmor=",
    "landlock=",
)  # fmt: skip
# option that needs a value -> what it takes
_VALUES = {
    "landlock": "landlock=on or landlock=off",
    "systempaths": "systempaths=unconfined",
    "seccomp": "seccomp=default, unconfined, record:FILE, the name of a profile, or a file",
    "apparmor": "apparmor=unconfined, or the name of a profile",
    "label": "label=disable, nested, or a part of a label, as in label=type:container_t",
    "mask": "mask=PATH[:PATH...]",
    "unmask": "unmask=ALL, or unmask=PATH[:PATH...]",
    "proc-opts": "proc-opts=OPTION[,OPTION...], as in proc-opts=hidepid=2",
}
# parts of an SELinux label -> an example
_LABEL_PARTS = {
    "user": "as in user:system_u",
    "role": "as in role:system_r",
    "type": "as in type:container_t",
    "level": "as in level:s0:c1,c2",
    "filetype": "as in filetype:container_file_t",
}
# proc(5), "Mount options"
_HIDEPID = ("0", "1", "2", "4", "off", "noaccess", "invisible", "ptraceable")
_ON, _OFF = ("1", "t", "true"), ("0", "f", "false")
_LONGEST_PROFILE = 1024  # characters: what is written to the kernel fits into a page
_OWN = ("/", "/dev", "/proc", "/sys", "/sys/fs")  # what a start needs itself


def parse_security_opts(texts: Iterable[str], flag: str) -> Security:
    """The fields of Security that `--security-opt` sets; docker's old "key:value" is accepted too."""
    security = Security()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            key, _, value = text.partition(":")
        if key == "no-new-privileges":
            security = security.replace(no_new_privileges=_is_on(value, flag, text))
        elif key == "seccomp" and value:
            security = security.replace(seccomp=parse_profile(value, flag, text))
        elif key == "label" and value:
            security = security.replace(label=(*security.label, _label(value, flag, text)))
        elif key == "mask" and value:
            security = security.replace(mask=security.mask + _masked(value, flag, text))
        elif key == "unmask" and value:
            security = security.replace(unmask=security.unmask + _unmasked(value, flag, text))
        elif key == "proc-opts" and value:
            security = security.replace(proc_options=_proc_options(value, flag, text))
        elif key == "landlock" and value in ("on", "off"):
            security = security.replace(landlock=value == "on")
        elif (key, value) == ("systempaths", "unconfined"):
            security = security.replace(unmask=("ALL",))
        elif key == "apparmor" and value:
            security = security.replace(apparmor=_profile(value, flag, text))
        elif values := _VALUES.get(key):
            bad(
                flag,
                text,
                f"'{value}' is not a value of {key}" if value else "it lacks a value",
                values,
            )
        else:
            bad(flag, text, "unknown option", _nearest_option(key))
    return security


def _is_on(value: str, flag: str, text: str) -> bool:
    """docker's booleans; without a value it is on."""
    if value.lower() not in ("", *_ON, *_OFF):
        bad(flag, text, "not true or false")
    return value.lower() not in _OFF


def _nearest_option(key: str) -> str:
    """A hint for an unknown option, whatever its value is."""
    options = {one.rstrip("="): one for one in _SECURITY_OPTS}
    near = nearest(key, options)
    return f"did you mean {options[near]}?" if near else suggest("", _SECURITY_OPTS)


def _profile(value: str, flag: str, text: str) -> str:
    """The name of an AppArmor profile, as the kernel could have it; whether it has it, the plan asks."""
    if not value.isprintable() or value != value.strip() or len(value) > _LONGEST_PROFILE:
        bad(
            flag, text, "not the name of a profile", "unconfined, or a name that aa-status(8) shows"
        )
    return value


def _label(value: str, flag: str, text: str) -> str:
    """disable, nested, or a part of a label: KEY:VALUE."""
    if value in ("disable", "nested"):
        return value
    key, colon, part = value.partition(":")
    if key not in _LABEL_PARTS:
        bad(
            flag,
            text,
            "no such option of a label",
            suggest(key, ("disable", "nested", *_LABEL_PARTS)),
        )
    allowed = NAME | {"."} | ({":", ","} if key == "level" else set())
    if not colon or not part or not allowed.issuperset(part):
        bad(flag, text, f"'{part}' is no {key} of a label", _LABEL_PARTS[key])
    return value


def _masked(value: str, flag: str, text: str) -> tuple[str, ...]:
    found = tuple(_path(one, flag, text) for one in value.split(":"))
    for one in found:
        if one in _OWN:
            bad(flag, text, f"{one} cannot be masked", "name what is to be hidden below it")
        # no file has such a name: it would hide nothing, and nobody would notice
        if {"*", "?", "["} & set(one):
            bad(flag, text, f"'{one}' is a pattern, and only unmask= takes these", "name each path")
        _check_separators(one, flag, text)
    return found


def _check_separators(path: str, flag: str, text: str) -> None:
    """Refuse several paths that are written as one."""
    if ",/" in path or " /" in path:
        bad(
            flag,
            text,
            f"'{path}' is one path",
            "colons separate paths, as in /proc/keys:/sys/firmware",
        )


def _unmasked(value: str, flag: str, text: str) -> tuple[str, ...]:
    """Patterns of paths, or ALL."""
    from sysbox.base import patterns

    found = []
    for one in value.split(":"):
        if one.upper() == "ALL":
            found.append("ALL")
            continue
        try:
            patterns.check(one)
        except ValueError as error:
            bad(flag, text, f"{one} is not a pattern: {error}", "as in /proc/* or /proc/[ak]*")
        _check_separators(one, flag, text)
        found.append(_path(one, flag, text))
    return tuple(found)


def _path(path: str, flag: str, text: str) -> str:
    """An absolute path in the container, without the slashes at its end."""
    if path[:1] != "/" or "\0" in path or {".", ".."} & set(path.split("/")):
        bad(flag, text, f"'{path}' is not an absolute path", "as in /proc/keys:/sys/firmware")
    return path.rstrip("/") or "/"


def _proc_options(value: str, flag: str, text: str) -> tuple[str, ...]:
    """The options of procfs that have an effect in a mount of its own, and only there."""
    options = tuple(value.split(","))
    for one in options:
        name, _, what = one.partition("=")
        known = (
            (name == "hidepid" and what in _HIDEPID)
            or (name == "gid" and is_digits(what) and len(what) <= 10 and int(what) < (1 << 32) - 1)
            or one == "subset=pid"
        )
        if not known:
            hint = f"hidepid={'|'.join(_HIDEPID)}, gid=GID, subset=pid: proc(5)"
            bad(flag, text, f"'{one}' is not an option of /proc", hint)
    return options


def parse_sysctl(text: str, flag: str) -> tuple[str, str]:
    """(name with dots, value) of "net.ipv4.ip_forward=1"; the planner checks which sysctls may be set."""
    name, equals, value = text.partition("=")
    if not equals or not name or not (NAME | {"/"}).issuperset(name) or "\0" in value:
        bad(flag, text, "not KEY=VALUE")
    return (name.replace("/", ".") if "." not in name else name), value
