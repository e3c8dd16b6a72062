"""The images of this host: the one class that the rest of sysbox uses.

`resolve` is hot; the code that changes the store is imported only when it is called.
"""

from __future__ import annotations

from sysbox.image.catalog import Catalog, Entry
from sysbox.image.model import Image, ImageConfig
from sysbox.image.reference import is_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sysbox.image.removal import Removed

    Entries = list[Entry]
    Lines = list[str]  # `list` is a method of the class
    Done = list[Removed]
    InUse = Callable[[str], Lines]

__all__ = ["Image", "ImageConfig", "Store"]


class Store(Catalog):
    """The content store with everything that may be done to it."""

    def resolve(self, name: str) -> Image:
        """The image of this name, id, unique prefix of an id, or digest.

        Raises NotFound, Conflict for a prefix of several ids, SpecError for a malformed reference.
        """
        if "host" in name and is_host(name):
            from sysbox.image import builtin

            return builtin.resolve(self)
        return self.find(name)[1]

    def remove(
        self,
        name: str,
        in_use: InUse,
        *,
        force: bool = False,
    ) -> Done:
        """Untag or delete as `docker rmi` does; returns each step.

        `in_use` maps an image id to the names of the containers that need it. Raises NotFound, Conflict.
        """
        from sysbox.image import removal

        return removal.remove(self, name, in_use, force=force)

    def tag(self, name: str, new: str) -> Image:
        """Give an image another name; returns the image. Raises NotFound, SpecError."""
        from sysbox.image import removal

        return removal.tag(self, name, new)

    def untag(self, name: str, names: Sequence[str] = ()) -> Done:
        """Take names, or all, from an image, which stays; returns each step. Raises NotFound, SpecError."""
        from sysbox.image import removal

        return removal.untag(self, name, names)

    def gc(self, in_use: InUse = lambda _: []) -> Lines:
        """Remove what a crash left behind and what no image or container needs; a line for each action."""
        from sysbox.image import removal

        return removal.collect(self, in_use)

    def _rebuild(self, image_id: str, entries: Entries) -> Image:
        from sysbox.image import rebuild

        return rebuild.record(self, image_id, entries)
