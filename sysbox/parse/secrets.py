"""Parse `--secret` and the names of secrets; see `parse/common.py`."""

from __future__ import annotations

from sysbox.base.suggest import suggest
from sysbox.parse.common import bad, check_name, clean_path, is_digits
from sysbox.spec import SecretUse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.spec import Mount

DIRECTORY = "/run/secrets"  # where files of secrets are, unless their target is an absolute path
_KEYS = ("type", "target", "uid", "gid", "mode")
_OF_FILES = ("uid", "gid", "mode")
_ID_MAX = (1 << 32) - 2  # (uid_t) -1 is no user


def check_secret(name: str, flag: str) -> str:
    """The name of a secret. Raises SpecError."""
    return check_name(name, flag, shortest=1)


def parse_secrets(
    texts: Iterable[str], mounts: Iterable[Mount], flag: str
) -> tuple[SecretUse, ...]:
    """All secrets of one container, which has these mounts. Raises SpecError where two want one place."""
    found = tuple(parse_secret(text, flag) for text in texts)
    _check_targets(found, mounts, flag)
    return found


def parse_secret(text: str, flag: str) -> SecretUse:
    """podman's `NAME[,type=mount|env][,target=TARGET][,uid=UID][,gid=GID][,mode=MODE]`."""
    name, *rest = text.split(",")
    key, equals, value = name.partition("=")
    if equals and key in ("source", "src"):
        name = value
    fields: dict[str, str] = {}
    for part in rest:
        key, equals, value = part.partition("=")
        if key not in _KEYS:
            bad(flag, text, f"unknown key {key or '(empty)'}", suggest(key, _KEYS))
        if not equals or not value:
            bad(flag, text, f"{key} needs a value")
        if key in fields:
            bad(flag, text, f"{key} is given twice")
        fields[key] = value
    check_secret(name, flag)
    kind = fields.get("type", "mount")
    if kind not in ("mount", "env"):
        bad(flag, text, f"unknown type {kind}", "mount or env")
    target = fields.get("target", name)
    if kind == "env":
        if found := next((key for key in _OF_FILES if key in fields), ""):
            bad(flag, text, f"{found} is only for type=mount")
        if "=" in target or "\0" in target:
            bad(flag, text, f"{target!r} is not the name of a variable")
        return SecretUse(name=name, kind="env", target=target)
    return SecretUse(
        name=name,
        target=_target(target, flag, text),
        uid=_id(fields.get("uid", "0"), flag, text),
        gid=_id(fields.get("gid", "0"), flag, text),
        mode=_mode(fields.get("mode", "444"), flag, text),
    )


def _target(target: str, flag: str, whole: str) -> str:
    if "\0" in whole:
        bad(flag, whole, "a path has no NUL byte")
    if not target.startswith("/"):
        path = clean_path(f"{DIRECTORY}/{target}")
        if not path.startswith(f"{DIRECTORY}/"):
            bad(flag, whole, f"{target} is not a file below {DIRECTORY}")
        return path
    path = clean_path(target)
    if path in ("/", "/proc", "/sys", "/dev", DIRECTORY) or target.endswith("/"):
        bad(flag, whole, f"{target} is not the path of a file")
    return path


def _id(text: str, flag: str, whole: str) -> int:
    if not is_digits(text) or len(text) > 10 or int(text) > _ID_MAX:
        bad(flag, whole, f"{text} is not a number of a user or group")
    return int(text)


def _mode(text: str, flag: str, whole: str) -> int:
    if len(text) > 5 or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        bad(flag, whole, f"{text} is not the mode of a file", "octal, as in 0400")
    return int(text, 8)


def _check_targets(found: tuple[SecretUse, ...], mounts: Iterable[Mount], flag: str) -> None:
    seen: set[tuple[str, str]] = set()
    files = [one.target for one in found if one.kind == "mount"]
    inside = any(is_inside(path) for path in files)
    for one in found:
        if (one.kind, one.target) in seen:
            what = "variable" if one.kind == "env" else "file"
            bad(flag, one.name, f"there is another secret for the {what} {one.target}")
        seen.add((one.kind, one.target))
    for path in files:
        if below := next((one for one in files if one.startswith(f"{path}/")), ""):
            bad(flag, path, f"{below} cannot be below it: it is a file")
    for mount in mounts:
        covers = mount.target in files or (inside and is_inside(f"{mount.target}/"))
        if covers:
            bad(
                flag, "", f"a {mount.kind} is mounted at {mount.target}",
                f"leave it out, or give the secret target=/PATH elsewhere: {DIRECTORY} is a tmpfs",
            )  # fmt: skip


def is_inside(path: str) -> bool:
    """Whether a path is in the directory of secrets."""
    return path.startswith(f"{DIRECTORY}/")
