"""Signatures between sysbox and skopeo (containers/image), in both directions, over a real registry."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from forked import needs_root
from layers.builder import archive, entry
from registryserver import Registry, program
from signers import Gpg, sigstore_key
from unpacked import LIBRARIES, PATH

from sysbox.base import paths
from sysbox.base.errors import FormatError, SysboxError, TrustError
from sysbox.image import ingest
from sysbox.image.reference import Reference, parse
from sysbox.image.registry import pull, push
from sysbox.image.store import Store
from sysbox.image.trust import gpg, keys, policy, provenance

LAYER = archive(entry("file", b"x"))


@pytest.fixture(scope="module")
def skopeo(requires: Any) -> str:
    found = shutil.which("skopeo", path=PATH)
    requires(found, "skopeo, below .venv/test-services")
    return found or ""


@pytest.fixture(scope="module")
def signer(requires: Any) -> Iterator[Gpg]:
    requires.program("gpg")
    own = Gpg()
    own.key("a@test")
    yield own
    own.close()


@pytest.fixture(scope="module")
def registry(requires: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    requires(program(), "docker-registry, below .venv/test-services")
    with Registry(tmp_path_factory.mktemp("registry")) as one:
        yield one


class Place:
    """One repository, its files of configuration, and skopeo with the same ones."""

    def __init__(self, directory: Path, registry: Registry, name: str) -> None:
        self.directory = directory
        self.registry = registry
        self.name = name
        self.digest = registry.put_image(name, "1", [LAYER])["digest"]
        self.reference: Reference = parse(f"{registry.host}/{name}:1")
        self.store = Store(f"{directory}/images")
        self.admit()
        (directory / "registries.d").mkdir()
        self.registries_d("use-sigstore-attachments: true")

    def registries_d(self, *lines: str) -> None:
        text = "".join(
            f"    {line}\n" for line in (f"lookaside: file://{self.directory}/sig", *lines)
        )
        (self.directory / "registries.d/a.yaml").write_text(
            f"docker:\n  {self.registry.host}:\n{text}"
        )

    def rules(self, requirement: dict[str, Any]) -> None:
        document = {
            "default": [{"type": "reject"}],
            "transports": {"docker": {self.reference.repository(): [requirement]}},
        }
        (self.directory / "policy.json").write_text(json.dumps(document))

    def admit(self, tag: str = "1", digest: str = "") -> Any:
        """Pull the image; where it came from."""
        reference = self.reference.replace(tag="" if digest else tag, digest=digest)
        pulled = pull.pull_reference(self.store, reference, pull.Options(), pull.Report())
        return provenance.read(self.store, pulled.image.id)[0]

    def sign(self, key: str) -> None:
        """Push the image, and sign it; pulled without a policy, it is here."""
        image = self.store.resolve(self.reference.full())
        private = keys.private(Path(key).read_bytes(), b"", key)
        push.push(self.store, image, self.reference, push.Options(), push.Report(), private)

    def skopeo(
        self, program: str, *words: str, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, "--registries.d", f"{self.directory}/registries.d", *words],
            env={**os.environ, "LD_LIBRARY_PATH": LIBRARIES, **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def copied(self, program: str, tag: str, *words: str, **environment: str) -> None:
        """Copy the image to another tag, and sign it there."""
        done = self.skopeo(
            program, "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", *words,
            f"docker://{self.reference.full()}", f"docker://{self.reference.repository()}:{tag}",
            **environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    def accepts(self, program: str) -> str:
        """Why skopeo does not accept the image; "" if it does."""
        done = self.skopeo(
            program, "--policy", f"{self.directory}/policy.json", "copy", "--remove-signatures",
            "--src-tls-verify=false", f"docker://{self.reference.full()}", f"dir:{self.directory}/copy",
        )  # fmt: skip
        return done.stderr if done.returncode else ""


@pytest.fixture
def place(
    tmp_path: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> Place:
    needs_root()
    monkeypatch.setattr(ingest, "sync_file_system", lambda _: None)
    monkeypatch.setattr(paths, "POLICY", f"{tmp_path}/policy.json")
    monkeypatch.setattr(paths, "REGISTRIES_D", f"{tmp_path}/registries.d")
    monkeypatch.setattr(gpg, "WORK", f"{tmp_path}/work")
    monkeypatch.setenv("XDG_CONFIG_HOME", f"{tmp_path}/config")
    monkeypatch.setenv("HOME", f"{tmp_path}/home")
    return Place(tmp_path, registry, f"t/{abs(hash(request.node.name))}")


def signed_by(path: str) -> dict[str, Any]:
    return {"type": "signedBy", "keyType": "GPGKeys", "keyPath": path}


def test_a_simple_signature_of_skopeo(
    place: Place, skopeo: str, signer: Gpg, tmp_path: Path
) -> None:
    (tmp_path / "a.gpg").write_bytes(signer.public())
    place.rules(signed_by(f"{tmp_path}/a.gpg"))
    with pytest.raises(TrustError, match="it has no OpenPGP signature"):
        place.admit()
    place.copied(skopeo, "1", "--sign-by", signer.fingerprint("a@test"), GNUPGHOME=signer.home)
    origin = place.admit()
    assert origin.verdict.startswith("signedBy ")
    assert origin.manifest == place.digest
    assert place.accepts(skopeo) == ""
    # the same manifest under a tag that was not signed
    place.copied(skopeo, "2", "--remove-signatures")
    with pytest.raises(TrustError, match="not for"):
        place.admit("2")


@pytest.mark.parametrize("kind", ["P-256", "ed25519", "2048"])
def test_a_sigstore_signature_in_the_registry(place: Place, tmp_path: Path, kind: str) -> None:
    """Debian's skopeo can neither make these nor check them."""
    key, public = sigstore_key(tmp_path, kind)
    other, other_public = sigstore_key(tmp_path, kind, "other")
    place.rules({"type": "sigstoreSigned", "keyPath": public})
    with pytest.raises(TrustError, match="it has no sigstore signature"):
        place.admit()
    place.sign(other)
    with pytest.raises(TrustError, match="another key"):
        place.admit()
    place.sign(key)
    for one in (public, other_public):
        place.rules({"type": "sigstoreSigned", "keyPath": one})
        assert place.admit().verdict == f"sigstoreSigned {one}"


def test_a_tag_that_is_moved_back(place: Place, skopeo: str, signer: Gpg, tmp_path: Path) -> None:
    """The old image is still signed for the tag; a name with the digest of another image is not that."""
    (tmp_path / "a.gpg").write_bytes(signer.public())
    place.rules(signed_by(f"{tmp_path}/a.gpg"))
    place.copied(skopeo, "1", "--sign-by", signer.fingerprint("a@test"), GNUPGHOME=signer.home)
    other = place.registry.put_image(place.name, "1", [archive(entry("file", b"y"))])["digest"]
    with pytest.raises(TrustError, match="it has no OpenPGP signature"):
        place.admit()
    with pytest.raises(TrustError, match="it has no OpenPGP signature"):
        place.admit(digest=other)
    assert place.admit(digest=place.digest).manifest == place.digest


class Lookaside(BaseHTTPRequestHandler):
    """A web server of signatures, for the path that the protocol names."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    status = 200

    def do_GET(self) -> None:
        data = self.files.get(self.path)
        self.send_response(404 if data is None else self.status)
        self.send_header("Content-Length", str(len(data or b"")))
        self.end_headers()
        self.wfile.write(data or b"")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def test_a_lookaside_over_http(
    place: Place, skopeo: str, signer: Gpg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.gpg").write_bytes(signer.public())
    place.rules(signed_by(f"{tmp_path}/a.gpg"))
    place.copied(skopeo, "1", "--sign-by", signer.fingerprint("a@test"), GNUPGHOME=signer.home)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lookaside)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        root = f"http://127.0.0.1:{server.server_port}/top"
        (tmp_path / "registries.d/a.yaml").write_text(f"default-docker:\n  lookaside: {root}/\n")
        with pytest.raises(TrustError, match="it has no OpenPGP signature"):
            place.admit()
        found = {
            f"/top/{path.relative_to(tmp_path / 'sig')}": path
            for path in tmp_path.glob("sig/**/signature-1")
        }
        monkeypatch.setattr(
            Lookaside, "files", {name: path.read_bytes() for name, path in found.items()}
        )
        assert place.admit().signatures[0].where.startswith(root)
        monkeypatch.setattr(Lookaside, "status", 403)
        with pytest.raises(SysboxError):
            place.admit()
        monkeypatch.setattr(Lookaside, "status", 200)
        large = dict.fromkeys(Lookaside.files, bytes(gpg.MAX_SIGNATURE + 1))
        monkeypatch.setattr(Lookaside, "files", large)
        with pytest.raises(FormatError, match="over the limit"):
            place.admit()
    finally:
        server.shutdown()
        server.server_close()


def test_without_a_policy_nothing_is_asked(place: Place) -> None:
    assert not os.path.exists(paths.POLICY)
    assert policy.load().accepts_anything
    origin = place.admit()
    assert (origin.verdict, origin.signatures) == ("insecureAcceptAnything", ())


def test_a_payload_that_the_registry_has_changed(place: Place, tmp_path: Path) -> None:
    key, public = sigstore_key(tmp_path)
    place.rules({"type": "sigstoreSigned", "keyPath": public})
    place.sign(key)
    tag = f"sha256-{place.digest[7:]}.sig"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
    target = f"/v2/{place.name}/manifests/{tag}"
    manifest = json.loads(place.registry.request("GET", target, headers=accept)[2])
    hexadecimal = manifest["layers"][0]["digest"][7:]
    (path,) = place.registry.storage.glob(f"**/{hexadecimal}/data")
    path.write_bytes(path.read_bytes().replace(b":1", b":2"))
    with pytest.raises(FormatError, match="something else"):
        place.admit()
