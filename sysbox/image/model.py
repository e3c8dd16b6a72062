"""An image as the rest of sysbox sees it: frozen, already checked."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.spec import Health


class ImageConfig(Frozen):
    """The part of an OCI image configuration that a container's plan uses (OCI image spec, config.md)."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()  # "NAME=VALUE"
    workdir: str = ""
    user: str = ""
    exposed_ports: tuple[str, ...] = ()  # "80/tcp"
    volumes: tuple[str, ...] = ()  # absolute paths
    labels: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    stop_signal: str = ""
    health: Health | None = None
    architecture: str = ""  # Go's names: amd64, arm64
    os: str = "linux"


class Image(Frozen):
    """One image of the store."""

    id: str  # "sha256:<64 hex>": the digest of its configuration, as in docker
    manifest: str  # the digest of its manifest
    names: tuple[str, ...] = ()  # full references, sorted; () is a dangling image
    created: str = ""  # RFC 3339, "" if unknown
    size: int = 0  # bytes of the files of all layers
    config: ImageConfig = ImageConfig()
    layers: tuple[str, ...] = ()  # directory names below the store's layers/, lowest first
    usr_bind: bool = False  # the plan binds the host's /usr read-only at /usr (the image `host`)

    def wrong(self) -> str:
        below = all(name and "/" not in name and name[0] != "." for name in self.layers)
        return "" if below else "layers: must be names of directories"
