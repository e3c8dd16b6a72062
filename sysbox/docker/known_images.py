"""The images of the containers that a verb shows: each is read once, however many containers use it."""

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
            from sysbox.image.store import Store  # not needed for records that have all of it

            self._opened = Store()
        return self._opened

    def get(self, image_id: str) -> Image | None:
        """The image; None where it was removed, or is damaged."""
        if image_id not in self._found:
            try:
                self._found[image_id] = self._store.resolve(image_id)
            except SysboxError:
                self._found[image_id] = None
        return self._found[image_id]


def resolved_by(record: Record, images: KnownImages) -> Resolved:
    """What a container was created with; an older record is merged again with its image, if that exists."""
    if record.resolved is not None:
        return record.resolved
    # for older records alone
    from sysbox.image.model import Image
    from sysbox.image.resolved import merge

    gone = Image(id=record.image_id, manifest="")
    return merge(record.spec, images.get(record.image_id) or gone)


def exposed_ports(record: Record, images: KnownImages) -> list[str]:
    """The ports (80/tcp) that the image exposes, those of --expose, and those that are published."""
    declared = record.exposed
    if declared is None:
        image = images.get(record.image_id)
        declared = image.config.exposed_ports if image else ()
    published = (f"{port.container_port}/{port.protocol}" for port in record.spec.ports)
    return list(dict.fromkeys((*declared, *record.spec.exposed, *published)))
