"""policy.json and registries.d: what is read, what is refused, and which rule an image falls under."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sysbox.base.errors import FormatError, SpecError, TrustError
from sysbox.image import caller_files
from sysbox.image.reference import parse
from sysbox.image.trust import identity, payload, policy, registries_d, yaml
from sysbox.image.trust.policy import ACCEPT, REJECT, Identity
from sysbox.image.trust.scopes import scopes

DIGEST = f"sha256:{'a' * 64}"
ANY: list[Any] = [{"type": ACCEPT}]
NONE: list[Any] = [{"type": REJECT}]


def document(default: list[Any] = ANY, **transports: Any) -> bytes:
    return json.dumps({"default": default, "transports": transports}).encode()


def read(default: list[Any] = ANY, **transports: Any) -> policy.Policy:
    return policy.parse(document(default, **transports), "policy.json")


def test_without_a_file_everything_is_accepted(tmp_path: Path) -> None:
    found = policy.load(f"{tmp_path}/none")
    assert found.accepts_anything
    assert found.rule("docker", "docker.io/library/a:1").accepts_anything


def test_the_file_is_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(document(NONE))
    (tmp_path / "policy.json").symlink_to("real")
    found = policy.load(f"{tmp_path}/policy.json")
    assert not found.accepts_anything


def test_a_file_that_cannot_be_read_accepts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.mkdir()
    with pytest.raises(TrustError, match="not a file"):
        policy.load(str(path))
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(TrustError, match="not a file"):
        policy.load(str(path))
    path.unlink()
    path.symlink_to("policy.json")
    with pytest.raises(TrustError, match=r"policy\.json"):
        policy.load(str(path))
    path.unlink()
    path.symlink_to("none")
    with pytest.raises(TrustError, match="leads nowhere"):
        policy.load(str(path))
    path.unlink()
    path.write_bytes(b" " * (policy.MAX_POLICY + 1))
    with pytest.raises(TrustError, match="larger than"):
        policy.load(str(path))


SIGNED = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
SIGSTORE = {"type": "sigstoreSigned", "keyPath": "/k"}
MALFORMED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not valid JSON"),
    "truncated": (b'{"default": [', "not valid JSON"),
    "no object": (b"[]", "must be an object"),
    "no default": (b"{}", "'default' is missing"),
    "unknown key": (b'{"default": [{"type": "reject"}], "x": 1}', "unknown key 'x'"),
    "twice": (
        b'{"default": [{"type": "reject"}], "default": [{"type": "insecureAcceptAnything"}]}',
        "'default' appears twice",
    ),
    "a scope twice": (
        b'{"default": [{"type": "reject"}], "transports": {"docker": {"a": [], "a": []}}}',
        "'a' appears twice",
    ),
    "no requirements": (document([]), "not empty"),
    "null": (document(None), "not empty"),
    "no type": (document([{}]), "type must be text"),
    "unknown type": (document([{"type": "accept"}]), "unknown type 'accept'"),
    "reject with a key": (document([{"type": REJECT, "keyPath": "/k"}]), "unknown key 'keyPath'"),
    "transports": (b'{"default": [{"type": "reject"}], "transports": []}', "must be an object"),
    "a transport": (document(docker=[]), "transports.docker: must be an object"),
    "no keys": (document([{"type": "signedBy", "keyType": "GPGKeys"}]), "exactly one of"),
    "two kinds of keys": (document([{**SIGNED, "keyData": "AA=="}]), "exactly one of"),
    "no key type": (document([{"type": "signedBy", "keyPath": "/k"}]), "keyType"),
    "unknown key type": (document([{**SIGNED, "keyType": "PGP"}]), "keyType must be GPGKeys"),
    "relative": (document([{**SIGNED, "keyPath": "k"}]), "must be an absolute path"),
    "no list": (document([{"type": "sigstoreSigned", "keyPaths": "/k"}]), "must be a list"),
    "empty list": (document([{"type": "sigstoreSigned", "keyPaths": []}]), "must be a list"),
    "no base64": (document([{"type": "sigstoreSigned", "keyData": "?"}]), "is not base64"),
    "no identity": (document([{**SIGNED, "signedIdentity": {}}]), "type must be text"),
    "unknown identity": (
        document([{**SIGNED, "signedIdentity": {"type": "any"}}]),
        "unknown type 'any'",
    ),
    "identity with a key": (
        document([{**SIGNED, "signedIdentity": {"type": "matchExact", "x": 1}}]),
        "unknown key 'x'",
    ),
    "reference without a tag": (
        document([{**SIGNED, "signedIdentity": {"type": "exactReference", "dockerReference": "a.b/c"}}]),
        "must have a tag",
    ),
    "repository with a tag": (
        document(
            [{**SIGNED, "signedIdentity": {"type": "exactRepository", "dockerRepository": "a.b/c:1"}}]
        ),
        "must have no tag",
    ),
    "prefix": (
        document(
            [{**SIGNED, "signedIdentity": {"type": "remapIdentity", "prefix": "a.b", "signedPrefix": "c"}}]
        ),
        "is not a registry",
    ),
    "archive with a scope": (document(**{"docker-archive": {"/a": ANY}}), "scope '' alone"),
    "a relative path": (document(oci={"a": ANY}), "must be an absolute path"),
    "a root": (document(dir={"/": ANY}), "must be an absolute path"),
    "a path with ..": (document(dir={"/a/../b": ANY}), "must be an absolute path"),
}  # fmt: skip


@pytest.mark.parametrize("name", MALFORMED)
def test_one_line_about_a_malformed_file(name: str) -> None:
    data, why = MALFORMED[name]
    with pytest.raises(TrustError) as caught:
        policy.parse(data, "/etc/containers/policy.json")
    assert why in caught.value.message
    assert caught.value.message.startswith("/etc/containers/policy.json: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("requirement", "what"),
    [
        ({**SIGSTORE, "rekorPublicKeyPath": "/r"}, "rekorPublicKeyPath"),
        ({"type": "sigstoreSigned", "fulcio": {"caPath": "/c"}}, "fulcio"),
        ({"type": "sigstoreSigned", "pki": {}}, "pki"),
        ({"type": "signedBy", "keyType": "X509Certificates", "keyPath": "/k"}, "X509Certificates"),
        ({"type": "signedBaseLayer", "baseLayerIdentity": {"type": "matchExact"}}, "baseLayer"),
    ],
)
def test_what_is_not_supported_refuses_its_scope_alone(
    requirement: dict[str, Any], what: str
) -> None:
    found = read(docker={"a.example": [requirement]})
    (one,) = found.requirements("docker", "a.example/x:1")
    assert what in one.unsupported
    assert found.rule("docker", "b.example/x:1").accepts_anything


def test_scopes_of_a_name() -> None:
    assert scopes("docker", "reg.example.org:5000/ns/app:1") == [
        "reg.example.org:5000/ns/app:1",
        "reg.example.org:5000/ns/app",
        "reg.example.org:5000/ns",
        "reg.example.org:5000",
        "*.example.org",
        "*.org",
    ]
    assert scopes("docker", f"localhost/a@{DIGEST}") == [
        f"localhost/a@{DIGEST}",
        "localhost/a",
        "localhost",
    ]


def test_a_tag_beside_a_digest_is_no_scope() -> None:
    """Anybody can write the tag that is accepted in front of another image's digest."""
    found = read(NONE, docker={"a.example/x:good": ANY})
    assert found.rule("docker", "a.example/x:good").accepts_anything
    assert not found.rule("docker", f"a.example/x:good@{DIGEST}").accepts_anything


def test_scopes_of_a_path() -> None:
    assert scopes("oci", "/srv/images/app") == ["/srv/images/app", "/srv/images", "/srv"]
    assert scopes("oci-archive", "/srv/app:1") == ["/srv/app:1", "/srv"]
    assert scopes("dir", "/srv/a") == ["/srv/a", "/srv"]
    assert scopes("docker-archive", "/srv/a.tar") == []
    assert scopes("sysbox", "") == []


@pytest.mark.parametrize(
    ("name", "scope"),
    [
        ("reg.example/ns/app:1", "docker:reg.example/ns/app:1"),
        ("reg.example/ns/app:2", "docker:reg.example/ns/app"),
        ("reg.example/ns/other:1", "docker:reg.example/ns"),
        ("reg.example/else:1", "docker:reg.example"),
        ("sub.reg.example/else:1", "docker:*.reg.example"),
        ("deep.sub.reg.example:81/else:1", "docker:*.reg.example"),
        ("other.example/x:1", "docker:"),
        # names that only look as if they were within a scope
        ("reg.example.evil/ns/app:1", "docker:"),
        ("reg.example:5000/ns/app:1", "docker:"),
        ("evilreg.example/ns/app:1", "docker:"),
        ("reg.example/nsevil/app:1", "docker:reg.example"),
        ("reg.example/ns/app/more:1", "docker:reg.example/ns/app"),
        ("reg.example/ns/app.more:1", "docker:reg.example/ns"),
        ("evil.example/reg.example/ns/app:1", "docker:"),
    ],
)
def test_the_most_specific_rule_applies(name: str, scope: str) -> None:
    names = (
        "reg.example/ns/app:1", "reg.example/ns/app", "reg.example/ns", "reg.example",
        "*.reg.example", "",
    )  # fmt: skip
    found = read(docker=dict.fromkeys(names, NONE))
    assert found.rule("docker", name).scope == scope


def test_the_default_is_for_what_has_no_rule() -> None:
    found = read(
        NONE, docker={"a.example": ANY}, **{"docker-archive": {"": ANY}}, unknown={"x": ANY}
    )
    assert found.rule("docker", "b.example/x:1").scope == "default"
    assert found.rule("docker-archive", "/a.tar").accepts_anything
    assert found.rule("oci", "/a").scope == "default"


def test_what_was_made_here_is_refused_by_name_only() -> None:
    assert read(NONE).rule("sysbox", "docker.io/library/a:1").accepts_anything
    found = read(ANY, sysbox={"docker.io/library/a": NONE})
    assert not found.rule("sysbox", "docker.io/library/a:1").accepts_anything
    assert found.rule("sysbox", "docker.io/library/b:1").accepts_anything
    assert not read(ANY, sysbox={"": NONE}).rule("sysbox", "").accepts_anything


REMAP = Identity(kind="remapIdentity", prefix="m.x/v", signed_prefix="v.z")


@pytest.mark.parametrize(
    ("wanted", "image", "claimed", "agrees"),
    [
        (Identity(), "a.b/c:1", "a.b/c:1", True),
        (Identity(), "a.b/c:1", "a.b/c:2", False),
        (Identity(), "a.b/c:1", "a.b/c", False),
        (Identity(), "a.b/c:latest", "a.b/c", False),
        (Identity(), "a.b/c:1", "x.b/c:1", False),
        (Identity(), f"a.b/c@{DIGEST}", "a.b/c:7", True),
        (Identity(), f"a.b/c@{DIGEST}", "a.b/d:7", False),
        (Identity(), "a.b/c:1", f"a.b/c:1@{DIGEST}", False),
        (Identity(), "busybox", "docker.io/library/busybox:latest", True),
        (Identity(), "a.b/c:1", "A B", False),
        (Identity(kind="matchExact"), "a.b/c:1", "a.b/c:1", True),
        (Identity(kind="matchExact"), f"a.b/c@{DIGEST}", "a.b/c:1", False),
        (Identity(kind="matchExact"), f"a.b/c@{DIGEST}", f"a.b/c@{DIGEST}", True),
        (Identity(kind="matchRepository"), "a.b/c:1", "a.b/c:2", True),
        (Identity(kind="matchRepository"), "a.b/c:1", "a.b/c", True),
        (Identity(kind="matchRepository"), "a.b/c:1", "a.b/c/d:1", False),
        (Identity(kind="exactReference", name="x.y/z:9"), "a.b/c:1", "x.y/z:9", True),
        (Identity(kind="exactReference", name="x.y/z:9"), "a.b/c:1", "a.b/c:1", False),
        (Identity(kind="exactReference", name="x.y/z:9"), "", "x.y/z:9", True),
        (Identity(kind="exactRepository", name="x.y/z"), "a.b/c:1", "x.y/z:1", True),
        (Identity(kind="exactRepository", name="x.y/z"), "", "x.y/z/a:1", False),
        (Identity(), "", "x.y/z:9", False),
        (REMAP, "m.x/v/p/i:1", "v.z/p/i:1", True),
        (REMAP, "m.x/v/p/i:1", "m.x/v/p/i:1", False),
        (REMAP, "m.x/vv/i:1", "m.x/vv/i:1", True),
        (Identity(kind="remapIdentity", prefix="m.x/v", signed_prefix="v.z/q"), "m.x/v:1", "v.z/q:1", True),
        (Identity(kind="remapIdentity", prefix="m.x", signed_prefix="v.z"), "m.x.evil/i:1", "v.z/i:1", False),
    ],
)  # fmt: skip
def test_identities(wanted: Identity, image: str, claimed: str, agrees: bool) -> None:
    found = identity.mismatch(wanted, parse(image) if image else None, claimed)
    assert (found == "") == agrees, found


CLAIM = payload.write("a.b/c:1", DIGEST, payload.SIMPLE, "x", 1)


def test_a_payload() -> None:
    found = payload.read(CLAIM, payload.SIMPLE)
    assert (found.reference, found.digest) == ("a.b/c:1", DIGEST)
    with pytest.raises(FormatError, match="its type"):
        payload.read(CLAIM, payload.SIGSTORE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"optional"', b'"optional2"'),
        (b'"critical":', b'"more":1,"critical":'),
        (b'"image":', b'"more":1,"image":'),
        (b'"docker-reference":', b'"docker-reference":"x","docker-reference":'),
        (b'"creator":"x"', b'"creator":1'),
        (b'"timestamp":1', b'"timestamp":1.5'),
        (b'"timestamp":1', b'"timestamp":true'),
        (b"sha256:", b"sha512:"),
        (b'"a.b/c:1"', b"null"),
        (b'{"creator":"x","timestamp":1}', b"null"),
    ],
)
def test_a_payload_is_read_strictly(old: bytes, new: bytes) -> None:
    assert old in CLAIM
    with pytest.raises(FormatError):
        payload.read(CLAIM.replace(old, new, 1), payload.SIMPLE)


def test_cosign_writes_null() -> None:
    data = payload.write("a.b/c", DIGEST, payload.SIGSTORE, "x", 1)
    data = data.replace(b'{"creator":"x","timestamp":1}', b"null")
    assert payload.read(data, payload.SIGSTORE).reference == "a.b/c"


YAML = """\
# a comment
---
default-docker:
  lookaside: https://all.example/sig   # where
  'sigstore-staging': "file:///srv/a \\"b\\""
docker:

    registry.example:5000:
        lookaside: 'https://it''s.example'
        use-sigstore-attachments: true
    "quay.io/ns":
        sigstore: file:///var/sig
    quay.io: {}
"""


def test_yaml() -> None:
    assert yaml.load(YAML, "x.yaml") == {
        "default-docker": {
            "lookaside": "https://all.example/sig",
            "sigstore-staging": 'file:///srv/a "b"',
        },
        "docker": {
            "registry.example:5000": {
                "lookaside": "https://it's.example",
                "use-sigstore-attachments": "true",
            },
            "quay.io/ns": {"sigstore": "file:///var/sig"},
            "quay.io": {},
        },
    }
    assert yaml.load("", "x.yaml") == {}
    assert yaml.load("a:\nb: c\n", "x.yaml") == {"a": {}, "b": "c"}
    assert yaml.load("a:\n  b:\n    c: d\n  e: f\ng: h\n", "x.yaml") == {
        "a": {"b": {"c": "d"}, "e": "f"},
        "g": "h",
    }


@pytest.mark.parametrize(
    "text",
    [
        "a", "- a", "a: [b]", "a: {b: c}", "a: &x b", "a: *x", "a: |\n  b", "a: > b", "a: !!str b", "a: 'b",
        'a: "b', 'a: "\\x41"', "a: 'b' c", "a: b\na: c", "a: b: c", "\ta: b", "a:\n  b: c\n d: e", "? a: b",
        "a: b\n  c: d", "  a: b\nc: d", "a: b\n---\nc: d", "%YAML 1.2\n---\na: b", "'a'b: c", "'a':b",
        "a: @b",
        "a:\n  b:\n   c:\n    d:\n     e:\n      f:\n       g:\n        h:\n         i: j",
    ],
)  # fmt: skip
def test_other_yaml_is_refused(text: str) -> None:
    with pytest.raises(FormatError, match=r"x\.yaml:\d"):
        yaml.load(text, "x.yaml")


def test_registries_d(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(YAML)
    (tmp_path / "two.yaml").write_text(
        "docker:\n  quay.io/ns/app:\n    use-sigstore-attachments: true\n    lookaside-staging: file:///st/\n"
    )
    (tmp_path / "not.yaml.bak").write_text("[")
    found = registries_d.load(str(tmp_path))
    assert found.lookaside("quay.io/ns/app:1") == "file:///var/sig"
    assert found.lookaside("quay.io/ns/app:1", write=True) == "file:///st"
    assert found.lookaside("quay.io/nsx/app:1") == "https://all.example/sig"
    assert found.lookaside("quay.io/x:1", write=True) == 'file:///srv/a "b"'
    assert found.lookaside("registry.example:5000/x:1") == "https://it's.example"
    assert found.attachments("quay.io/ns/app:1")
    assert not found.attachments("quay.io/ns/other:1")
    assert found.attachments("registry.example:5000/x:1")
    assert not found.attachments("registry.example/x:1")
    nothing = registries_d.load(f"{tmp_path}/none")
    assert nothing.lookaside("a.b/c:1") == registries_d.DEFAULT_LOOKASIDE


@pytest.mark.parametrize(
    ("files_", "why"),
    [
        (
            {"a": "docker:\n  x.y:\n    lookaside: z\n", "b": "docker:\n  x.y: {}\n"},
            "in another file",
        ),
        ({"a": "default-docker: {}\n", "b": "default-docker: {}\n"}, "in another file"),
        ({"a": "default-docker: x\n"}, "must be a mapping"),
        ({"a": "docker:\n  x.y:\n    lookaside:\n      z: a\n"}, "must be text"),
        ({"a": "default-docker:\n  use-sigstore-attachments: yes\n"}, "must be true or false"),
        ({"a": "docker: [\n"}, "kind of YAML"),
    ],
)
def test_a_malformed_registries_d(tmp_path: Path, files_: dict[str, str], why: str) -> None:
    for name, text in files_.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(TrustError, match=why):
        registries_d.load(str(tmp_path))


def test_the_lookaside_has_a_scheme(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("default-docker:\n  lookaside: ftp://x\n")
    with pytest.raises(TrustError, match="only file:"):
        registries_d.load(str(tmp_path)).lookaside("a.b/c:1")


def test_a_link_out_of_a_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "sub" / "real").write_text("x")
    (inside / "good").symlink_to("sub/real")
    (inside / "bad").symlink_to("../outside")
    (inside / "worse").symlink_to(f"{tmp_path}/outside")
    (inside / "way").symlink_to("..")
    assert caller_files.read_below(str(inside), "good", 10) == b"x"
    assert caller_files.read_below(str(inside), "none", 10) is None
    assert caller_files.read_below(f"{inside}/none", "none", 10) is None
    for name in ("bad", "worse", "way/outside", "../outside"):
        with pytest.raises(TrustError, match="leads out"):
            caller_files.read_below(str(inside), name, 10, TrustError)
    with pytest.raises(TrustError, match="larger"):
        caller_files.read_below(str(inside), "sub/real", 0, TrustError)


def test_parse_of_names_as_written() -> None:
    assert identity.named("a.b/c").tag == ""
    assert identity.named("localhost:5000/c").tag == ""
    assert identity.named("localhost:5000/c:latest").tag == "latest"
    assert identity.is_prefix("a.b:80/c/d")
    for text in ("a", "a/b", "a.b/c:1", "a.b/", "", f"a.b/c@{DIGEST}", "index.docker.io"):
        assert not identity.is_prefix(text), text
    with pytest.raises(SpecError):
        identity.named("A B")
