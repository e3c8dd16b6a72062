"""Images as files: any manifest.json, index and directory is read, or refused with one line."""

from __future__ import annotations

import json
import os
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, Refused, nearly, outcome

from sysbox.image import acl
from sysbox.image.formats import contents, docker_archive, docker_directory, oci_layout
from sysbox.image.formats.contents import Contents
from sysbox.image.ingest import Blob
from sysbox.image.registry.platform import Platform

DIGEST = "sha256:" + "ab" * 32
OCI = "application/vnd.oci.image"
MANIFEST_JSON = [{"Config": "c.json", "RepoTags": ["web:1"], "Layers": ["a/layer.tar"]}]
INDEX = {
    "schemaVersion": 2,
    "manifests": [
        {
            "mediaType": f"{OCI}.manifest.v1+json", "digest": DIGEST, "size": 2,
            "platform": {"os": "linux", "architecture": "amd64"},
            "annotations": {"org.opencontainers.image.ref.name": "quay.io/a/b:1"},
        }
    ],
}  # fmt: skip
CONFIG = {
    "architecture": "amd64", "os": "linux", "config": {},
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
}  # fmt: skip
IMAGE = {
    "schemaVersion": 2, "mediaType": f"{OCI}.manifest.v1+json",
    "config": {"mediaType": f"{OCI}.config.v1+json", "digest": DIGEST, "size": 2},
    "layers": [{"mediaType": f"{OCI}.layer.v1.tar", "digest": DIGEST, "size": 2}],
}  # fmt: skip


class Memory(Contents):
    """Files in memory, and one blob for all names."""

    what = "x"

    def __init__(self, **files: Any) -> None:
        self._files = {name: json.dumps(value).encode() for name, value in files.items()}

    def read(self, name: str, limit: int) -> bytes | None:
        data = self._files.get(name.replace("-", "_").replace(".", "_"))
        return data if data is None or len(data) <= limit else None

    def blob(self, name: str) -> Blob | None:
        return Blob(path="/x", digest=DIGEST, size=2, compression="") if len(name) < 100 else None


def pure(found: Any) -> None:
    """Names that are given to images are full ones, and none is the built-in image's."""
    if found is not Refused:
        for image in found:
            assert all("/" in name and ":" in name for name in image.names)
            assert "docker.io/library/host:latest" not in image.names


@given(nearly([MANIFEST_JSON]), nearly([CONFIG]))
def test_dockers_archive(manifest: Any, config: Any) -> None:
    work: Any = None  # nothing here needs to be decompressed
    pure(outcome(lambda: docker_archive.read(Memory(manifest_json=manifest, c_json=config), work)))


@given(nearly([INDEX]))
def test_a_layout(index: Any) -> None:
    files = Memory(oci_layout={"imageLayoutVersion": "1.0.0"}, index_json=index)
    pure(outcome(lambda: oci_layout.read(files, Platform(architecture="amd64"))))


@given(nearly([IMAGE]))
def test_a_directory(manifest: Any) -> None:
    class Versioned(Memory):
        def read(self, name: str, limit: int) -> bytes | None:
            known = {"version": b"Directory Transport Version: 1.1\n", DIGEST[7:]: b"{}"}
            return known.get(name) or super().read(name, limit)

    pure(outcome(lambda: docker_directory.read(Versioned(manifest_json=manifest))))


PARTS = st.sampled_from([b"a", b"..", b".", b"", b"b" * 300, b"\xff", b"c\n"])
PATHS = st.lists(PARTS, max_size=8).map(b"/".join)


@given(PATHS, PATHS)
def test_names_stay_inside(name: bytes, above: bytes) -> None:
    """A name in an archive, or a link's target, is a path below the archive's root, or refused."""
    found = outcome(lambda: contents._inner(name, above))
    if found is not Refused:
        parts = os.fsencode(found).split(b"/")
        assert b".." not in parts
        assert b"." not in parts
        assert not found.startswith("/")


@given(st.one_of(ANY_TEXT.map(os.fsencode), st.lists(st.sampled_from(
    [b"user::rwx", b"group::r--", b"other::---", b"mask::rwx", b"user:5:rw-", b"g:x:r:7", b",", b"\n", b":"]
), max_size=9).map(b",".join)))  # fmt: skip
def test_access_control_lists(text: bytes) -> None:
    found = outcome(lambda: acl.from_text(text))
    if found is not Refused and found:
        assert len(found) % 8 == 4
        tags = [int.from_bytes(found[at : at + 2], "little") for at in range(4, len(found), 8)]
        assert tags == sorted(tags)
        assert {1, 4, 32} <= set(tags)
