"""`sysbox image tree`: the layers of an image with their sizes, as `podman image tree` draws them."""

from __future__ import annotations

from sysbox.cli.output import line
from sysbox.docker.human import human_size
from sysbox.image.rebuild import read_layer
from sysbox.image.reference import parse
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysbox.cli.table.options import Values
    from sysbox.image.model import Image

    Branches = dict[str, "Branches"]  # the name of a layer -> the layers above it

_SHORT = 12  # characters of an id


def main(values: Values) -> int:
    """0; with --whatrequires the layers above the image's own, and the images that have them."""
    store = Store()
    image = store.resolve(values.image)
    every = store.list()
    tops: dict[str, list[str]] = {}
    for one in every:
        shown = _names(one) or [one.id[7 : 7 + _SHORT]]
        tops.setdefault(one.layers[-1], []).extend(shown)
    line(f"Image ID: {image.id[7 : 7 + _SHORT]}")
    line(f"Tags:     [{' '.join(_names(image))}]")
    line(f"Size:     {human_size(image.size)}")
    line("Image Layers")
    if values.whatrequires:
        below = len(image.layers) - 1
        stacks = [one.layers[below:] for one in every if _is_above(one, image)]
        for text in _grown(store, _branches(stacks), tops, ""):
            line(text)
    else:
        _print_stack(store, image.layers, tops)
    return 0


def _names(image: Image) -> list[str]:
    return [parse(name).familiar() for name in image.names]


def _is_above(image: Image, base: Image) -> bool:
    return image.layers[: len(base.layers)] == base.layers


def _print_stack(store: Store, layers: Sequence[str], tops: dict[str, list[str]]) -> None:
    """One layer a line, the lowest first: a stack is a tree with one branch, drawn flat."""
    for name in layers[:-1]:
        line(f"├── {_layer(store, name, tops)}")
    line(f"└── {_layer(store, layers[-1], tops)}")


def _branches(stacks: Sequence[Sequence[str]]) -> Branches:
    """The layers of several stacks as one tree; those that are the same in two stacks occur once."""
    found: Branches = {}
    for stack in stacks:
        above = found
        for name in stack:
            above = above.setdefault(name, {})
    return found


def _grown(store: Store, tree: Branches, tops: dict[str, list[str]], indent: str) -> list[str]:
    lines = []
    for index, (name, above) in enumerate(tree.items()):
        last = index == len(tree) - 1
        lines.append(f"{indent}{'└── ' if last else '├── '}{_layer(store, name, tops)}")
        lines += _grown(store, above, tops, f"{indent}{'    ' if last else '│   '}")
    return lines


def _layer(store: Store, name: str, tops: dict[str, list[str]]) -> str:
    text = f"ID: {name[:_SHORT]} Size: {human_size(read_layer(store, name).size)}"
    images = tops.get(name)
    return f"{text} Top Layer of: [{' '.join(sorted(images))}]" if images else text
