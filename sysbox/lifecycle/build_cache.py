"""The build cache as a whole: `builder prune`."""

from __future__ import annotations

import posix

from sysbox.base import files
from sysbox.base.errors import Conflict, FormatError, KernelError, NotFound
from sysbox.base.files import remove_tree
from sysbox.base.flock import Lock
from sysbox.build import cache
from sysbox.container import events
from sysbox.container.store import all_records
from sysbox.image import removal
from sysbox.image.store import Store
from sysbox.image.usage import allocated, measure
from sysbox.lifecycle import gc
from sysbox.lifecycle.prune import Removed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.lifecycle.prune import Wanted


def prune(which: Wanted, *, everything: bool, keep: int = 0) -> Removed:
    """Forget steps that no image has, or all, the one that was used longest ago first, and free their layers.

    `which.until`: only what was used before. At least `keep` bytes may stay (0: none). The steps of a
    container that a failed build has left stay. Raises FormatError for a damaged image.
    """
    store = Store()
    before = measure(store).cache
    needed = _layers_of_containers()
    if not everything:
        needed |= {layer for image in store.list() for layer in image.layers}
    gone: list[str] = []
    left = before
    for key, made, used in sorted(cache.all_of(store.root), key=lambda one: one[2]):
        if made.layer in needed or (which.until and used >= which.until):
            continue
        if keep and left <= keep:
            break
        if cache.remove(store.root, key):
            gone.append(key[:12])
            left -= made.size
    if not keep or left > keep:
        gone += _remove_mounts(store.root, which)
    remove_tree(f"{cache.directory(store.root)}/{cache.DIGESTS}")
    removal.sweep(store, gc.images_in_use)
    size = max(before - measure(store).cache, 0)
    events.pruned("builder", size)
    return Removed(names=tuple(gone), size=size)


def _layers_of_containers() -> set[str]:
    """The layers of all containers: one that a failed build has left has layers that are in no image."""
    return {
        layer for record in all_records() if record.resolved for layer in record.resolved.layers
    }


def _remove_mounts(root: str, which: Wanted) -> list[str]:
    """Remove the directories of RUN --mount=type=cache that no step has; their names."""
    gone = []
    directory = cache.mounts(root)
    for name in files.names(directory):
        if name.endswith(".lock"):
            continue
        path = f"{directory}/{name}"
        try:
            with Lock(f"{path}.lock", wait=False):
                if which.until and posix.stat(path).st_mtime >= which.until:
                    continue
                remove_tree(path)
                files.unlink(f"{path}.lock")
        except (Conflict, FileNotFoundError):
            continue  # a step has it, or another prune was faster
        gone.append(name[:12])
    return gone


def size_of_mounts(root: str) -> dict[str, int]:
    """The bytes on disk of each directory of RUN --mount=type=cache, by its name."""
    directory = cache.mounts(root)
    found = {}
    for name in files.names(directory):
        if not name.endswith(".lock"):
            try:
                found[name] = allocated(f"{directory}/{name}")
            except (OSError, KernelError, FormatError, NotFound):
                found[name] = 0
    return found
