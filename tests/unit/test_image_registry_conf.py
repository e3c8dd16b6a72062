"""registries.conf: which names, mirrors and locations it makes of a reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import AccessDenied, FormatError, NotFound, SpecError
from sysbox.image.reference import parse
from sysbox.image.registry import conf, conf_files
from sysbox.image.registry.endpoint import is_loopback, of_location, split_host


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that counts; drop-ins are in registries.conf.d beside it."""
    path = tmp_path / "registries.conf"
    monkeypatch.setenv(conf_files.VARIABLE, str(path))
    return path


def places(name: str) -> list[str]:
    """host:port/repository of each endpoint, with marks for insecure ones and mirrors."""
    return [
        f"{'mirror ' * one.is_mirror}{'insecure ' * one.insecure}{one.host}"
        f"{f':{one.port}' * bool(one.port)}/{one.repository}"
        for one in conf.endpoints(parse(name))
    ]


def names(name: str) -> list[str]:
    return [one.full() for one in conf.candidates(name)]


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file at all."""
    monkeypatch.delenv(conf_files.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr(conf_files, "SYSTEM", str(tmp_path / "none"))
    monkeypatch.setattr(conf_files, "_recorded_aliases", lambda: str(tmp_path / "none"))


@pytest.mark.usefixtures("nothing")
def test_without_a_file_a_bare_name_is_on_docker_io() -> None:
    assert names("busybox") == ["docker.io/library/busybox:latest"]
    assert names("user/app:1") == ["docker.io/user/app:1"]
    assert places("busybox") == ["registry-1.docker.io/library/busybox"]
    assert places("localhost:5000/app") == ["localhost:5000/app"]
    assert places("[::1]:5000/app") == ["::1:5000/app"]


@pytest.mark.usefixtures("nothing")
def test_the_callers_own_file_goes_before_the_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system.conf"
    monkeypatch.setattr(conf_files, "SYSTEM", str(system))
    system.write_text('unqualified-search-registries = ["system.example"]')
    assert names("app") == ["system.example/app:latest"]
    own = tmp_path / "containers/registries.conf"
    own.parent.mkdir()
    own.write_text('unqualified-search-registries = ["own.example"]')
    assert names("app") == ["own.example/app:latest"]


def test_short_names(files: Path) -> None:
    files.write_text(
        """unqualified-search-registries = ["one.example", "docker.io"]
        [aliases]
        app = "alias.example/team/app"
        gone = "alias.example/gone"
        """
    )
    (files.parent / "registries.conf.d").mkdir()
    (files.parent / "registries.conf.d/000-short.conf").write_text('aliases = {gone = ""}')
    assert names("busybox:1") == ["one.example/busybox:1", "docker.io/library/busybox:1"]
    assert names("gone") == ["one.example/gone:latest", "docker.io/library/gone:latest"]
    assert names("app") == ["alias.example/team/app:latest"]
    assert names(f"app:2@sha256:{'0' * 64}") == [f"alias.example/team/app:2@sha256:{'0' * 64}"]
    assert names("host.example/app") == ["host.example/app:latest"]


def test_a_short_name_that_could_be_several(files: Path) -> None:
    files.write_text(
        'short-name-mode = "enforcing"\nunqualified-search-registries = ["a.b", "c.d"]'
    )
    with pytest.raises(SpecError, match=r"may be on any of a\.b, c\.d"):
        names("app")
    files.write_text('short-name-mode = "enforcing"\nunqualified-search-registries = ["a.b"]')
    assert names("app") == ["a.b/app:latest"]
    files.write_text("unqualified-search-registries = []")
    with pytest.raises(SpecError, match="has no unqualified-search-registries"):
        names("app")
    files.write_text("")
    assert names("app") == ["docker.io/library/app:latest"]


RULES = """
[[registry]]
location = "plain.example"
insecure = true

[[registry]]
prefix = "example.com/team"
location = "inner.example:5000/copies"
[[registry.mirror]]
location = "first.example/m"
insecure = true
[[registry.mirror]]
location = "second.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "third.example"
pull-from-mirror = "tag-only"

[[registry]]
prefix = "example.com/team/secret"
blocked = true
location = "example.com/team/secret"

[[registry]]
prefix = "*.wild.example"
location = "one.example/all"

[[registry]]
prefix = "*.still.example"
insecure = true

[[registry]]
location = "docker.io/library"
mirror-by-digest-only = true
[[registry.mirror]]
location = "hub.example/copy"
"""
DIGEST = f"sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain.example/a/b", ["insecure plain.example/a/b"]),
        ("plain.example2/a/b", ["plain.example2/a/b"]),
        ("plain.example:80/a", ["insecure plain.example:80/a"]),
        (
            "example.com/team/app:1",
            [
                "mirror insecure first.example/m/app", "mirror third.example/app",
                "inner.example:5000/copies/app",
            ],
        ),
        (
            f"example.com/team/app@{DIGEST}",
            [
                "mirror insecure first.example/m/app", "mirror second.example/app",
                "inner.example:5000/copies/app",
            ],
        ),
        ("example.com/teams/app", ["example.com/teams/app"]),
        ("a.b.wild.example/x", ["one.example/all/x"]),
        ("wild.example/x", ["wild.example/x"]),
        ("host.example/a.wild.example/x", ["host.example/a.wild.example/x"]),
        ("a.still.example:5000/x", ["insecure a.still.example:5000/x"]),
        ("busybox", ["registry-1.docker.io/library/busybox"]),
        (f"busybox@{DIGEST}", ["mirror hub.example/copy/busybox", "registry-1.docker.io/library/busybox"]),
    ],
)  # fmt: skip
def test_rules(files: Path, name: str, expected: list[str]) -> None:
    files.write_text(RULES)
    assert places(name) == expected


def test_pushes_go_to_the_registry_itself(files: Path) -> None:
    files.write_text(RULES)
    found = conf.push_endpoint(parse("example.com/team/app"))
    assert (found.host, found.repository) == ("example.com", "team/app")
    assert conf.push_endpoint(parse("plain.example/app")).insecure
    with pytest.raises(AccessDenied):
        conf.push_endpoint(parse("example.com/team/secret/app"))


def test_a_blocked_registry(files: Path) -> None:
    files.write_text(RULES)
    with pytest.raises(AccessDenied, match=r"'example\.com/team/secret' is blocked by .*conf"):
        places("example.com/team/secret:1")


def test_a_registry_as_such(files: Path) -> None:
    files.write_text(RULES)
    assert conf.registry("plain.example").insecure
    assert not conf.registry("example.com").insecure
    assert conf.registry("docker.io").host == "registry-1.docker.io"


def test_a_drop_in_replaces_a_rule_of_the_same_prefix(files: Path) -> None:
    files.write_text(RULES)
    (files.parent / "registries.conf.d").mkdir()
    (files.parent / "registries.conf.d/1.conf").write_text('[[registry]]\nlocation="plain.example"')
    (files.parent / "registries.conf.d/ignored").write_text("not toml")
    assert places("plain.example/a") == ["plain.example/a"]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("unqualified-search-registries = 1", "must be a list of strings"),
        ('unqualified-search-registries = ["a", 1]', "must be a list of strings"),
        ("registry = 1", r"must be an array of tables, \[\[registry\]\]"),
        ("[[registry]]", "needs a prefix or a location"),
        ("[[registry]]\nlocation = 1", r"registry\[0\]: location must be a string"),
        ('[[registry]]\nlocation = "https://a.b"', "has a scheme"),
        ('[[registry]]\nlocation = "a.b"\ninsecure = "yes"', "insecure must be true or false"),
        ('[[registry]]\nlocation = "a.b"\n[[registry.mirror]]', r"mirror\[0\]: needs a location"),
        (
            '[[registry]]\nlocation = "a.b"\n[[registry.mirror]]\nlocation="c"\npull-from-mirror="x"',
            "must be one of all, digest-only, tag-only",
        ),
        (
            (
                '[[registry]]\nlocation = "a.b"\nmirror-by-digest-only = true\n'
                '[[registry.mirror]]\nlocation="c"\npull-from-mirror="all"'
            ),
            "together with mirror-by-digest-only",
        ),
        ('short-name-mode = "x"', "must be one of enforcing"),
        ("aliases = 1", "aliases must be a table"),
        ("aliases = {a = 1}", "aliases: a must be a string"),
        ("[registries.search]\nregistries = []", "are of version 1"),
        ("= 1", r"registries\.conf: Invalid"),
        ("a = 1\na = 2", "Cannot overwrite"),
    ],
)
def test_malformed(files: Path, text: str, error: str) -> None:
    files.write_text(text)
    with pytest.raises(FormatError, match=error) as found:
        conf_files.read()
    assert str(files) in found.value.message
    assert "\n" not in found.value.message


def test_unknown_keys_are_nothing(files: Path) -> None:
    files.write_text('credential-helpers = ["x"]\nfuture = 1\n[[registry]]\nlocation="a.b"\nnew=[]')
    assert len(conf_files.read().rules) == 1


def test_bytes_that_are_no_text(files: Path) -> None:
    files.write_bytes(b"\xff")
    with pytest.raises(FormatError, match="utf-8"):
        conf_files.read()


def test_the_file_that_the_variable_names_must_be_there(files: Path) -> None:
    with pytest.raises(NotFound, match="no such file"):
        conf_files.read()
    files.parent.joinpath("other").mkdir()


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("LOCALHOST", True),
     ("127.0.0.1.example", False), ("128.0.0.1", False), ("localhost.example", False), ("::2", False)],
)  # fmt: skip
def test_loopback(host: str, *, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    "text", ["", ":5000", "a:b", "a:0", "a:70000", "[::1", "::1]:5", "[::1]5", "a:"]
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(SpecError, match="is not a host"):
        split_host(text, "test")


def test_the_endpoint_of_a_location() -> None:
    assert of_location("docker.io/busybox", "test").repository == "library/busybox"
    assert of_location("a.b:1/c", "test").name() == "a.b:1/c"
