"""`sysbox secret create|ls|inspect|rm`."""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError, Unsupported, UsageError
from sysbox.cli.each import each, exists, inspect_each
from sysbox.cli.output import line, note, print_list, warn
from sysbox.cli.request import secret_value
from sysbox.container import secrets
from sysbox.docker import secret
from sysbox.parse.filters import has_label, matches_pattern, split
from sysbox.parse.process import parse_label
from sysbox.parse.secrets import check_secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values
    from sysbox.container.secrets import Secret

_COLUMNS = (
    ("ID", "ID"),
    ("NAME", "Name"),
    ("DRIVER", "Driver"),
    ("CREATED", "CreatedAt"),
    ("UPDATED", "UpdatedAt"),
)
_HEADERS = {**{key: header for header, key in _COLUMNS}, "Labels": "LABELS"}
_FILTERS = ("id", "label", "name")


def main(values: Values) -> int:
    """0, 1 if one of several could not be found or removed."""
    if posix.geteuid() != 0:
        raise Unsupported("only root can see secrets", hint="run it with sudo")
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def _create(values: Values) -> int:
    name, what = values.secret, f"secret {values.secret}"
    check_secret(name, "secret")
    if values.env:
        value = secret_value.of_variable(values.file, what)
    elif values.file == "-":
        value = secret_value.of_descriptor(posix.dup(0), what)
    else:
        value = secret_value.of_file(values.file, what)
    labels = dict(parse_label(text, "--label") for text in values.label)
    made, reason = secrets.create(name, value, labels, replace=values.replace)
    if reason:
        note(f"secret {name} is kept unencrypted, in a file that root alone can read: {reason}")
    line(made.id)
    return 0


def _list(values: Values) -> int:
    wanted = [split(text, _FILTERS) for text in values.filter]
    damaged: list[FormatError] = []
    found = secrets.all_secrets(damaged)
    rows = [secret.row(one) for one in found if _matches(one, wanted)]
    quiet = "ID" if values.quiet else ""
    print_list(rows, _COLUMNS, headers=_HEADERS, format=values.format, quiet=quiet)
    for error in damaged:
        warn(error)
    return 0


def _matches(one: Secret, wanted: list[tuple[str, str]]) -> bool:
    """As podman: values of one key are alternatives, labels are not."""
    names = [value for key, value in wanted if key == "name"]
    ids = [value for key, value in wanted if key == "id"]
    return (
        all(has_label(one.labels, value) for key, value in wanted if key == "label")
        and (not names or any(matches_pattern("name", value, one.name) for value in names))
        and (not ids or any(one.id.startswith(value) for value in ids))
    )


def _inspect(values: Values) -> int:
    return inspect_each(values.secret, secret.describe, values.format)


def _exists(values: Values) -> int:
    return exists(secrets.find, values.secret)


def _remove(values: Values) -> int:
    if values.all == bool(values.secret):
        raise UsageError("secret rm: name secrets, or give --all", hint="one of the two")

    unused = (name for name in secrets.defined() if not secrets.users_of(name))
    names = list(unused) if values.all else values.secret
    return each(names, secrets.remove, line, ignore=values.ignore)


_VERBS: dict[str, Callable[[Values], int]] = {
    "create": _create,
    "ls": _list,
    "inspect": _inspect,
    "exists": _exists,
    "rm": _remove,
}
