"""Parse `-v`, `--mount`, `--tmpfs` and `--device`; see `parse/common.py`."""

from __future__ import annotations

from sysbox.base.suggest import suggest
from sysbox.parse.common import (
    absolute,
    bad,
    check_name,
    clean_path,
    is_digits,
    parse_size,
)
from sysbox.spec import Device, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PROPAGATION = ("rprivate", "private", "rslave", "slave", "rshared", "shared")
_FLAGS = ("nosuid", "suid", "nodev", "dev", "noexec", "exec")
_ACCESS_TIMES = ("noatime", "relatime", "strictatime", "nodiratime")
_HUGE = ("never", "always", "within_size", "advise")  # tmpfs(5)
_RELABEL = ("z", "Z")
_RELABELS = {"shared": "z", "private": "Z"}  # podman's words in --mount
_MAPPING = ("idmap", "noidmap", "U")
# docker's hints for other platforms, and rbind, the default
_IGNORED = ("cached", "delegated", "consistent", "rbind")


def _target(text: str, flag: str, whole: str) -> str:
    if not text.startswith("/") or "\0" in whole:
        bad(flag, whole, f"{text or 'the target'} must be an absolute path in the container")
    path = clean_path(text)
    if path == "/":
        bad(flag, whole, "the root itself cannot be mounted over")
    if path in ("/proc", "/sys"):
        bad(
            flag, whole, f"the kernel's own {path} cannot be mounted over", "something below it can"
        )
    return path


def parse_mount_v(text: str, flag: str) -> Mount:
    """`[SOURCE:]TARGET[:OPTIONS]`: a bind mount, a named volume, or without SOURCE an anonymous volume."""
    parts = text.split(":")
    if len(parts) > 3 or "\0" in text:
        bad(flag, text, "not [SOURCE:]TARGET[:OPTIONS]")
    source = parts[0] if len(parts) > 1 else ""
    target = _target(parts[1] if len(parts) > 1 else parts[0], flag, text)
    if len(parts) > 1 and not source:
        bad(flag, text, "the source is empty")
    is_path = source.startswith(("/", "./", "../")) or source in (".", "..")
    kind = "bind" if is_path else "volume"
    if is_path:
        source = absolute(source)
    elif "/" in source:
        bad(flag, text, f"{source} is not a volume name", f"for a host path write ./{source}")
    elif source:
        check_name(source, flag)
    mount = Mount(kind=kind, target=target, source=source, create=is_path)
    for option in parts[2].split(",") if len(parts) > 2 else ():
        mount = _with_option(mount, option, flag, text)
    return mount


def _with_option(mount: Mount, option: str, flag: str, text: str) -> Mount:
    if option in ("ro", "rw"):
        return mount.replace(read_only=option == "ro")
    if option == "nocopy":
        return mount.replace(copy_up=False)
    if option == "bind":
        return mount.replace(recursive=False)
    if option in _IGNORED:
        return mount
    if option in _MAPPING or option.startswith("idmap="):
        return _with_mapping(mount, option, flag, text)
    if option not in PROPAGATION + _FLAGS + _RELABEL:
        known = ("ro", "rw", "nocopy", *PROPAGATION, *_FLAGS, *_RELABEL, *_MAPPING)
        bad(flag, text, f"unknown option {option or '(empty)'}", suggest(option, known))
    return mount.replace(options=(*mount.options, option))


def _with_mapping(mount: Mount, option: str, flag: str, whole: str) -> Mount:
    """`idmap`, `idmap=uids=...;gids=...`, `noidmap` or `U`; the last three exclude each other."""
    if option.startswith("idmap="):
        from sysbox.parse.mount_ids import parse_idmap  # few containers need it

        parse_idmap(option[6:], flag, whole)
    known = [one for one in mount.options if one.partition("=")[0] in _MAPPING]
    for other in known:
        if other != option and {other, option} != {"idmap", "U"}:
            bad(flag, whole, f"{other} and {option} exclude each other")
    return mount if option in known else mount.replace(options=(*mount.options, option))


_ALIASES = {
    "source": "src", "destination": "dst", "target": "dst", "ro": "readonly",
    "propagation": "bind-propagation", "u": "chown", "rw": "readwrite",
}  # fmt: skip
_KEYS = (
    "type", "src", "dst", "readonly", "bind-propagation", "bind-nonrecursive", "volume-nocopy",
    "tmpfs-size", "tmpfs-mode", "consistency", "idmap", "chown", "readwrite", "relabel",
)  # fmt: skip
_BARE = (
    "readonly",
    "readwrite",
    "bind-nonrecursive",
    "volume-nocopy",
    "idmap",
    "chown",
)  # without =: true
_ONLY_FOR = {
    "bind-propagation": "bind", "bind-nonrecursive": "bind", "volume-nocopy": "volume",
    "tmpfs-size": "tmpfs", "tmpfs-mode": "tmpfs",
}  # fmt: skip


# keys of docker that sysbox lacks -> what to do instead
_KEYS_LATER = {
    "volume-opt": "`sysbox volume create -o` makes a volume with options",
    "volume-driver": "the driver is `local`",
    "volume-label": "`sysbox volume create --label` sets it", "volume-subpath": "mount the whole volume",
    "image-subpath": "", "bind-create-src": "`-v` makes a missing source directory",
    "bind-recursive": "bind-nonrecursive leaves out what is mounted below",
}  # fmt: skip
_TYPES_LATER = ("image", "npipe", "cluster")


def _fields(text: str, flag: str) -> dict[str, str]:
    """The key=value pairs; a field in double quotes may contain commas, and quotes as "" (RFC 4180)."""
    fields: dict[str, str] = {}
    rest = text
    while rest:
        if rest.startswith('"'):
            field, rest = _quoted(rest[1:], flag, text)
        else:
            field, _, rest = rest.partition(",")
        key, equals, value = field.partition("=")
        key = _ALIASES.get(key.lower(), key.lower())
        if key in _KEYS_LATER:
            bad(flag, text, f"{key} is not supported yet", _KEYS_LATER[key])
        if key == "z":
            bad(
                flag,
                text,
                f"unknown key {key}",
                "relabel=shared is the z of -v, relabel=private its Z",
            )
        if key not in _KEYS:
            bad(flag, text, f"unknown key {key or '(empty)'}", suggest(key, (*_KEYS, *_ALIASES)))
        if key in fields:
            bad(flag, text, f"{key} is given twice")
        if not equals and key not in _BARE:
            bad(flag, text, f"{key} needs a value")
        fields[key] = value if equals else "true"
    return fields


def _quoted(rest: str, flag: str, text: str) -> tuple[str, str]:
    """The rest of a field whose opening quote has been read, and the text after its comma."""
    field = ""
    while True:
        part, quote, rest = rest.partition('"')
        field += part
        if not quote or rest[:1] not in ('"', ",", ""):
            bad(flag, text, "an unbalanced quote", 'inside of quotes write "" for one quote')
        if rest[:1] != '"':
            return field, rest[1:]
        field += '"'
        rest = rest[1:]


def _truth(text: str, key: str, flag: str, whole: str) -> bool:
    if text.lower() in ("true", "1"):
        return True
    if text.lower() not in ("false", "0"):
        bad(flag, whole, f"{key}={text} is not true or false")
    return False


def parse_mount(text: str, flag: str) -> Mount:
    """docker's `type=bind|volume|tmpfs,src=,dst=,readonly,...`; the type is volume by default."""
    fields = _fields(text, flag)
    kind = fields.get("type", "volume")
    if kind in _TYPES_LATER:
        bad(flag, text, f"type={kind} is not supported yet", "bind, volume or tmpfs")
    if kind not in ("bind", "volume", "tmpfs"):
        bad(flag, text, f"unknown type {kind}", "bind, volume or tmpfs")
    for key, only in _ONLY_FOR.items():
        if key in fields and kind != only:
            bad(flag, text, f"{key} is only for type={only}")
    source = fields.get("src", "")
    if kind == "bind":
        if not source:
            bad(flag, text, "a bind mount needs src=")
        source = absolute(source)
    elif kind == "tmpfs" and source:
        bad(flag, text, "a tmpfs has no src=")
    elif source:
        check_name(source, flag)
    mount = Mount(
        kind=kind,
        target=_target(fields.get("dst", ""), flag, text),
        source=source,
        read_only=_read_only(fields, flag, text),
        options=_mount_options(fields, flag, text),
        recursive=not _truth(
            fields.get("bind-nonrecursive", "false"), "bind-nonrecursive", flag, text
        ),
        copy_up=not _truth(fields.get("volume-nocopy", "false"), "volume-nocopy", flag, text),
    )
    for option in _mapping_options(fields, flag, text):
        if kind == "tmpfs":
            bad(flag, text, f"a tmpfs has no {option}", "`--tmpfs` has uid= and gid=")
        mount = _with_mapping(mount, option, flag, text)
    return mount


def _read_only(fields: dict[str, str], flag: str, text: str) -> bool:
    """Of `readonly`, or podman's `rw`. Raises SpecError."""
    found = _truth(fields.get("readonly", "false"), "readonly", flag, text)
    if "readwrite" not in fields:
        return found
    writes = _truth(fields["readwrite"], "rw", flag, text)
    if "readonly" in fields and writes == found:
        bad(flag, text, "readonly and rw exclude each other")
    return not writes


def _mapping_options(fields: dict[str, str], flag: str, text: str) -> Iterator[str]:
    """The words of `-v` for idmap and chown."""
    value = fields.get("idmap", "")
    if value.startswith(("uids=", "gids=")):
        yield f"idmap={value}"
    elif value:
        yield "idmap" if _truth(value, "idmap", flag, text) else "noidmap"
    if _truth(fields.get("chown", "false"), "chown", flag, text):
        yield "U"


def _mount_options(fields: dict[str, str], flag: str, text: str) -> tuple[str, ...]:
    options = []
    propagation = fields.get("bind-propagation")
    if propagation is not None:
        if propagation not in PROPAGATION:
            bad(flag, text, f"unknown propagation {propagation}", suggest(propagation, PROPAGATION))
        options.append(propagation)
    relabel = fields.get("relabel", "")
    if relabel:
        if relabel not in _RELABELS:
            bad(flag, text, f"relabel={relabel} is unknown", "shared or private")
        options.append(_RELABELS[relabel])
    if fields.get("type") == "tmpfs":
        options += ["nosuid", "nodev", "noexec"]
    if "tmpfs-size" in fields:
        options.append(f"size={parse_size(fields['tmpfs-size'], flag)}")
    if "tmpfs-mode" in fields:
        options.append(_octal_mode(fields["tmpfs-mode"], flag, text))
    return tuple(options)


def _octal_mode(text: str, flag: str, whole: str) -> str:
    if not is_digits(text) or len(text) > 5 or set(text) & {"8", "9"} or int(text, 8) > 0o7777:
        bad(flag, whole, f"{text or 'nothing'} is not an octal mode", "as in 1777")
    return f"mode={text}"


def parse_tmpfs(text: str, flag: str) -> Mount:
    """`TARGET[:OPTIONS]`; nosuid, nodev and noexec are the default, as in docker."""
    target, _, rest = text.partition(":")
    chosen = {"suid": "nosuid", "dev": "nodev", "exec": "noexec"}
    read_only = False
    values: list[str] = []
    for option in rest.split(",") if rest else ():
        key, equals, value = option.partition("=")
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option in _ACCESS_TIMES:
            chosen["atime"] = option
        elif key == "huge" and value in _HUGE:
            values.append(option)
        elif option in _FLAGS:
            chosen[option.removeprefix("no")] = option
        elif key == "size" and value.endswith("%") and is_digits(value[:-1]):
            values.append(option)
        elif key == "size":
            values.append(f"size={parse_size(value, flag)}")
        elif key == "mode":
            values.append(_octal_mode(value, flag, text))
        elif key in ("uid", "gid", "nr_inodes") and is_digits(value):
            values.append(option)
        elif option not in PROPAGATION:  # a new tmpfs has no peers, so propagation has no effect
            if key == "huge" and equals:
                bad(flag, text, f"{value or 'nothing'} is not a mode of huge=", ", ".join(_HUGE))
            known = ("ro", "rw", "size=", "mode=", "uid=", "gid=", "nr_inodes=", "huge=", *_FLAGS)
            bad(flag, text, f"unknown option {option or '(empty)'}", suggest(key + equals, known))
    return Mount(
        kind="tmpfs",
        target=_target(target, flag, text),
        read_only=read_only,
        options=(*chosen.values(), *values),
    )


def parse_device(text: str, flag: str) -> Device:
    """`HOST[:CONTAINER[:rwm]]`, or `HOST:rwm`; whether the device exists is checked at the start."""
    parts = text.split(":")
    source = parts[0]
    target = source
    access = "rwm"
    if len(parts) == 2 and not parts[1].startswith("/"):
        access = parts[1]
    elif len(parts) in (2, 3):
        target = parts[1]
        access = parts[2] if len(parts) == 3 else access
    if len(parts) > 3 or "\0" in text or not source.startswith("/") or not target.startswith("/"):
        bad(flag, text, "not HOST[:CONTAINER[:rwm]] with absolute paths")
    if not access or set(access) - set("rwm") or len(set(access)) != len(access):
        bad(flag, text, f"{access or 'nothing'} is not an access", "some of r, w and m")
    return Device(source=clean_path(source), target=clean_path(target), access=access)
