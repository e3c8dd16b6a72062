"""Images as files: `save` and `load`, with their events."""

from __future__ import annotations

from sysbox.container import events
from sysbox.image import removal
from sysbox.image.formats import load as formats_load
from sysbox.image.formats import save as formats_save
from sysbox.lifecycle import gc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sysbox.image.formats.found import Chosen
    from sysbox.image.formats.load import Loaded
    from sysbox.image.formats.sinks import Sink
    from sysbox.image.registry.platform import Platform
    from sysbox.image.store import Store


def save(store: Store, chosen: Sequence[Chosen], form: str, sink: Sink) -> None:
    """Write images; `form` is one of formats.save.FORMATS. Raises as `formats.save.save`."""
    formats_save.save(store, chosen, form, sink)
    for image in chosen:
        events.image("save", image.id, store.find(image.id)[1].config.labels)


def load(
    store: Store,
    fd: int,
    what: str,
    tell: Callable[[int], object],
    *,
    path: str = "",
    platform: Platform | None = None,
) -> list[Loaded]:
    """Read all images of an archive or a directory, or none. Raises as `formats.load.load`."""
    try:
        loaded = formats_load.load(store, fd, what, tell, path=path, platform=platform)
    except BaseException:
        # the layers that were unpacked before the failure belong to no image
        removal.sweep(store, gc.images_in_use)
        raise
    for image in loaded:
        events.image("load", image.id, image.labels)
    return loaded
