"""Image references: docker's normalisation of names, and the checks before one becomes part of a path.

`busybox` is `docker.io/library/busybox:latest`; a first component with a dot, a colon or `localhost` is a
registry. The grammar is that of the distribution project's `reference` package; only sha256 digests are
accepted. Written without `re`: to import it takes too long for a hot verb.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen

DEFAULT_DOMAIN = "docker.io"
DEFAULT_NAMESPACE = "library/"
DEFAULT_TAG = "latest"
HOST = "docker.io/library/host:latest"  # the built-in image
MAX_NAME = 255
MAX_TAG = 128

_HEX = frozenset("0123456789abcdef")
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_WORD = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_IPV6 = _HEX | frozenset("ABCDEF:.")
_HOST = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ-")


class Reference(Frozen):
    """A normalised reference: a repository with a tag, a digest, or both."""

    domain: str  # "docker.io", "localhost:5000"
    path: str  # "library/busybox"
    tag: str = ""  # "" where only a digest was given
    digest: str = ""  # "sha256:<64 hex>" or ""

    def repository(self) -> str:
        """`docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    def full(self) -> str:
        """The canonical form, as kept in `org.opencontainers.image.ref.name`."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.domain}/{self.path}{tag}{digest}"

    def familiar_repository(self) -> str:
        """`busybox`: the repository as docker shows it."""
        if self.domain != DEFAULT_DOMAIN:
            return self.repository()
        if (
            self.path.startswith(DEFAULT_NAMESPACE)
            and "/" not in self.path[len(DEFAULT_NAMESPACE) :]
        ):
            return self.path[len(DEFAULT_NAMESPACE) :]
        return self.path

    def familiar(self) -> str:
        """`busybox:latest`: the whole as docker shows it."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.familiar_repository()}{tag}{digest}"


def parse(name: str) -> Reference:
    """Normalise a reference as docker does.

    Raises SpecError, which says what is wrong with it.
    """
    scheme, slashes, plain = name.partition("://")
    if slashes and plain:
        raise _invalid(name, f"'{scheme}://' is no part of a name; '{plain}' may be meant")
    rest, at, digest = name.partition("@")
    if at and not is_digest(digest):
        raise _invalid(
            name, f"'{digest}' is not a digest: sha256: and 64 lower-case hexadecimal digits"
        )
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = f"{head}{slash}{last}"
    if colon and not is_tag(tag):
        raise _invalid(name, f"'{tag}' is not a tag: up to 128 letters, digits, '_', '.', '-'")
    if is_hex(repository, 64):
        raise _invalid(name, "64 hexadecimal digits are an image id, not a name")
    domain, path = _split_domain(repository)
    if not _is_domain(domain):
        raise _invalid(name, f"'{domain}' is not the name of a registry")
    _check_path(name, path)
    if len(domain) + 1 + len(path) > MAX_NAME:
        raise _invalid(name, f"the name is longer than {MAX_NAME} characters")
    return Reference(
        domain=domain, path=path, tag=tag or ("" if digest else DEFAULT_TAG), digest=digest
    )


def is_host(name: str) -> bool:
    """Whether a name means the built-in image."""
    try:
        return parse(name).full() == HOST
    except SpecError:
        return False


def is_short(name: str) -> bool:
    """Whether a name has no registry: `busybox`, `user/app:1`; registries.conf says where it may be."""
    first, slash, _ = name.partition("/")
    return not (slash and _is_registry(first))


def has_suffix(name: str) -> bool:
    """Whether a name has a tag or a digest."""
    return "@" in name or ":" in name.rpartition("/")[2]


def refuse_host(name: str) -> None:
    """Raise SpecError if `name` is the built-in image's: no other may take it."""
    if is_host(name):
        raise SpecError(
            "the name 'host' is the built-in image's (the machine's own /usr)",
            hint="choose another name",
        )


def is_digest(text: object) -> bool:
    """Whether `text` is `sha256:` and 64 lower-case hexadecimal digits, so that it may become a path."""
    return isinstance(text, str) and text.startswith("sha256:") and is_hex(text[7:], 64)


def is_hex(text: str, length: int = 0) -> bool:
    """Whether `text` consists of lower-case hexadecimal digits, exactly `length` of them if given."""
    return bool(text) and (not length or len(text) == length) and _HEX.issuperset(text)


def _split_domain(repository: str) -> tuple[str, str]:
    first, slash, rest = repository.partition("/")
    if slash and _is_registry(first):
        if first == "index.docker.io":
            first = DEFAULT_DOMAIN
        if first == DEFAULT_DOMAIN and "/" not in rest:
            rest = DEFAULT_NAMESPACE + rest
        return first, rest
    return DEFAULT_DOMAIN, repository if slash else DEFAULT_NAMESPACE + repository


def _is_registry(first: str) -> bool:
    """docker's rule for the first component of a name."""
    return "." in first or ":" in first or first == "localhost" or first.lower() != first


def _is_domain(domain: str) -> bool:
    address, bracket, rest = domain.rpartition("]")
    host, colon, port = (rest if bracket else domain).partition(":")
    if colon and not (port.isascii() and port.isdecimal()):
        return False
    if bracket:  # an IPv6 address, without a zone
        return not host and address[0] == "[" and ":" in address and _IPV6.issuperset(address[1:])
    labels = host.split(".")
    return all(
        label and _HOST.issuperset(label) and label[0] != "-" and label[-1] != "-"
        for label in labels
    )


def is_tag(tag: str) -> bool:
    """Whether `tag` is one by the grammar (OCI distribution spec, "Pulling manifests")."""
    return 0 < len(tag) <= MAX_TAG and tag[0] in _WORD and all(c in _WORD or c in ".-" for c in tag)


def _check_path(name: str, path: str) -> None:
    if path.lower() != path:
        raise _invalid(name, "the name of a repository must be lower case")
    for component in path.split("/"):
        if not _is_component(component):
            what = component.removeprefix(DEFAULT_NAMESPACE) or path
            raise _invalid(
                name, f"'{what}' is not a name: lower-case letters and digits, inside also . _ -"
            )


def _is_component(component: str) -> bool:
    """alpha-numeric ( ("." | "_" | "__" | "-"+) alpha-numeric )*"""
    if not component or component[0] not in _LOWER or component[-1] not in _LOWER:
        return False
    separator = ""
    for character in component:
        if character in _LOWER:
            separator = ""
            continue
        separator += character
        if separator not in (".", "_", "__") and separator.strip("-"):
            return False
    return True


def _invalid(name: str, why: str) -> SpecError:
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    return SpecError(f"invalid image reference {shown!r}: {why}")
