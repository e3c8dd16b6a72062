"""Images as files, with every part as wrong as a test wants it: docker's archives and OCI layouts."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from layers.builder import archive, directory, entry
from sysbox.image.catalog import Catalog
from sysbox.image.formats.load import Loaded, load

OCI = "application/vnd.oci.image"
LAYER = archive(directory("./"), directory("etc"), entry("etc/one", b"1"))
SECOND = archive(directory("./"), directory("etc"), entry("etc/two", b"2" * 70_000))

Json = dict[str, Any]
Files = dict[str, bytes]


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config(*layers: bytes, **more: Any) -> bytes:
    """A configuration; `layers` are uncompressed."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(one) for one in layers]},
        **more,
    }
    return json.dumps(document).encode()


def described(data: bytes, kind: str, **more: Any) -> Json:
    """A descriptor."""
    return {"mediaType": f"{OCI}.{kind}", "digest": digest(data), "size": len(data), **more}


def manifest(setup: bytes, *layers: Json) -> bytes:
    """A manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": described(setup, "config.v1+json"),
        "layers": list(layers),
    }
    return json.dumps(document).encode()


def index(*manifests: Json) -> bytes:
    """An index."""
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": list(manifests),
    }
    return json.dumps(document).encode()


def layout(top: bytes, *blobs: bytes) -> Files:
    """A layout of these blobs."""
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": top}
    return files | {f"blobs/sha256/{digest(one)[7:]}": one for one in blobs}


def plain_layout(name: str = "docker.io/library/web:1", *layers: bytes) -> Files:
    """A layout of one image."""
    layers = layers or (LAYER,)
    setup = config(*layers)
    whole = manifest(setup, *(described(one, "layer.v1.tar") for one in layers))
    notes = {"annotations": {"org.opencontainers.image.ref.name": name}} if name else {}
    top = index(described(whole, "manifest.v1+json", **notes))
    return layout(top, whole, setup, *layers)


def docker_files(names: list[str] | None, *layers: bytes) -> Files:
    """docker's archive of one image."""
    layers = layers or (LAYER,)
    setup = config(*layers)
    paths = {f"{digest(one)[7:]}/layer.tar": one for one in layers}
    item = {"Config": "config.json", "RepoTags": names, "Layers": list(paths)}
    return {"manifest.json": json.dumps([item]).encode(), "config.json": setup, **paths}


def packed(files: Files, *more: bytes) -> bytes:
    """The files as an archive, and further entries."""
    return archive(*(entry(name, data) for name, data in files.items()), *more)


def load_bytes(store: Catalog, data: bytes) -> list[Loaded]:
    """Load an archive from memory."""
    fd = os.memfd_create("archive")
    try:
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return load(store, fd, "the archive")
    finally:
        os.close(fd)
