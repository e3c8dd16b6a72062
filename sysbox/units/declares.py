"""Which service declares a container, a pod or a network that is not there, and so makes it."""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.base.files import names, read_file
from sysbox.units import serviceplan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES = (serviceplan.ADMINISTRATORS, *serviceplan.GENERATED)
_SERVICE = ".service"


def hint(name: str, usual: str, command: str = "_unit", verb: str = "start") -> str:
    """What to do where there is no container of that name, else `usual`.

    `command` is _pod for a pod, "network create" for a network; `verb` is systemctl's.
    """
    for unit in _services(name, command):
        return f"it is declared: `systemctl {verb} {unit}` makes it"
    return usual


def _services(name: str, command: str) -> Iterator[str]:
    for place in PLACES:
        for file in names(place):
            if not file.endswith(_SERVICE):
                continue
            try:
                text = (read_file(f"{place}/{file}") or b"").decode("utf-8", "replace")
            except FormatError:
                continue  # ignoring: a link, which is not of sysbox
            for line in text.splitlines():
                if line.startswith("ExecStart=") and f" {command} " in line:
                    yield from _matching(name, file.removesuffix(_SERVICE), line.split())


def _matching(name: str, stem: str, words: list[str]) -> Iterator[str]:
    """The service, or the instance of a template, whose container or pod would have the name."""
    given = [word.removeprefix("--name=") for word in words if word.startswith("--name=")]
    # the name of a pod is the last word
    made = (given or words[-1:])[-1].replace("%N", stem).replace("%p", stem.partition("@")[0])
    before, template, after = made.partition("%i")
    if not template:
        if made == name and not stem.endswith("@"):
            yield stem + _SERVICE
    elif name.startswith(before) and name.endswith(after) and stem.endswith("@"):
        instance = name[len(before) : len(name) - len(after)]
        yield from [f"{stem}{instance}{_SERVICE}"] if instance else []
