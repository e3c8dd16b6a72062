"""What systemd would ignore in the units of declarations, or refuse: systemd-analyze(1) reads them.

systemd only logs a key that it does not know, or a value that it cannot read, and the unit starts without it.
"""

from __future__ import annotations

import subprocess
import tempfile

from sysbox.base.errors import FormatError
from sysbox.base.files import names, read_file, write_file
from sysbox.base.suggest import nearest
from sysbox.host import exists
from sysbox.lifecycle.unit import launcher
from sysbox.units import serviceplan, syntax
from sysbox.units.quadlet import units
from sysbox.units.quadlet.habits import OF_SYSTEMD
from sysbox.units.quadlet.keys import SECTIONS
from sysbox.units.quadlet.values import is_resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.units.quadlet.sources import Assignment
    from sysbox.units.quadlet.units import Service

_ANALYZE = "/usr/bin/systemd-analyze"
_WORDS = ("verify", "--man=no", "--recursive-errors=no")
_MOST = 60.0  # seconds
# sysbox reads it where systemd does not know it
_READ_HERE = ("ImportCredential",)


def notes(services: Iterable[Service]) -> Iterator[tuple[str, bool]]:
    """What there is to say, and whether systemd refuses the unit for it; nothing without its program."""
    made = {one.unit: one for one in services if not one.error}
    if not made or not exists(_ANALYZE):
        return
    texts = {unit: units.text(one, launcher(), install=True) for unit, one in made.items()}
    with tempfile.TemporaryDirectory(prefix="sysbox-units-") as directory:
        for unit, text in texts.items():
            write_file(f"{directory}/{unit}", text.encode("utf-8", "surrogateescape"), 0o600)
        for said in _analyze(directory, list(texts)):
            place, _, what = said.removeprefix(f"{directory}/").partition(": ")
            unit, _, number = place.partition(":")
            if said.startswith(f"{directory}/") and number.isdecimal():
                yield from _of_line(made[unit], texts[unit], int(number), what)
            elif place in made and what.endswith("Refusing."):
                yield f"{made[place].source.path}: systemd refuses {place}: {what}", True


def misplaced(services: Iterable[Service]) -> Iterator[str]:
    """Sections of declarations in drop-ins of units, as of `systemctl edit`: they do nothing there."""
    for one in services:
        place = f"{serviceplan.ADMINISTRATORS}/{one.unit}.d"
        for name in names(place):
            path = f"{place}/{name}"
            for entry in syntax.entries(_text(path) if name.endswith(".conf") else ""):
                if entry.section in SECTIONS:
                    where = f"{one.source.path}.d/{name}"
                    yield f"{path}:{entry.line}: systemd ignores [{entry.section}]: it counts in {where}"
                    break


def _text(path: str) -> str:
    try:
        return syntax.decode(read_file(path, is_ours=False) or b"")
    except FormatError:
        return ""  # ignoring: systemd says what is wrong with it


def _analyze(directory: str, files: list[str]) -> list[str]:
    """The lines of systemd-analyze(1) about unit files; none where it takes too long."""
    command = [_ANALYZE, *_WORDS, *(f"{directory}/{name}" for name in files)]
    # ":" at the end: the usual directories come after it
    environment = {"SYSTEMD_UNIT_PATH": f"{directory}:", "SYSTEMD_LOG_COLOR": "0", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MOST,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []  # ignoring: what it would say is no error of the declaration
    return done.stderr.decode("utf-8", "replace").splitlines()


def _of_line(service: Service, text: str, number: int, what: str) -> Iterator[tuple[str, bool]]:
    """What is said of one line of a unit file, with the place of the line that it was made of."""
    entry = next((one for one in syntax.entries(text) if one.line <= number <= one.last), None)
    if entry is None or entry.key in _READ_HERE or is_resource(entry.key):
        return
    found = [
        one
        for one in service.source.assignments
        if one.key == entry.key and one.section in (entry.section, service.source.kind.capitalize())
    ]
    where = _place([one for one in found if one.value == entry.value] or found)
    hint = ""
    if what.startswith("Unknown key"):
        near = nearest(entry.key, OF_SYSTEMD)
        # what it knows not yet is written rightly
        hint = f": did you mean {near}?" if near not in ("", entry.key) else ""
    yield f"{where or service.source.path}: systemd: {what}{hint}", False


def _place(found: list[Assignment]) -> str:
    return f"{found[0].file}:{found[0].line}" if found else ""
