"""What a build is asked for, besides its plan."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.spec import ContainerSpec


class Options(Frozen):
    """How a build is done, and what becomes of its result."""

    id: str = ""  # 12 hex digits: a part of the names of its containers
    cache: bool = True  # steps that were made before are taken
    keep_failed: bool = False  # the container of a failed step stays
    epoch: int = -1  # SOURCE_DATE_EPOCH: seconds since 1970, -1 where it is not set
    allowed: tuple[str, ...] = ()  # security.insecure, network.host: what RUN may ask for
    # limits, networks, hosts, ...: what the container of each RUN has
    template: ContainerSpec = ContainerSpec(image="scratch")
    context_files: int = 1_000_000  # that one instruction copies of a context, at most
    fetch_size: int = 8 << 30  # bytes of a URL, or of a context on standard input, at most
    # the result
    names: tuple[str, ...] = ()  # full references
    labels: tuple[tuple[str, str], ...] = ()  # over those of the Containerfile
    annotations: tuple[tuple[str, str], ...] = ()  # of the manifest
    format: str = "oci"  # oci, docker
    squash: bool = False  # the layers of the build become one

    def wrong(self) -> str:
        return "" if self.format in ("oci", "docker") else "format: must be oci or docker"

    @property
    def epoch_ns(self) -> int:
        return self.epoch * 10**9 if self.epoch >= 0 else -1
