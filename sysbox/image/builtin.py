"""The image `host`: the machine's own /usr, read-only, under a fresh /etc and /var.

Nothing is downloaded: as with `systemd-nspawn --volatile=yes`, programs come from the machine, state does
not. The image has one small layer, a generated skeleton, and the flag `usr_bind`, on which the plan binds
/usr. The flag is in sysbox's own index, never in the image: no label or layer of an image can ask for it.

This module is hot: it compares the skeleton in the store with the machine by a stat(2) of each input, and
imports `skeleton` only to build it again.
"""

from __future__ import annotations

from sysbox.image.catalog import Catalog
from sysbox.image.machine import key
from sysbox.image.model import Image
from sysbox.image.reference import HOST


def resolve(store: Catalog) -> Image:
    """The image, built first if the store lacks it or the machine has changed.

    Raises Unsupported, KernelError.
    """
    mark = f"host:{key()}"
    if not any(entry.name == HOST and entry.builtin == mark for entry in store.entries()):
        from sysbox.image import skeleton

        skeleton.install(store, mark)
    return store.find(HOST)[1]
