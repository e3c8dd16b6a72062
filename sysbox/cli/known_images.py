"""The images of containers that are listed: each is looked up once, however many containers have it."""

from __future__ import annotations

from sysbox.errors import SysboxError
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.image.model import Image
    from sysbox.spec import ContainerSpec


class KnownImages:
    """Images by their ids, read from the store when they are asked for."""

    def __init__(self) -> None:
        self._store = Store()
        self._found: dict[str, Image | None] = {}

    def get(self, image_id: str) -> Image | None:
        """None where it is gone, or damaged."""
        if image_id not in self._found:
            try:
                self._found[image_id] = self._store.resolve(image_id)
            except SysboxError:
                self._found[image_id] = None
        return self._found[image_id]

    def layers(self, image_id: str) -> tuple[str, ...]:
        """The directories of its layers, lowest first."""
        image = self.get(image_id)
        return tuple(self._store.layer(name) for name in image.layers) if image else ()


def exposed_ports(spec: ContainerSpec, image: Image | None) -> list[str]:
    """As in 80/tcp: those of the image, and those that are published."""
    published = (f"{port.container_port}/{port.protocol}" for port in spec.ports)
    return list(dict.fromkeys((*(image.config.exposed_ports if image else ()), *published)))
