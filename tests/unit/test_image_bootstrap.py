"""Where a bootstrap takes its packages from, and what it refuses to start with."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import SpecError
from sysbox.image import apt
from sysbox.image.bootstrap import Request

LINES = """\
# a comment
deb http://mirror.example/debian bookworm main contrib # inline
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k/debian-archive-keyring.gpg] http://m.example/ bookworm-updates main
deb http://mirror.example/security bookworm-security main
deb http://mirror.example/debian trixie main
deb [signed-by=/etc/apt/keyrings/vendor.asc] https://vendor.example/debian bookworm stable
deb http://vendor.example/debian bookworm-vendor main
deb broken
"""
STANZAS = """\
Types: deb deb-src
# a comment inside
URIs: http://one.example/debian http://two.example/debian
Suites: bookworm bookworm-updates
  bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: https://vendor.example/
Suites: bookworm
Components: stable
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: https://flat.example/
Suites: ./
"""


def test_one_line_sources() -> None:
    key = "[arch=amd64 signed-by=/k/debian-archive-keyring.gpg]"
    assert apt.parse_lines(LINES, "bookworm") == [
        "deb http://mirror.example/debian bookworm main contrib",
        f"deb {key} http://m.example/ bookworm-updates main",
        "deb http://mirror.example/security bookworm-security main",
    ]
    assert apt.parse_lines(LINES, "trixie") == ["deb http://mirror.example/debian trixie main"]
    assert apt.parse_lines(LINES, "noble") == []


def test_deb822_sources() -> None:
    key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
    assert apt.parse_stanzas(STANZAS, "bookworm") == [
        f"deb {key} http://{host}.example/debian {suite} main"
        for host in ("one", "two")
        for suite in ("bookworm", "bookworm-updates")
    ]


def test_all_files_of_the_machine(tmp_path: Path) -> None:
    assert apt.sources_for("bookworm", str(tmp_path)) == ""
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "b.sources").write_text(STANZAS)
    (parts / "c.list").write_text("deb http://a.example/debian bookworm main\n")
    (parts / "d.list.save").write_text("deb http://no.example/debian bookworm main\n")
    text = apt.sources_for("bookworm", str(tmp_path))
    assert text.count("\n") == 5  # the same line twice counts once
    assert "no.example" not in text


def test_requests() -> None:
    request = Request("debian:bookworm", include=["python3-minimal,curl", "vim"])
    assert (request.suite, request.name, request.variant) == (
        "bookworm",
        "debian:bookworm",
        "minbase",
    )
    assert request.include == ["python3-minimal", "curl", "vim"]
    assert Request("ubuntu:noble", name="mine:1").name == "mine:1"


@pytest.mark.parametrize(
    ("distribution", "rest"),
    [
        ("debian", {}), ("debian:", {}), ("fedora:40", {}), ("debian:-x", {}),
        ("debian:a b", {}), ("bookworm", {}),
        ("debian:bookworm", {"include": ["--x"]}), ("debian:bookworm", {"include": ["a;b"]}),
        ("debian:bookworm", {"variant": "tiny"}), ("debian:bookworm", {"mirror": "--hook=x"}),
        ("debian:bookworm", {"mirror": "http://x\n"}), ("debian:bookworm", {"name": "Bad Name"}),
    ],
)  # fmt: skip
def test_bad_requests(distribution: str, rest: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        Request(distribution, **rest)  # type: ignore[arg-type]
