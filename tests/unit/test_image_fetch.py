"""Layers from a registry: one pass each, side by side; resumed, bounded, verified, never half a layer."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import in_child, needs_root
from layers import fixtures
from layers.builder import archive, directory, entry

from sysbox.base.errors import FormatError, KernelError, NotFound, SysboxError, Unreachable
from sysbox.image import fetch, partial
from sysbox.image.documents import OCI_LAYER, Descriptor
from sysbox.image.ingest import Blob, Ingest, Layer
from sysbox.image.registry.blobs import BlobStream
from sysbox.image.registry.connections import Cut
from sysbox.image.store import Store
from sysbox.image.verified import Verified
from sysbox.linux import _sys
from sysbox.linux.namespace import CLONE_NEWNS

ATTEMPTS = 5


class Served:
    """Blobs by digest, and how a registry sends them: `requests` has a line per connection."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.blobs: dict[str, bytes] = {}
        self.ranges = True
        self.most = 1 << 30  # bytes per connection, which is cut then
        self.extra: dict[str, bytes] = {}
        self.says_length = True
        self.piece = 1 << 17
        self.pause = 0.0
        self.failure: Callable[[], Exception] | None = None

    def add(self, data: bytes, size: int = -1) -> Descriptor:
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return Descriptor(
            media_type=f"{OCI_LAYER}+gzip", digest=digest, size=len(data) if size < 0 else size
        )

    def open(self, descriptor: Descriptor, start: int) -> BlobStream:
        return BlobStream(
            descriptor, start, lambda at: self._ask(descriptor, at), lambda _: None, ATTEMPTS
        )

    def _ask(self, descriptor: Descriptor, start: int) -> tuple[Any, int]:
        with self.log.open("a") as file:
            file.write(f"{descriptor.digest} {start}\n")
        if self.failure is not None:
            raise self.failure()
        data = self.blobs[descriptor.digest] + self.extra.get(descriptor.digest, b"")
        begins = start if self.ranges else 0
        return Sent(self, data[begins:]), begins

    @property
    def requests(self) -> list[tuple[str, int]]:
        if not self.log.exists():
            return []
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(digest, int(start)) for digest, start in lines]


class Sent:
    """One answer, which is cut after `Served.most` bytes."""

    def __init__(self, served: Served, data: bytes) -> None:
        self._served = served
        self._length = len(data)
        self._data = data[: served.most]
        self._cut = len(data) > served.most

    def header(self, name: str) -> str:
        assert name == "Content-Length"
        return str(self._length) if self._served.says_length else ""

    def read(self, count: int) -> bytes:
        time.sleep(self._served.pause)
        count = min(count, self._served.piece)
        piece, self._data = self._data[:count], self._data[count:]
        if not piece and self._cut:
            raise Cut("the connection was cut")
        return piece

    def done(self) -> None:
        assert not self._data

    def close(self) -> None:
        self._data = b""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    needs_root()
    return Store(f"{tmp_path}/images")


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path / "requests")


def diff_id(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that no compression makes smaller, the same each time."""
    return hashlib.shake_128(str(seed).encode()).digest(size)


LOW = archive(
    directory("etc", 0o750, uid=3, gid=4), entry("etc/low", noise(300_000)), directory("srv", 0o711)
)
HIGH = archive(entry("etc/deep/high", b"high"), entry("srv/x", b"x"))


def get(
    store: Store,
    served: Served,
    layers: list[tuple[Descriptor, str]],
    **more: Any,
) -> tuple[list[Blob], list[Layer]]:
    with Ingest(store) as work:
        return fetch.layers(
            work, [d for d, _ in layers], [i for _, i in layers], served.open, **more
        )


def compressed(data: bytes, kind: str) -> bytes:
    if kind == "gzip":
        return gzip.compress(data, 1, mtime=0)
    if kind == "zstd":
        return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout
    return data


def nothing_but_parts(store: Store) -> list[str]:
    """The store has no layer, no blob and nothing temporary; the parts of blobs that it has."""
    for name in ("layers", "blobs/sha256", "temporary", "records"):
        assert not os.listdir(f"{store.root}/{name}"), name
    return sorted(os.listdir(partial.directory(store)))


@pytest.mark.parametrize("kind", ["plain", "gzip", "zstd"])
def test_two_layers_at_once(store: Store, served: Served, kind: str) -> None:
    """And a directory that the upper one only implies is the lower one's, as if one came after the other."""
    given = [(served.add(compressed(data, kind)), diff_id(data)) for data in (LOW, HIGH)]
    told: dict[int, int] = {}
    states: list[tuple[int, str]] = []
    blobs, stack = get(
        store, served, given, tell=told.__setitem__, state=lambda *a: states.append(a)
    )
    assert [(one.digest, one.size) for one in blobs] == [(d.digest, d.size) for d, _ in given]
    assert [one.diff_id for one in stack] == [diff_id(LOW), diff_id(HIGH)]
    assert told == {index: one.size for index, (one, _) in enumerate(given)}
    assert sorted(states) == [(0, "done"), (0, "fetching"), (1, "done"), (1, "fetching")]
    high = Path(store.layer(stack[1].name))
    status = (high / "etc").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 3, 4)
    assert stat.S_IMODE((high / "srv").stat().st_mode) == 0o711
    assert stat.S_IMODE((high / "etc/deep").stat().st_mode) == 0o755
    for blob, data in zip(blobs, (LOW, HIGH), strict=True):
        assert Path(blob.path).read_bytes() == compressed(data, kind)
        assert stat.S_IMODE(os.stat(blob.path).st_mode) == 0o600
    assert not os.listdir(partial.directory(store))
    assert not os.listdir(f"{store.root}/temporary")
    assert len(store.gc()) == 4  # no image leads to them


def test_a_layer_that_is_here_is_not_fetched(store: Store, served: Served) -> None:
    given = [(served.add(gzip.compress(data)), diff_id(data)) for data in (LOW, HIGH)]
    verified = Verified(store)
    first = get(store, served, given, verified=verified)
    states: list[tuple[int, str]] = []
    again = get(store, served, given, state=lambda *a: states.append(a), verified=verified)
    assert again == first
    assert states == [(0, "exists"), (1, "exists")]
    new = archive(entry("new"))
    get(store, served, [*given, (served.add(gzip.compress(new)), diff_id(new))])
    assert len(served.requests) == 3


def test_only_what_is_missing_is_done(store: Store, served: Served) -> None:
    """A layer without its blob is not unpacked again, a blob without its layer not fetched."""
    given = [(served.add(gzip.compress(LOW)), diff_id(LOW))]
    (blob,), (layer,) = get(store, served, given)
    before = os.stat(store.layer(layer.name)).st_ino
    os.unlink(blob.path)
    get(store, served, given)
    assert os.stat(store.layer(layer.name)).st_ino == before
    assert len(served.requests) == 2
    shutil.rmtree(store.layer(layer.name))
    get(store, served, given)
    assert (Path(store.layer(layer.name)) / "etc/low").exists()
    assert len(served.requests) == 2
    assert not os.listdir(partial.directory(store))


def test_one_blob_for_two_layers(store: Store, served: Served) -> None:
    one = (served.add(gzip.compress(HIGH)), diff_id(HIGH))
    _, stack = get(store, served, [one, one])
    assert stack[0].chain_id != stack[1].chain_id
    assert all((Path(store.layer(layer.name)) / "srv/x").exists() for layer in stack)
    assert len(served.requests) == 1


def test_many_layers(store: Store, served: Served) -> None:
    archives = [archive(entry(f"f{index}", noise(1000, index))) for index in range(40)]
    _, stack = get(store, served, [(served.add(one), diff_id(one)) for one in archives])
    for index, layer in enumerate(stack):
        assert (Path(store.layer(layer.name)) / f"f{index}").read_bytes() == noise(1000, index)


@pytest.mark.parametrize("kind", ["zstd", "gzip"])
def test_frames_and_members(store: Store, served: Served, kind: str) -> None:
    """As zstd:chunked and eStargz have them: many, and for zstd a skippable frame behind them."""
    pieces = [LOW[at : at + 100_000] for at in range(0, len(LOW), 100_000)]
    data = b"".join(compressed(piece, kind) for piece in pieces)
    if kind == "zstd":
        skipped = b"\x50\x2a\x4d\x18" + (1000).to_bytes(4, "little") + bytes(1000)
        data = skipped + data + skipped
    get(store, served, [(served.add(data), diff_id(LOW))])


BOMB = gzip.compress(archive(entry("x", bytes(50 << 20))))


def refused() -> Iterator[tuple[str, str, Callable[[Served], tuple[Descriptor, str]]]]:
    good = gzip.compress(LOW)

    def plain(data: bytes, what: str = diff_id(LOW), size: int = -1) -> Any:
        return lambda served: (served.add(data, size), what)

    def other_digest(served: Served) -> tuple[Descriptor, str]:
        one = served.add(good)
        served.blobs["sha256:" + "1" * 64] = good
        return one.replace(digest="sha256:" + "1" * 64), diff_id(LOW)

    def extra(served: Served) -> tuple[Descriptor, str]:
        one = served.add(good)
        served.extra[one.digest] = b"more"
        served.says_length = False
        return one, diff_id(LOW)

    yield "digest", "the content has the digest", other_digest
    yield "more", f"has more than {len(good)} bytes", extra
    for name, size in (("size too small", len(good) - 9), ("size too large", len(good) + 5)):
        yield name, f"has {len(good)} bytes where its descr.* says {size}", plain(good, size=size)
    yield "diff id", "its content is sha256:", plain(good, diff_id(HIGH))
    yield "truncated", "the compressed stream is truncated", plain(good[:-20])
    yield "garbage", "something behind the compressed stream|cannot be decomp", plain(good + b"\0x")
    yield "gzip bomb", "unpacks to more than", plain(BOMB)
    yield (
        "zstd bomb",
        "unpacks to more than",
        plain(compressed(archive(entry("x", bytes(50 << 20))), "zstd")),
    )
    yield (
        "xz",
        "compressed with xz",
        plain(subprocess.run(["xz", "-c"], input=LOW, capture_output=True).stdout),
    )
    yield "no archive", "not a tar archive", plain(gzip.compress(b"x" * 5000))
    yield "empty", "truncated", plain(b"")
    yield "leads out", "leads out", plain(archive(entry("../x")))


@pytest.mark.parametrize(
    ("text", "make"), [one[1:] for one in refused()], ids=[one[0] for one in refused()]
)
def test_refused(
    store: Store, served: Served, text: str, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysbox.image.ingest._FLOOR", 1 << 20)
    good = archive(entry("good", b"good"))
    given = [(served.add(good), diff_id(good)), make(served)]
    with pytest.raises(FormatError, match=text) as caught:
        get(store, served, given)
    assert "\n" not in caught.value.message
    assert set(nothing_but_parts(store)) <= {given[0][0].digest[7:]}
    assert store.gc() == []


def test_a_cut_connection_goes_on(store: Store, served: Served) -> None:
    served.most = 100_000
    one = served.add(LOW)
    get(store, served, [(one, diff_id(LOW))])
    starts = [start for _, start in served.requests]
    assert starts == list(range(0, len(LOW), 100_000))


def test_a_cut_connection_to_a_server_without_ranges(store: Store, served: Served) -> None:
    """It sends all from the start, so it must get further with one connection than with the one before."""
    served.ranges = False
    served.most = 100_000
    one = served.add(LOW)
    with pytest.raises(Unreachable, match=f"was cut {ATTEMPTS} times"):
        get(store, served, [(one, diff_id(LOW))])
    assert nothing_but_parts(store) == [one.digest[7:]]
    assert os.path.getsize(f"{partial.directory(store)}/{one.digest[7:]}") == 100_000
    served.most = 1 << 30
    get(store, served, [(one, diff_id(LOW))])


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("kept", ["good", "bad", "longer", "all"])
def test_what_an_earlier_attempt_left(
    store: Store, served: Served, kept: str, ranges: bool
) -> None:
    served.ranges = ranges
    data = gzip.compress(LOW)
    one = served.add(data)
    with Ingest(store):
        os.mkdir(partial.directory(store), 0o700)
    left = {
        "good": data[:5000],
        "bad": data[:3000] + bytes(500),
        "longer": data + b"x",
        "all": data,
    }[kept]
    Path(partial.directory(store), one.digest[7:]).write_bytes(left)
    blobs, _ = get(store, served, [(one, diff_id(LOW))])
    assert Path(blobs[0].path).read_bytes() == data
    starts = [start for _, start in served.requests]
    assert starts == {"good": [5000], "bad": [3500, 0], "longer": [0], "all": []}[kept] or (
        kept == "bad" and starts == [0]  # noticed before the connection was needed
    )


def test_an_answer_of_the_registry_is_not_asked_for_again(store: Store, served: Served) -> None:
    served.failure = lambda: NotFound("no such blob", hint="pushed again, it would be there")
    with pytest.raises(NotFound, match="no such blob") as caught:
        get(store, served, [(served.add(LOW), diff_id(LOW))])
    assert caught.value.hint == "pushed again, it would be there"
    assert len(served.requests) == 1
    assert nothing_but_parts(store) == []


def test_a_connection_that_is_always_cut(store: Store, served: Served) -> None:
    served.most = 0
    with pytest.raises(Unreachable, match=f"was cut {ATTEMPTS} times"):
        get(store, served, [(served.add(LOW), diff_id(LOW))])
    assert len(served.requests) == ATTEMPTS
    assert nothing_but_parts(store) == []


def test_a_fault_of_our_own_is_not_hidden(store: Store, served: Served) -> None:
    served.failure = lambda: ZeroDivisionError("what")
    with pytest.raises(RuntimeError, match="ZeroDivisionError: what"):
        get(store, served, [(served.add(LOW), diff_id(LOW))])
    assert nothing_but_parts(store) == []


def test_documents_that_differ(store: Store, served: Served) -> None:
    with Ingest(store) as work, pytest.raises(FormatError, match="1 layers, the configuration 2"):
        fetch.layers(work, [served.add(LOW)], [diff_id(LOW)] * 2, served.open)
    get(store, served, [(served.add(LOW), diff_id(LOW))])
    with pytest.raises(FormatError, match="the manifest says 7"):
        get(store, served, [(served.add(LOW, 7), diff_id(LOW))])


def background(function: Callable[[], object]) -> int:
    """The pid of a child that runs it and exits with 0, or 1 for an error."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except BaseException:
            os._exit(1)
    return pid


def test_ten_at_once_fetch_it_once(store: Store, served: Served) -> None:
    served.pause = 0.02
    given = [(served.add(gzip.compress(data)), diff_id(data)) for data in (LOW, HIGH)]
    pids = [background(lambda: get(store, served, given)) for _ in range(10)]
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 10
    assert len(served.requests) == 2
    assert not os.listdir(partial.directory(store))


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2, 0.4])
def test_a_killed_command(store: Store, served: Served, number: int, after: float) -> None:
    """Its workers end, the store has parts of blobs alone, and the next one goes on with these."""
    served.piece, served.pause = 20_000, 0.01
    given = [
        (served.add(data), diff_id(data)) for data in (LOW, archive(entry("b", noise(200_000, 2))))
    ]
    pid = background(lambda: get(store, served, given))
    until(lambda: children(pid))
    time.sleep(after)
    workers = children(pid)
    os.kill(pid, number)
    os.waitpid(pid, 0)
    until(lambda: all(gone(one) for one in workers))
    store.gc()
    parts = nothing_but_parts(store)
    before = len(served.requests)
    had = {name: os.path.getsize(f"{partial.directory(store)}/{name}") for name in parts}
    get(store, served, given)
    assert dict(served.requests[before:]) == {
        one.digest: had.get(one.digest[7:], 0) for one, _ in given
    } or any(had[one.digest[7:]] == one.size for one, _ in given if one.digest[7:] in had)


def test_a_killed_worker(store: Store, served: Served) -> None:
    served.piece, served.pause = 10_000, 0.01
    one = served.add(LOW)
    me = os.getpid()

    def kill() -> None:
        until(lambda: served.requests)
        time.sleep(0.1)
        for worker in children(me):
            os.kill(worker, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(SysboxError, match=r"the layer sha256:.* its worker was ended by signal 9"):
        get(store, served, [(one, diff_id(LOW))])
    thread.join()
    assert nothing_but_parts(store) == [one.digest[7:]]
    assert 0 < os.path.getsize(f"{partial.directory(store)}/{one.digest[7:]}") < one.size


def test_a_full_disk(tmp_path: Path) -> None:
    """Whether the blob or the files of the layer do not fit: nothing stays, not even the parts."""
    needs_root()

    def attempt(size: int) -> tuple[str, list[str], list[str]]:
        place = tmp_path / "small"
        place.mkdir(exist_ok=True)
        _sys.mount("none", str(place), "tmpfs", 0, f"size={size}")
        small, served = Store(f"{place}/images"), Served(tmp_path / "requests")
        big = archive(entry("zeros", bytes(range(256)) * 4000), entry("noise", noise(300_000)))
        given = [(served.add(gzip.compress(big)), diff_id(big)), (served.add(LOW), diff_id(LOW))]
        try:
            get(small, served, given)
        except KernelError as error:
            return error.message, nothing_but_parts(small), small.gc()
        return "", [], []

    for size in (256 << 10, 512 << 10, 700 << 10, 1 << 20, 1536 << 10):
        message, parts, removed = in_child(lambda size=size: attempt(size), CLONE_NEWNS)
        assert "No space left on device" in message, size
        assert parts == removed == [], size


def test_gc_removes_old_parts_and_says_so(store: Store, served: Served) -> None:
    with Ingest(store):
        os.mkdir(partial.directory(store), 0o700)
    for name, age in (("a" * 64, 3600), ("b" * 64, 25 * 3600)):
        path = Path(partial.directory(store), name)
        path.write_bytes(b"part")
        os.utime(path, (time.time() - age,) * 2)
    assert store.gc() == [f"removed blobs/.partial/{'b' * 64}"]
    assert os.listdir(partial.directory(store)) == ["a" * 64]


def test_gc_leaves_an_unfinished_fetch_alone(store: Store, served: Served) -> None:
    served.piece, served.pause = 10_000, 0.1
    pid = background(lambda: get(store, served, [(served.add(LOW), diff_id(LOW))]))
    until(lambda: served.requests)
    assert [line.partition(" alone: ")[2] for line in store.gc()] == ["a command is adding images"]
    assert os.waitpid(pid, 0)[1] == 0


def test_the_tree_is_the_same_as_one_after_the_other(store: Store, served: Served) -> None:
    """With directories that are implied, listed later, replaced, or below a link."""
    archives = [
        archive(
            directory("a", 0o700, uid=1), directory("a/b", 0o711, uid=2), directory("c", 0o777)
        ),
        archive(entry("a/b/x", b"1"), entry("c/d/e", b"2"), directory("c", 0o701)),
        archive(
            entry("c/d/f", b"3"),
            entry("a/b/c/g", b"4"),
            directory("a/b", 0o733, uid=9),
            entry("a/y"),
        ),
        archive(entry("a/b/c/h", b"5"), entry("c", b"now a file"), entry("a/.wh.y")),
        archive(entry("c/again", b"6"), entry("a/b/c/i", b"7")),
    ]
    _, stack = get(store, served, [(served.add(one), diff_id(one)) for one in archives])
    other = Store(f"{store.root}-one-by-one")
    with Ingest(other) as work:
        below: list[Layer] = []
        for data in archives:
            fd = os.memfd_create("x")
            os.write(fd, data)
            os.lseek(fd, 0, 0)
            below.append(work.unpack(work.spool(fd, "x"), "x", below))
            os.close(fd)
    assert stack == below
    for layer in stack:
        found, expected = (fixtures.tree(s.layer(layer.name)) for s in (store, other))
        timeless = [
            {path: (*values[:3], *values[4:]) for path, values in tree.items()}
            for tree in (found, expected)
        ]
        assert timeless[0] == timeless[1]
