"""Images in and out, with their events: `pull`, `push`, `save` and `load`."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.container import events
from sysbox.embedded import caller_root
from sysbox.image import removal
from sysbox.lifecycle import gc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from sysbox.image.formats.found import Chosen
    from sysbox.image.formats.load import Loaded
    from sysbox.image.formats.sinks import Sink
    from sysbox.image.model import Image
    from sysbox.image.reference import Reference
    from sysbox.image.registry import pull as registry_pull
    from sysbox.image.registry import push as registry_push
    from sysbox.image.registry.platform import Platform
    from sysbox.image.store import Store


def save(store: Store, chosen: Sequence[Chosen], form: str, sink: Sink) -> None:
    """Write images; `form` is one of formats.save.FORMATS. Raises as `formats.save.save`."""
    from sysbox.image.formats import save as formats_save

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
    from sysbox.image.formats import load as formats_load

    try:
        loaded = formats_load.load(store, fd, what, tell, path=path, platform=platform)
    except BaseException:
        # the layers that were unpacked before the failure belong to no image
        _sweep(store)
        raise
    for image in loaded:
        events.image("load", image.id, image.labels)
    return loaded


def pull(
    store: Store,
    wanted: str | Reference,
    options: registry_pull.Options,
    report: registry_pull.Report,
) -> registry_pull.Pulled:
    """Pull what a name means, or exactly one reference. Raises as `registry.pull.pull`."""
    from sysbox.image.registry import pull

    get = pull.pull if isinstance(wanted, str) else pull.pull_reference
    try:
        with caller_root.Network():
            pulled = get(store, wanted, options, report)  # type: ignore[arg-type]
    except BaseException:
        # layers that got their names before a later step failed; parts of blobs stay for the next attempt
        _sweep(store)
        raise
    image = pulled.image
    events.image("pull", image.id, image.config.labels, pulled.reference.familiar())
    return pulled


def _sweep(store: Store) -> None:
    """After a failure, which is what the user is told."""
    try:
        removal.sweep(store, gc.images_in_use)
    except (OSError, SysboxError):
        pass  # ignoring: `gc` removes what it can, and says what it cannot


def push(
    store: Store,
    image: Image,
    target: Reference,
    options: registry_push.Options,
    report: registry_push.Report,
    key: Any = None,
) -> registry_push.Pushed:
    """Push an image. Raises as `registry.push.push`."""
    from sysbox.image.registry import push

    with caller_root.Network(), store.hold():
        pushed = push.push(store, image, target, options, report, key)
    events.image("push", image.id, image.config.labels, target.familiar())
    return pushed


def current_digest(reference: Reference, options: registry_pull.Options) -> str:
    """What a tag means in its registry now, "" where it does not say. Raises as `registry.pull.current`."""
    from sysbox.image.registry import pull

    with caller_root.Network():
        return pull.current(reference, options)
