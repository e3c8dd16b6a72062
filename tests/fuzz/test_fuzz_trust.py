"""What decides about trust: policy.json, registries.d, what a signature signs, and what gpg says."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from inputs import ANY_TEXT, JSON, Refused, nearly, outcome, words

from sysbox.image.reference import parse
from sysbox.image.trust import (
    attachments,
    edit,
    gpg,
    identity,
    payload,
    policy,
    provenance,
    registries_d,
    yaml,
)
from sysbox.image.trust.policy import Identity
from sysbox.image.trust.scopes import scopes

DIGEST = "sha256:" + "ab" * 32
SIGNED = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
REMAP = {"type": "remapIdentity", "prefix": "a.b", "signedPrefix": "c.d/e"}
POLICY = {
    "default": [{"type": "reject"}],
    "transports": {
        "docker": {
            "a.b": [SIGNED, {**SIGNED, "signedIdentity": REMAP}],
            "": [{"type": "sigstoreSigned", "keyDatas": ["AAAA"], "signedIdentity": {"type": "matchExact"}}],
        },
        "oci": {"/a/b": [{"type": "insecureAcceptAnything"}]},
    },
}  # fmt: skip
CLAIM = {
    "critical": {
        "type": payload.SIMPLE,
        "image": {"docker-manifest-digest": DIGEST},
        "identity": {"docker-reference": "a.b/c:1"},
    },
    "optional": {"creator": "x", "timestamp": 1},
}
LAYER = {
    "mediaType": attachments.PAYLOAD,
    "digest": DIGEST,
    "size": 2,
    "annotations": {attachments.SIGNATURE: "AA=="},
}
ATTACHED = {"schemaVersion": 2, "config": {"digest": DIGEST, "size": 2}, "layers": [LAYER]}
ORIGIN = {
    "transport": "docker",
    "reference": "a.b/c:1",
    "manifest": DIGEST,
    "signatures": [{"kind": "simple", "content": "AA=="}],
}
NAMES = "docker.io / library busybox : 1 latest @ a.b c.d:80 * . - localhost " + DIGEST


@given(st.one_of(JSON, nearly([POLICY])), words(NAMES))
def test_a_policy_is_read_or_refused(document: Any, name: str) -> None:
    found = outcome(lambda: policy.parse(json.dumps(document).encode(), "policy.json"))
    if found is not Refused:
        for transport in ("docker", "oci", "sysbox", "docker-archive", "other"):
            outcome(lambda one=transport: found.rule(one, name))  # type: ignore[misc]


@given(words(NAMES))
def test_every_scope_is_a_beginning(name: str) -> None:
    """Up to a separator, and never beyond the host."""
    found = outcome(lambda: parse(name).full())
    if found is Refused:
        return
    repository = parse(found).repository()
    for scope in scopes("docker", found)[1:]:
        if scope.startswith("*."):
            assert repository.partition("/")[0].partition(":")[0].endswith(scope[1:])
        else:
            assert f"{repository}/".startswith(f"{scope}/")


@given(
    words(NAMES),
    words(NAMES),
    st.sampled_from(["matchExact", "matchRepository", "matchRepoDigestOrExact"]),
)
def test_a_signature_for_another_repository_never_counts(
    image: str, claimed: str, kind: str
) -> None:
    wanted = outcome(lambda: parse(image))
    if wanted is Refused:
        return
    if identity.mismatch(Identity(kind=kind), wanted, claimed) == "":
        assert identity.named(claimed).repository() == wanted.repository()


@given(st.one_of(JSON, nearly([CLAIM])))
def test_a_claim_is_read_or_refused(document: Any) -> None:
    found = outcome(lambda: payload.read(json.dumps(document).encode(), payload.SIMPLE))
    if found is not Refused:
        assert document["critical"] == {
            "type": payload.SIMPLE,
            "image": {"docker-manifest-digest": found.digest},
            "identity": {"docker-reference": found.reference},
        }


@given(st.one_of(JSON, nearly([ATTACHED])))
def test_attachments_are_read_or_refused(document: Any) -> None:
    outcome(lambda: attachments.read(json.dumps(document).encode(), "x"))


@given(st.one_of(JSON, nearly([ORIGIN])))
def test_an_origin_is_read_or_wrong(document: Any) -> None:
    try:
        found = provenance._origin(document)
    except ValueError:
        return
    outcome(found.found)
    assert provenance._origin(found.to_data()) == found


@given(
    words(
        "docker : default-docker lookaside use-sigstore-attachments \n \n  \n    true ' \" # {} - [ & | \\ \t"
    )
)
def test_yaml_is_read_or_refused(text: str) -> None:
    outcome(lambda: yaml.load(text, "x"))
    outcome(lambda: registries_d.parse_file(text.encode("utf-8", "surrogateescape"), "x"))


@given(
    st.dictionaries(
        st.text("ab.:/ -", min_size=1, max_size=6).map(str.strip).filter(bool), ANY_TEXT
    )
)
def test_quoted_yaml_is_what_was_written(values: dict[str, str]) -> None:
    kept = {key: value for key, value in values.items() if not {"\n", "\r"} & set(value)}
    quoted = {key: value.replace("'", "''") for key, value in kept.items()}
    text = "".join(f"'{key}': '{value}'\n" for key, value in quoted.items())
    assert yaml.load(text, "x") == kept


@given(words(NAMES))
def test_a_scope_of_trust_set(text: str) -> None:
    outcome(lambda: edit.check_scope(text))


@given(
    words("[GNUPG:] NEWSIG GOODSIG VALIDSIG PLAINTEXT EXPSIG A 0 \n [GNUPG:] 2026 00 8", size=20)
)
def test_the_status_of_gpg(text: str) -> None:
    outcome(lambda: gpg.signer(0, gpg.status_lines(text.encode("utf-8", "surrogateescape"))))
