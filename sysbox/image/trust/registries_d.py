"""registries.d: where the signatures of a repository are kept (containers-registries.d(5)).

A value that the most specific section lacks is taken from the next one, as containers/image does.
"""

from __future__ import annotations

from sysbox.base import paths
from sysbox.base.errors import FormatError, TrustError
from sysbox.base.frozen import Frozen
from sysbox.image.caller_files import LIMIT, names, read
from sysbox.image.trust import yaml
from sysbox.image.trust.scopes import scopes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_LOOKASIDE = "file:///var/lib/containers/sigstore"
_HINT = (
    "no signature is read or written before this file is corrected; see containers-registries.d(5)"
)
_TEXTS = (
    "lookaside",
    "lookaside-staging",
    "sigstore",
    "sigstore-staging",
)  # the last two: older names
_ATTACHMENTS = "use-sigstore-attachments"


class Section(Frozen):
    """The configuration of one scope; "" or None: not set."""

    lookaside: str = ""
    staging: str = ""
    attachments: bool | None = None


class RegistriesD:
    """All files of the directory."""

    def __init__(self, default: Section | None, docker: dict[str, Section]) -> None:
        self.default = default
        self.docker = docker

    def lookaside(self, reference: str, *, write: bool = False) -> str:
        """The URL below which a repository's signatures are: file, http or https, without a last slash.

        `reference` is a full one. Raises SpecError, TrustError for another kind of URL.
        """
        base = DEFAULT_LOOKASIDE
        for section in self._sections(reference):
            if found := (write and section.staging) or section.lookaside:
                base = found
                break
        if not base.startswith(("file:///", "https://", "http://")):
            raise TrustError(
                f"registries.d: {base}: only file:, http: and https: URLs are supported"
            )
        return base

    def attachments(self, reference: str) -> bool:
        """Whether sigstore signatures are read from the registry and written to it. Raises SpecError."""
        for section in self._sections(reference):
            if section.attachments is not None:
                return section.attachments
        return False

    def _sections(self, reference: str) -> list[Section]:
        own = [self.docker[scope] for scope in scopes("docker", reference) if scope in self.docker]
        return own + ([self.default] if self.default else [])


def load(directory: str = "") -> RegistriesD:
    """Read all `*.yaml` of the directory, by default the machine's.

    Raises TrustError for a malformed file, and for a scope that two files have.
    """
    directory = directory or paths.REGISTRIES_D
    default: Section | None = None
    docker: dict[str, Section] = {}
    for name in names(directory, TrustError):
        if not name.endswith(".yaml"):
            continue
        path = f"{directory}/{name}"
        data = read(path, LIMIT, TrustError)
        try:
            own, scoped = parse_file(data or b"", path)
        except FormatError as error:
            raise TrustError(error.message, hint=_HINT) from None
        if own and default:
            raise TrustError(f"{path}: default-docker is in another file too", hint=_HINT)
        if twice := docker.keys() & scoped.keys():
            raise TrustError(f"{path}: '{min(twice)}' is in another file too", hint=_HINT)
        default = own or default
        docker.update(scoped)
    return RegistriesD(default, docker)


def parse_file(data: bytes, path: str) -> tuple[Section | None, dict[str, Section]]:
    """(default-docker, the scopes of docker) of one file. Raises FormatError."""
    try:
        document = yaml.load(data.decode(), path)
    except UnicodeDecodeError:
        raise FormatError(f"{path}: is not UTF-8") from None
    scoped = _mapping(document.get("docker", {}), f"{path}: docker")
    default = document.get("default-docker")
    return (
        None if default is None else _section(default, f"{path}: default-docker"),
        {scope: _section(own, f"{path}: docker: {scope}") for scope, own in scoped.items()},
    )


def _section(value: Any, what: str) -> Section:
    """Other keys are of newer versions: nothing that this one does depends on them."""
    item = _mapping(value, what)
    texts = [item.get(key) or "" for key in _TEXTS]
    if any(type(text) is not str for text in texts):
        raise FormatError(f"{what}: a URL must be text")
    switch = item.get(_ATTACHMENTS)
    if switch not in (None, "true", "false"):
        raise FormatError(f"{what}: {_ATTACHMENTS} must be true or false")
    new, new_staging, old, old_staging = texts
    return Section(
        lookaside=(new or old).rstrip("/"),
        staging=(new_staging or old_staging).rstrip("/"),
        attachments=None if switch is None else switch == "true",
    )


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if type(value) is not dict:
        raise FormatError(f"{what}: must be a mapping")
    return value
