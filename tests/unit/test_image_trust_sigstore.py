"""sigstore signatures with keys of a real openssl, and the attachments that hold them in a registry."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from signers import openssl, sigstore_key

from sysbox.base import paths
from sysbox.base.errors import SpecError, TrustError, Unsupported
from sysbox.image.documents import Descriptor
from sysbox.image.trust import attachments, keys, payload, policy
from sysbox.image.trust.check import Verdict, check
from sysbox.image.trust.signatures import Given, Remote

MANIFEST = b'{"schemaVersion": 2}'
DIGEST = f"sha256:{sha256(MANIFEST).hexdigest()}"
NAME = "reg.example/ns/app:1"


class Registry:
    """The blobs and the manifests of one repository."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[str, bytes] = {}

    def push(self, made: attachments.Attachment) -> None:
        for described, data in (
            (made.config_descriptor, made.config),
            (made.layer_descriptor, made.layer),
        ):
            assert described.digest == f"sha256:{sha256(data).hexdigest()}"
            assert described.size == len(data)
            self.blobs[described.digest] = data
        self.manifests[made.tag] = made.manifest

    def signatures(self, name: str = NAME) -> Remote:
        return Remote(
            name,
            DIGEST,
            fetch_url=lambda *_: None,
            fetch_manifest=self.manifests.get,
            fetch_blob=lambda one: self.blobs[one.digest],
        )


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    (tmp_path / "registries.d").mkdir()
    (tmp_path / "registries.d" / "a.yaml").write_text(
        "docker:\n  reg.example:\n    use-sigstore-attachments: true\n"
    )
    monkeypatch.setattr(paths, "REGISTRIES_D", f"{tmp_path}/registries.d")
    return Registry()


def private(path: str, passphrase: bytes = b"") -> Any:
    return keys.private(Path(path).read_bytes(), passphrase, path)


def rule(*public: str, **more: Any) -> policy.Policy:
    items = [{"type": "sigstoreSigned", "keyPath": one, **more} for one in public]
    return policy.parse(json.dumps({"default": items}).encode(), "policy.json")


def accept(found: policy.Policy, registry: Registry, name: str = NAME) -> Verdict:
    return check(found, "docker", name, DIGEST, MANIFEST, registry.signatures(name))


@pytest.mark.parametrize("kind", ["P-256", "P-384", "ed25519", "2048"])
def test_sign_and_verify(tmp_path: Path, registry: Registry, kind: str) -> None:
    key, public = sigstore_key(tmp_path, kind)
    registry.push(attachments.sign(private(key), NAME, DIGEST, 1))
    verdict = accept(rule(public), registry)
    assert str(verdict) == f"sigstoreSigned {public}"
    again = Given(verdict.signatures)
    assert check(rule(public), "docker", NAME, DIGEST, None, again) == verdict


def test_openssl_verifies_what_we_sign(tmp_path: Path) -> None:
    key, public = sigstore_key(tmp_path)
    made = attachments.sign(private(key), NAME, DIGEST, 1)
    (tmp_path / "payload").write_bytes(made.layer)
    (tmp_path / "signature").write_bytes(b64decode(made.annotations[attachments.SIGNATURE]))
    assert b"Verified OK" in openssl(
        "dgst", "-sha256", "-verify", public, "-signature", f"{tmp_path}/signature", f"{tmp_path}/payload"
    )  # fmt: skip


def test_a_second_signer_keeps_the_first(tmp_path: Path, registry: Registry) -> None:
    one, first = sigstore_key(tmp_path, name="one")
    two, second = sigstore_key(tmp_path, name="two")
    made = attachments.sign(private(one), NAME, DIGEST, 1)
    registry.push(made)
    with pytest.raises(TrustError, match="another key"):
        accept(rule(first, second), registry)
    registry.push(attachments.sign(private(two), NAME, DIGEST, 2, (made.manifest, made.config)))
    assert len(accept(rule(first, second), registry).signatures) == 2
    config = json.loads(
        registry.blobs[json.loads(registry.manifests[made.tag])["config"]["digest"]]
    )
    assert len(config["rootfs"]["diff_ids"]) == 2


def test_one_of_several_keys(tmp_path: Path, registry: Registry) -> None:
    one, first = sigstore_key(tmp_path, name="one")
    _, second = sigstore_key(tmp_path, name="two")
    registry.push(attachments.sign(private(one), NAME, DIGEST, 1))
    item = {"type": "sigstoreSigned", "keyPaths": [second, first]}
    assert accept(policy.parse(json.dumps({"default": [item]}).encode(), "p"), registry).by == (
        f"sigstoreSigned {first}",
    )
    data = [b64encode(Path(path).read_bytes()).decode() for path in (second, first)]
    item = {"type": "sigstoreSigned", "keyDatas": data}
    assert accept(policy.parse(json.dumps({"default": [item]}).encode(), "p"), registry).signatures


def test_without_the_switch_nothing_is_read(tmp_path: Path, registry: Registry) -> None:
    key, public = sigstore_key(tmp_path)
    (tmp_path / "registries.d" / "a.yaml").unlink()
    registry.push(attachments.sign(private(key), NAME, DIGEST, 1))
    with pytest.raises(TrustError, match="it has no sigstore signature"):
        accept(rule(public), registry)


@pytest.mark.parametrize(
    ("signed", "digest", "why"),
    [
        ("reg.example/ns/app:2", DIGEST, "it is for reg.example/ns/app:2"),
        ("reg.example/ns/other:1", DIGEST, "it is for reg.example/ns/other:1"),
        (NAME, f"sha256:{'b' * 64}", "it is for the manifest"),
    ],
)
def test_a_signature_of_something_else(
    tmp_path: Path, registry: Registry, signed: str, digest: str, why: str
) -> None:
    key, public = sigstore_key(tmp_path)
    made = attachments.sign(private(key), signed, digest, 1)
    registry.push(made.replace(tag=attachments.tag(DIGEST)))
    with pytest.raises(TrustError, match=why):
        accept(rule(public), registry)


def test_cosign_signs_a_repository(tmp_path: Path, registry: Registry) -> None:
    key, public = sigstore_key(tmp_path)
    registry.push(attachments.sign(private(key), "reg.example/ns/app", DIGEST, 1))
    with pytest.raises(TrustError, match="not for"):
        accept(rule(public), registry)
    assert accept(rule(public, signedIdentity={"type": "matchRepository"}), registry).signatures


def hostile(tmp_path: Path, registry: Registry, change: Any) -> str:
    """Change the layer's descriptor of a good attachment; the public key."""
    key, public = sigstore_key(tmp_path)
    made = attachments.sign(private(key), NAME, DIGEST, 1)
    registry.push(made)
    document = json.loads(made.manifest)
    change(document, document["layers"][0])
    registry.manifests[made.tag] = json.dumps(document).encode()
    return public


def put(where: str, value: Any) -> Any:
    def change(document: Any, layer: Any) -> None:
        (document if where in ("mediaType", "manifests", "layers", "schemaVersion") else layer)[
            where
        ] = value

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (put("mediaType", "application/vnd.docker.distribution.manifest.v2+json"), "not an OCI"),
        (put("schemaVersion", 1), "is not an image manifest"),
        (put("manifests", []), "is not an image manifest"),
        (put("layers", {}), "layers must be a list"),
        (put("layers", [1]), "must be objects"),
        (put("layers", []), "it has no sigstore signature"),
        (put("layers", [{}] * 129), "the limit is 128"),
        (put("size", 1 << 30), "a payload is larger"),
        (put("digest", "sha256:../../x"), "digest must be"),
        (put("annotations", {}), "it has no sigstore signature"),
        (put("annotations", {attachments.SIGNATURE: 1}), "must be a string"),
        (put("annotations", {attachments.SIGNATURE: "?"}), "not base64"),
        (put("annotations", {attachments.SIGNATURE: "ä"}), "not base64"),
        (put("annotations", {attachments.SIGNATURE: "AAAA"}), "another key"),
    ],
)
def test_hostile_attachments(tmp_path: Path, registry: Registry, change: Any, why: str) -> None:
    public = hostile(tmp_path, registry, change)
    with pytest.raises(TrustError, match=why) as caught:
        accept(rule(public), registry)
    assert "\n" not in caught.value.message


def test_other_attachments_are_left_out(tmp_path: Path, registry: Registry) -> None:
    def change(document: Any, layer: Any) -> None:
        document["layers"].insert(
            0, {**layer, "mediaType": "application/vnd.dsse.envelope.v1+json"}
        )

    assert accept(rule(hostile(tmp_path, registry, change)), registry).signatures


def test_a_changed_payload(tmp_path: Path, registry: Registry) -> None:
    public = hostile(tmp_path, registry, lambda *_: None)
    for digest, data in registry.blobs.items():
        registry.blobs[digest] = data.replace(b"ns/app:1", b"ns/app:2")
    with pytest.raises(TrustError, match="another key"):
        accept(rule(public), registry)


def test_a_simple_payload_is_not_sigstores(tmp_path: Path, registry: Registry) -> None:
    key, public = sigstore_key(tmp_path)
    made = attachments.sign(private(key), NAME, DIGEST, 1)
    data = payload.write(NAME, DIGEST, payload.SIMPLE, "x", 1)
    signature = b64encode(keys.sign(private(key), data)).decode()
    blob = Descriptor(
        media_type=attachments.PAYLOAD, digest=f"sha256:{sha256(data).hexdigest()}", size=len(data)
    )
    document = json.loads(made.manifest)
    layer = {**blob.to_json(), "annotations": {attachments.SIGNATURE: signature}}
    document["layers"] = [layer]
    registry.blobs[blob.digest] = data
    registry.manifests[made.tag] = json.dumps(document).encode()
    with pytest.raises(TrustError, match="its type is"):
        accept(rule(public), registry)


def test_keys_that_are_not_public_keys(tmp_path: Path, registry: Registry) -> None:
    key, _ = sigstore_key(tmp_path)
    _, weak = sigstore_key(tmp_path, "1024")
    registry.push(attachments.sign(private(key), NAME, DIGEST, 1))
    for path, why in (
        (key, "no public key"),
        (weak, "is not ECDSA"),
        (f"{tmp_path}/none", "not there"),
    ):
        with pytest.raises(TrustError, match=why):
            accept(rule(path), registry)


def test_private_keys(tmp_path: Path) -> None:
    key, public = sigstore_key(tmp_path)
    locked = f"{tmp_path}/locked.key"
    openssl("pkcs8", "-topk8", "-in", key, "-passout", "pass:secret", "-out", locked)
    assert private(locked, b"secret")
    for path, passphrase, why in (
        (locked, b"", "is encrypted"),
        (locked, b"wrong", "wrong passphrase"),
        (key, b"secret", "is not encrypted"),
        (public, b"", "not a private key"),
    ):
        with pytest.raises(SpecError, match=why):
            private(path, passphrase)
    weak, _ = sigstore_key(tmp_path, "1024")
    with pytest.raises(SpecError, match="is not ECDSA"):
        private(weak)
    for name in ("SIGSTORE", "COSIGN"):
        mark = f"ENCRYPTED {name} PRIVATE KEY-----\n"
        text = f"-----BEGIN {mark}AA==\n-----END {mark}"
        with pytest.raises(Unsupported, match="cosign's own encryption"):
            keys.private(text.encode(), b"x", "KEY")


def test_existing_signatures_that_are_malformed(tmp_path: Path) -> None:
    key, _ = sigstore_key(tmp_path)
    for manifest, config in ((b"{}", b"{}"), (b"[", b""), (b'{"schemaVersion": 2}', b"[]")):
        with pytest.raises(TrustError):
            attachments.sign(private(key), NAME, DIGEST, 1, (manifest, config))
