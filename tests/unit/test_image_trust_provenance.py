"""Where an image came from, kept in the store, and the policy that is checked again when it is run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from forked import needs_root
from layers import fixtures, images
from layers.builder import archive, entry
from signers import sigstore_key

from sysbox.base import codec, paths
from sysbox.base.errors import FormatError, TrustError
from sysbox.image import ingest
from sysbox.image.formats import load, save
from sysbox.image.ingest import Ingest, descriptor_of
from sysbox.image.model import Image
from sysbox.image.store import Store
from sysbox.image.trust import attachments, gate, keys, policy, provenance
from sysbox.image.trust.check import Verdict, check
from sysbox.image.trust.signatures import Given, Signature

CONTENT = archive(entry("file", b"x"))
NAME = "reg.example/app:1"
CREATED = "2026-01-01T00:00:00Z"  # or each would be another image
REJECT = [{"type": "reject"}]
ACCEPT = [{"type": "insecureAcceptAnything"}]
NOBODY: Any = lambda _: []  # noqa: E731 (a constant of the tests)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    needs_root()
    monkeypatch.setattr(ingest, "sync_file_system", lambda _: None)
    return Store(f"{tmp_path}/images")


@pytest.fixture(autouse=True)
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Write policy.json: (default, transports)."""
    path = tmp_path / "policy.json"
    monkeypatch.setattr(paths, "POLICY", str(path))

    def write(default: Any, **transports: Any) -> None:
        path.write_text(json.dumps({"default": default, "transports": transports}))

    return write


def pulled(store: Store, name: str, verdict: Verdict, index: str = "") -> Image:
    """Make an image again, as if it had been pulled as `name`."""
    made = fixtures.import_bytes(store, CONTENT, "made:1", created=CREATED)
    manifest = Path(store.blob(made.manifest)).read_bytes()
    config = Path(store.blob(made.id)).read_bytes()
    with Ingest(store) as work:
        fd = os.memfd_create("x")
        os.write(fd, CONTENT)
        os.lseek(fd, 0, os.SEEK_SET)
        blob = work.spool(fd, "x")
        os.close(fd)
        assert descriptor_of(blob, "").size == len(CONTENT)
        layer = work.unpack(blob, "x")
        origin = provenance.accepted("docker", name, made.manifest, verdict, index)
        image = work.commit(manifest, config, [blob], [layer], name, origin=origin)
    return image.replace(names=(name,))


def only_pulled(store: Store, name: str = NAME, verdict: Verdict | None = None) -> Image:
    """The same, without the origin of the image that was made for it."""
    image = pulled(store, name, verdict or Verdict(by=("insecureAcceptAnything",)))
    store.remove("made:1", NOBODY, force=True)
    path = Path(provenance.path_of(store, image.id))
    document = codec.loads(path.read_bytes(), "")
    document["origins"] = [one for one in document["origins"] if one["transport"] == "docker"]
    path.write_bytes(codec.dumps(document))
    return image


def test_what_is_made_here(store: Store) -> None:
    image = fixtures.import_bytes(store, CONTENT, "one:1")
    (origin,) = provenance.read(store, image.id)
    assert (origin.transport, origin.reference) == ("sysbox", "docker.io/library/one:1")
    assert origin.manifest == image.manifest
    assert Path(provenance.path_of(store, image.id)).stat().st_mode & 0o777 == 0o600


def test_origins_add_up_and_go_with_the_image(store: Store) -> None:
    index = f"sha256:{'c' * 64}"
    image = pulled(store, NAME, Verdict(by=("insecureAcceptAnything",)), index)
    pulled(store, NAME, Verdict(by=("insecureAcceptAnything",)))
    first, second = provenance.read(store, image.id)
    assert (first.transport, first.reference) == ("docker", NAME)
    assert (second.transport, second.reference) == ("sysbox", "docker.io/library/made:1")
    assert (first.verdict, first.index) == ("insecureAcceptAnything", "")
    store.remove("made:1", NOBODY)
    assert provenance.read(store, image.id)
    store.remove(NAME, NOBODY)
    assert provenance.read(store, image.id) == ()
    assert store.gc() == []


def test_gc_removes_what_no_image_has(store: Store) -> None:
    image = fixtures.import_bytes(store, CONTENT, "one:1")
    for name in (f"{'d' * 64}.json", f"{image.id[7:]}.json.999999999"):
        Path(store.root, "provenance", name).write_text("{}")
    assert len(store.gc()) == 2
    assert provenance.read(store, image.id)


def test_the_origin_must_be_of_this_manifest(store: Store) -> None:
    made = fixtures.import_bytes(store, CONTENT, "made:1", created=CREATED)
    other = provenance.made_here(NAME, f"sha256:{'e' * 64}")
    manifest = Path(store.blob(made.manifest)).read_bytes()
    config = Path(store.blob(made.id)).read_bytes()
    with Ingest(store) as work:
        fd = os.memfd_create("x")
        os.write(fd, CONTENT)
        os.lseek(fd, 0, os.SEEK_SET)
        blob = work.spool(fd, "x")
        layer = work.unpack(blob, "x")
        with pytest.raises(FormatError, match="not the one that policy"):
            work.commit(manifest, config, [blob], [layer], NAME, origin=other)
        os.close(fd)


def test_files_of_other_versions_and_damaged_ones(store: Store) -> None:
    image = fixtures.import_bytes(store, CONTENT, "one:1")
    path = Path(provenance.path_of(store, image.id))
    document = codec.loads(path.read_bytes(), "")
    (origin,) = provenance.read(store, image.id)
    newer = {**document, "more": 1, "origins": [{**document["origins"][0], "more": {"x": 1}}]}
    path.write_bytes(codec.dumps(newer))
    assert provenance.read(store, image.id) == (origin,)
    for data in (
        b"", b"{", b"[]", b'{"format": 2, "origins": []}', b'{"format": 1, "origins": {}}',
        b'{"format": 1, "origins": [1]}', b'{"format": 1, "origins": [{"transport": 1}]}',
        b'{"format": 1, "origins": [{"transport": "a", "reference": "b", "manifest": "c"}]}',
        b'{"format": 1, "origins": [{"signatures": 1}]}',
    ):  # fmt: skip
        path.write_bytes(data)
        assert provenance.read(store, image.id) == (), data
        store.resolve("one:1")
    provenance.keep(store, image, origin)
    assert provenance.read(store, image.id) == (origin,)
    with pytest.raises(FormatError):
        provenance.path_of(store, "../../x")


def test_no_more_origins_than_the_limit(store: Store) -> None:
    image = fixtures.import_bytes(store, CONTENT, "one:1")
    for number in range(provenance.MAX_ORIGINS + 3):
        provenance.keep(store, image, provenance.made_here(f"a.b/c:{number}", image.manifest))
    found = provenance.read(store, image.id)
    assert len(found) == provenance.MAX_ORIGINS
    assert found[0].reference == f"a.b/c:{provenance.MAX_ORIGINS + 2}"


def refused(store: Store, image: Image, name: str, why: str) -> None:
    with pytest.raises(TrustError, match=why):
        gate.admit(store, image, name)


def test_a_policy_that_became_stricter(store: Store, rules: Any) -> None:
    image = only_pulled(store)
    rules(ACCEPT)
    gate.admit(store, image, NAME)
    rules(REJECT)
    refused(store, image, NAME, f"^{NAME}: .* rejects it")
    refused(store, image, image.id[7:19], f"^image {image.id[7:19]}: {NAME}: .* rejects it")
    rules(REJECT, docker={"reg.example/app": ACCEPT})
    gate.admit(store, image, NAME)
    rules(
        ACCEPT,
        docker={"reg.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]},
    )
    refused(store, image, NAME, "/k: the file with the key is not there")


def test_a_signature_that_must_be_there(store: Store, rules: Any) -> None:
    """What the policy accepts without one is not enough; what it refuses is refused in the same words."""

    def refused(name: str, why: str) -> None:
        with pytest.raises(TrustError, match=why):
            gate.admit_signed(store, image, name)

    image = only_pulled(store)
    refused(NAME, f"^{NAME}: the policy for 'default' asks for no signature")  # there is no policy
    rules(ACCEPT)
    refused(NAME, f"^{NAME}: the policy for 'default' asks for no signature")
    refused(image.id, f"^image {image.id}: {NAME}: the policy for 'default' asks for no")
    rules(REJECT)
    refused(NAME, f"^{NAME}: .* rejects it")
    key = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
    rules(REJECT, docker={"reg.example": [key]})
    refused(NAME, "/k: the file with the key is not there")
    Path(provenance.path_of(store, image.id)).unlink()
    refused(NAME, "it is not known where it came from")
    image = fixtures.import_bytes(store, CONTENT, "here:1")
    refused("here:1", "here:1: the policy for 'sysbox' asks for no signature")


def test_the_origin_of_the_name_decides(
    store: Store, rules: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a short name means it."""
    conf = tmp_path / "registries.conf"
    conf.write_text('unqualified-search-registries = ["evil.example"]\n')
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
    image = only_pulled(store)
    store.tag(image.id, "evil.example/app:1")
    (origin,) = provenance.read(store, image.id)
    provenance.keep(store, image, origin.replace(reference="evil.example/app:1"))
    rules(ACCEPT, docker={"evil.example": REJECT})
    gate.admit(store, image, NAME)
    gate.admit(store, image, image.id)
    refused(store, image, "evil.example/app:1", "rejects it")
    refused(store, image, "app:1", "^evil.example/app:1: .*rejects it")


def test_a_name_that_was_given_here_changes_nothing(store: Store, rules: Any) -> None:
    """The origin counts, not the tag: `tag` makes no image acceptable, and none unacceptable."""
    image = only_pulled(store, "evil.example/app:1")
    store.tag(image.id, "good.example/app:1")
    rules(REJECT, docker={"good.example": ACCEPT})
    refused(store, store.resolve("good.example/app:1"), "good.example/app:1", "rejects it")


def test_an_unknown_origin(store: Store, rules: Any) -> None:
    image = fixtures.import_bytes(store, CONTENT, "one:1")
    os.unlink(provenance.path_of(store, image.id))
    rules(ACCEPT, docker={"a.example": REJECT})
    gate.admit(store, image, "one:1")
    for default, transports in ((REJECT, {}), (ACCEPT, {"docker": {"docker.io": REJECT}})):
        rules(default, **transports)
        refused(store, image, "one:1", "not known where it came from")


def test_images_that_are_made_here(store: Store, rules: Any) -> None:
    image = fixtures.import_bytes(store, CONTENT, "one:1")
    rules(REJECT)
    gate.admit(store, image, "one:1")
    rules(ACCEPT, sysbox={"docker.io/library/one": REJECT})
    refused(store, image, "one:1", "the policy for 'sysbox:docker.io/library/one' rejects it")
    host = image.replace(names=("docker.io/library/host:latest",))
    gate.admit(store, host, "host")
    rules(ACCEPT, sysbox={"": REJECT})
    refused(store, host, "host", "rejects it")


def test_a_malformed_policy_refuses_everything(store: Store, tmp_path: Path) -> None:
    image = fixtures.import_bytes(store, CONTENT, "one:1")
    (tmp_path / "policy.json").write_text("{")
    refused(store, image, "one:1", "/policy.json: ")


def test_a_kept_signature_is_verified_again(store: Store, rules: Any, tmp_path: Path) -> None:
    """Offline; and the key may change its mind."""
    manifest = fixtures.import_bytes(store, CONTENT, "made:1", created=CREATED).manifest
    key, public = sigstore_key(tmp_path, name="one")
    _, other = sigstore_key(tmp_path, name="two")
    made = attachments.sign(keys.private(Path(key).read_bytes(), b"", key), NAME, manifest, 1)
    signature = Signature(
        kind="sigstore",
        content=made.layer,
        signature=made.annotations[attachments.SIGNATURE],
        where=made.tag,
    )
    wanted = [{"type": "sigstoreSigned", "keyPath": public}]
    rules(REJECT, docker={"reg.example": wanted})
    verdict = check(policy.load(), "docker", NAME, manifest, None, Given((signature,)))
    image = only_pulled(store, verdict=verdict)
    (origin,) = provenance.read(store, image.id)
    assert origin.verdict == f"sigstoreSigned {public}"
    gate.admit(store, image, NAME)
    rules(REJECT, docker={"reg.example": [{**wanted[0], "keyPath": other}]})
    refused(store, image, NAME, "another key has signed it")
    rules(REJECT, docker={"reg.example": wanted})
    path = Path(provenance.path_of(store, image.id))
    path.write_bytes(
        path.read_bytes().replace(origin.signatures[0].content[:8].encode(), b"AAAAAAAA")
    )
    refused(store, image, NAME, "another key has signed it")
    path.write_bytes(path.read_bytes().replace(b"AAAAAAAA", b"AAAAA"))
    refused(store, image, NAME, "is damaged|another key")
    # the signature of one image beside another one
    other = f"sha256:{'f' * 64}"
    provenance.keep(store, image.replace(manifest=other), origin.replace(manifest=other))
    refused(store, image, NAME, "it is for the manifest")


LOADED = [("oci-archive", True), ("oci", False), ("docker-archive", True)]


@pytest.mark.parametrize(("transport", "is_file"), LOADED)
def test_what_is_loaded(
    store: Store, rules: Any, tmp_path: Path, transport: str, is_file: bool
) -> None:
    files = (
        images.docker_files(["a.example/x:1"])
        if "docker" in transport
        else images.plain_layout("a.example/x:1")
    )
    path = tmp_path / "in" / "image"
    path.parent.mkdir()
    if is_file:
        path.write_bytes(images.packed(files))
    for name, data in {} if is_file else files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)

    def loaded() -> Image:
        fd = os.open(path, os.O_RDONLY)
        try:
            (one,) = load.load(store, fd, "file", path=str(path))
        finally:
            os.close(fd)
        return store.resolve(one.id)

    rules(REJECT, docker={"a.example": ACCEPT})
    with pytest.raises(TrustError, match="rejects it"):
        loaded()
    assert store.list() == []
    scope = "" if "docker" in transport else str(path.parent)
    rules(REJECT, **{transport: {scope: ACCEPT}})
    image = loaded()
    (origin,) = provenance.read(store, image.id)
    assert (origin.transport, origin.reference) == (transport, str(path))
    # the name that the archive claims is no registry's word
    gate.admit(store, image, "a.example/x:1")
    rules(REJECT, docker={"a.example": ACCEPT})
    refused(store, image, "a.example/x:1", "rejects it")
    if scope:
        rules(REJECT, **{transport: {f"{scope}/im": ACCEPT}})
        refused(store, image, "a.example/x:1", "rejects it")


def test_each_name_has_its_own_manifest(store: Store, tmp_path: Path) -> None:
    """Another manifest of the same configuration takes nothing from a name that was here before."""
    image = pulled(store, NAME, Verdict(by=("insecureAcceptAnything",)))
    store.remove("made:1", NOBODY)
    manifest = json.loads(Path(store.blob(image.manifest)).read_bytes())
    config = Path(store.blob(image.id)).read_bytes()
    other = json.dumps({**manifest, "annotations": {"a": "b"}}).encode()
    with Ingest(store) as work:
        path = tmp_path / "blob"
        path.write_bytes(CONTENT)
        with path.open("rb") as file:
            blob = work.spool(file.fileno(), "x")
        made = work.commit(other, config, [blob], [work.unpack(blob, "x")], "evil.example/app:1")
    assert made.id == image.id
    assert store.resolve(NAME).manifest == image.manifest
    assert store.resolve("evil.example/app:1").manifest == made.manifest != image.manifest
    assert store.tag(NAME, "third:1").manifest == store.resolve("third:1").manifest
    assert store.resolve("third:1").manifest == image.manifest
    assert [one.manifest for one in save.choose(store, [NAME])] == [image.manifest]
    store.remove("evil.example/app:1", NOBODY)
    store.gc()
    for name in (NAME, image.id, image.manifest):
        assert os.path.exists(store.blob(store.resolve(name).manifest))
