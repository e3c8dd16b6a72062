"""`trust show` and `trust set`: what is written is what tools read, and all else is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from signers import Gpg, sigstore_key

from sysbox.base import paths
from sysbox.base.errors import SpecError, TrustError
from sysbox.image.trust import edit, gpg, policy

ACCEPT = [{"type": "insecureAcceptAnything"}]
REJECT = [{"type": "reject"}]


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "POLICY", f"{tmp_path}/etc/policy.json")
    monkeypatch.setattr(paths, "REGISTRIES_D", f"{tmp_path}/registries.d")
    monkeypatch.setattr(gpg, "WORK", f"{tmp_path}/work")
    return tmp_path / "etc" / "policy.json"


@pytest.fixture
def keys(tmp_path: Path, requires: Any) -> Iterator[tuple[str, str]]:
    """(a file with an OpenPGP key, one with a key of sigstore)."""
    requires.program("gpg")
    own = Gpg()
    own.key("a@test")
    (tmp_path / "a.gpg").write_bytes(own.public())
    yield f"{tmp_path}/a.gpg", sigstore_key(tmp_path)[1]
    own.close()


def test_a_first_rule(path: Path) -> None:
    edit.change("quay.io/ns", "reject", ())
    assert json.loads(path.read_text()) == {
        "default": ACCEPT,
        "transports": {"docker": {"quay.io/ns": REJECT}},
    }
    assert path.stat().st_mode & 0o777 == 0o644
    edit.change("default", "reject", ())
    edit.change("quay.io/ns", "accept", ())
    assert json.loads(path.read_text()) == {
        "default": REJECT,
        "transports": {"docker": {"quay.io/ns": ACCEPT}},
    }


def test_all_else_is_kept(path: Path, tmp_path: Path) -> None:
    old = {
        "transports": {
            "docker-daemon": {"": ACCEPT},
            "atomic": {"a.example": REJECT},
            "docker": {"b.example": [{"type": "sigstoreSigned", "fulcio": {"caPath": "/c"}}]},
        },
        "default": REJECT,
    }
    path.parent.mkdir()
    (tmp_path / "real.json").write_text(json.dumps(old))
    (tmp_path / "real.json").chmod(0o640)
    path.symlink_to("../real.json")
    edit.change("a.example", "accept", ())
    edit.change("c.example:5000/x:1", "accept", ())
    assert path.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    new = json.loads(path.read_text())
    assert list(new) == ["transports", "default"]
    old["transports"]["atomic"]["a.example"] = ACCEPT
    old["transports"]["docker"]["c.example:5000/x:1"] = ACCEPT
    assert new == old
    assert os.listdir(path.parent) == ["policy.json"]


def test_rules_with_keys(path: Path, keys: tuple[str, str], tmp_path: Path) -> None:
    simple, sigstore = keys
    edit.change("a.example", "signedBy", (simple, simple))
    edit.change("b.example", "sigstoreSigned", (os.path.relpath(sigstore),))
    (tmp_path / "registries.d").mkdir()
    (tmp_path / "registries.d" / "x.yaml").write_text(
        "default-docker:\n  lookaside: file:///all\ndocker:\n  a.example:\n    lookaside: file:///a\n"
    )
    signed = {"type": "signedBy", "keyType": "GPGKeys", "keyPath": simple}
    assert json.loads(path.read_text())["transports"]["docker"] == {
        "a.example": [signed, signed],
        "b.example": [{"type": "sigstoreSigned", "keyPath": sigstore}],
    }
    shown = edit.rows(policy.load())
    assert [tuple(row.values()) for row in shown] == [
        ("all", "default", "accept", "", ""),
        ("repository", "a.example", "signed", "a@test", "file:///a"),
        ("repository", "a.example", "signed", "a@test", "file:///a"),
        ("repository", "b.example", "sigstoreSigned", "N/A", "file:///all"),
    ]
    os.unlink(simple)
    assert "there is no such file" in edit.rows(policy.load())[1]["ID"]


def test_rows_of_one_registry(path: Path) -> None:
    for scope in ("default", "a.example/ns", "a.example/nsx", "a.example/ns/app:1", "*.c.example"):
        edit.change(scope, "reject", ())

    def names(registry: str) -> list[str]:
        return [row["Name"] for row in edit.rows(policy.load(), registry)]

    assert names("a.example/ns") == ["a.example/ns", "a.example/ns/app:1"]
    assert names("a.example") == ["a.example/ns", "a.example/nsx", "a.example/ns/app:1"]
    assert names("a.example/ns/deep/app:2") == ["a.example/ns"]
    assert names("x.c.example:80") == ["*.c.example"]
    assert names("*.c.example") == ["*.c.example"]
    assert names("b.example") == ["default"]


@pytest.mark.parametrize(
    "scope",
    ["busybox", "library/busybox", "docker://a.b", "a.b/", "A.b/C", "", "*.a.b/c", "*", "*.", "a*.b.c",
     "a.b/c:", "a.b/c@sha256:1", "../x", "a b", "https://a.b/c", "index.docker.io"],
)  # fmt: skip
def test_a_registry_must_be_in_full(path: Path, scope: str) -> None:
    with pytest.raises(SpecError, match="is not a registry"):
        edit.change(scope, "accept", ())
    assert not path.exists()


@pytest.mark.parametrize(
    "scope",
    ["docker.io", "localhost", "localhost:5000/a", "a.b:80", "docker.io/library/busybox", "*.example.org",
     "quay.io/a/b:1", f"quay.io/a/b@sha256:{'a' * 64}"],
)  # fmt: skip
def test_scopes(path: Path, scope: str) -> None:
    edit.change(scope, "reject", ())
    assert edit.rows(policy.load(), scope)[0]["Type"] == "reject"


def test_keys_are_looked_at_first(path: Path, keys: tuple[str, str]) -> None:
    simple, sigstore = keys
    for kind, files, why in (
        ("signedBy", (), "needs a --pubkeysfile"),
        ("accept", (simple,), "takes no --pubkeysfile"),
        ("signedBy", (sigstore,), "no OpenPGP public key"),
        ("sigstoreSigned", (simple,), "no public key in PEM"),
        ("signedBy", ("/none",), "no such file"),
        ("signed", (), "one of|unknown"),
    ):
        with pytest.raises(SpecError, match=why):
            edit.change("a.example", kind, files)
    assert not path.exists()


def test_a_malformed_file_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    for text in ("{", "[]", '{"default": []}', '{"default": [{"type": "reject"}], "x": 1}'):
        path.write_text(text)
        with pytest.raises(TrustError):
            edit.change("a.example", "accept", ())
        assert path.read_text() == text


def test_raw(path: Path) -> None:
    with pytest.raises(TrustError, match="no such file"):
        edit.raw()
    edit.change("default", "reject", ())
    assert edit.raw() == path.read_text()
