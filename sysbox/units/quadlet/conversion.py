"""The command of a service and the keys of its unit file, while a declaration is read. Pure."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.units import syntax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.sources import Source
    from sysbox.units.quadlet.units import Declared, Service

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/@%+,=-")


class Conversion:
    """What one declaration becomes, as it is found."""

    def __init__(self, source: Source, declared: Declared, launcher: str) -> None:
        """`launcher` is sysbox as a word of a command line. Raises FormatError."""
        self.source = source
        self.launcher = launcher
        self.section = declared.section(source)
        self.declared = declared
        self.verb = ""  # of sysbox, which makes or starts it
        self.words: list[str] = []  # after the verb
        self.image = ""  # the container's, one of the words
        # when the service is started: healthy, container (its payload says so), or "" once its command runs
        self.ready = ""
        self.more: list[Service] = []  # further units
        self.installs = True  # [Install] of the file is the service's
        self.unit: list[tuple[str, str]] = []  # keys of [Unit]
        self._needed: set[tuple[str, str]] = set()  # (how, service): what it starts after
        self.service: list[tuple[str, str]] = []  # keys of [Service]

    def needs(self, key: str, name: str, how: str = "Requires") -> None:
        """Start after the service of another declaration; with BindsTo, end with it. Raises FormatError."""
        try:
            unit = self.declared.service_of(name)
        except FormatError as error:
            raise self.section.wrong(key, error.message, error.hint) from None
        if unit == self.declared.service_of(self.source.name):
            raise self.section.wrong(key, f"{name} is this file")
        if (how, unit) not in self._needed:
            self._needed.add((how, unit))
            self.unit += [(how, unit), ("After", unit)]

    def path(self, text: str) -> str:
        """A path of the host; a relative one is relative to the file."""
        if text.startswith(("./", "../")) or text == ".":
            above = self.source.path.rpartition("/")[0]
            above = syntax.escape_specifiers(above).replace("$", "$$")
            return f"{above}/{text.removeprefix('./')}"
        return text

    def mounts(self, path: str) -> None:
        """Wait for what is mounted on the way to a path of the host."""
        if path.startswith(("/", "%")):
            # no variables are expanded there
            self.unit.append(("RequiresMountsFor", syntax.quote(path.replace("$$", "$"))))

    def command(self, *words: str) -> str:
        """A command line of sysbox; its specifiers and variables are systemd's to expand."""
        return " ".join([self.launcher, *map(word, words)])


def word(text: str) -> str:
    """A word of a command line or of a list, in quotes where it needs them."""
    plain = text and not set(text) - _PLAIN
    return text if plain else syntax.quote(text)
