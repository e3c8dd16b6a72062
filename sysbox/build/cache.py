"""The build cache: which layer a step made, one small file for each step, beside the layers.

    build/<64 hex of the key>.json    what the step has made: a layer and its archive, both in the store
    build/mounts/<32 hex>/            the directories of RUN --mount=type=cache

A key is the digest of all that a step's result depends on, so a record is never changed, only removed; its
modification time is that of its last use. Records keep their layers in the store (`image/removal.py`). A
record is written after its layer is durable, and without its layer it is no hit.
"""

from __future__ import annotations

import posix

from sysbox.base import codec, files
from sysbox.base.errors import FormatError
from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = "build"  # below the store's root
MOUNTS = "mounts"
DIGESTS = "digests"  # of trees in layers: build/origins.py
_LIMIT = 64 << 10  # bytes of a record
_SHOWN = 1000  # characters of an instruction that are kept
_SUFFIX = ".json"


class Cached(Frozen):
    """What one step has made."""

    diff_id: str  # of its layer
    chain_id: str  # of its layer on top of those below
    size: int  # bytes of the layer's files
    blob: str  # the digest of the layer's archive
    blob_size: int  # bytes
    compression: str = ""  # of the archive
    note: str = ""  # the instruction, for people
    created_ns: int = 0  # since 1970

    def wrong(self) -> str:
        found = (self.diff_id, self.chain_id, self.blob)
        if not all(one[:7] == "sha256:" and _is_sha256(one[7:]) for one in found):
            return "diff_id, chain_id, blob: must be digests"
        return "" if min(self.size, self.blob_size) >= 0 else "size, blob_size: must be bytes"

    @property
    def layer(self) -> str:
        """The name of its directory below the store's layers (`catalog.layer_name`)."""
        return self.chain_id[7:39]


def key_of(parts: list[str]) -> str:
    """The key of a step: the digest of texts, each with its length. 64 hex digits."""
    from hashlib import sha256

    digest = sha256()
    for one in parts:
        data = one.encode("utf-8", "surrogateescape")
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()


def directory(root: str) -> str:
    """The directory of the records; `root` is that of the store."""
    return f"{root}/{DIRECTORY}"


def find(root: str, key: str) -> Cached | None:
    """What is recorded for a key, and touch it; None for nothing, and for a record that cannot be read."""
    found = _read(f"{directory(root)}/{key}{_SUFFIX}")
    if found is not None:
        try:
            posix.utime(f"{directory(root)}/{key}{_SUFFIX}")
        except OSError:
            pass  # ignoring: removed meanwhile, or the time of its last use is not kept
    return found


def keep(root: str, key: str, made: Cached) -> None:
    """Record what a step has made, which is durable by now. Raises KernelError, FormatError."""
    files.make_private(directory(root))
    made = made.replace(note=made.note[:_SHOWN])
    files.write_file(f"{directory(root)}/{key}{_SUFFIX}", codec.dumps(made.to_data()), limit=_LIMIT)


def all_of(root: str) -> Iterator[tuple[str, Cached, float]]:
    """(key, record, time of its last use in seconds since 1970); those that cannot be read are left out."""
    for name in files.names(directory(root)):
        key = name.removesuffix(_SUFFIX)
        if name == key or not _is_sha256(key):
            continue
        path = f"{directory(root)}/{name}"
        found = _read(path)
        try:
            used = posix.stat(path).st_mtime
        except FileNotFoundError:
            continue  # removed meanwhile
        if found is not None:
            yield key, found, used


def remove(root: str, key: str) -> bool:
    """Forget a step; False where it was gone. Raises KernelError."""
    return files.unlink(f"{directory(root)}/{key}{_SUFFIX}")


def tidy(root: str) -> list[str]:
    """Remove records that cannot be read, and files of writers that were killed; their names."""
    stale = [path.rpartition("/")[2] for path in files.stale_files(directory(root))]
    damaged = [
        name
        for name in files.names(directory(root))
        if name.endswith(_SUFFIX) and _read(f"{directory(root)}/{name}") is None
    ]
    for name in (*stale, *damaged):
        files.unlink(f"{directory(root)}/{name}")
    return [*stale, *damaged]


def mounts(root: str) -> str:
    """The directory of the directories of RUN --mount=type=cache."""
    return f"{directory(root)}/{MOUNTS}"


def _read(path: str) -> Cached | None:
    try:
        data = files.read_file(path, _LIMIT)
        return None if data is None else Cached.from_data(codec.loads(data, path), path)
    except (FormatError, ValueError):
        return None


def _is_sha256(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
