"""The content store and its layout: an OCI image layout, and its layers unpacked.

    oci-layout index.json blobs/sha256/<hex>   as in OCI image-layout.md, so that skopeo can read them
    blobs/.partial/<hex>                        the part that an unfinished pull has of a blob
    layers/<32 hex of the chain id>/            one layer, unpacked: an overlay lowerdir
    layers/<32 hex>.json                        its chain id, diff id and size
    records/<64 hex>.json                       an Image, derived from its blobs: two reads resolve a name
    provenance/<64 hex>.json                    where it came from, and the signatures that were accepted
    temporary/<anything>/                       work in progress, removed by gc

index.json is authoritative: content that neither it, a container nor the cache of builds needs is an orphan.
Writers replace it by rename, under `index.lock`. A process that adds content, or is about to use some, holds
`use.lock` shared; gc takes it exclusively to remove orphans, so that no content disappears between two steps.
"""

from __future__ import annotations

from sysbox.base import codec, files, paths
from sysbox.base.errors import (
    Conflict,
    FormatError,
    ImageNotFound,
    NotFound,
    SpecError,
    SysboxError,
)
from sysbox.base.flock import Lock
from sysbox.base.frozen import Frozen
from sysbox.host import exists
from sysbox.image.model import Image
from sysbox.image.reference import Reference, is_digest, is_hex, is_short, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Entries = list["Entry"]  # `list` is a method below

MAX_INDEX = 16 << 20
MAX_ENTRIES = 20_000
MAX_RECORD = 8 << 20
MAX_LAYER_RECORD = 4096
MIN_ID = (
    4  # digits of an abbreviated id: with fewer, a name that is not here would be one by chance
)
SHOWN_ID = 12  # digits of the ids that `images` shows
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_ID = "sysbox.image.id"
# "host:<key>" for the image `host`, DERIVED for one committed from it and for its further names; set by
# sysbox, never by an image
BUILTIN = "sysbox.builtin"
INDEX_DIGEST = "sysbox.index.digest"
DERIVED = "derived"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


class Entry(Frozen):
    """One descriptor of index.json: a name for a manifest, or a manifest without a name."""

    media_type: str
    digest: str  # of the manifest
    size: int
    image_id: str  # "sha256:<hex>" of the configuration
    name: str = ""  # a full reference
    builtin: str = ""
    index: str = ""  # the digest of the index that the manifest was chosen from, under this name


class Catalog:
    """The store on disk. Readers take no lock; `edit` replaces the index under a lock, atomically."""

    def __init__(self, root: str = paths.IMAGES) -> None:
        self.root = root

    def blob(self, digest: str) -> str:
        """The path of a blob; raises FormatError for anything but a sha256 digest."""
        if not is_digest(digest):
            raise FormatError(f"{digest!r} is not a sha256 digest")
        return f"{self.root}/blobs/sha256/{digest[7:]}"

    def layer(self, name: str) -> str:
        """The directory of a layer named in `Image.layers`; raises FormatError for another name."""
        if not is_hex(name, 32):
            raise FormatError(f"{name!r} is not the name of a layer")
        return f"{self.root}/layers/{name}"

    def record(self, image_id: str) -> str:
        """The path of an image's record; raises FormatError for anything but an id."""
        if not is_digest(image_id):
            raise FormatError(f"{image_id!r} is not an image id")
        return f"{self.root}/records/{image_id[7:]}.json"

    def find(self, name: str) -> tuple[str, Image]:
        """The image of this name or id, and the full reference that matched ("" for an id).

        A name comes before an id, and what has fewer than MIN_ID digits is no id. A short name that is
        neither docker.io's nor an id means what `pull` would make of it. The manifest is
        the one that the name has: several may lead to one image, as where two registries compress the same
        layers differently.

        Raises NotFound, Conflict for a prefix of several ids, SpecError for a malformed reference.
        """
        entries = self.entries()
        if not is_digest(name) and not is_hex(name, 64):
            try:
                reference = parse(name)
            except SpecError:
                if not is_hex(name):
                    raise
            else:
                entry = _by_reference(entries, reference)
                if entry:
                    return reference.full(), self._load(entry.image_id, entries, entry.digest)
        image_id = self._by_id(entries, name) if len(name) >= SHOWN_ID else ""
        if not image_id:
            for reference in meanings(name) if entries else ():
                entry = _by_reference(entries, reference)
                if entry:
                    return reference.full(), self._load(entry.image_id, entries, entry.digest)
            image_id = self._by_id(entries, name)
        if not image_id:
            raise ImageNotFound(f"no such image: {name}", hint=_hint(entries, name))
        given = f"sha256:{name.removeprefix('sha256:')}"
        return "", self._load(image_id, entries, given)

    def list(self) -> list[Image]:
        """All images, the newest first; without those that are removed meanwhile.

        Raises NotFound, FormatError for one that is damaged.
        """
        entries = self.entries()
        images = []
        for image_id in dict.fromkeys(entry.image_id for entry in entries):
            try:
                images.append(self._load(image_id, entries))
            except (FormatError, NotFound):
                if any(entry.image_id == image_id for entry in self.entries()):
                    raise
        return sorted(images, key=lambda image: (image.created, image.id), reverse=True)

    def hold(self) -> Lock:
        """A lock that keeps gc from removing content: `with store.hold():` resolve and write the record."""
        return Lock(f"{self.root}/use.lock", shared=True)

    def entries(self) -> tuple[Entry, ...]:
        """The content of index.json; empty if there is none. Raises FormatError."""
        path = f"{self.root}/index.json"
        data = files.read_file(path, MAX_INDEX)
        if data is None:
            return ()
        return read_index(codec.loads(data, path), path)

    def edit(self, change: Callable[[Entries], Entries]) -> None:
        """Replace the entries by `change(entries)`, atomically and under the lock. Raises FormatError."""
        with Lock(f"{self.root}/index.lock"):
            entries = change(list(self.entries()))
            if len(entries) > MAX_ENTRIES:
                raise FormatError(
                    f"the store has {MAX_ENTRIES} images and names, and may have no more"
                )
            files.write_file(
                f"{self.root}/index.json",
                codec.dumps(write_index(entries)),
                limit=MAX_INDEX,
                durable=True,
            )

    def _by_id(self, entries: tuple[Entry, ...], text: str) -> str:
        prefix = text.removeprefix("sha256:")
        if not is_hex(prefix) or not MIN_ID <= len(prefix) <= 64:
            return ""
        found = {e.image_id for e in entries if e.image_id.startswith(f"sha256:{prefix}")}
        if not found and len(prefix) == 64:
            # an image that is no longer in the index keeps its record while a container uses it
            if exists(self.record(f"sha256:{prefix}")):
                return f"sha256:{prefix}"
            found = {e.image_id for e in entries if e.digest == f"sha256:{prefix}"}
        if len(found) > 1:
            raise Conflict(f"the image id {text} is ambiguous: {len(found)} images begin with it")
        return found.pop() if found else ""

    def _load(self, image_id: str, entries: tuple[Entry, ...], manifest: str = "") -> Image:
        own = [entry for entry in entries if entry.image_id == image_id]
        names = tuple(sorted(entry.name for entry in own if entry.name))
        path = self.record(image_id)
        data = files.read_file(path, MAX_RECORD)
        if data is None:
            image = self._rebuild(image_id, own)
        else:
            try:
                image = Image.from_data(codec.loads(data, path), path)
            except ValueError as error:
                raise FormatError(str(error), hint="`sysbox gc` rebuilds it") from None
        # the record has the manifest that came last, which may be gone again, or another name's
        digests = [entry.digest for entry in own]
        wanted = [one for one in (manifest, image.manifest) if one in digests] or digests
        return image.replace(names=names, manifest=wanted[0] if wanted else image.manifest)

    def _rebuild(self, image_id: str, entries: Entries) -> Image:  # noqa: ARG002 (for Store)
        raise NotFound(f"no such image: {image_id}")


def layer_name(chain_id: str) -> str:
    """The directory name of a layer: the first 32 digits of its chain id."""
    return chain_id[7:39]


def chain_ids(diff_ids: tuple[str, ...]) -> tuple[str, ...]:
    """The chain id of each layer from the bottom (OCI config.md, "Layer ChainID")."""
    from hashlib import sha256

    chain = ""
    result = []
    for diff_id in diff_ids:
        chain = f"sha256:{sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id
        result.append(chain)
    return tuple(result)


def read_index(document: Any, what: str) -> tuple[Entry, ...]:
    """The entries of an index.json that sysbox wrote; raises FormatError for any other."""
    items = document.get("manifests") if type(document) is dict else None
    if type(items) is not list or "layers" in document or document.get("schemaVersion") != 2:
        raise FormatError(f"{what}: is not an OCI image index")
    if len(items) > MAX_ENTRIES:
        raise FormatError(f"{what}: has {len(items)} manifests, the limit is {MAX_ENTRIES}")
    return tuple([_entry(item, what) for item in items])


def _entry(item: Any, what: str) -> Entry:
    notes = item.get("annotations") if type(item) is dict else None
    if type(notes) is not dict:
        raise FormatError(f"{what}: a manifest without annotations is not sysbox's")
    values = [item.get("mediaType")]
    values += [notes.get(key, "") for key in (REF_NAME, BUILTIN, INDEX_DIGEST)]
    digest: Any = item.get("digest")
    image_id: Any = notes.get(IMAGE_ID)
    size = item.get("size")
    if any([type(value) is not str for value in values]) or type(size) is not int:  # noqa: C419
        raise FormatError(f"{what}: a descriptor holds a value of a wrong type")
    if not is_digest(digest) or not is_digest(image_id):
        raise FormatError(f"{what}: a descriptor has no valid digest")
    kind, name, builtin, index = values
    return Entry(
        media_type=kind,
        digest=digest,
        size=size,
        image_id=image_id,
        name=name,
        builtin=builtin,
        index=index,
    )


def write_index(entries: list[Entry]) -> dict[str, Any]:
    """The document that `read_index` reads."""
    manifests = []
    for entry in sorted(entries, key=lambda one: (one.name, one.digest)):
        notes = {IMAGE_ID: entry.image_id}
        if entry.name:
            notes[REF_NAME] = entry.name
        if entry.builtin:
            notes[BUILTIN] = entry.builtin
        if entry.index:
            notes[INDEX_DIGEST] = entry.index
        manifests.append(
            {
                "mediaType": entry.media_type,
                "digest": entry.digest,
                "size": entry.size,
                "annotations": notes,
            }
        )
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}


def meanings(name: str) -> tuple[Reference, ...]:
    """What registries.conf says that a short name may mean; () where it says nothing of use."""
    if is_digest(name) or is_hex(name, 64) or not is_short(name):
        return ()
    from sysbox.image.registry import conf

    try:
        return conf.candidates(name)
    except SysboxError:
        return ()  # `pull` says what is wrong with the file


def _hint(entries: tuple[Entry, ...], name: str) -> str:
    """What to do where the store has no image of that name."""
    # podman's `build -t app` makes localhost/app, docker's and sysbox's makes app
    before, of_podman, plain = name.partition("localhost/")
    if of_podman and not before and is_short(plain):
        try:
            there = _by_reference(entries, parse(plain))
        except SpecError:
            there = None
        if there:
            return f"{plain} is here: write that, or `sysbox tag {plain} {name}`"
    return (
        "`sysbox images` lists what is here, and `host` is always there; `sysbox pull IMAGE` "
        "fetches one, `sysbox import FILE NAME` makes one of a root file system"
    )


def _by_reference(entries: tuple[Entry, ...], reference: Reference) -> Entry | None:
    if not reference.digest:
        wanted = reference.full()
        for entry in entries:
            if entry.name == wanted:
                return entry
        return None
    # name@digest: the manifest, or the index it is from, if one of its names is in that repository
    for entry in entries:
        if reference.digest in (entry.digest, entry.index) and entry.name:
            other = parse(entry.name)
            if other.repository() == reference.repository():
                return entry
    return None
