"""A container's writable layer: its changes (`diff`), its size, and an image of it (`commit`)."""

from __future__ import annotations

import errno
import posix

from sysbox.base import tree
from sysbox.base.tree import TreeEntry
from sysbox.fs import changes, volumes
from sysbox.fs.changes import Change, Layers
from sysbox.fs.drivers.driver import driver_of
from sysbox.image.resolved import resolved_of
from sysbox.image.store import Store
from sysbox.run.frozen_while import FrozenWhile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from sysbox.container.store import Record
    from sysbox.image.model import Image, ImageConfig
    from sysbox.image.tarwriter import Archive

_OPEN = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_ATTEMPTS = 10  # to measure a tree while its directories are moved
# the mount points that every container has
_USUAL = ("/proc", "/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


class Writable:
    """The writable layer of a container above the layers of its image; a context manager.

    `placeholders` are the paths in it that sysbox made to mount on. Raises NotFound, KernelError, OSError.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._resolved = resolved_of(record)
        self.upper = -1
        self.lower = Layers(())
        self.placeholders: frozenset[str] = frozenset()

    def __enter__(self) -> Self:
        store = Store()
        self.upper = posix.open(driver_of(self._record).writable(self._record.directory), _OPEN)
        layers = reversed(self._resolved.layers)
        self.lower = Layers([posix.open(store.layer(name), _OPEN) for name in layers])
        self.placeholders = changes.placeholders(self.upper, self.lower, self._targets())
        return self

    def __exit__(self, *_: object) -> None:
        self.lower.close()
        if self.upper >= 0:
            posix.close(self.upper)

    def write(self, write: Callable[[bytes], object]) -> None:
        """Write it as an image's layer: a tar archive with whiteouts. Raises OSError, FormatError."""
        from sysbox.image.tarwriter import Archive

        archive = Archive(write)
        root = TreeEntry(".", posix.dup(self.upper))
        try:
            archive.entry(root, ".")
            self._write(archive, self.upper, "", 0)
        finally:
            root.close()
        archive.finish()

    def _write(self, archive: Archive, directory: int, prefix: str, depth: int) -> None:
        tree.check_depth(depth, prefix)
        if prefix and changes.is_opaque(directory):
            archive.mark(f"{prefix}.wh..wh..opq")
        for found in tree.entries(directory, prefix):
            name = prefix + found.name
            if f"/{name}" in self.placeholders:
                continue
            if changes.is_whiteout(found):
                archive.mark(f"{prefix}.wh.{found.name}")
                continue
            archive.entry(found, name)
            if found.is_directory:
                inner = found.open()
                try:
                    self._write(archive, inner, f"{name}/", depth + 1)
                finally:
                    posix.close(inner)

    def _targets(self) -> list[str]:
        usr = ("/usr",) if self._resolved.usr_bind else ()
        return [*_USUAL, *usr, *(mount.target for mount in self._record.spec.mounts)]


def changes_of(record: Record) -> list[Change]:
    """What a container has changed, sorted by path. Raises NotFound, OSError."""
    with Writable(record) as layer:
        return changes.changes(layer.upper, layer.lower, layer.placeholders)


def size_of(record: Record) -> int:
    """The bytes of the files in its writable layer: docker's SizeRw. Raises OSError."""
    try:
        upper = posix.open(driver_of(record).writable(record.directory), _OPEN)
    except FileNotFoundError:
        return 0
    try:
        return tree_size(upper)
    finally:
        posix.close(upper)


def tree_size(directory: int) -> int:
    """The bytes of all regular files below an open directory, each inode once. Raises OSError."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            return _sum(directory)
        except OSError as error:
            if error.errno != errno.ESTALE or not left:
                raise  # else a directory was moved meanwhile
    raise AssertionError("unreachable: the last attempt returns or raises")


def _sum(directory: int) -> int:
    seen: set[tuple[int, int]] = set()
    total = 0
    for found in tree.walk(directory):
        if found.is_directory or (found.status.st_nlink > 1 and found.identity in seen):
            continue
        if found.status.st_nlink > 1:
            seen.add(found.identity)
        total += found.status.st_size
    return total


def commit(
    record: Record,
    name: str,
    instructions: Sequence[str],
    *,
    author: str = "",
    message: str = "",
    pause: bool = True,
    tell: Callable[[int], object] = lambda _: None,
) -> Image:
    """Make the image `name` ("" for none) of a container as it is now, frozen unless `pause` is off.

    `instructions` are those of `import --change`; `tell` is called with the size of each piece, in bytes.
    Raises SpecError, NotFound, FormatError, KernelError; then it leaves nothing behind.
    """
    from sysbox.image import commit as image_commit
    from sysbox.image.changes import apply

    store = Store()
    image = store.resolve(record.image_id)
    config = apply(config_of(record, image), instructions)
    with Writable(record) as layer:

        def fill(write: Callable[[bytes], object]) -> None:
            with FrozenWhile(record, wanted=pause):
                layer.write(lambda data: (write(data), tell(len(data))))

        return image_commit.commit(
            store,
            image,
            config,
            fill,
            name,
            author=author,
            message=message,
            created_by=" ".join(record.argv),
        )


def config_of(record: Record, image: Image) -> ImageConfig:
    """The image's configuration, overridden by what was asked for the container, as docker commits it."""
    spec, config = record.spec, image.config
    given = {entry.partition("=")[0] for entry in spec.env}
    kept = tuple(one for one in config.env if one.partition("=")[0] not in given)
    own_entrypoint = spec.entrypoint is not None
    checked = spec.health.command or spec.health.disabled
    anonymous = (
        one.target
        for one in spec.mounts
        if one.kind == "volume" and not one.source and volumes.may_be_of_image(one.target)
    )
    ports = (f"{one.container_port}/{one.protocol}" for one in spec.ports)
    return config.replace(
        entrypoint=spec.entrypoint if own_entrypoint else config.entrypoint,
        cmd=spec.command if own_entrypoint else spec.command or config.cmd,
        env=(*kept, *spec.env),
        user=spec.user or config.user,
        workdir=spec.workdir or config.workdir,
        labels={**config.labels, **spec.labels},
        stop_signal=spec.stop_signal or config.stop_signal,
        volumes=tuple(sorted({*config.volumes, *anonymous})),
        exposed_ports=tuple(sorted({*config.exposed_ports, *ports})),
        # the action on failure is for the user of a container to choose, not for an image
        health=spec.health.replace(on_failure="none") if checked else config.health,
    )
