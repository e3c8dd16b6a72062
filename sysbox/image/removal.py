"""Tag, untag and delete images, and remove content that nothing refers to any more."""

from __future__ import annotations

import posix
import time

from sysbox.base import codec, files
from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError, SysboxError
from sysbox.base.files import remove_tree
from sysbox.base.flock import Lock
from sysbox.base.frozen import Frozen
from sysbox.build import cache
from sysbox.host import exists
from sysbox.image import partial
from sysbox.image.catalog import DERIVED, MAX_RECORD, Catalog, Entry, chain_ids, layer_name
from sysbox.image.documents import MAX_CONFIG, MAX_MANIFEST, parse_config, parse_manifest
from sysbox.image.ingest import prepare, with_entry
from sysbox.image.model import Image
from sysbox.image.reference import HOST, is_hex, parse, refuse_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    InUse = Callable[[str], list[str]]

_BRIEFLY = (
    1.0  # seconds: the workers of a command that was killed hold its lock until they have ended
)


class Removed(Frozen):
    """One step of a removal: a name that was taken from an image, or an image that was deleted."""

    action: str  # untag or delete, as docker's events have it
    image_id: str
    name: str  # as docker shows it; "" where an image was deleted
    labels: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)

    def __str__(self) -> str:
        """As `docker rmi` prints it."""
        return f"Untagged: {self.name}" if self.name else f"Deleted: {self.image_id}"


def tag(store: Catalog, name: str, new: str) -> Image:
    """Give the image `name` the further name `new`; returns the image. Raises NotFound, SpecError."""
    reference = parse(new)
    if reference.digest:
        raise SpecError(f"a name with a digest cannot be given: {new}")
    refuse_host(new)
    with store.hold():
        image = store.find(name)[1]

        def change(entries: list[Entry]) -> list[Entry]:
            own = [entry for entry in entries if entry.image_id == image.id]
            for entry in sorted(own, key=lambda one: one.digest != image.manifest):
                # a further name of the image `host` stays when the machine changes
                builtin = DERIVED if entry.builtin else ""
                return with_entry(entries, entry.replace(name=reference.full(), builtin=builtin))
            raise NotFound(f"no such image: {name}")

        store.edit(change)
        return image


def untag(store: Catalog, name: str, names: Sequence[str] = ()) -> list[Removed]:
    """Take names from the image `name`, all without `names`, as `podman untag`: the image stays.

    Raises NotFound also for a name that the image does not have; none is taken then. Raises SpecError.
    """
    for one in names:
        refuse_host(one)
    gone: set[str] = set()
    with store.hold():
        image = store.find(name)[1]

        def change(entries: list[Entry]) -> list[Entry]:
            old = [entry for entry in entries if entry.image_id == image.id]
            known = {entry.name for entry in old if entry.name not in ("", HOST)}
            gone.update(_full(one) for one in names) if names else gone.update(known)
            for one in sorted(gone - known):
                raise NotFound(f"the image {name} does not have the name {parse(one).familiar()}")
            rest = [e for e in entries if e.image_id != image.id or e.name not in gone]
            if old and not any(entry.image_id == image.id for entry in rest):
                rest.append(old[0].replace(name=""))
            return rest

        store.edit(change)
    return [
        Removed(
            action="untag",
            image_id=image.id,
            name=parse(one).familiar(),
            labels=image.config.labels,
        )
        for one in sorted(gone)
    ]


def _full(name: str) -> str:
    return parse(name).full()


def remove(store: Catalog, name: str, in_use: InUse, *, force: bool) -> list[Removed]:
    """As `Store.remove`."""
    matched, image = store.find(name)
    users = in_use(image.id)
    gone = _names_to_go(image, matched, users, name, force=force)
    keep_data = bool(users) or len(gone) < len(image.names)
    labels = image.config.labels
    done = [
        Removed(action="untag", image_id=image.id, name=parse(one).familiar(), labels=labels)
        for one in gone
    ]

    def change(entries: list[Entry]) -> list[Entry]:
        rest = [e for e in entries if e.image_id != image.id or (e.name and e.name not in gone)]
        old = [entry for entry in entries if entry.image_id == image.id]
        if users and old and not any(entry.image_id == image.id for entry in rest):
            rest.append(old[0].replace(name=""))
        return rest

    store.edit(change)
    if not keep_data:
        done.append(Removed(action="delete", image_id=image.id, name="", labels=labels))
        sweep(store, in_use)
    return done


def _names_to_go(
    image: Image, matched: str, users: list[str], name: str, *, force: bool
) -> list[str]:
    """The names that `remove` takes from the image; raises Conflict, in docker's words."""
    if matched and len(image.names) > 1:
        return [matched if matched in image.names else image.names[0]]
    short = image.id[7:19]
    if users and not force:
        if matched:
            raise Conflict(
                f'unable to remove repository reference "{name}" (must force) - '
                f"container {users[0]} is using its referenced image {short}"
            )
        raise Conflict(
            f"unable to delete {short} (must be forced) - image is being used by container {users[0]}"
        )
    repositories = {parse(one).repository() for one in image.names}
    if not matched and len(repositories) > 1 and not force:
        raise Conflict(
            f"unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )
    return list(image.names)


def collect(store: Catalog, in_use: InUse) -> list[str]:
    """As `Store.gc`."""
    if not exists(store.root):
        return []
    prepare(store)  # the first command ever may have been killed before it had made all
    done = []
    for entry in store.entries():
        # `find` rebuilds a record that is lost; a damaged one is removed first
        try:
            store.find(entry.image_id)
        except SysboxError:
            files.unlink(store.record(entry.image_id))
            try:
                store.find(entry.image_id)
                done.append(f"rebuilt the record of the image {entry.image_id[7:19]}")
            except SysboxError as error:
                done.append(f"the image {entry.image_id[7:19]} is damaged: {error.message}")
    try:
        lock = Lock(_use_lock(store), timeout=_BRIEFLY)
    except Conflict:
        return [*done, f"left the orphans of {store.root} alone: a command is adding images"]
    with lock:
        done += [f"removed {cache.DIRECTORY}/{name}" for name in cache.tidy(store.root)]
        return done + _sweep(store, in_use)


def sweep(store: Catalog, in_use: InUse) -> None:
    """Remove content that nothing needs (`_Needed`); nothing while a process uses the store."""
    try:
        lock = Lock(_use_lock(store), wait=False)
    except Conflict:
        return
    with lock:
        _sweep(store, in_use)


def _use_lock(store: Catalog) -> str:
    return f"{store.root}/use.lock"


def _sweep(store: Catalog, in_use: InUse) -> list[str]:
    needed = _Needed()
    try:
        for entry in store.entries():
            needed.add(store, entry.image_id, entry.digest)
    except SysboxError as error:
        # what a damaged image needs is not known, so anything may be needed
        return [f"left the orphans of {store.root} alone: {error.message}"]
    for name in files.names(f"{store.root}/records"):
        image_id = f"sha256:{name.removesuffix('.json')}"
        if is_hex(image_id[7:], 64) and image_id not in needed.images and in_use(image_id):
            needed.add(store, image_id, "")
    needed.add_cache(store)
    done = [
        _remove_tree(store, f"temporary/{name}") for name in files.names(f"{store.root}/temporary")
    ]
    root = store.root
    for name in files.names(f"{root}/layers"):
        if name.removesuffix(".json") in needed.layers:
            continue
        if ".json" in name:  # or the temporary file of a writer that was killed
            files.unlink(f"{root}/layers/{name}")
        else:
            done.append(_remove_tree(store, f"layers/{name}"))
    wanted_in = {
        "blobs/sha256": needed.blobs,
        "provenance": needed.records,
        "records": needed.records,
    }
    for directory, wanted in wanted_in.items():
        for name in files.names(f"{root}/{directory}"):
            if name not in wanted:
                files.unlink(f"{root}/{directory}/{name}")
                done.append(f"removed {directory}/{name}")
    done += partial.remove_stale(store, time.time())
    with Lock(f"{root}/index.lock"):
        for path in files.stale_files(root):
            files.unlink(path)
            done.append(f"removed {path.rpartition('/')[2]}")
    return done


class _Needed:
    """The content that the index, a container or the cache of builds refers to."""

    def __init__(self) -> None:
        self.images: set[str] = set()
        self.blobs: set[str] = set()
        self.layers: set[str] = set()
        self.records: set[str] = set()

    def add_cache(self, store: Catalog) -> None:
        """Add what the build cache has."""
        for _, made, _ in cache.all_of(store.root):
            self.layers.add(made.layer)
            self.blobs.add(made.blob[7:])

    def add(self, store: Catalog, image_id: str, manifest: str) -> None:
        """Add an image with its manifest, configuration, layer blobs and layers."""
        self.images.add(image_id)
        self.blobs.add(image_id[7:])
        self.records.add(f"{image_id[7:]}.json")
        self.layers.update(_layers_of(store, image_id))
        manifest = manifest or _manifest_of(store, image_id)
        document = files.read_file(store.blob(manifest), MAX_MANIFEST) if manifest else None
        if document is not None:
            self.blobs.add(manifest[7:])
            self.blobs.update(layer.digest[7:] for layer in parse_manifest(document).layers)


def _layers_of(store: Catalog, image_id: str) -> list[str]:
    """The layers of an image, from its configuration: a record may be missing.

    Raises NotFound, FormatError.
    """
    config = files.read_file(store.blob(image_id), MAX_CONFIG)
    if config is None:
        raise NotFound(f"the configuration of the image {image_id} is missing")
    return [layer_name(chain) for chain in chain_ids(parse_config(config).diff_ids)]


def _manifest_of(store: Catalog, image_id: str) -> str:
    """The digest of the manifest in the record of an image that the index lacks; "" if unknown."""
    path = store.record(image_id)
    data = files.read_file(path, MAX_RECORD)
    try:
        return Image.from_data(codec.loads(data, path), path).manifest if data else ""
    except (ValueError, FormatError):
        return ""


def _remove_tree(store: Catalog, name: str) -> str:
    # renamed first, so that a crash in the middle cannot leave half a layer under its name
    trash = f"{store.root}/temporary/gone-{name.rpartition('/')[2]}"
    path = f"{store.root}/{name}"
    if not name.startswith("temporary/"):
        posix.rename(path, trash)
        path = trash
    remove_tree(path)
    return f"removed {name}"
