"""The services that declared units become: which name, which resource, and their text. Pure."""

from __future__ import annotations

from sysbox.base.errors import FormatError, SysboxError
from sysbox.base.frozen import Frozen
from sysbox.base.suggest import did_you_mean, nearest
from sysbox.units import syntax
from sysbox.units.quadlet.keys import SECTIONS
from sysbox.units.quadlet.sources import SOCKET
from sysbox.units.quadlet.values import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.units.quadlet.sources import Source

# sections of a unit file that systemd itself reads, and the one of podman's generator
_SYSTEMD = ("Unit", "Service", "Socket", "Install")
OTHERS = (*_SYSTEMD, "Quadlet")  # what a declaration may have besides its own
_SUFFIX = {
    "container": "",
    "volume": "-volume",
    "network": "-network",
    "image": "-image",
    "build": "-build",
    "pod": "-pod",
}
# files of podman's that are none of sysbox's -> what to write
_INSTEAD = {
    "kube": "write a .pod file, and a .container file for each container of it",
    "artifact": "import the files as an image, and name it in an .image file",
}
_NAMED = {
    "container": "ContainerName",
    "volume": "VolumeName",
    "network": "NetworkName",
    "pod": "PodName",
}
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
_FEW = 200  # declarations: each comparison of names takes time, and all of them may refer to missing ones
NAME_MAX = 255  # bytes, with the suffix
# keys of [Unit] that name units: a declaration stands for its service there
_UNITS = frozenset(
    """After Before BindsTo Conflicts OnFailure OnSuccess PartOf PropagatesReloadTo PropagatesStopTo
    ReloadPropagatedFrom Requires Requisite StopPropagatedFrom Upholds Wants""".split()
)


class Service(Frozen):
    """The service that a declared unit becomes."""

    unit: str  # "web.service"
    source: Source
    unit_keys: tuple[tuple[str, str], ...] = ()
    service_keys: tuple[tuple[str, str], ...] = ()
    verb: str = ""  # of sysbox, which makes or starts what is declared
    words: tuple[str, ...] = ()  # after the verb
    image: str = ""  # the one of the words that is the container's image
    error: str = ""  # why it cannot run: it fails with that when it is started
    section: str = "Service"  # in which `service_keys` are: another kind of unit has its own
    installs: bool = True  # its [Install] is that of the file
    more: tuple[Service, ...] = ()  # further units that the declaration becomes
    declared_by: str = ""  # of a `.socket` file: the path of its container's declaration


class Declared:
    """All declared units: what one of them may refer to."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self.sources = {one.name: one for one in sources}
        self._sections: dict[str, Section] = {}  # by the path of their file
        # not looked for yet
        self._sockets: list[Source] | None = None
        self._containers: dict[str, Source] | None = None

    def source(self, name: str) -> Source:
        """The declaration that `name` refers to; a template for its instance. Raises FormatError."""
        found = self.sources.get(name)
        if found is None:
            stem, _, kind = name.rpartition(".")
            found = self.sources.get(f"{stem.partition('@')[0]}@.{kind}") if "@" in stem else None
        if found is None:
            raise FormatError(f"there is no {name}", hint=self._meant(name))
        return found

    def _meant(self, name: str) -> str:
        """A declaration of the same kind with a similar name."""
        stem, _, kind = name.rpartition(".")
        if len(self.sources) > _FEW:
            return ""
        near = nearest(stem, [one.stem for one in self.sources.values() if one.kind == kind])
        return f"did you mean {near}.{kind}?" if near else ""

    def section(self, source: Source) -> Section:
        """The section that declares its resource. Raises FormatError."""
        title = source.kind.capitalize()
        if title not in SECTIONS:
            raise FormatError(
                f"{source.path}: .{source.kind} files are not supported",
                hint=_INSTEAD.get(source.kind, ""),
            )
        if source.path not in self._sections:
            self._sections[source.path] = Section(source, title, SECTIONS[title])
        return self._sections[source.path]

    def service_of(self, name: str) -> str:
        """The service of the declaration that `name` refers to. Raises FormatError."""
        source = self.source(name)
        section = self.section(source)
        given = section.one("ServiceName")
        if given and not is_valid(f"{given}.service"):
            raise section.wrong("ServiceName", f"{given!r} is not the name of a service")
        stem = name.rpartition(".")[0]
        return f"{given or _service_stem(stem, source.kind)}.service"

    def resource_of(self, name: str) -> str:
        """The container, volume or network of the declaration that `name` refers to. Raises FormatError."""
        source = self.source(name)
        given = self.section(source).one(_NAMED[source.kind])
        return given or f"systemd-{name.rpartition('.')[0].replace('@', '_')}"

    def container_called(self, name: str) -> Source | None:
        """The container whose file or whose service has that name."""
        if self._containers is None:
            self._containers = {}
            for one in self.sources.values():
                if one.kind == "container":
                    self._containers[self._service_name(one)] = one
        return self._containers.get(name) or (
            self.sources.get(name) if name.endswith(".container") else None
        )

    def _service_name(self, container: Source) -> str:
        try:
            return self.service_of(container.name)
        except FormatError:
            return f"{container.stem}.service"  # that service says what is wrong

    def socket_files(self) -> list[Source]:
        """All `.socket` files."""
        if self._sockets is None:
            self._sockets = [one for one in self.sources.values() if one.kind == SOCKET]
        return self._sockets

    def members_of(self, pod: Source) -> list[Source]:
        """The containers of a pod; one whose file is wrong is none."""
        found = []
        for source in self.sources.values():
            try:
                if source.error:
                    continue
                if source.kind == "container" and self.section(source).one("Pod") == pod.name:
                    self.service_of(source.name)
                    found.append(source)
            except FormatError:
                continue
        return found

    def translated(self, source: Source) -> list[tuple[str, str]]:
        """The assignments of its [Unit], with services in place of declarations. Raises FormatError."""
        found = []
        for one in source.assignments:
            if one.section != "Unit":
                continue
            value = one.value
            if one.key in _UNITS:
                value = " ".join(
                    self._unit(word, f"{one.file}:{one.line}") for word in value.split()
                )
            found.append((one.key, value))
        return found

    def _unit(self, word: str, where: str) -> str:
        if word.rpartition(".")[2] not in _SUFFIX:
            return word
        try:
            return self.service_of(word)
        except FormatError as error:
            raise FormatError(f"{where}: {error.message}", hint=error.hint) from None


def _service_stem(stem: str, kind: str) -> str:
    base, at, instance = stem.partition("@")
    return f"{base}{_SUFFIX[kind]}{at}{instance}"


def is_valid(unit: str) -> bool:
    """Whether systemd takes this for the name of a unit (systemd.unit(5))."""
    return len(unit) <= NAME_MAX and unit[:1] not in ".@" and not set(unit) - _NAME


def check_sections(source: Source, own: str, others: tuple[str, ...] = OTHERS) -> None:
    """Raises FormatError for a section that the file cannot have, and for a file without its own."""
    known = (*others, own)
    for name, file, line in source.sections:
        if name not in known and not name.startswith("X-"):
            hint = did_you_mean(name, known) or f"valid: {', '.join(known)}"
            raise FormatError(f"{file}:{line}: there is no section [{name}]", hint=hint)
    if own not in {name for name, _, _ in source.sections}:
        raise FormatError(f"{source.path}: it has no section [{own}]")


def check_text(service: Service) -> None:
    """Raises FormatError for what a unit file cannot say: a path or a key with odd characters."""
    if not syntax.is_assignment("SourcePath", service.source.path):
        raise FormatError(f"{service.source.path}: a unit file cannot name this path")
    for one in service.source.assignments:
        if one.section in _SYSTEMD and not syntax.is_assignment(one.key, one.value):
            raise FormatError(f"{one.file}:{one.line}: a unit file cannot have this line")


def failed(source: Source, error: SysboxError) -> Service:
    """The service of a declaration that is wrong: it exists, and fails with the reason."""
    reason = f"{error.message}: {error.hint}" if error.hint else error.message
    kind = source.kind if source.kind in _SUFFIX else "container"
    unit = f"{_service_stem(source.stem, kind)}.service"
    return Service(unit=unit, source=source, error=reason)


def one_each(services: Iterable[Service]) -> Iterator[Service]:
    """The services; several of one name become one that fails and says which files made them."""
    named: dict[str, list[Service]] = {}
    for service in services:
        named.setdefault(service.unit, []).append(service)
    for unit, same in named.items():
        if len(same) == 1:
            yield same[0]
        else:
            paths = " and ".join(one.source.path for one in same)
            yield same[0].replace(
                error=f"{paths} make one service, {unit}: give one a ServiceName="
            )


def text(service: Service, launcher: str, *, install: bool = False) -> str:
    """The unit file of a service; `launcher` is sysbox as a word of a command line.

    `install` is for a file that systemctl enables: a generated unit cannot be (systemd.generator(7)).
    """
    source = service.source
    path = syntax.escape_specifiers(source.path)
    origin = [("SourcePath", path)] if syntax.is_assignment("SourcePath", path) else []
    unit = [*origin, *service.unit_keys]
    keys = list(service.service_keys)
    if service.error:
        words = syntax.escape_specifiers(syntax.quote(service.error)).replace("$", "$$")
        unit = [("Description", f"{source.name}, which is wrong"), *origin]
        keys = [("Type", "oneshot"), ("ExecStart", f"{launcher} _fail {words}")]
    elif not any(key == "Description" for key, _ in unit):
        unit = [("Description", source.name), *unit]
    sections = [("Unit", unit), ("Service" if service.error else service.section, keys)]
    wanted = [(one.key, one.value) for one in source.assignments if one.section == "Install"]
    if install and wanted and service.installs:
        sections.append(("Install", wanted))
    return syntax.dump(sections, f"sysbox made this of {source.path}")
