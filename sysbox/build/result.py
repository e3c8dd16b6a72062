"""What becomes of a stage that was built: an image of the store, or files of the caller's."""

from __future__ import annotations

import posix
import time

from sysbox.base import codec, tree
from sysbox.base.errors import SysboxError
from sysbox.build import config as configs
from sysbox.build import layers
from sysbox.build.layers import stacked
from sysbox.build.root import StageRoot
from sysbox.fs import changes
from sysbox.fs.changes import Layers
from sysbox.fs.treecopy import Copier, Rules
from sysbox.image import archive
from sysbox.image.catalog import DERIVED
from sysbox.image.commit import WRITTEN
from sysbox.image.documents import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    Descriptor,
    digest_of,
)
from sysbox.image.ingest import Blob

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.build.layers import Workshop
    from sysbox.build.options import Options
    from sysbox.build.state import State
    from sysbox.image.catalog import Catalog
    from sysbox.image.model import Image
    from sysbox.image.tarwriter import Archive

_OPEN = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_TYPES = {
    "oci": (OCI_MANIFEST, OCI_CONFIG, OCI_LAYER, "+"),
    "docker": (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER, "."),
}


def commit(shop: Workshop, state: State, options: Options, platform: str) -> Image:
    """Make an image of a stage, under all names that were asked for. Raises FormatError, KernelError."""
    if options.squash:
        squash(shop, state)
    if not state.stack:
        _add_empty(shop, state)
    store = shop.store
    state.config = state.config.replace(labels={**state.config.labels, **dict(options.labels)})
    document = _document(state, platform)
    blobs = [
        Blob(
            path=store.blob(one.blob),
            digest=one.blob,
            size=one.blob_size,
            compression=one.compression,
        )
        for one in state.stack
    ]
    manifest = _manifest(document, blobs, options)
    stack = [one.layer() for one in state.stack]
    builtin = DERIVED if state.usr_bind else ""
    if (known := _known(store, options, digest_of(manifest), digest_of(document))) is not None:
        return known
    first, *others = options.names or ("",)
    image = shop.work.commit(manifest, document, blobs, stack, first, builtin)
    for name in others:
        # the same documents under one more name
        image = shop.work.commit(manifest, document, blobs, stack, name, builtin)
    return image


def _known(store: Catalog, options: Options, manifest: str, image_id: str) -> Image | None:
    """The image, if it is there already under all names: as where every step came from the cache."""
    entries = store.entries()
    named = {one.name for one in entries if (one.digest, one.image_id) == (manifest, image_id)}
    if not named >= {*(options.names or ("",))}:
        return None
    try:
        return store.find(image_id)[1]
    except SysboxError:
        return None  # it is damaged, and made again


def _add_empty(shop: Workshop, state: State) -> None:
    """A layer with nothing in it: an image has one at least."""
    directory = shop.directory("empty")
    posix.mkdir(f"{directory}/upper", 0o755)
    made = shop.take(f"{directory}/upper", ())
    shop.settle()
    state.stack = (layers.settled(made),)
    state.history.append({"created": state.moment, "comment": "an empty layer"})


def _document(state: State, platform: str) -> bytes:
    """The configuration (OCI config.md): that of the base image, changed."""
    stack = [one.layer() for one in state.stack]
    created = state.moment or configs.moment_of(time.time_ns())
    fresh: dict[str, Any] = codec.loads(
        archive.config_document(state.config, stack, created, ""), "image config"
    )
    container = {
        key: value for key, value in state.document.get("config", {}).items() if key not in WRITTEN
    }
    container |= {key: value for key, value in fresh["config"].items() if key != "Healthcheck"}
    container |= state.extra
    system, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    own = {"architecture": architecture, "os": system} | ({"variant": variant} if variant else {})
    kept = {key: value for key, value in state.document.items() if key != "config"}
    author = {"author": state.author} if state.author else {}
    return codec.dumps(
        {
            **own,
            **kept,
            **author,
            "created": created,
            "config": container,
            "rootfs": fresh["rootfs"],
            "history": state.history,
        }
    )


def _manifest(document: bytes, blobs: list[Blob], options: Options) -> bytes:
    kind, of_config, of_layer, separator = _TYPES[options.format]
    described = Descriptor(media_type=of_config, digest=digest_of(document), size=len(document))
    found = [
        Descriptor(
            media_type=of_layer + (f"{separator}{one.compression}" if one.compression else ""),
            digest=one.digest,
            size=one.size,
        ).to_json()
        for one in blobs
    ]
    notes = {"annotations": dict(options.annotations)} if options.annotations else {}
    return codec.dumps(
        {
            "schemaVersion": 2,
            "mediaType": kind,
            "config": described.to_json(),
            "layers": found,
            **notes,
        }
    )


def write_tree(
    shop: Workshop, state: State, directory: int, left_out: Callable[[str, str], None]
) -> None:
    """Copy the files of a stage into an open directory, as `cp` does: they are the caller's.

    Set-user-ID bits would act for the caller, and a device node may be any of this machine's: both are left
    out, and `left_out` gets (name, why) of a node. Raises Conflict, KernelError.
    """
    rules = Rules(owner=(posix.geteuid(), posix.getegid()), privileged=False, devices=False)
    with StageRoot(state.stack, shop.directory("output")) as stage:
        source = tree.TreeEntry("", posix.dup(stage.fd))
        try:
            Copier(rules, left_out).merge(source, directory)
        finally:
            source.close()


def write_archive(shop: Workshop, state: State, write: Callable[[bytes], object]) -> None:
    """Write the files of a stage as a tar archive. Raises OSError, FormatError."""
    from sysbox.image.tarwriter import Archive

    archive_ = Archive(write)
    with StageRoot(state.stack, shop.directory("output")) as stage:
        root = tree.TreeEntry(".", posix.dup(stage.fd))
        try:
            directory = root.open()
            try:
                for found in tree.entries(directory):
                    archive_.tree(found, found.name)
            finally:
                posix.close(directory)
        finally:
            root.close()
    archive_.finish()


def squash(shop: Workshop, state: State) -> None:
    """Make one layer of those that the build has made. Raises FormatError, KernelError."""
    new = state.stack[state.below :]
    if len(new) < 2:
        return
    base = state.stack[: state.below]
    fds = [posix.open(shop.store.layer(one.name), _OPEN) for one in reversed(new)]
    below = shop.lower(base)
    try:
        blob = shop.pack(lambda write: _merge_all(fds, below, write), "the squashed layer")
    finally:
        below.close()
        for fd in fds:
            posix.close(fd)
    layer = shop.work.unpack(blob, "the squashed layer", [one.layer() for one in base])
    posix.rename(blob.path, shop.store.blob(blob.digest))
    state.stack = (*base, stacked(layer.name, layer, blob))
    kept = 0
    history = []
    for step in state.history:
        if not step.get("empty_layer"):
            kept += 1
        history.append({**step, "empty_layer": True} if kept > state.below else step)
    note = {"created": state.moment, "comment": f"merge of {len(new)} layers"}
    state.history = [*history, note]


def _merge_all(fds: list[int], base: Layers, write: Callable[[bytes], object]) -> None:
    from sysbox.image.tarwriter import Archive

    _Merge(Archive(write)).all(fds, base)


class _Merge:
    """Writes several layers as one. What hides nothing in the base is left out: overlayfs would show it."""

    def __init__(self, archive_: Archive) -> None:
        self._archive = archive_

    def all(self, fds: list[int], base: Layers) -> None:
        """`fds` are the layers, the highest first."""
        self._directory(fds, base, "", 0, hides=False)
        self._archive.finish()

    def _directory(
        self, fds: list[int], base: Layers, prefix: str, depth: int, *, hides: bool
    ) -> None:
        """One directory of them; with `hides` it covers that of the base."""
        tree.check_depth(depth, prefix)
        for index, fd in enumerate(fds):
            if prefix and changes.is_opaque(fd):
                fds, hides = fds[: index + 1], True
                break
        if hides and base.names():
            self._archive.mark(f"{prefix}.wh..wh..opq")
        first: dict[str, int] = {}
        for index, fd in enumerate(fds):
            for name in posix.listdir(fd):
                first.setdefault(name, index)
        for name, index in sorted(first.items()):
            self._entry(fds[index:], base, prefix, name, depth, hides=hides)

    def _entry(
        self, fds: list[int], base: Layers, prefix: str, name: str, depth: int, *, hides: bool
    ) -> None:
        found = tree.open_entry(fds[0], name)
        if found is None:
            return
        try:
            if changes.is_whiteout(found):
                hidden = base.look(name)
                if hidden is not None:
                    hidden.close()
                    self._archive.mark(f"{prefix}.wh.{name}")
                return
            self._archive.entry(found, prefix + name)
            if found.is_directory:
                below = Layers(()) if hides else base.below(name)
                try:
                    self._below(fds, below, name, f"{prefix}{name}/", depth)
                finally:
                    below.close()
        finally:
            found.close()

    def _below(self, fds: list[int], base: Layers, name: str, prefix: str, depth: int) -> None:
        inner: list[int] = []
        hides = False
        try:
            for fd in fds:
                found = tree.open_entry(fd, name)
                if found is None:
                    continue
                try:
                    if not found.is_directory:
                        hides = True  # it had taken the place of what is below
                        break
                    inner.append(found.open())
                finally:
                    found.close()
            self._directory(inner, base, prefix, depth + 1, hides=hides)
        finally:
            for fd in inner:
                posix.close(fd)
