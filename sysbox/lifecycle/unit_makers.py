"""Who makes units of the files in podman's directories: podman's generator or sysbox's.

sysbox leaves the files to podman's generator where that is installed. With PodmanFiles=sysbox in sysbox.conf
it makes units of them, too. In either case its own are in the directory that systemd reads first, where
podman's generator writes nothing: no file has two makers, and of two units of one name sysbox's counts.
"""

from __future__ import annotations

from sysbox.host import exists
from sysbox.units import serviceplan
from sysbox.units.quadlet import generate, sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.sources import Source
    from sysbox.units.quadlet.units import Service

# of podman's services; else that of the kind
_SUFFIX = {"container": "", "pod": "-pod", "kube": ""}
_CONF = "PodmanFiles= of sysbox.conf"


def takes_podmans() -> bool:
    """Whether sysbox's units come before those of podman's generator, which is installed.

    Raises FormatError, SpecError, KernelError where sysbox.conf is invalid.
    """
    if not generate.podmans():
        return False
    # not above: the generator runs at each boot, mostly without podman's
    from sysbox.conf.settings import settings

    return settings().podman_files == "sysbox"


def directories() -> tuple[str, ...]:
    """Where the declarations are that sysbox's generator reads. Raises as `takes_podmans`."""
    return generate.directories(takes_podmans=takes_podmans())


def left_to_sysbox() -> list[Source]:
    """The declarations that sysbox's generator makes units of. Raises as `takes_podmans`."""
    return generate.ours(sources.find(directories()))


def left_to_podman(*, takes: bool) -> list[Source]:
    """The declarations that podman's generator reads and sysbox's does not; `takes` is `takes_podmans()`."""
    if not generate.podmans():
        return []
    found = sources.find(sources.PODMANS)
    return [one for one in found if not takes or one.kind in generate.OF_PODMAN]


class Makers:
    """Which generator makes which unit, where podman's is installed."""

    def __init__(self) -> None:
        """Raises as `takes_podmans`."""
        self.podmans = generate.podmans()
        self.takes = takes_podmans()
        self.theirs = _theirs(takes=self.takes)
        found = left_to_sysbox() if self.theirs else []
        self.ours = generate.generate(found, "sysbox").made_of

    def only_podmans(self, service: Service) -> bool:
        """Whether it is of a kind that sysbox refuses, and podman's generator makes a unit of it."""
        source = service.source
        return bool(
            self.podmans and source.kind in generate.OF_PODMAN and generate.is_podmans(source.path)
        )

    def note(self, service: Service) -> str:
        """What to say of a unit that sysbox's generator does not make alone; "" for any other."""
        path, unit = service.source.path, service.unit
        if not self.podmans or exists(f"{serviceplan.ADMINISTRATORS}/{unit}"):
            return ""
        if not generate.is_podmans(path):
            own = dict.fromkeys((unit, *(one for one, of in self.ours.items() if of == path)))
            both = [one for one in own if one in self.theirs]
            return "; ".join(_said(self.podmans, one, self.theirs[one]) for one in both)
        if self.only_podmans(service):
            return f"{self.podmans} makes a unit of it"
        if self.takes:
            return f"sysbox makes a unit of it, in place of that of {self.podmans} ({_CONF})"
        if service.source.kind == sources.SOCKET:
            return f"nobody makes a unit of it: {self.podmans} knows no .socket files"
        said = f"{self.podmans} makes a unit of it, and sysbox does not ({_CONF})"
        twin = self.ours.get(unit, "")
        return f"{said}; systemd takes the {unit} that sysbox makes of {twin}" if twin else said

    def twice(self) -> list[tuple[str, str, str]]:
        """(unit, declaration of sysbox's, declaration of podman's) of those that both make."""
        both = sorted(self.ours.keys() & self.theirs.keys())
        return [(unit, self.ours[unit], self.theirs[unit]) for unit in both]


def of_both(made: dict[str, str], *, takes: bool) -> list[str]:
    """What the generator says of names of units that it has made, and podman's makes too.

    `made` has the path of the declaration by the name, `takes` is as above.
    """
    podmans, theirs = generate.podmans(), _theirs(takes=takes)
    return [
        f"{path}: {_said(podmans, unit, theirs[unit])}"
        for unit, path in made.items()
        if unit in theirs
    ]


def _said(podmans: str, unit: str, twin: str) -> str:
    return f"{podmans} makes {unit} of {twin}, too: systemd takes that of sysbox"


def _theirs(*, takes: bool) -> dict[str, str]:
    """By each name of a unit that only podman's generator is to make, the path of its declaration."""
    found: dict[str, str] = {}
    for one in left_to_podman(takes=takes):
        if one.kind != sources.SOCKET:
            aliases = [
                word
                for line in one.assignments
                if (line.section, line.key) == ("Install", "Alias")
                for word in line.value.split()
            ]
            found |= dict.fromkeys((_unit_of(one), *aliases), one.path)
    return found


def _unit_of(source: Source) -> str:
    """The service that podman's generator makes of a declaration."""
    given = [one.value for one in source.assignments if one.key == "ServiceName" and one.value]
    base, at, instance = source.stem.partition("@")
    stem = f"{base}{_SUFFIX.get(source.kind, f'-{source.kind}')}{at}{instance}"
    return f"{given[-1] if given else stem}.service"
