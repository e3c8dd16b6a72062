"""The flags of instructions: which there are, and what their values may be."""

from __future__ import annotations

from sysbox.base.suggest import did_you_mean
from sysbox.build import words
from sysbox.build.errors import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.build.lexer import Statement

TEXT, SWITCH, MANY = "text", "switch", "many"
_COPYING = {"chmod": TEXT, "chown": TEXT, "exclude": MANY, "link": SWITCH}
_OF = {
    "ADD": {**_COPYING, "checksum": TEXT, "keep-git-dir": SWITCH, "unpack": SWITCH},
    "COPY": {**_COPYING, "from": TEXT, "parents": SWITCH},
    "FROM": {"platform": TEXT},
    "HEALTHCHECK": dict.fromkeys(
        ("interval", "retries", "start-interval", "start-period", "timeout"), TEXT
    ),
    "RUN": {"mount": MANY, "network": TEXT, "security": TEXT},
}
_TRUE = ("1", "t", "T", "true", "TRUE", "True")  # Go's strconv.ParseBool
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Given:
    """The flags that a statement has, by name, and where its arguments begin."""

    def __init__(self, statement: Statement) -> None:
        self._statement = statement
        found, self.end = words.flags(statement.text, statement.escape)
        self._values: dict[str, list[str]] = {}
        self._offsets: dict[str, int] = {}
        kinds = _OF.get(statement.keyword, {})
        for offset, name, value in found:
            kind = kinds.get(name, "")
            self._check(offset, name, value, kind)
            self._values.setdefault(name, []).append("true" if value is None else value)
            self._offsets.setdefault(name, offset)

    def _check(self, offset: int, name: str, value: str | None, kind: str) -> None:
        statement = self._statement
        kinds = _OF.get(statement.keyword, {})
        if not kind:
            known = ", ".join(f"--{one}" for one in sorted(kinds)) or "it has none"
            hint = did_you_mean(name, kinds).replace("'", "--", 1).replace("'", "")
            what = f"{statement.keyword} has no flag {quoted('--' + name)}"
            raise statement.error(offset, what, hint or f"valid: {known}")
        if value is None and kind != SWITCH:
            raise statement.error(offset, f"--{name} needs a value: --{name}=VALUE")
        if value is not None and kind == SWITCH and value not in (*_TRUE, *_FALSE):
            raise statement.error(offset, f"--{name}={quoted(value)}: must be true or false")
        if value == "" and kind == TEXT and name != "platform":
            raise statement.error(offset, f"--{name} needs a value: --{name}=VALUE")
        if name in self._values and kind != MANY:
            raise statement.error(offset, f"--{name} is given twice")

    def text(self, name: str) -> str:
        """The value of a flag; "" where it is not given."""
        return self._values.get(name, [""])[0]

    def many(self, name: str) -> tuple[str, ...]:
        """All values of a flag that may be repeated."""
        return tuple(self._values.get(name, ()))

    def on(self, name: str) -> bool | None:
        """A switch; None where it is not given."""
        return self.text(name) in _TRUE if name in self._values else None

    def offset(self, name: str) -> int:
        """Where a flag is."""
        return self._offsets.get(name, 0)


def truth(text: str) -> bool | None:
    """A boolean as Go's strconv.ParseBool reads it; None for any other text."""
    return True if text in _TRUE else False if text in _FALSE else None
