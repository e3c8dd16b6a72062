"""OCI and docker JSON documents, read strictly: descriptors, manifests, image configurations.

Unknown keys are ignored, as the OCI image spec demands ("Extensibility"), but known ones must have the right
type, and a document that could be read in two ways is refused (CVE-2021-41190). `null` counts as absent:
docker writes `"Env": null`.
"""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen
from sysbox.image.model import ImageConfig
from sysbox.image.reference import is_digest
from sysbox.spec import Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_MANIFEST = 4 << 20
MAX_CONFIG = 8 << 20
MAX_LAYERS = 127  # docker's limit
MAX_ITEMS = 10_000  # of any list or map in a configuration
MAX_TEXT = 1 << 17  # of an argument or variable: what execve(2) takes (MAX_ARG_STRLEN)

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"

# media type of a layer -> how it is compressed
LAYER_TYPES = {
    OCI_LAYER: "",
    f"{OCI_LAYER}+gzip": "gzip",
    f"{OCI_LAYER}+zstd": "zstd",
    DOCKER_LAYER: "",
    f"{DOCKER_LAYER}.gzip": "gzip",
    f"{DOCKER_LAYER}.zstd": "zstd",
}
_CONFIG_OF = {OCI_MANIFEST: OCI_CONFIG, DOCKER_MANIFEST: DOCKER_CONFIG}


class Descriptor(Frozen):
    """A reference to a blob (OCI descriptor.md)."""

    media_type: str
    digest: str
    size: int

    def to_json(self) -> dict[str, Any]:
        """The JSON object, as in a manifest."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}


class Manifest(Frozen):
    """An image manifest (OCI manifest.md, docker image manifest V2 schema 2)."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Config(Frozen):
    """The parts of an image configuration that the store needs."""

    image: ImageConfig
    created: str
    diff_ids: tuple[str, ...]


def parse_manifest(data: bytes, media_type: str = "") -> Manifest:
    """Read a manifest; `media_type` is the type that the transport named, "" if none.

    Raises FormatError.
    """
    what = "image manifest"
    document = load(data, what, MAX_MANIFEST)
    if "manifests" in document:
        raise FormatError(
            f"{what}: has both 'manifests' and 'layers'"
            if "layers" in document
            else f"{what}: is an index of several manifests"
        )
    if integer(document, "schemaVersion", what) != 2:
        raise FormatError(f"{what}: schemaVersion must be 2")
    own = text(document, "mediaType", what)
    kind = own or media_type or OCI_MANIFEST
    if kind not in _CONFIG_OF or (own and media_type and own != media_type):
        raise FormatError(
            f"{what}: mediaType '{own}' where '{media_type or OCI_MANIFEST}' was expected"
        )
    config = descriptor(document.get("config"), f"{what}: config")
    if config.media_type != _CONFIG_OF[kind]:
        raise FormatError(f"{what}: a config of type '{config.media_type}' is not an image's")
    if config.size > MAX_CONFIG:
        raise FormatError(
            f"{what}: a config of {config.size} bytes is over the limit of {MAX_CONFIG}"
        )
    items = sequence(document, "layers", what, MAX_LAYERS)
    if not items:
        raise FormatError(f"{what}: has no layers")
    layers = tuple(descriptor(item, f"{what}: layers[{index}]") for index, item in enumerate(items))
    for layer in layers:
        if layer.media_type not in LAYER_TYPES:
            raise FormatError(f"{what}: a layer of type '{layer.media_type}' cannot be unpacked")
    return Manifest(media_type=kind, config=config, layers=layers)


def parse_config(data: bytes, *, new: bool = False) -> Config:
    """Read an image configuration (OCI config.md).

    Of a `new` image, which comes from elsewhere, the history must have the right types too; what an older
    version has let into the store stays usable. Raises FormatError.
    """
    what = "image config"
    document = load(data, what, MAX_CONFIG)
    if new:
        history(document, what)
    system = text(document, "os", what)
    if system != "linux":
        raise FormatError(
            f"{what}: the image is for the operating system '{system}', not for linux"
        )
    rootfs = mapping(document, "rootfs", what)
    if text(rootfs, "type", f"{what}: rootfs") != "layers":
        raise FormatError(f"{what}: rootfs.type must be 'layers'")
    diff_ids = strings(rootfs, "diff_ids", f"{what}: rootfs")
    if not 1 <= len(diff_ids) <= MAX_LAYERS or not all(map(is_digest, diff_ids)):
        raise FormatError(f"{what}: rootfs.diff_ids must be 1 to {MAX_LAYERS} sha256 digests")
    image = _container_config(mapping(document, "config", what), f"{what}: config").replace(
        architecture=text(document, "architecture", what), os=system
    )
    return Config(image=image, created=text(document, "created", what), diff_ids=diff_ids)


def history(document: dict[str, Any], what: str) -> list[dict[str, Any]]:
    """The steps of a configuration's history; null is one that says nothing, as in Go. Raises FormatError.

    Texts may be anything, since they are only shown.
    """
    found = []
    for index, item in enumerate(sequence(document, "history", what)):
        step = {} if item is None else item
        place = f"{what}: history[{index}]"
        if type(step) is not dict:
            raise FormatError(f"{place}: must be an object")
        for key in ("created", "created_by", "author", "comment"):
            if type(step.get(key, "")) not in (str, type(None)):
                raise FormatError(f"{place}: {key} must be a string")
        if type(step.get("empty_layer")) not in (bool, type(None)):
            raise FormatError(f"{place}: empty_layer must be true or false")
        found.append(step)
    return found


def _container_config(config: dict[str, Any], what: str) -> ImageConfig:
    # an entry without a name or without `=` names nothing; docker runs such images, without it
    env = tuple(item for item in strings(config, "Env", what) if "=" in item.lstrip("="))
    labels = mapping(config, "Labels", what)
    for key, value in labels.items():
        plain(key, f"{what}: Labels")
        plain(value, f"{what}: Labels.{key}")
    return ImageConfig(
        entrypoint=strings(config, "Entrypoint", what),
        cmd=strings(config, "Cmd", what),
        env=env,
        workdir=text(config, "WorkingDir", what),
        user=text(config, "User", what),
        exposed_ports=_keys(config, "ExposedPorts", what),
        volumes=_keys(config, "Volumes", what),
        labels=labels,
        stop_signal=text(config, "StopSignal", what),
        health=_health(mapping(config, "Healthcheck", what), f"{what}: Healthcheck"),
    )


def _health(check: dict[str, Any], what: str) -> Health | None:
    """Read the health check, docker's extension; its times are in nanoseconds, and 0 means not set."""
    test = strings(check, "Test", what)
    if not test:
        return None
    kind, words = test[0], test[1:]
    if kind not in ("NONE", "CMD", "CMD-SHELL") or (kind != "NONE" and not words):
        raise FormatError(f"{what}: Test must begin with NONE, CMD or CMD-SHELL")

    def number(key: str) -> int:
        return integer(check, key, what) if key in check else 0

    return Health(
        command=words if kind == "CMD" else ("/bin/sh", "-c", *words) if words else (),
        disabled=kind == "NONE",
        interval=number("Interval") // 1000 or -1,
        timeout=number("Timeout") // 1000 or -1,
        start_period=number("StartPeriod") // 1000 or -1,
        start_interval=number("StartInterval") // 1000 or -1,
        retries=number("Retries") or -1,
    )


def digest_of(data: bytes) -> str:
    """`sha256:<hex>` of some bytes."""
    from hashlib import sha256

    return f"sha256:{sha256(data).hexdigest()}"


def load(data: bytes, what: str, limit: int) -> dict[str, Any]:
    """A JSON object of at most `limit` bytes; raises FormatError."""
    if len(data) > limit:
        raise FormatError(f"{what}: larger than {limit} bytes")
    document = codec.loads(data, what)
    if type(document) is not dict:
        raise FormatError(f"{what}: must be an object")
    return document


def descriptor(value: object, what: str) -> Descriptor:
    """Read a descriptor; its `urls` are never followed (CVE-2020-15157). Raises FormatError."""
    if type(value) is not dict:
        raise FormatError(f"{what}: must be an object")
    digest = text(value, "digest", what)
    if not is_digest(digest):
        raise FormatError(f"{what}: digest must be sha256: and 64 hexadecimal digits")
    size = integer(value, "size", what)
    if not 0 <= size < 1 << 63:
        raise FormatError(f"{what}: size {size} is out of range")
    return Descriptor(media_type=text(value, "mediaType", what), digest=digest, size=size)


def text(document: dict[str, Any], key: str, what: str) -> str:
    """A string, "" if absent; raises FormatError."""
    value = document.get(key)
    return "" if value is None else plain(value, f"{what}: {key}")


def plain(value: object, what: str) -> str:
    """A string that may become an argument or a path: no NUL, not overlong, encodable."""
    if type(value) is not str:
        raise FormatError(f"{what}: must be a string")
    if "\0" in value or len(value) > MAX_TEXT:
        raise FormatError(f"{what}: holds a NUL or is longer than {MAX_TEXT} characters")
    if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
        raise FormatError(f"{what}: holds a lone surrogate")
    return value


def integer(document: dict[str, Any], key: str, what: str) -> int:
    """A required integer; raises FormatError."""
    value = document.get(key)
    if type(value) is not int:
        raise FormatError(f"{what}: {key} must be an integer")
    return value


def sequence(document: dict[str, Any], key: str, what: str, limit: int = MAX_ITEMS) -> list[Any]:
    """A list of at most `limit` items, empty if absent; raises FormatError."""
    value = document.get(key)
    if value is None:
        return []
    if type(value) is not list:
        raise FormatError(f"{what}: {key} must be a list")
    if len(value) > limit:
        raise FormatError(f"{what}: {key} has {len(value)} items, the limit is {limit}")
    return value


def mapping(document: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    """An object of at most MAX_ITEMS keys, empty if absent; raises FormatError."""
    value = document.get(key)
    if value is None:
        return {}
    if type(value) is not dict:
        raise FormatError(f"{what}: {key} must be an object")
    if len(value) > MAX_ITEMS:
        raise FormatError(f"{what}: {key} has {len(value)} keys, the limit is {MAX_ITEMS}")
    return value


def strings(document: dict[str, Any], key: str, what: str) -> tuple[str, ...]:
    """A list of strings; raises FormatError."""
    items = sequence(document, key, what)
    return tuple(plain(item, f"{what}: {key}[{index}]") for index, item in enumerate(items))


def _keys(document: dict[str, Any], key: str, what: str) -> tuple[str, ...]:
    """The keys of a set, which Go writes as an object of empty objects."""
    return tuple(sorted(plain(item, f"{what}: {key}") for item in mapping(document, key, what)))
