"""The choice of a platform, and documents that are several things at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sysbox.base.errors import FormatError, NotFound, SpecError
from sysbox.image.catalog import OCI_INDEX
from sysbox.image.documents import DOCKER_MANIFEST, OCI_MANIFEST
from sysbox.image.registry import media, platform
from sysbox.image.registry.media import DOCKER_LIST, Fetched
from sysbox.image.registry.platform import Platform


def index(*platforms: str | None, **more: Any) -> bytes:
    """An index with a manifest for each platform, whose digests are 0, 1, 2, ..."""
    manifests = []
    for number, text in enumerate(platforms):
        one: dict[str, Any] = {"mediaType": OCI_MANIFEST, "size": 1, "digest": digest(number)}
        if text is not None:
            parts = text.split("/")
            one["platform"] = dict(zip(("os", "architecture", "variant"), parts, strict=False))
        manifests.append(one)
    return json.dumps({"schemaVersion": 2, "manifests": manifests, **more}).encode()


def digest(number: int) -> str:
    return f"sha256:{number:064x}"


def chosen(wanted: str, *platforms: str | None) -> int:
    found = platform.parse(wanted)
    entries = platform.parse_index(index(*platforms))
    return int(
        platform.choose(entries, found.os, found.architecture, found.variant).digest[-4:], 16
    )


@pytest.mark.parametrize(
    ("wanted", "platforms", "expected"),
    [
        ("linux/amd64", ("linux/arm64", "linux/amd64"), 1),
        ("linux/amd64", ("linux/amd64/v2", "linux/amd64"), 1),
        ("linux/amd64/v3", ("linux/amd64", "linux/amd64/v2"), 1),
        ("linux/amd64/v3", ("linux/amd64", "linux/amd64/v4"), 0),
        ("linux/amd64", ("linux/386", "linux/arm64"), 0),
        ("linux/x86_64", ("linux/amd64", "linux/amd64"), 0),
        ("amd64", ("windows/amd64", "linux/amd64"), 1),
        ("linux/arm/v7", ("linux/arm/v5", "linux/arm/v6", "linux/arm/v8"), 1),
        ("linux/arm/v6", ("linux/arm/v7", "linux/arm/v5"), 1),
        ("linux/arm", ("linux/arm/v6", "linux/arm"), 1),
        ("linux/armhf", ("linux/arm/v6", "linux/arm/v7"), 1),
        ("linux/arm64", ("linux/arm/v7", "linux/arm64/v8"), 1),
        ("linux/arm64/v8", ("linux/arm64",), 0),
        ("linux/aarch64", ("linux/arm/v5", "linux/arm/v7"), 1),
        ("linux/arm64/v9", ("linux/arm64", "linux/arm64/v8.5"), 1),
        ("linux/arm64/v8.2", ("linux/arm64/v8.1", "linux/arm64/v8.3"), 0),
        ("linux/amd64", ("unknown/unknown", "linux/amd64"), 1),
        ("linux/amd64", ("linux/arm64", None), 1),
        ("linux/amd64", (None, "linux/amd64"), 1),
    ],
)
def test_choice(wanted: str, platforms: tuple[str | None, ...], expected: int) -> None:
    assert chosen(wanted, *platforms) == expected


@pytest.mark.parametrize(
    ("wanted", "platforms"),
    [
        ("linux/amd64", ("linux/arm64",)),
        ("linux/386", ("linux/amd64",)),
        ("linux/arm/v6", ("linux/arm/v7", "linux/arm64")),
        ("linux/amd64", ("unknown/unknown",)),
        ("linux/amd64", (None, None)),
        ("linux/amd64", ()),
        ("windows/amd64", ("linux/amd64",)),
    ],
)
def test_none_fits(wanted: str, platforms: tuple[str | None, ...]) -> None:
    with pytest.raises(NotFound, match=f"not for {wanted}"):
        chosen(wanted, *platforms)


def test_an_attestation_is_no_image() -> None:
    notes = {"vnd.docker.reference.type": "attestation-manifest"}
    document = json.loads(index(None))
    document["manifests"][0]["annotations"] = notes
    entries = platform.parse_index(json.dumps(document).encode())
    with pytest.raises(NotFound):
        platform.choose(entries, "linux", "amd64")


def test_this_machine() -> None:
    assert platform.own().os == "linux"
    assert platform.own().architecture
    assert platform.parse("linux") == platform.own()


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "/amd64", "linux/\u00e4"])
def test_what_is_no_platform(text: str) -> None:
    with pytest.raises(SpecError, match="OS/ARCH"):
        platform.parse(text)


def test_indexes_inside_of_indexes_end() -> None:
    def nested(levels: int) -> Fetched:
        documents = {digest(levels): Fetched(data=b"{}", media_type=OCI_MANIFEST, digest="")}
        for level in range(levels):
            one = {"mediaType": OCI_INDEX, "size": 1, "digest": digest(level + 1)}
            data = json.dumps({"schemaVersion": 2, "manifests": [one]}).encode()
            documents[digest(level)] = Fetched(data=data, media_type=OCI_INDEX, digest="")
        return platform.descend(
            documents[digest(0)], lambda one: documents[one.digest], Platform(architecture="amd64")
        )

    assert nested(0).media_type == OCI_MANIFEST
    assert nested(3).media_type == OCI_MANIFEST
    with pytest.raises(FormatError, match="indexes inside of each other"):
        nested(4)


@pytest.mark.parametrize(
    ("document", "media_type", "error"),
    [
        ({"schemaVersion": 2, "manifests": [], "layers": []}, "", "both"),
        ({"schemaVersion": 1, "manifests": []}, "", "schemaVersion must be 2"),
        ({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "manifests": []}, "", "mediaType"),
        ({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}, DOCKER_LIST, "mediaType"),
        ({"schemaVersion": 2, "manifests": {}}, "", "must be a list"),
        ({"schemaVersion": 2, "manifests": [1]}, "", "must be an object"),
        ({"schemaVersion": 2, "manifests": [{"digest": "x", "size": 1}]}, "", "digest must be"),
        ([], "", "must be an object"),
    ],
)
def test_malformed_indexes(document: object, media_type: str, error: str) -> None:
    with pytest.raises(FormatError, match=error):
        platform.parse_index(json.dumps(document).encode(), media_type)


MANIFEST: dict[str, Any] = {"schemaVersion": 2, "config": {}, "layers": []}
LIST: dict[str, Any] = {"schemaVersion": 2, "manifests": []}


@pytest.mark.parametrize(
    ("document", "header", "expected"),
    [
        (MANIFEST, "", OCI_MANIFEST),
        (MANIFEST, "application/json", OCI_MANIFEST),
        (MANIFEST, DOCKER_MANIFEST, DOCKER_MANIFEST),
        (MANIFEST, f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        ({**MANIFEST, "mediaType": DOCKER_MANIFEST}, "application/octet-stream", DOCKER_MANIFEST),
        (LIST, "", OCI_INDEX),
        (LIST, DOCKER_LIST, DOCKER_LIST),
    ],
)
def test_media_types(document: object, header: str, expected: str) -> None:
    assert media.type_of(json.dumps(document).encode(), header, "test") == expected


@pytest.mark.parametrize(
    ("document", "header", "error"),
    [
        ({"schemaVersion": 1, "fsLayers": []}, "", "schema 1"),
        (MANIFEST, "application/vnd.docker.distribution.manifest.v1+prettyjws", "schema 1"),
        ({**MANIFEST, "mediaType": DOCKER_MANIFEST}, OCI_MANIFEST, "is sent as"),
        ({**MANIFEST, "manifests": []}, "", "has both"),
        ({**LIST, "layers": []}, OCI_MANIFEST, "has both"),
        (LIST, OCI_MANIFEST, "has 'manifests'"),
        (MANIFEST, OCI_INDEX, "lacks 'manifests'"),
        (MANIFEST, "text/html", "is not the type of an image manifest"),
        ({"mediaType": 1}, "", "must be a string"),
        ([], "", "must be an object"),
    ],
)
def test_ambiguous_documents(document: object, header: str, error: str) -> None:
    with pytest.raises(FormatError, match=error):
        media.type_of(json.dumps(document).encode(), header, "test")


def test_a_key_twice() -> None:
    with pytest.raises(FormatError, match="appears twice"):
        media.type_of(b'{"schemaVersion": 2, "manifests": [], "manifests": []}', "", "test")
