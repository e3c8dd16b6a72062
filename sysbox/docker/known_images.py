"""The images of containers that are listed: each is looked up once, however many containers have it."""

from __future__ import annotations

from sysbox.base.errors import SysboxError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record, Resolved
    from sysbox.image.model import Image
    from sysbox.image.store import Store


class KnownImages:
    """Images by their ids, read from the store when they are asked for."""

    def __init__(self) -> None:
        self._opened: Store | None = None
        self._found: dict[str, Image | None] = {}

    @property
    def _store(self) -> Store:
        if self._opened is None:
            from sysbox.image.store import Store  # `ps` of what does not run goes without

            self._opened = Store()
        return self._opened

    def get(self, image_id: str) -> Image | None:
        """None where it is gone, or damaged."""
        if image_id not in self._found:
            try:
                self._found[image_id] = self._store.resolve(image_id)
            except SysboxError:
                self._found[image_id] = None
        return self._found[image_id]


def resolved_by(record: Record, images: KnownImages) -> Resolved:
    """What a container came to; of an older record by its image, and by itself alone once that is gone."""
    if record.resolved is not None:
        return record.resolved
    # for older records alone
    from sysbox.image.model import Image
    from sysbox.image.resolved import merge

    gone = Image(id=record.image_id, manifest="")
    return merge(record.spec, images.get(record.image_id) or gone)


def exposed_ports(record: Record, images: KnownImages) -> list[str]:
    """As in 80/tcp: those of the image, of --expose, and those that are published."""
    declared = record.exposed
    if declared is None:
        image = images.get(record.image_id)
        declared = image.config.exposed_ports if image else ()
    published = (f"{port.container_port}/{port.protocol}" for port in record.spec.ports)
    return list(dict.fromkeys((*declared, *record.spec.exposed, *published)))
