"""`sysbox unit check|print|install|uninstall|list|cat`: containers that are declared in unit files."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.cli.each import FAILED_ONE, each
from sysbox.cli.output import emit, line, print_list, report
from sysbox.cli.unit_check import checked
from sysbox.lifecycle import unit
from sysbox.units.quadlet import generate, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values
    from sysbox.units.quadlet.units import Service

_COLUMNS = (("UNIT", "Unit"), ("SOURCE", "Source"), ("EDITED", "Edited"))


def main(values: Values) -> int:
    """0, 1 if one of several is wrong or was not found."""
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def _note_generator(service: Service) -> None:
    """Say who makes a unit of the file, where podman's generator does."""
    path = generate.podmans()
    if path and generate.is_podmans(service.source.path):
        emit(f"sysbox: {service.source.path}: {path} makes a unit of it, and sysbox does not\n", 2)


def _check(values: Values) -> int:
    status = 0
    for service in unit.made(values.file):
        try:
            line(f"{service.source.path}: {checked(service).unit}")
            _note_generator(service)
        except SysboxError as error:
            report(error)
            status = FAILED_ONE
    return status


def _print(values: Values) -> int:
    for service in unit.made(values.file):
        emit(units.text(checked(service), unit.launcher(), install=True) + "\n", 1)
    return 0


def _install(values: Values) -> int:
    services = [checked(one) for one in unit.made(values.file)]
    unit.install(services, force=values.force)
    for service in services:
        line(service.unit)
    return 0


def _uninstall(values: Values) -> int:
    gone: set[str] = set()

    def remove(name: str) -> None:
        if unit.full_name(name) not in gone:  # else it was made of the same file as one before
            gone.update(unit.uninstall(name, force=values.force))

    return each(values.unit, remove, line)


def _list(values: Values) -> int:
    rows = [
        {"Unit": one.unit, "Source": one.source, "Edited": "yes" if one.edited else "no"}
        for one in unit.installed()
    ]
    headers = {field: title for title, field in _COLUMNS}
    print_list(rows, _COLUMNS, headers=headers, format=values.format)
    return 0


def _cat(values: Values) -> int:
    for name in values.unit:
        emit(unit.find(name).text, 1)
    return 0


_VERBS: dict[str, Callable[[Values], int]] = {
    "check": _check,
    "print": _print,
    "install": _install,
    "uninstall": _uninstall,
    "list": _list,
    "cat": _cat,
}
