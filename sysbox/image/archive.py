"""Make an image of a root file system in a tar archive, as `docker import` does.

The archive is kept byte for byte as the layer's blob, so that it can be pushed later. One compressed with xz
or bzip2 is stored uncompressed: no image layer may have those compressions.
"""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError
from sysbox.host import architecture
from sysbox.image.catalog import Catalog
from sysbox.image.changes import DEFAULT_PATH, apply
from sysbox.image.documents import OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Descriptor, digest_of
from sysbox.image.ingest import Blob, Ingest, Layer, descriptor_of
from sysbox.image.model import Image, ImageConfig
from sysbox.image.reference import parse, refuse_host
from sysbox.image.source import CHUNK
from sysbox.spec import Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

SUFFIX = {"": "", "gzip": "+gzip", "zstd": "+zstd"}


def import_tar(
    store: Catalog,
    source: int | Callable[[int], bytes],
    name: str,
    *,
    what: str = "the archive",
    changes: Iterable[str] = (),
    message: str = "",
    spooled: Callable[[], None] = lambda: None,
    config: ImageConfig | None = None,
    builtin: str = "",
    created: str = "",
    tell: Callable[[int], object] = lambda _: None,
) -> Image:
    """Read a tar archive to its end and make the image `name` of it ("" for none).

    `source` is a descriptor, or returns at most as many bytes as it is asked for, and b"" at the end.
    `changes` are applied to `config`. `spooled` is called when the archive has been read, and may raise if
    the process that wrote it failed. `tell` is called with the size of each chunk, in bytes. Raises
    SpecError, FormatError, KernelError; the store is then unchanged.
    """
    if not builtin:
        check_name(name)
    base = ImageConfig(env=(DEFAULT_PATH,)) if config is None else config
    base = base.replace(architecture=architecture())
    final = apply(base, changes)
    with Ingest(store) as work:
        blob = _spool(work, source, what, spooled, tell)
        layer = work.unpack(blob, what)
        comment = message or f"Imported from {what}"
        document = config_document(final, [layer], created or now(), comment)
        kind = OCI_LAYER + SUFFIX[blob.compression]
        manifest = manifest_document(document, [descriptor_of(blob, kind)])
        return work.commit(manifest, document, [blob], [layer], name, builtin)


def _spool(
    work: Ingest,
    source: int | Callable[[int], bytes],
    what: str,
    spooled: Callable[[], None],
    tell: Callable[[int], object],
) -> Blob:
    """The whole archive as a blob, in a compression that a layer may have."""
    if isinstance(source, int):
        blob = work.spool(source, what, tell=tell)
    else:
        read = source
        blob = work.pack(lambda write: _copy(read, write, tell), what)
    spooled()
    if not blob.size:
        raise FormatError(f"{what}: is empty", hint="a tar archive of a root file system is needed")
    return blob if blob.compression in SUFFIX else work.decompress(blob, what)


def _copy(
    read: Callable[[int], bytes], write: Callable[[bytes], object], tell: Callable[[int], object]
) -> None:
    while piece := read(CHUNK):
        write(piece)
        tell(len(piece))


def check_name(name: str) -> None:
    """Raise SpecError for a name that no new image can have; called before the lengthy work starts."""
    if name and parse(name).digest:
        raise SpecError(f"an imported image cannot be given a digest: {name}")
    refuse_host(name)


def _health_document(health: Health | None) -> dict[str, Any]:
    if health is None:
        return {}
    times = {
        "Interval": health.interval,
        "Timeout": health.timeout,
        "StartPeriod": health.start_period,
        "StartInterval": health.start_interval,
    }
    document: dict[str, Any] = {key: value * 1000 for key, value in times.items() if value > 0}
    if health.retries > 0:
        document["Retries"] = health.retries
    return {"Test": ["NONE"] if health.disabled else ["CMD", *health.command], **document}


def config_document(
    config: ImageConfig, stack: Sequence[Layer], created: str, comment: str
) -> bytes:
    """An OCI image configuration (config.md)."""
    container: dict[str, Any] = {
        "Cmd": list(config.cmd),
        "Entrypoint": list(config.entrypoint),
        "Env": list(config.env),
        "Healthcheck": _health_document(config.health),
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
        "User": config.user,
        "Volumes": {volume: {} for volume in config.volumes},
        "WorkingDir": config.workdir,
    }
    return codec.dumps(
        {
            "created": created,
            "architecture": config.architecture,
            "os": config.os,
            "config": {key: value for key, value in container.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in stack]},
            "history": [{"created": created, "comment": comment} for _ in stack],
        }
    )


def manifest_document(config: bytes, layers: Sequence[Descriptor]) -> bytes:
    """An OCI image manifest (manifest.md)."""
    described = Descriptor(media_type=OCI_CONFIG, digest=digest_of(config), size=len(config))
    return codec.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described.to_json(),
            "layers": [layer.to_json() for layer in layers],
        }
    )


def now() -> str:
    """The time as RFC 3339 with nanoseconds, in UTC."""
    import time

    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"
