"""Names as docker normalises and refuses them."""

from __future__ import annotations

import pytest

from sysbox.base.errors import SpecError
from sysbox.image.reference import is_digest, is_hex, is_host, parse, refuse_host

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("name", "full", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:test", "docker.io/library/busybox:test", "busybox:test"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("docker.io/library/busybox:1", "docker.io/library/busybox:1", "busybox:1"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
        ("quay.io/a/b/c:v1.2_3-x", "quay.io/a/b/c:v1.2_3-x", "quay.io/a/b/c:v1.2_3-x"),
        ("Registry/app", "Registry/app:latest", "Registry/app:latest"),
        ("a__b.c---d", "docker.io/library/a__b.c---d:latest", "a__b.c---d:latest"),
        (f"app@{DIGEST}", f"docker.io/library/app@{DIGEST}", f"app@{DIGEST}"),
        (f"app:1@{DIGEST}", f"docker.io/library/app:1@{DIGEST}", f"app:1@{DIGEST}"),
        ("a" * 63, f"docker.io/library/{'a' * 63}:latest", f"{'a' * 63}:latest"),
    ],
)
def test_normalised(name: str, full: str, familiar: str) -> None:
    reference = parse(name)
    assert reference.full() == full
    assert reference.familiar() == familiar
    assert parse(full) == reference


@pytest.mark.parametrize(
    "name",
    [
        "", ":", ":tag", "@", "/", "//", "a//b", "/a", "a/", "Upper", "a/Upper", "a b", "a:b c", "a:.t", "a:",
        f"a:{'t' * 129}", "a:-t", "a___b", "a.-b", "a_", "_a", "-a", "a..b", "../x", "a/../b", "x.y:z/a",
        "registry.io:/a", "-r.io/a", "r-.io/a", "r..io/a", "a" * 64, f"{'b' * 250}/abcdef", "ä", "a\n",
        "a\0b", "a@sha256:12", f"a@sha512:{'a' * 128}", f"a@SHA256:{'a' * 64}", f"a@{DIGEST.upper()}",
        "a@" + DIGEST + "@x",
        "https://x.io/a", "::", "a:b:c",
    ],
)  # fmt: skip
def test_refused(name: str) -> None:
    with pytest.raises(SpecError, match="invalid image reference"):
        parse(name)


def test_digests_and_ids() -> None:
    assert is_digest(DIGEST)
    for wrong in ("", DIGEST[:-1], DIGEST + "a", DIGEST.upper(), "sha256:../" + "a" * 61, 5, None):
        assert not is_digest(wrong)
    assert is_hex("0af")
    assert not is_hex("")
    assert not is_hex("0AF")
    assert is_hex("a" * 64, 64)
    assert not is_hex("a" * 63, 64)


def test_the_builtin_name() -> None:
    for name in ("host", "host:latest", "docker.io/library/host", "library/host"):
        assert is_host(name)
        with pytest.raises(SpecError, match="built-in"):
            refuse_host(name)
    for name in ("host:other", "my/host", "localhost/host", "ghost", "HOST", ""):
        assert not is_host(name)
