"""The steps by which an image was made, from its configuration (OCI config.md, "history")."""

from __future__ import annotations

from sysbox.base import files
from sysbox.base.errors import NotFound
from sysbox.base.frozen import Frozen
from sysbox.image.documents import MAX_CONFIG, history, load
from sysbox.image.rebuild import read_layer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.image.catalog import Catalog
    from sysbox.image.model import Image

_WHAT = "image config"


class Step(Frozen):
    """One step; the newest has the image's id, as no other step is an image of its own."""

    image_id: str = ""
    created: str = ""  # RFC 3339, "" if unknown
    created_by: str = ""
    comment: str = ""
    layer: str = ""  # the directory name of its layer, "" where it made none
    size: int = 0  # bytes of the files of its layer


def steps(store: Catalog, image: Image) -> list[Step]:
    """The steps of an image, the newest first; a layer that its history leaves out is a step without text,
    and a step for whose layer there is none adds nothing.

    Raises NotFound, FormatError.
    """
    data = files.read_file(store.blob(image.id), MAX_CONFIG)
    if data is None:
        raise NotFound(f"the configuration of the image {image.id} is missing in {store.root}")
    layers = list(image.layers)
    document = load(data, _WHAT, MAX_CONFIG)
    found = [_step(store, item, layers) for item in history(document, _WHAT)]
    found += [_with_layer(store, Step(), name) for name in layers]
    if found:
        found[-1] = found[-1].replace(image_id=image.id)
    return found[::-1]


def _step(store: Catalog, item: dict[str, Any], layers: list[str]) -> Step:
    step = Step(
        created=_text(item, "created"),
        created_by=_text(item, "created_by"),
        comment=_text(item, "comment"),
    )
    if item.get("empty_layer") or not layers:
        return step
    return _with_layer(store, step, layers.pop(0))


def _text(item: dict[str, Any], key: str) -> str:
    """What a step says, which can be printed whatever it is."""
    said: str = item.get(key) or ""
    return said.replace("\0", "\ufffd")


def _with_layer(store: Catalog, step: Step, name: str) -> Step:
    return step.replace(layer=name, size=read_layer(store, name).size)
