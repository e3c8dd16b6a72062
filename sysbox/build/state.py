"""What a stage has become so far: layers, configuration, history. A file has it for other stages."""

from __future__ import annotations

from sysbox.base import codec, files
from sysbox.base.errors import FormatError, NotFound
from sysbox.build.layers import StackLayer, of_image
from sysbox.build.model import Variables
from sysbox.image.changes import DEFAULT_PATH
from sysbox.image.commit import blobs_of
from sysbox.image.documents import MAX_CONFIG, load, mapping, sequence, text
from sysbox.image.model import Image, ImageConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.image.catalog import Catalog

_WHAT = "image config"
DEFAULT_SHELL = ("/bin/sh", "-c")
_MOST = 64 << 20  # bytes of a stage's file


class State:
    """A stage while it is built."""

    def __init__(self) -> None:
        self.stack: tuple[StackLayer, ...] = ()
        self.config = ImageConfig()
        self.shell: tuple[str, ...] = DEFAULT_SHELL
        self.variables = Variables()
        self.history: list[dict[str, Any]] = []
        # the parts of the configuration that ImageConfig does not have, by OCI's and docker's names
        self.extra: dict[str, Any] = {}
        self.document: dict[
            str, Any
        ] = {}  # of the base image: what sysbox does not know of is kept
        self.author = ""
        self.image_id = ""  # of the base image, "" for scratch
        self.image_name = ""
        self.usr_bind = False
        self.below = 0  # how many of the layers are the base image's
        # of the last step that made something, RFC 3339: a step from the cache has the time of its making, so
        # that a build of nothing new makes the same image again
        self.moment = ""
        self.own_cmd = False  # the stage has a CMD

    def environment(self) -> dict[str, str]:
        return dict(one.partition("=")[::2] for one in self.config.env)

    def to_data(self) -> dict[str, Any]:
        return {
            "stack": [one.to_data() for one in self.stack],
            "config": self.config.to_data(),
            "shell": list(self.shell),
            "history": self.history,
            "extra": self.extra,
            "document": self.document,
            "author": self.author,
            "image_id": self.image_id,
            "image_name": self.image_name,
            "usr_bind": self.usr_bind,
            "below": self.below,
            "moment": self.moment,
            "arguments": self.variables.arguments,
        }

    def write(self, path: str) -> None:
        """For the stages that need this one. Raises KernelError, FormatError."""
        files.write_file(path, codec.dumps(self.to_data()), limit=_MOST)


def read(path: str) -> State:
    """A stage that is done. Raises FormatError."""
    data = codec.loads(files.read_file(path, _MOST) or b"null", path)
    state = State()
    state.stack = tuple(StackLayer.from_data(one, path) for one in data["stack"])
    state.config = ImageConfig.from_data(data["config"], path)
    state.shell = tuple(data["shell"])
    for name in ("history", "extra", "document", "author", "image_id", "image_name", "usr_bind"):
        setattr(state, name, data[name])
    state.below = data["below"]
    state.moment = data["moment"]
    state.variables = Variables(environment=state.environment(), arguments=data["arguments"])
    return state


def of_nothing() -> State:
    """A stage that begins with `scratch`: nothing but docker's PATH."""
    state = State()
    state.config = ImageConfig(env=(DEFAULT_PATH,))
    state.variables = Variables(environment=state.environment())
    return state


def of_base(store: Catalog, image: Image, name: str) -> State:
    """A stage that begins with an image of the store. Raises NotFound, FormatError."""
    data = files.read_file(store.blob(image.id), MAX_CONFIG)
    if data is None:
        raise NotFound(f"the configuration of the image {image.id} is missing in {store.root}")
    document = load(data, _WHAT, MAX_CONFIG)
    container = mapping(document, "config", _WHAT)
    state = State()
    state.stack = of_image(store, image.layers, blobs_of(store, image))
    state.config = image.config
    state.shell = _words(container, "Shell") or DEFAULT_SHELL
    state.history = _history(document, len(state.stack))
    known = ("Shell", "Healthcheck")
    state.extra = {key: container[key] for key in known if container.get(key)}
    state.document = {key: value for key, value in document.items() if key not in _OWN}
    state.document["config"] = {
        key: value for key, value in container.items() if key not in ("OnBuild", *known)
    }
    state.author = text(document, "author", _WHAT)
    state.moment = text(document, "created", _WHAT)
    state.image_id = image.id
    state.image_name = name
    state.usr_bind = image.usr_bind
    state.below = len(state.stack)
    state.variables = Variables(environment=state.environment())
    return state


_OWN = frozenset(("config", "rootfs", "history", "created", "author"))


def triggers_of(store: Catalog, image: Image) -> tuple[str, ...]:
    """The ONBUILD instructions of an image. Raises NotFound, FormatError."""
    data = files.read_file(store.blob(image.id), MAX_CONFIG)
    if data is None:
        raise NotFound(f"the configuration of the image {image.id} is missing in {store.root}")
    return _words(mapping(load(data, _WHAT, MAX_CONFIG), "config", _WHAT), "OnBuild")


def _words(container: dict[str, Any], key: str) -> tuple[str, ...]:
    found = sequence(container, key, f"{_WHAT}: config")
    if not all(type(one) is str for one in found):
        raise FormatError(f"{_WHAT}: config.{key} must be a list of strings")
    return tuple(found)


def _history(document: dict[str, Any], layers: int) -> list[dict[str, Any]]:
    """The history of an image, with a step for each layer that it leaves out."""
    found = [one for one in sequence(document, "history", _WHAT) if type(one) is dict]
    made = sum(not one.get("empty_layer") for one in found)
    if made > layers:
        return [{"comment": "history of the base image is damaged"} for _ in range(layers)]
    return [*found, *({} for _ in range(layers - made))]
