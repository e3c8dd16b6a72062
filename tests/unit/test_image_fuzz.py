"""Random damage: whatever the bytes, the outcome is an image or one of our errors, and nothing outside."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import needs_root
from layers import corpus, fixtures
from layers.builder import archive, directory, entry, hard_link, long_name, pax, symlink

from sysbox.base import codec
from sysbox.base.errors import FormatError, KernelError
from sysbox.image import documents, layer
from sysbox.image.decompress import compression
from sysbox.image.source import open_source
from sysbox.image.tar import LayerLimits

ROUNDS = int(os.environ.get("SYSBOX_FUZZ_ROUNDS", "400"))
LIMITS = LayerLimits(bytes=1 << 20, entries=200)
BASE = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp", f"sbxf{os.getpid()}")
GOOD = archive(
    directory("d", 0o2755), entry("d/f", b"content" * 20, mode=0o4755),
    symlink("l", "d"), entry("l/g", b"x"), hard_link("h", "d/f"),
    pax(("path", "p" * 120), ("mtime", "1.5"), ("SCHILY.xattr.user.a", "b")),
    entry("x"), long_name(b"n" * 120), entry("y", b"z"), entry("d/.wh.gone"),
    entry("d/.wh..wh..opq"), entry("p", kind=b"6"),
)  # fmt: skip


@pytest.fixture
def decoy() -> Iterator[Path]:
    needs_root()
    shutil.rmtree(BASE, ignore_errors=True)
    BASE.mkdir()
    yield fixtures.make_decoy(BASE / "decoy")
    shutil.rmtree(BASE)


def attempt(data: bytes) -> None:
    """Unpack into a directory beside the decoy, which is removed again."""
    out = BASE / "out"
    out.mkdir()
    fd, root = os.memfd_create("x"), os.open(out, os.O_RDONLY)
    os.write(fd, data)
    source = open_source(fd, compression(data[:8]), "x", LIMITS.bytes, "sha256:x")
    try:
        layer.unpack(source, root, LIMITS)
    except (FormatError, KernelError):
        pass
    finally:
        source.close()
        os.close(fd)
        os.close(root)
        shutil.rmtree(out)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, blocks repeated, dropped or cut; headers get their checksum again at times."""
    result = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(result) or 1)
        kind = chance.randrange(4)
        if kind == 0 and result:
            result[at] = chance.randrange(256)
        elif kind == 1:
            block = at // 512 * 512
            result[block:block] = result[block : block + 512 * chance.randint(1, 3)]
        elif kind == 2:
            # a field of a header, with a sum that fits
            block = at // 512 * 512
            head = result[block : block + 512]
            if len(head) == 512:
                head[chance.randrange(148)] = chance.choice(b"\0 /.7\xff\x80")
                head[148:156] = b"%06o\0 " % (sum(head[:148]) + 256 + sum(head[156:]))
                result[block : block + 512] = head
        else:
            del result[at : at + chance.choice((1, 512, 1024))]
    return bytes(result)


def test_damaged_archives(decoy: Path) -> None:
    before = fixtures.tree(decoy)
    aimed = [data for _, data in corpus.refused(str(decoy)) if 1024 <= len(data) < 100_000]
    aimed += [data for _, data in corpus.confined(str(decoy))]
    for number in range(ROUNDS):
        chance = random.Random(number)
        attempt(damaged(GOOD if number % 2 else chance.choice(aimed), chance))
    assert fixtures.tree(decoy) == before
    assert os.listdir(BASE) == ["decoy"]


VALUES = (
    None,
    True,
    -1,
    0,
    1.5,
    1 << 70,
    "",
    "x",
    "\0",
    "../x",
    [],
    {},
    [None],
    {"a": None},
    [[]],
    "\ud800",
)


def mutate(value: object, chance: random.Random) -> object:
    """The same document with something of another type or value somewhere."""
    if chance.random() < 0.15:
        return chance.choice(VALUES)
    if isinstance(value, dict):
        return {key: mutate(item, chance) for key, item in value.items() if chance.random() > 0.05}
    if isinstance(value, list):
        return [mutate(item, chance) for item in value] * chance.choice((1, 1, 1, 2))
    return value


def test_mutated_documents() -> None:
    digest = "sha256:" + "ab" * 32
    blob = {"mediaType": documents.OCI_LAYER, "digest": digest, "size": 5}
    manifest = {
        "schemaVersion": 2, "mediaType": documents.OCI_MANIFEST, "layers": [blob, blob],
        "config": blob | {"mediaType": documents.OCI_CONFIG},
    }  # fmt: skip
    config = {
        "os": "linux", "architecture": "amd64", "created": "x", "history": [{}],
        "config": {"Env": ["A=b"], "Cmd": ["x"], "Labels": {"a": "b"}, "Volumes": {"/a": {}}, "User": "0"},
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    }  # fmt: skip
    for number in range(ROUNDS):
        chance = random.Random(number)
        for document, parse in (
            (manifest, documents.parse_manifest),
            (config, documents.parse_config),
        ):
            try:
                parse(codec.dumps(mutate(document, chance)))
            except FormatError:
                continue
