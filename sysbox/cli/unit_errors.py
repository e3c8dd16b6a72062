"""Every error of a declaration, each with its line and, where that is known, its column.

A conversion ends at the first error. So the line that it names is taken out, or mended where it is clear what
was meant, and the rest is converted again.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError, SysboxError
from sysbox.base.suggest import nearest
from sysbox.cli.unit_check import checked
from sysbox.lifecycle.unit import launcher
from sysbox.units.quadlet import convert, sources, units
from sysbox.units.quadlet.keys import SECTIONS
from sysbox.units.syntax import MAX_ERRORS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.units.quadlet.sources import Assignment, Source
    from sysbox.units.quadlet.units import Declared, Service

# what stands in for the value of a key without which nothing else can be converted
_NEEDED = {"Image": "x", "ImageTag": "x"}
_QUOTES = "'\""


def errors_of(service: Service, declared: Declared) -> list[FormatError]:
    """What is wrong with the declaration of a service, in the order of its lines, up to MAX_ERRORS."""
    search = _Search(service.source, declared)
    error = _error_of(service)
    while error is not None and len(search.found) < MAX_ERRORS and search.take_out(error):
        error = _error_of(search.service(service.unit))
    return sorted(search.found, key=lambda one: _place(one.message))


def _error_of(service: Service | None) -> SysboxError | None:
    try:
        if service is not None:
            checked(service)
    except SysboxError as error:
        return error
    return None


class _Search:
    """The errors so far, and the declarations without them."""

    def __init__(self, source: Source, declared: Declared) -> None:
        self.found: list[FormatError] = []
        self._name = source.name
        self._sources = {**declared.sources, source.name: source}
        self._gone: set[str] = set()  # keys that were taken out: what lacks them now is no error

    def service(self, unit: str) -> Service | None:
        """The unit that the rest becomes."""
        declared = units.Declared(self._sources.values())
        source = self._sources[self._name]
        made = convert.units_of(source, declared, launcher())
        return next((one for one in made if one.unit == unit or one.error), None)

    def take_out(self, error: SysboxError) -> bool:
        """Note an error, and take it out of the declarations; False where that is not possible."""
        source = self._sources[self._name]
        if source.error:
            every = (source.error, *source.more_errors)
            self.found += [_placed(FormatError(one), None) for one in every]
            self._sources[self._name] = source.replace(error="", more_errors=())
            self._gone.update(_NEEDED)
            return bool(source.sections)
        for name, other in self._sources.items():
            for one in other.assignments:
                if error.message.startswith(f"{one.file}:{one.line}: "):
                    self._note(error, one)
                    self._change(name, _Mend(one, error))
                    self._gone.add(one.key)
                    return True
        self._note(error, None)
        return self._mend_section(error) or self._add_needed(source, error)

    def _mend_section(self, error: SysboxError) -> bool:
        """Whether it was about the name of a section, which is that now that was meant, or else is none."""
        for name, source in self._sources.items():
            for title, file, line in source.sections:
                if error.message.startswith(f"{file}:{line}: "):
                    meant = (
                        nearest(title, (source.kind.capitalize(), *units.OTHERS)) or f"X-{title}"
                    )
                    headers = (
                        (meant if one[0] == title else one[0], *one[1:]) for one in source.sections
                    )
                    self._sources[name] = source.replace(sections=tuple(headers))
                    self._change(name, _Rename(title, meant))
                    return True
        return False

    def _note(self, error: SysboxError, one: Assignment | None) -> None:
        text = error.message.partition("=: ")[2] or error.message
        whole = f"{text} {error.hint}"
        if not any(f"{key}=" in whole or f"the {key.lower()} " in whole for key in self._gone):
            self.found.append(_placed(error, one))

    def _change(self, name: str, change: Callable[[Assignment], Assignment | None]) -> None:
        source = self._sources[name]
        rest = tuple(new for one in source.assignments if (new := change(one)) is not None)
        self._sources[name] = source.replace(assignments=rest)

    def _add_needed(self, source: Source, error: SysboxError) -> bool:
        """Whether a key is missing that could be added."""
        for key, value in _NEEDED.items():
            if error.message == f"{source.path}: [{source.kind.capitalize()}] has no {key}=":
                added = sources.Assignment(
                    section=source.kind.capitalize(), key=key, value=value, file=source.path, line=0
                )
                changed = source.replace(assignments=(*source.assignments, added))
                self._sources[self._name] = changed
                return True
        return False


class _Rename:
    """Puts the assignments of one section into another."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def __call__(self, one: Assignment) -> Assignment | None:
        return one.replace(section=self._new) if one.section == self._old else one


class _Mend:
    """Takes the line of an error out, or mends it."""

    def __init__(self, wrong: Assignment, error: SysboxError) -> None:
        self._wrong, self._error = wrong, error

    def __call__(self, one: Assignment) -> Assignment | None:
        return _mended(one, self._error) if one == self._wrong else one


def _mended(one: Assignment, error: SysboxError) -> Assignment | None:
    """The line with the key that was meant, or with another value where it cannot be left out, or None."""
    if "has no key" in error.message:
        meant = nearest(one.key, [key.name for key in SECTIONS.get(one.section, ())])
        return one.replace(key=meant) if meant else None
    key = "Image" if one.key == "Rootfs" else one.key
    return one.replace(key=key, value=_NEEDED[key]) if key in _NEEDED else None


# Columns


def _placed(error: SysboxError, one: Assignment | None) -> FormatError:
    """The error with the column of what it is about, from 1, and in a value of several lines the line."""
    file, line = _place(error.message) if one is None else (one.file, one.line)
    if not line:
        return FormatError(error.message, hint=error.hint)
    lines = _lines(file, line)
    at, column = _found(lines, error.message, one)
    rest = error.message.removeprefix(f"{file}:{line}: ")
    return FormatError(f"{file}:{line + at}:{column}: {rest}", hint=error.hint)


def _place(message: str) -> tuple[str, int]:
    """(file, line) that a message begins with; line 0 where it has none."""
    file, _, rest = message.partition(":")
    number = rest.partition(":")[0]
    return (file, int(number)) if number.isdecimal() else ("", 0)


def _lines(file: str, first: int) -> list[str]:
    """The line, and those in which it goes on."""
    try:
        with open(file, encoding="utf-8", errors="surrogateescape") as opened:
            every = opened.read(sources.MAX_FILE).split("\n")[first - 1 :]
    except OSError:
        return [""]
    count = next((at for at, text in enumerate(every) if not text.rstrip().endswith("\\")), 0)
    return every[: count + 1]


def _found(lines: list[str], message: str, one: Assignment | None) -> tuple[int, int]:
    """(how many lines below the first, column) of what a message quotes, else of the value or the key."""
    begin = len(lines[0]) - len(lines[0].lstrip())
    if one is None or "has no key" in message or "is not supported" in message:
        return 0, begin + 1
    after = lines[0].find("=") + 1
    value = after + len(lines[0][after:]) - len(lines[0][after:].lstrip())
    for word in _quoted(message):
        for at, text in enumerate(lines):
            column = text.find(word, value if at == 0 else 0)
            if column >= 0:
                return at, column + 1
    return 0, value + 1


def _quoted(message: str) -> list[str]:
    """What a message may quote of a value: first words in quotes, then the longer ones of its reason."""
    reason = message.rpartition(": ")[2]
    quoted = [
        part for quote in _QUOTES for part in message.split(quote)[1::2] if part and len(part) < 256
    ]
    plain = [
        word.strip(_QUOTES + ",;") for word in reason.split() if len(word) > 3 or word.isdecimal()
    ]
    return [*quoted, *plain]
