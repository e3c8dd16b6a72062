"""Platforms: which manifest of an index is for this machine.

The order of preference is containerd's (platforms.Only), which docker uses too: an arm/v7 machine runs v7, v6
and v5, an arm64 one also arm, an amd64 one also 386.
"""

from __future__ import annotations

import os

from sysbox.base.errors import FormatError, NotFound, SpecError
from sysbox.base.frozen import Frozen
from sysbox.image.documents import Descriptor, descriptor, integer, load, mapping, sequence, text
from sysbox.image.registry.media import INDEXES, MAX_INDEX, Fetched, is_index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.image.model import ImageConfig

MAX_DEPTH = 3  # indexes inside of indexes
_ATTESTATION = "attestation-manifest"
_REFERENCE_TYPE = "vnd.docker.reference.type"
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "loongarch64": ("loong64", ""),
    "mips": ("mips", ""),
}


class Platform(Frozen):
    """What an image is for, in Go's words."""

    os: str = "linux"
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


class IndexEntry(Frozen):
    """One manifest of an index."""

    descriptor: Descriptor
    platform: Platform | None
    attestation: bool = False  # about another manifest: no image


def own() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return normal("linux", architecture, variant)


def parse(value: str) -> Platform:
    """`OS/ARCH[/VARIANT]`, `OS` or `ARCH`, as docker's `--platform`. Raises SpecError."""
    parts = value.split("/")
    if not 1 <= len(parts) <= 3 or not all(part and part.isascii() for part in parts):
        raise SpecError(f"platform '{value}': must be OS/ARCH[/VARIANT], as in linux/arm64")
    if len(parts) == 1:
        if parts[0].lower() in ("linux", "windows", "darwin", "freebsd"):
            return own().replace(os=parts[0].lower())
        parts.insert(0, "linux")
    return normal(*parts)


def normal(system: str, architecture: str, variant: str = "") -> Platform:
    """A platform with the usual one of the names that mean the same (containerd's normalisation)."""
    architecture, variant = architecture.lower(), variant.lower()
    if architecture in ("i386", "i686"):
        architecture, variant = "386", ""
    elif architecture in ("x86_64", "x86-64", "amd64"):
        architecture, variant = "amd64", "" if variant == "v1" else variant
    elif architecture in ("aarch64", "arm64"):
        architecture, variant = "arm64", "" if variant in ("8", "v8") else variant
    elif architecture == "armhf":
        architecture, variant = "arm", "v7"
    elif architecture == "armel":
        architecture, variant = "arm", "v6"
    elif architecture == "arm":
        variant = variant or "v7"
        variant = f"v{variant}" if variant in ("5", "6", "7", "8") else variant
    system = system.lower()
    return Platform(
        os="darwin" if system == "macos" else system, architecture=architecture, variant=variant
    )


def runnable(wanted: Platform) -> list[Platform]:
    """What runs where `wanted` does, the best first."""
    number = wanted.variant.removeprefix("v")
    found = [wanted]
    if wanted.architecture == "amd64":
        if number.isdecimal():
            found += [_variant(wanted, n) for n in range(int(number) - 1, 0, -1)]
        found.append(wanted.replace(architecture="386", variant=""))
    elif wanted.architecture == "arm" and number.isdecimal():
        found += [_variant(wanted, n) for n in range(int(number) - 1, 4, -1)]
    elif wanted.architecture == "arm64":
        found += [wanted.replace(variant=variant) for variant in _arm64_below(number or "8")]
        found += runnable(normal(wanted.os, "arm", "v8"))
    return [normal(one.os, one.architecture, one.variant) for one in found]


def fits(image: ImageConfig, wanted: str) -> bool:
    """Whether an image, whose variant is not known here, is for the platform. Raises SpecError."""
    found = normal(image.os, image.architecture)
    return any(
        (one.os, one.architecture) == (found.os, found.architecture)
        for one in runnable(parse(wanted))
    )


def _variant(wanted: Platform, number: int) -> Platform:
    return wanted.replace(variant=f"v{number}")


def _arm64_below(number: str) -> list[str]:
    """The variants that an arm64 machine of this one runs too: v9.x has all of v8.(x+5)."""
    major, _, minor = number.partition(".")
    if major not in ("8", "9") or not (minor or "0").isdecimal():
        return []
    last = int(minor or 0)
    found = [(9, n) for n in range(last - 1, -1, -1)] if major == "9" else []
    last = last + 6 if major == "9" else last
    found += [(8, n) for n in range(last - 1, -1, -1)]
    return [f"v{major}.{minor}" if minor else f"v{major}" for major, minor in found]


def parse_index(data: bytes, media_type: str = "") -> tuple[IndexEntry, ...]:
    """Read an index (OCI image-index.md) or a docker manifest list.

    Raises FormatError, also for a document that is a manifest as well (CVE-2021-41190).
    """
    what = "image index"
    document = load(data, what, MAX_INDEX)
    if "layers" in document or "config" in document:
        raise FormatError(f"{what}: has both 'manifests' and 'layers' or 'config'")
    if integer(document, "schemaVersion", what) != 2:
        raise FormatError(f"{what}: schemaVersion must be 2")
    named = text(document, "mediaType", what)
    if (named or media_type) not in ("", *INDEXES) or (
        named and media_type and named != media_type
    ):
        raise FormatError(f"{what}: mediaType '{named}' where '{media_type}' was expected")
    return tuple(
        _entry(item, f"{what}: manifests[{index}]")
        for index, item in enumerate(sequence(document, "manifests", what))
    )


def _entry(item: object, what: str) -> IndexEntry:
    found = descriptor(item, what)
    assert type(item) is dict  # descriptor has checked it
    notes = mapping(item, "annotations", what)
    given = item.get("platform")
    platform = None
    if given is not None:
        table = mapping(item, "platform", what)
        platform = normal(
            text(table, "os", what), text(table, "architecture", what), text(table, "variant", what)
        )
    return IndexEntry(
        descriptor=found,
        platform=platform,
        attestation=notes.get(_REFERENCE_TYPE) == _ATTESTATION
        or (platform is not None and platform.os == "unknown"),
    )


def choose(
    index: tuple[IndexEntry, ...],
    system: str,
    architecture: str,
    variant: str = "",
    *,
    what: str = "the image",
) -> Descriptor:
    """The manifest, or inner index, of the best platform; of several equal ones the first.

    One without a platform counts only where nothing else fits, and where it is the only one such.
    Raises NotFound, which lists what there is.
    """
    wanted = normal(system, architecture, variant)
    images = [entry for entry in index if not entry.attestation]
    for platform in runnable(wanted):
        for entry in images:
            if entry.platform == platform:
                return entry.descriptor
    unsaid = [entry for entry in images if entry.platform is None]
    if len(unsaid) == 1:
        return unsaid[0].descriptor
    there = sorted({str(entry.platform) for entry in images if entry.platform is not None})
    raise NotFound(
        f"{what} is not for {wanted}",
        hint=f"it is for {', '.join(there[:20])}: --platform chooses one"
        if there
        else "it has no image",
    )


def descend(
    first: Fetched,
    fetch: Callable[[Descriptor], Fetched],
    wanted: Platform,
    what: str = "the image",
) -> Fetched:
    """The image manifest for a platform below a document, which may be that manifest itself.

    `what` is the name of the image, for messages.

    Raises NotFound, FormatError for indexes inside of MAX_DEPTH others, and what `fetch` raises.
    """
    found = first
    for _ in range(MAX_DEPTH + 1):
        if not is_index(found.media_type):
            return found
        entries = parse_index(found.data, found.media_type)
        found = fetch(choose(entries, wanted.os, wanted.architecture, wanted.variant, what=what))
    raise FormatError(f"image index: more than {MAX_DEPTH} indexes inside of each other")
