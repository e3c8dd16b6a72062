"""`sysbox unit check|print|install|uninstall|list|cat`: containers that are declared in unit files."""

from __future__ import annotations

from sysbox.cli import unit_errors, unit_verify
from sysbox.cli.each import FAILED_ONE, each
from sysbox.cli.output import emit, line, note, one_line, print_list, report
from sysbox.cli.unit_check import checked, clashes
from sysbox.lifecycle import unit, unit_files
from sysbox.lifecycle.unit_makers import Makers
from sysbox.units.quadlet import cycles, units

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.table.options import Values
    from sysbox.lifecycle.unit_files import Chosen
    from sysbox.units.quadlet.units import Service

_COLUMNS = (
    ("UNIT", "Unit"),
    ("SOURCE", "Source"),
    ("EDITED", "Edited"),
    ("DECLARATION", "Declaration"),
)


def main(values: Values) -> int:
    """0, 1 if one of several is wrong or was not found."""
    return _VERBS[values.verb.name.partition(" ")[2]](values)


def _note_maker(service: Service, chosen: Chosen, makers: Makers) -> None:
    """Say who makes the unit, where sysbox's generator is not the only one."""
    said = "of ordinary users, whose containers sysbox does not start yet"
    if chosen.of_users or (said := makers.note(service)):
        note(f"{service.source.path}: {said}")


def _check(values: Values) -> int:
    """Without files: all that there are."""
    status, count = 0, 0
    told: set[str] = set()
    makers = Makers()
    for chosen in unit_files.chosen(values.file) if values.file else unit_files.everything():
        services = chosen.services()
        count += len(services)
        for service in services:
            path = service.source.path
            if makers.only_podmans(service):  # sysbox cannot tell what is wrong in it
                note(f"{path}: {makers.note(service)}")
                continue
            errors = unit_errors.errors_of(service, chosen.declared)
            for error in errors:
                cycle = error.message.partition(f": {cycles.SAID}")[2]
                if cycle not in told:
                    report(error)
                told.update({cycle} - {""})  # all units of a cycle say the same
                status = FAILED_ONE
            if not errors:
                line(f"{path}: {service.unit}")
                if unit.is_outdated(service):
                    note(f"{path}: {service.unit} was installed of it as it was: install it again")
            _note_maker(service, chosen, makers)
        for text in clashes(services) if not chosen.of_users else ():
            note(one_line(text))
        if _note_ignored(services):
            status = FAILED_ONE
    if not count:
        note("there are no declarations: sysbox-unit-check(1) says where they would be")
    return status


def _note_ignored(services: list[Service]) -> bool:
    """Say what systemd ignores; whether it refuses a unit."""
    refused = False
    for text, fatal in unit_verify.notes(services):
        note(one_line(text))
        refused = refused or fatal
    for text in unit_verify.misplaced(services):
        note(one_line(text))
    return refused


def _print(values: Values) -> int:
    for service in unit_files.made(values.file):
        emit(units.text(checked(service), unit.launcher(), install=True) + "\n", 1)
    return 0


def _install(values: Values) -> int:
    services = [checked(one) for one in unit_files.made(values.file)]
    changed = unit.install(services, force=values.force)
    _note_ignored(services)
    for service in services:
        line(service.unit)
    for name in changed:
        note(f"{name} runs as it was: `systemctl restart {name}`")
    return 0


def _uninstall(values: Values) -> int:
    gone: set[str] = set()

    def remove(name: str) -> None:
        if unit.full_name(name) not in gone:  # else it was made of the same file as one before
            gone.update(unit.uninstall(name, force=values.force))

    return each(values.unit, remove, line)


def _list(values: Values) -> int:
    found = unit.installed()
    now = unit_files.state_of(found)
    rows = [
        {
            "Unit": one.unit,
            "Source": one.source,
            "Edited": "yes" if one.edited else "no",
            "Declaration": now[one.unit],
        }
        for one in found
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
