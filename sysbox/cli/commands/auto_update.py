"""`sysbox auto-update`: newer images for declared containers, and the old ones where those do not start."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.cli.each import FAILED_ONE
from sysbox.cli.output import print_list, report, warn
from sysbox.image.registry.pull import Options
from sysbox.lifecycle import auto_update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.lifecycle.auto_update import Outcome

_COLUMNS = (
    ("UNIT", "Unit"), ("CONTAINER", "Container"), ("IMAGE", "Image"), ("POLICY", "Policy"),
    ("UPDATED", "Updated"),
)  # fmt: skip
_HEADERS = {
    "ContainerID": "CONTAINER ID",
    "ContainerName": "NAME",
    **{key: title for title, key in _COLUMNS},
}
_WELL = ("true", "false", "pending")


def main(values: Values) -> int:
    """0, or 1 if any container was not updated that should have been."""
    options = Options(authfile=values.authfile or "", insecure=not values.tls_verify)
    found = []
    for one in auto_update.update(
        options, dry_run=values.dry_run, rollback=values.rollback, damaged=warn
    ):
        found.append(one)
        if one.error:
            report(_about(one.error, one))
    print_list([_row(one) for one in found], _COLUMNS, headers=_HEADERS, format=values.format)
    return 0 if all(one.updated in _WELL for one in found) else FAILED_ONE


def _about(error: SysboxError, one: Outcome) -> SysboxError:
    """The error with the unit and the image it is about, which a registry's does not name."""
    said = error.message
    if one.unit in said:
        return error
    image = "" if one.image in said else f"{one.image}: "
    return SysboxError(f"{one.unit}: {image}{said}", hint=error.hint)


def _row(one: Outcome) -> dict[str, object]:
    return {
        "Unit": one.unit,
        "Container": f"{one.container[:12]} ({one.name})",
        "ContainerID": one.container,
        "ContainerName": one.name,
        "Image": one.image,
        "Policy": one.policy,
        "Updated": one.updated,
    }
