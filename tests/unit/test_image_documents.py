"""Manifests and configurations: exactly one reading, or none (CVE-2021-41190, CVE-2024-3727)."""

from __future__ import annotations

from typing import Any

import pytest

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.image import documents
from sysbox.image.catalog import OCI_INDEX, read_index
from sysbox.image.documents import (
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_LAYER,
    OCI_MANIFEST,
    parse_config,
    parse_manifest,
)

DIGEST = "sha256:" + "ab" * 32
REMOVE = object()


def layer(**changes: Any) -> dict[str, Any]:
    return {"mediaType": OCI_LAYER, "digest": DIGEST, "size": 10} | changes


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layer(mediaType=OCI_CONFIG),
        "layers": [layer()],
    } | changes
    return codec.dumps({key: value for key, value in document.items() if value is not REMOVE})


def config(rootfs: Any = None, **changes: Any) -> bytes:
    document = {
        "os": "linux",
        "architecture": "amd64",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
        "rootfs": rootfs or {"type": "layers", "diff_ids": [DIGEST]},
    } | changes
    return codec.dumps({key: value for key, value in document.items() if value is not REMOVE})


def test_good_manifests() -> None:
    assert parse_manifest(manifest()).layers[0].size == 10
    assert parse_manifest(manifest(mediaType=REMOVE)).media_type == OCI_MANIFEST
    assert parse_manifest(manifest(unknown={"x": [1.5, None]}, annotations={}))
    docker = manifest(
        mediaType=DOCKER_MANIFEST,
        config=layer(mediaType=DOCKER_CONFIG),
        layers=[layer(mediaType=f"{DOCKER_LAYER}.gzip")] * 127,
    )
    assert len(parse_manifest(docker, DOCKER_MANIFEST).layers) == 127
    # where else a blob may be had is never followed
    assert parse_manifest(manifest(layers=[layer(urls=["http://example.com/"])]))


BAD_MANIFESTS: dict[str, bytes] = {
    "both": manifest(manifests=[]),
    "index": manifest(manifests=[layer()], layers=REMOVE, mediaType=OCI_INDEX),
    "type-of-an-index": manifest(mediaType=OCI_INDEX),
    "type-unknown": manifest(mediaType="application/json"),
    "type-not-text": manifest(mediaType=5),
    "schema-1": manifest(schemaVersion=1),
    "schema-true": manifest(schemaVersion=True),
    "schema-text": manifest(schemaVersion="2"),
    "schema-missing": manifest(schemaVersion=REMOVE),
    "config-missing": manifest(config=REMOVE),
    "config-null": manifest(config=None),
    "config-list": manifest(config=[]),
    "config-other-kind": manifest(config=layer(mediaType=DOCKER_CONFIG)),
    "config-of-an-artifact": manifest(config=layer(mediaType="application/vnd.oci.empty.v1+json")),
    "config-too-large": manifest(config=layer(mediaType=OCI_CONFIG, size=9 << 20)),
    "layers-missing": manifest(layers=REMOVE),
    "layers-null": manifest(layers=None),
    "layers-none": manifest(layers=[]),
    "layers-object": manifest(layers={}),
    "layers-128": manifest(layers=[layer()] * 128),
    "layers-10000": manifest(layers=[layer()] * 10_000),
    "layer-null": manifest(layers=[None]),
    "layer-type": manifest(layers=[layer(mediaType="application/octet-stream")]),
    "layer-encrypted": manifest(layers=[layer(mediaType=f"{OCI_LAYER}+gzip+encrypted")]),
    "layer-foreign": manifest(
        layers=[layer(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")]
    ),
    "digest-missing": manifest(layers=[layer(digest=None)]),
    "digest-short": manifest(layers=[layer(digest="sha256:ab")]),
    "digest-path": manifest(layers=[layer(digest="sha256:" + "../" * 21 + "x")]),
    "digest-sha512": manifest(layers=[layer(digest="sha512:" + "a" * 128)]),
    "digest-number": manifest(layers=[layer(digest=5)]),
    "size-negative": manifest(layers=[layer(size=-1)]),
    "size-float": manifest(layers=[layer(size=1.0)]),
    "size-true": manifest(layers=[layer(size=True)]),
    "size-text": manifest(layers=[layer(size="10")]),
    "size-2-to-63": manifest(layers=[layer(size=1 << 63)]),
    "size-2-to-70": manifest(layers=[layer(size=1 << 70)]),
    "size-missing": manifest(layers=[{"mediaType": OCI_LAYER, "digest": DIGEST}]),
    "duplicate-key": manifest()[:-2] + b',"layers":[]}',
    "trailing": manifest() + b"{}",
    "nan": manifest()[:-2] + b',"x":NaN}',
    "nested": b'{"x":' + b"[" * 100_000,
    "not-an-object": b"[]",
    "empty": b"",
    "not-utf-8": b'{"\xff":1}',
    "too-large": manifest() + b" " * (4 << 20),
}


@pytest.mark.parametrize("name", BAD_MANIFESTS)
def test_bad_manifests(name: str) -> None:
    with pytest.raises(FormatError):
        parse_manifest(BAD_MANIFESTS[name])


def test_the_transport_and_the_document_must_agree() -> None:
    with pytest.raises(FormatError, match="mediaType"):
        parse_manifest(manifest(), DOCKER_MANIFEST)
    assert parse_manifest(manifest(), OCI_MANIFEST)


def test_good_configs() -> None:
    parsed = parse_config(
        config(
            config={
                "Env": ["A=b", "EMPTY="], "Cmd": None, "Entrypoint": ["/x"], "Labels": {"k": "v"},
                "ExposedPorts": {"80/tcp": {}}, "Volumes": {"/data": {}}, "WorkingDir": "/w", "User": "1:2",
                "StopSignal": "SIGINT", "OnBuild": None, "Healthcheck": {"Test": ["NONE"]},
            },
            history=[{}],
        )
    ).image  # fmt: skip
    assert parsed.env == ("A=b", "EMPTY=")
    assert parsed.cmd == ()
    assert parsed.entrypoint == ("/x",)
    assert (parsed.exposed_ports, parsed.volumes) == (("80/tcp",), ("/data",))
    assert (parsed.workdir, parsed.user, parsed.stop_signal) == ("/w", "1:2", "SIGINT")
    assert parsed.labels == {"k": "v"}
    nulls = dict.fromkeys(("Env", "Cmd", "Entrypoint", "Labels", "ExposedPorts", "Volumes", "User"))
    assert parse_config(config(config=nulls)).image.env == ()
    assert parse_config(config(config=None)).image.cmd == ()
    # docker runs such an image, without what names nothing
    some = parse_config(config(config={"Env": ["A", "", "=x", "B=c", "PATH"]})).image.env
    assert some == ("B=c",)


BAD_CONFIGS: dict[str, bytes] = {
    "os-windows": config(os="windows"),
    "os-missing": config(os=REMOVE),
    "rootfs-missing": config(rootfs={"type": "layers"}),
    "rootfs-null": config(rootfs={"type": None, "diff_ids": [DIGEST]}),
    "rootfs-other": config(rootfs={"type": "base", "diff_ids": [DIGEST]}),
    "diff-ids-empty": config(rootfs={"type": "layers", "diff_ids": []}),
    "diff-ids-null": config(rootfs={"type": "layers", "diff_ids": [None]}),
    "diff-ids-path": config(rootfs={"type": "layers", "diff_ids": ["sha256:../../x"]}),
    "diff-ids-128": config(rootfs={"type": "layers", "diff_ids": [DIGEST] * 128}),
    "config-list": config(config=[]),
    "env-text": config(config={"Env": "A=b"}),
    "env-number": config(config={"Env": [5]}),
    "env-nul": config(config={"Env": ["A=\0"]}),
    "cmd-text": config(config={"Cmd": "sh"}),
    "cmd-nul": config(config={"Cmd": ["a\0b"]}),
    "cmd-huge": config(config={"Cmd": ["x" * 200_000]}),
    "cmd-many": config(config={"Cmd": ["x"] * 10_001}),
    "entrypoint-object": config(config={"Entrypoint": {}}),
    "labels-list": config(config={"Labels": []}),
    "labels-number": config(config={"Labels": {"a": 1}}),
    "volumes-list": config(config={"Volumes": ["/a"]}),
    "user-number": config(config={"User": 0}),
    "workdir-list": config(config={"WorkingDir": ["/"]}),
    "architecture-number": config(architecture=5),
    "created-number": config(created=5),
    "surrogate": b'{"os":"linux","rootfs":{"type":"layers","diff_ids":["'
    + DIGEST.encode()
    + b'"]},"config":{"User":"\\ud800"}}',
    "too-large": config() + b" " * (8 << 20),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_configs(name: str) -> None:
    with pytest.raises(FormatError):
        parse_config(BAD_CONFIGS[name])


@pytest.mark.parametrize(
    "steps",
    [{}, "x", [5], [["x"]], [{"empty_layer": "x"}], [{"empty_layer": 1.5}], [{"created": 1}],
     [{"created_by": ["sh"]}], [{"comment": {}}], [{"author": False}]],
)  # fmt: skip
def test_a_history_of_wrong_types_does_not_come_in(steps: object) -> None:
    """As with docker; an image that has one already stays usable."""
    data = config(history=steps)
    with pytest.raises(FormatError, match="history"):
        parse_config(data, new=True)
    assert parse_config(data).diff_ids == (DIGEST,)


@pytest.mark.parametrize("steps", [None, [None], [{}, {}], [{"created": "x", "empty_layer": None}]])
def test_an_odd_history_comes_in(steps: object) -> None:
    assert parse_config(config(history=steps), new=True).diff_ids == (DIGEST,)


def test_bad_indexes() -> None:
    good = {"sysbox.image.id": DIGEST}
    item = layer(mediaType=OCI_MANIFEST, annotations=good)
    assert read_index({"schemaVersion": 2, "manifests": [item]}, "index")
    for bad in (
        [],
        None,
        {"schemaVersion": 1, "manifests": []},
        {"schemaVersion": 2},
        {"schemaVersion": 2, "manifests": {}},
        {"schemaVersion": 2, "manifests": [], "layers": []},
        {"schemaVersion": 2, "manifests": [None]},
        {"schemaVersion": 2, "manifests": [layer()]},
        {"schemaVersion": 2, "manifests": [item | {"digest": "x"}]},
        {"schemaVersion": 2, "manifests": [item | {"size": True}]},
        {"schemaVersion": 2, "manifests": [item | {"annotations": {"sysbox.image.id": "../x"}}]},
        {"schemaVersion": 2, "manifests": [item | {"annotations": good | {"sysbox.builtin": 5}}]},
        {"schemaVersion": 2, "manifests": [item] * 100_000},
    ):
        with pytest.raises(FormatError):
            read_index(bad, "index")


def test_no_label_binds_the_hosts_usr() -> None:
    """Only the store's own index can (CVE-2026-53488: a label must never select a mount)."""
    labels = {"sysbox.builtin": "host:x", "usr_bind": "true"}
    image = parse_config(config(config={"Labels": labels})).image
    assert image.labels == labels
    assert not hasattr(image, "usr_bind")
    assert documents.LAYER_TYPES[OCI_LAYER] == ""
