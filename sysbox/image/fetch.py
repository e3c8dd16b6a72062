"""Fetch the layers of an image and unpack them, each in one pass, side by side.

    with Ingest(store) as work:
        blobs, stack = layers(work, manifest.layers, config.diff_ids, open_blob, tell)
        work.commit(manifest, config, blobs, stack, name)

A worker takes one blob from its socket through everything: its digest, the file that keeps it, the
decompressor, the diff id, the extractor. The largest blob goes first. When all agree, one syncfs(2) makes
them durable, and they get their names; before that, the store has only parts of blobs (`partial`).

Another process that wants one of these blobs waits for its lock until then, so that it finds blob and layer
in the store. All locks are taken before the work starts, in the order of the digests, so that two processes
never wait for each other.
"""

from __future__ import annotations

import posix
import time

from sysbox.base import files
from sysbox.base.errors import FormatError, KernelError, NotFound
from sysbox.base.frozen import Frozen
from sysbox.host import exists
from sysbox.image import layertree, partial
from sysbox.image.catalog import chain_ids, layer_name
from sysbox.image.crew import Crew
from sysbox.image.decompress import HEAD, compression
from sysbox.image.ingest import Blob, Layer, sync_file_system
from sysbox.image.rebuild import read_layer
from sysbox.image.unpacker import FULL, Unpacker, read_implied
from sysbox.image.verified import Verified

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, NoReturn

    from sysbox.image.crew import Message, Report
    from sysbox.image.documents import Descriptor
    from sysbox.image.download import OpenBlob
    from sysbox.image.ingest import Ingest

    Tell = Callable[[int, int], object]
    State = Callable[[int, str], object]

# what `state` is called with
EXISTS = "exists"  # in the store already
WAITING = "waiting"  # another process is fetching it; said again about every second
FETCHING = "fetching"
DONE = "done"  # verified and unpacked

_TICK = 1.0  # seconds
_WRITE_OUT = (
    1.0  # seconds between two of the calls of syncfs(2) before the last, which alone counts
)


def layers(
    work: Ingest,
    descriptors: Sequence[Descriptor],
    diff_ids: Sequence[str],
    open_blob: OpenBlob,
    tell: Tell = lambda _index, _bytes: None,
    state: State = lambda _index, _word: None,
    verified: Verified | None = None,
    local: Mapping[str, str] | None = None,
) -> tuple[list[Blob], list[Layer]]:
    """Bring the layers of an image into the store; (their blobs, the layers), lowest first, for `commit`.

    `descriptors` are the manifest's, `diff_ids` the configuration's, both lowest first.
    `open_blob(descriptor, start)` is called in a worker, which must not share a connection with this process.
    `local` has the paths of blobs that need not be fetched, in the temporary directory of `work`, by digest.
    `tell` gets the index of a layer and how many bytes of its blob are here; `state` one of the words above.

    Raises FormatError for content that is not what the documents say, the errors of `open_blob` and of the
    connection, KernelError. The store then has nothing new but the parts of blobs that a later call goes on
    from; on a full disk, not even these.
    """
    if len(descriptors) != len(diff_ids):
        raise FormatError(
            f"the manifest has {len(descriptors)} layers, the configuration {len(diff_ids)}"
        )
    known = verified or Verified(work.store)
    return _Fetch(work, descriptors, diff_ids, open_blob, tell, state, known, local or {}).run()


class _Wanted(Frozen):
    """One layer of the image."""

    index: int
    digest: str
    name: str  # of its directory
    chain_id: str


class _Fetch:
    """The work for one image."""

    def __init__(
        self,
        work: Ingest,
        descriptors: Sequence[Descriptor],
        diff_ids: Sequence[str],
        open_blob: OpenBlob,
        tell: Tell,
        state: State,
        verified: Verified,
        local: Mapping[str, str],
    ) -> None:
        self._work = work
        self._store = work.store
        self._descriptors = descriptors
        self._diff_ids = diff_ids
        self._tell = tell
        self._state = state
        self._verified = verified
        self._local = local
        self._unpacker = Unpacker(work, descriptors, diff_ids, open_blob)
        self._wanted = [
            _Wanted(index=index, digest=one.digest, name=layer_name(chain), chain_id=chain)
            for index, (one, chain) in enumerate(
                zip(descriptors, chain_ids(tuple(diff_ids)), strict=True)
            )
        ]
        self._found: dict[int, Layer] = {}  # unpacked, by index
        self._paths: dict[int, str] = {}  # of those that this call has unpacked
        self._locks: dict[str, partial.Partial] = {}  # by digest

    def run(self) -> tuple[list[Blob], list[Layer]]:
        try:
            self._lock_missing()
            self._work_off(self._jobs())
            self._settle()
            self._place()
        except KernelError as error:
            if error.errno in FULL:
                # what the next attempt would go on from is what fills the disk
                for lock in self._locks.values():
                    lock.empty()
            raise
        finally:
            for lock in self._locks.values():
                lock.release()
        for one in self._wanted:
            self._verified.note(one.digest, self._diff_ids[one.index])
        blobs = [_stored(self._store.blob(one.digest), one) for one in self._descriptors]
        return blobs, [self._found[one.index] for one in self._wanted]

    def _lock_missing(self) -> None:
        digests = {one.digest for one in self._wanted if self._is_missing(one)}
        for digest in sorted(digests):
            first = next(one.index for one in self._wanted if one.digest == digest)
            said = 0.0

            def waiting(index: int = first) -> None:
                nonlocal said
                if time.monotonic() >= said + _TICK:
                    said = time.monotonic()
                    self._state(index, WAITING)

            self._locks[digest] = partial.acquire(self._store, digest, waiting)

    def _is_missing(self, wanted: _Wanted) -> bool:
        """Whether the layer or its blob is missing, or they were never compared; the layer is noted.

        Raises FormatError.
        """
        if wanted.index not in self._found:
            try:
                layer = read_layer(self._store, wanted.name)
            except NotFound:
                return True
            if layer.chain_id != wanted.chain_id:
                raise FormatError(f"{self._store.layer(wanted.name)}: belongs to {layer.chain_id}")
            self._found[wanted.index] = layer
        if not exists(self._store.blob(wanted.digest)):
            return True
        return (wanted.digest, self._diff_ids[wanted.index]) not in self._verified

    def _jobs(self) -> list[dict[str, Any]]:
        """The work that is left now that the locks are held, the largest blob first."""
        jobs = []
        for digest, indexes in _by_digest(self._wanted):
            blob = self._store.blob(digest)
            stored = exists(blob)
            missing = [index for index in indexes if self._is_missing(self._wanted[index])]
            for index in indexes:
                if index not in missing:
                    self._state(index, EXISTS)
                    self._tell(index, self._descriptors[index].size)
            whole = blob if stored else self._local.get(digest, "")
            if whole and digest in self._locks:
                self._locks[digest].empty()
            if not missing:
                continue
            directories = {
                str(index): "" if index in self._found else self._work.path("layer")
                for index in missing
            }
            jobs.append(
                {
                    "what": f"the layer {digest[:19]}",
                    "digest": digest,
                    "blob": whole or self._locks[digest].path,
                    "is_fetched": not whole,
                    "directories": directories,  # index -> where to unpack; "": only verify
                }
            )
        return sorted(jobs, key=lambda job: -self._size(job))

    def _size(self, job: dict[str, Any]) -> int:
        return max(self._descriptors[int(index)].size for index in job["directories"])

    def _work_off(self, jobs: list[dict[str, Any]]) -> None:
        most = min(len(posix.sched_getaffinity(0)) + 1, len(jobs))
        with Crew(1, _write_out) as writer, Crew(most, self._unpacker) as crew:
            if jobs:
                writer.give({"path": self._store.root})
            while jobs or crew.busy:
                while jobs and crew.free:
                    job = jobs.pop(0)
                    for index in job["directories"]:
                        self._state(int(index), FETCHING)
                    crew.give(job, self._locks[job["digest"]].fd)
                for message in crew.wait(_TICK):
                    self._note(message)

    def _note(self, message: Message) -> None:
        directories = message.job["directories"]
        if not message.done:
            for index in directories:
                self._tell(int(index), message.data["have"])
            return
        for text, path in directories.items():
            index = int(text)
            if path:
                self._paths[index] = path
                self._found[index] = Layer(
                    diff_id=self._diff_ids[index],
                    chain_id=self._wanted[index].chain_id,
                    size=message.data["sizes"][text],
                )
            self._tell(index, self._descriptors[index].size)
            self._state(index, DONE)

    def _settle(self) -> None:
        """Give directories that an archive only implies mode and owner from below, now that all is there."""
        opened: list[int] = []  # the highest first
        try:
            for wanted in self._wanted:
                path = self._paths.get(wanted.index, self._store.layer(wanted.name))
                root = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
                opened.insert(0, root)
                if wanted.index in self._paths:
                    layertree.settle(root, read_implied(path), opened[1:])
        except OSError as error:
            raise KernelError.of("settle", "the directories of the image", error) from None
        finally:
            for fd in opened:
                posix.close(fd)

    def _place(self) -> None:
        """Give layers and blobs their names; syncfs(2) has made the content of both durable."""
        self._work.place([(path, self._found[index]) for index, path in self._paths.items()])
        for digest, lock in self._locks.items():
            blob = self._store.blob(digest)
            if not exists(blob):
                try:
                    posix.rename(self._local.get(digest, lock.path), blob)
                except OSError as error:
                    raise KernelError.of("rename", blob, error) from None
        files.sync_directory(f"{self._store.root}/blobs/sha256")


def _write_out(job: dict[str, Any], _fd: int, _report: Report) -> NoReturn:
    """Have the kernel write while the others compute, else the disk is idle until all wait for it.

    Runs in a worker, until that is ended.
    """
    while True:
        time.sleep(_WRITE_OUT)
        sync_file_system(job["path"])


def _by_digest(wanted: Sequence[_Wanted]) -> Iterator[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for one in wanted:
        found.setdefault(one.digest, []).append(one.index)
    return iter(found.items())


def _stored(path: str, descriptor: Descriptor) -> Blob:
    """A blob of the store; raises FormatError if the manifest gives it another size, KernelError."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as error:
        raise KernelError.of("open", path, error) from None
    try:
        size = posix.fstat(fd).st_size
        head = posix.read(fd, HEAD)
    finally:
        posix.close(fd)
    if size != descriptor.size:
        raise FormatError(
            f"the blob {descriptor.digest[:19]}: has {size} bytes, the manifest says {descriptor.size}"
        )
    return Blob(path=path, digest=descriptor.digest, size=size, compression=compression(head))
