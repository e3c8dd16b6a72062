"""`sysbox volume create|ls|inspect|rm`."""

from __future__ import annotations

from sysbox.base.errors import Conflict, NotFound, Unsupported, UsageError, in_use
from sysbox.cli import standing
from sysbox.cli.each import each, exists, inspect_each
from sysbox.cli.output import emit, line, print_list
from sysbox.container import events
from sysbox.docker import volume
from sysbox.fs import volume_options, volumes
from sysbox.lifecycle import prune
from sysbox.parse.common import check_name
from sysbox.parse.filters import check_bool, grouped, has_label, matches_pattern, parse_bool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.fs.volume_options import VolumeOptions

_COLUMNS = (("DRIVER", "Driver"), ("VOLUME NAME", "Name"))
_HEADERS = {
    "Driver": "DRIVER",
    "Name": "VOLUME NAME",
    "Labels": "LABELS",
    "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT",
    "Scope": "SCOPE",
    "Size": "SIZE",
}
_FILTERS = ("dangling", "name", "label", "driver")
_CHECKS: dict[str, Callable[[str], str]] = {"dangling": lambda value: check_bool("dangling", value)}


def main(values: Values) -> int:
    """0, 1 if one of several could not be found or removed."""
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def asked(values: Values) -> tuple[str, dict[str, str], VolumeOptions]:
    """The name, labels and options that the flags of `volume create` ask for. Raises SysboxError."""
    if values.driver not in (None, "local"):
        raise Unsupported(f"--driver {values.driver}: there is no such driver", hint="use local")
    labels = {}
    for text in values.label:
        key, _, value = text.partition("=")
        if not key:
            raise UsageError(f"--label {text}: no key")
        labels[key] = value
    options = volume_options.parse([_with_numbers(text) for text in values.opt])
    name = values.volume or volumes.new_name()
    check_name(name, "volume")
    return name, labels, options


def _create(values: Values) -> int:
    name, labels, options = asked(values)
    if volumes.ensure(name, labels, options):
        events.emit("volume", "create", name, {"driver": "local"})
    elif volume_options.load(name).given != options.given:
        _has_others(name, ignore=values.ignore)
    line(name)
    return 0


def _has_others(name: str, *, ignore: bool) -> None:
    """A volume of that name has other options. Raises Conflict, or with `ignore` says so."""
    if not ignore:
        raise Conflict(f"volume {name} exists with other options", hint="remove it first")
    emit(f"sysbox: volume {name} exists with other options, which it keeps\n", 2)


def _with_numbers(text: str) -> str:
    """An option, where the names of users and groups of the host are replaced by their ids."""
    key, equals, value = text.partition("=")
    if key == "o":
        return f"o={','.join(_with_numbers(word) for word in value.split(','))}"
    if key not in ("uid", "gid") or not value or value.isdecimal():
        return text
    import grp
    import pwd

    try:
        number = pwd.getpwnam(value).pw_uid if key == "uid" else grp.getgrnam(value).gr_gid
    except (KeyError, ValueError):
        what = "user" if key == "uid" else "group"
        raise UsageError(f"--opt {text}: this machine has no such {what}") from None
    return f"{key}{equals}{number}"


def _list(values: Values) -> int:
    wanted = grouped(values.filter, _FILTERS, _CHECKS)
    users = prune.users_of_volumes(damaged=True)
    rows = [row(name, users) for name in volumes.names() if _matches(name, users, wanted)]
    quiet = "Name" if values.quiet else ""
    print_list(rows, _COLUMNS, headers=_HEADERS, format=values.format, quiet=quiet)
    return 0


def row(name: str, users: dict[str, list[str]]) -> dict[str, Any]:
    """One line of the listing, under docker's keys."""
    labels = volumes.labels(name)
    return {
        "Driver": "local",
        "Labels": ",".join(f"{key}={value}" for key, value in labels.items()),
        "Label": lambda key: labels.get(key, ""),
        "Links": str(len(users.get(name, ()))),
        "Mountpoint": volume_options.place(name),
        "Name": name,
        "Scope": "local",
        "Size": "N/A",
    }


def _matches(name: str, users: dict[str, list[str]], wanted: dict[str, list[str]]) -> bool:
    labels = volumes.labels(name) if "label" in wanted else {}
    if not all(has_label(labels, want) for want in wanted.get("label", [])):
        return False
    if any(parse_bool("dangling", one) == (name in users) for one in wanted.get("dangling", [])):
        return False
    if "name" in wanted and not any(matches_pattern("name", one, name) for one in wanted["name"]):
        return False
    return "local" in wanted.get("driver", ["local"])


def _inspect(values: Values) -> int:
    return inspect_each(values.volume, volume.describe, values.format)


def _exists(values: Values) -> int:
    return exists(volumes.check, values.volume)


def _remove(values: Values) -> int:
    gone: list[str] = []

    def remove(name: str) -> None:
        with volumes.Lock():
            try:
                volumes.check(name)
            except NotFound:
                if not values.force:
                    raise
            else:
                _check_unused(name)
                prune.drop_volume(name)
                gone.append(name)
        line(name)

    status = each(values.volume, remove)
    standing.tell_gone(standing.VOLUME, gone)
    return status


def _check_unused(name: str) -> None:
    """Raises Conflict, FormatError."""
    # the pod first: its containers go with it
    if users := prune.pods_of_volumes().get(name):
        raise in_use(f"volume {name}", users, kind="pod")
    if users := prune.users_of_volumes().get(name):
        raise in_use(f"volume {name}", users)


_VERBS: dict[str, Callable[[Values], int]] = {
    "create": _create,
    "ls": _list,
    "inspect": _inspect,
    "exists": _exists,
    "rm": _remove,
}
