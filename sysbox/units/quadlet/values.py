"""The values of one section of a declared unit, as the kinds of its keys say. Pure."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.units import syntax
from sysbox.units.quadlet.keys import ALL, BOOL, ON, ONE, WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.units.quadlet.keys import Key
    from sysbox.units.quadlet.sources import Assignment, Source

TRUE = ("1", "yes", "true", "on", "y", "t")
_FALSE = ("0", "no", "false", "off", "n", "f")


_LIMITED = ("Container", "Pod")
_RAW = ("HealthCmd", "HealthStartupCmd")
_MAY_BE_EMPTY = ("Entrypoint",)  # the image's entry point is not used then; other keys are reset


def is_resource(key: str) -> bool:
    """Whether a key is one of systemd.resource-control(5) that a scope may have."""
    from sysbox.units.limits import allowlist  # few files have such keys here

    return key in allowlist.KEYS and key not in allowlist.OF_THE_SERVICE


class Section:
    """One section of a declared unit. Its methods raise FormatError, which names file, line and key."""

    def __init__(self, source: Source, name: str, keys: Iterable[Key]) -> None:
        """Raises FormatError for a key that the section does not have, or that cannot be honoured."""
        self.name = name
        self.path = source.path
        self.keys = {one.name: one for one in keys}
        self._found: dict[str, list[Assignment]] = {}
        # resource settings (systemd.resource-control(5)): they count as if they were in [Service]
        self.resources: list[tuple[str, str]] = []
        for one in source.assignments:
            if one.section == name:
                self._add(one)

    def _add(self, one: Assignment) -> None:
        where = f"{one.file}:{one.line}: "
        key = self.keys.get(one.key)
        if key is None and self.name in _LIMITED and is_resource(one.key):
            self.resources.append((one.key, one.value))
            return
        if key is None:
            from sysbox.units.quadlet import habits  # few files have a wrong key

            hint = habits.hint(one.key, self.keys, self.name)
            raise FormatError(f"{where}[{self.name}] has no key {one.key}", hint=hint)
        if key.refused:
            raise FormatError(f"{where}{one.key}= is not supported: {key.refused}")
        if "%" in one.value and (wrong := syntax.unknown_specifier(one.value)):
            raise FormatError(
                f"{where}{one.key}=: {wrong} is not a specifier: systemd refuses the unit",
                hint="%% is a % itself",
            )
        if not one.value and key.name not in _MAY_BE_EMPTY:
            self._found.pop(one.key, None)
        else:
            self._found.setdefault(one.key, []).append(one)

    def __contains__(self, name: str) -> bool:
        return name in self._found

    def where(self, name: str) -> str:
        """The place of the last assignment of a key, for an error."""
        last = self._found[name][-1]
        return f"{last.file}:{last.line}: {name}="

    def wrong(self, name: str, reason: str, hint: str = "") -> FormatError:
        """The error for a key that is set."""
        return FormatError(f"{self.where(name)}: {reason}", hint=hint)

    def one(self, name: str) -> str:
        """The last value of a key, "" where it is not set."""
        value = self._found[name][-1].value if name in self._found else ""
        # podman's rule: quotes around the whole value are none of it, but for a command of the shell
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        return value[1:-1] if quoted and name not in _RAW else value

    def all(self, name: str) -> list[str]:
        """Each value of a key."""
        return [one.value for one in self._found.get(name, ())]

    def words(self, name: str) -> list[str]:
        """The words of all values of a key."""
        return [
            word
            for one in self._found.get(name, ())
            for word in syntax.split(one.value, f"{one.file}:{one.line}: {name}=")
        ]

    def pairs(self, name: str) -> list[str]:
        """The words of a key, each NAME=VALUE or NAME; of two with the same name the last one."""
        found: dict[str, str] = {}
        for word in self.words(name):
            left = word.partition("=")[0]
            if not left:
                raise self.wrong(name, f"{word!r} is not NAME=VALUE")
            found[left] = word
        return list(found.values())

    def is_true(self, name: str, *, default: bool = False) -> bool:
        """The value of a key of kind BOOL or ON."""
        text = self.one(name).lower()
        if not text:
            return default
        if text not in TRUE + _FALSE:
            raise self.wrong(name, f"{text!r} is not a boolean", "yes or no")
        return text in TRUE

    def flags(self) -> list[str]:
        """The flags that keys become by themselves, in the order of the table."""
        found: list[str] = []
        for key in self.keys.values():
            if not key.flag or key.name not in self:
                continue
            if key.kind == BOOL:
                found += [key.flag] if self.is_true(key.name) else []
            elif key.kind == ON:
                found += [] if self.is_true(key.name) else [f"{key.flag}=false"]
            else:
                found += [f"{key.flag}={value}" for value in self._values(key)]
        return found

    def _values(self, key: Key) -> list[str]:
        if key.kind == ONE:
            return [self.one(key.name)]
        if key.kind == ALL:
            return self.all(key.name)
        if key.kind == WORDS:
            return self.words(key.name)
        return self.pairs(key.name)
