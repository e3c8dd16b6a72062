"""Credentials: where they are looked for, what counts, and how they are changed."""

from __future__ import annotations

import base64
import json
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from forked import needs_root

from sysbox.base.errors import FormatError, SpecError, SysboxError
from sysbox.image.registry import auth_file, credentials
from sysbox.image.registry.credentials import Chain, Credential, registry_of
from sysbox.image.registry.endpoint import of_location
from sysbox.image.registry.url import parse as url

HELPER = """#!/bin/sh
# keeps one file for each server below $KEPT
read -r line
name=$(printf %s "$line" | sed -n 's/.*"ServerURL":"\\([^"]*\\)".*/\\1/p')
name=$(printf %s "${name:-$line}" | tr / _)
case $1 in
    store) printf %s "$line" > "$KEPT/$name" ;;
    get) cat "$KEPT/$name" 2>/dev/null || { echo 'credentials not found in native keychain'; exit 1; } ;;
    erase) rm "$KEPT/$name" ;;
esac
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a file; nothing of this machine counts."""
    for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    return tmp_path


@pytest.fixture
def helper(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory where a helper called `test` keeps what it is given."""
    (home / "bin").mkdir()
    (home / "kept").mkdir()
    program = home / "bin/docker-credential-test"
    program.write_text(HELPER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{home / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("KEPT", str(home / "kept"))
    return home / "kept"


def encoded(user: str, password: str = "word") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, **document: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return str(path)


def user_of(location: str, authfile: str = "") -> str:
    return Chain(authfile).find(of_location(location, "test")).username


def test_the_first_file_with_an_entry_counts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [
        home / ".dockercfg",
        home / ".docker/config.json",
        home / ".config/containers/auth.json",
        home / "run/containers/auth.json",
    ]
    assert user_of("a.b/app") == ""
    for number, path in enumerate(places):
        if path.name == ".dockercfg":
            write(path, **{"a.b": encoded("u0")})
        else:
            write(path, auths={"a.b": encoded(f"u{number}")})
        assert user_of("a.b/app") == f"u{number}"
    write(places[-1], auths={"other.host": encoded("x")})
    assert user_of("a.b/app") == "u2", "a file without an entry leaves it to the next"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", write(home / "one.json", auths={}))
    assert user_of("a.b/app") == "", "the variable names the only file"
    assert user_of("a.b/app", str(places[1])) == "u1", "and the flag goes before it"
    monkeypatch.delenv("REGISTRY_AUTH_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "xdg"))
    assert user_of("a.b/app") == "u1"
    write(home / "docker/config.json", auths={"a.b": encoded("docker")})
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "docker"))
    assert user_of("a.b/app") == "docker"


@pytest.mark.parametrize(
    ("location", "user"),
    [
        ("a.b/team/app", "app"),
        ("a.b/team/other", "team"),
        ("a.b/teams/app", "host"),
        ("a.b/app", "host"),
        ("a.b:5000/app", "port"),
        ("a.b:5001/app", ""),
        ("b/app", ""),
        ("url.example/app", "url"),
        ("docker.io/library/app", "hub"),
    ],
)
def test_the_most_specific_entry_counts(home: Path, location: str, user: str) -> None:
    entries = {
        "a.b": encoded("host"),
        "a.b/team": encoded("team"),
        "a.b/team/app": encoded("app"),
        "a.b:5000": encoded("port"),
        "https://url.example/v1/": encoded("url"),
        "https://index.docker.io/v1/": encoded("hub"),
    }
    write(home / ".docker/config.json", auths=entries)
    assert user_of(location) == user


def test_what_an_entry_may_hold(home: Path) -> None:
    entries = {
        "colon.x": encoded("user", "a:b"),
        "nul.x": encoded("user", "word\0"),
        "token.x": {"auth": encoded("user", "")["auth"], "identitytoken": "it"},
        "only.x": {"identitytoken": "it"},
        "empty.x": {},
    }
    write(home / ".docker/config.json", auths=entries)

    def found(host: str) -> Credential:
        return Chain().find(of_location(f"{host}/app", "test"))

    assert found("colon.x").password == "a:b"
    assert found("nul.x").password == "word"
    assert found("token.x").identity_token == "it"
    assert found("only.x")
    assert not found("empty.x")
    assert "word" not in repr(found("nul.x"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[]", "must be an object"),
        ("{", "auth.json: "),
        ('{"auths": []}', "auths must be"),
        ('{"auths": {"a.b": 1}}', "auths must be"),
        ('{"auths": {"a.b": {"auth": 1}}}', "must be strings"),
        ('{"auths": {"a.b": {"auth": "!"}}}', "is not base64"),
        ('{"auths": {"a.b": {"auth": "YQ=="}}}', "is not USER:PASSWORD"),
        ('{"credHelpers": 1}', "credHelpers must be"),
        ('{"credHelpers": {"a.b": "../x"}}', "is not the name of a credential helper"),
        ('{"credsStore": 1}', "is not the name of a credential helper"),
        ('{"auths": {}, "auths": {}}', "appears twice"),
    ],
)
def test_malformed_files(home: Path, text: str, error: str) -> None:
    (home / "auth.json").write_text(text)
    with pytest.raises(FormatError, match=error) as found:
        user_of("a.b/app", str(home / "auth.json"))
    assert str(home / "auth.json") in found.value.message


def test_a_helper(home: Path, helper: Path) -> None:
    path = write(home / "auth.json", credHelpers={"a.b": "test"}, auths={"c.d": encoded("file")})
    assert user_of("a.b/app", path) == ""
    assert auth_file.save(path, "a.b", Credential(username="user", password='w"rd')) == "test"
    assert "w\\" not in Path(path).read_text()
    found = Chain(path).find(of_location("a.b/app", "test"))
    assert (found.username, found.password) == ("user", 'w"rd')
    assert found.source == "docker-credential-test"
    assert user_of("c.d/app", path) == "file"
    assert auth_file.remove(path, "a.b")
    assert not auth_file.remove(path, "a.b")
    assert list(helper.iterdir()) == []


def test_a_helper_with_an_identity_token(home: Path, helper: Path) -> None:
    path = write(home / "auth.json", credsStore="test")
    auth_file.save(path, "docker.io", Credential(username="<token>", password="it"))
    assert [one.name for one in helper.iterdir()] == ["https:__index.docker.io_v1_"]
    found = Chain(path).find(of_location("docker.io/library/app", "test"))
    assert (found.username, found.identity_token) == ("", "it")


def test_a_helper_that_is_missing_or_fails(home: Path, helper: Path) -> None:
    path = write(home / "auth.json", credsStore="none")
    with pytest.raises(SysboxError, match="docker-credential-none: no such program"):
        user_of("a.b/app", path)
    (helper.parent / "bin/docker-credential-test").write_text("#!/bin/sh\necho broken; exit 3\n")
    write(Path(path), credsStore="test")
    with pytest.raises(SysboxError, match="docker-credential-test get: broken"):
        user_of("a.b/app", path)


def test_a_change_keeps_the_rest(home: Path) -> None:
    path = home / "dir/auth.json"
    assert auth_file.save(str(path), "a.b", Credential(username="u", password="p")) == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    write(
        path, HttpHeaders={"a": 1}, auths={"c.d": encoded("x"), "https://a.b/v1/": encoded("old")}
    )
    path.chmod(0o644)
    auth_file.save(str(path), "a.b", Credential(username="new", password="p"))
    document = json.loads(path.read_text())
    assert document["HttpHeaders"] == {"a": 1}
    assert set(document["auths"]) == {"a.b", "c.d"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (user_of("a.b/x", str(path)), user_of("c.d/x", str(path))) == ("new", "x")
    assert auth_file.remove_all(str(path)) == 2
    assert json.loads(path.read_text()) == {"HttpHeaders": {"a": 1}, "auths": {}}
    assert os.listdir(path.parent) == ["auth.json"]


def test_a_link_stays_a_link(home: Path) -> None:
    real = Path(write(home / "real.json", auths={}))
    (home / "auth.json").symlink_to(real)
    auth_file.save(str(home / "auth.json"), "a.b", Credential(username="u", password="p"))
    assert (home / "auth.json").is_symlink()
    assert user_of("a.b/x", str(real)) == "u"


def test_a_link_of_another_user(home: Path) -> None:
    """In a directory that all may write to it leads nowhere: the kernel's protected_symlinks."""
    needs_root()
    if Path("/proc/sys/fs/protected_symlinks").read_text() != "1\n":
        return
    common = home / "common"
    common.mkdir()
    common.chmod(0o1777)
    link = common / "auth.json"
    link.symlink_to(home / "new/auth.json")
    os.chown(link, 65534, 65534, follow_symlinks=False)
    with pytest.raises(FormatError, match=r"common/auth\.json: Permission denied"):
        auth_file.save(str(link), "a.b", Credential(username="u", password="p"))
    assert not (home / "new").exists()


def test_two_logins_at_once_lose_nothing(home: Path) -> None:
    path = str(home / "auth.json")

    def save(number: int) -> None:
        auth_file.save(path, f"h{number}.x", Credential(username="u", password="p"))

    threads = [threading.Thread(target=save, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(credentials.auths(credentials.load(path), path)) == 8


def test_a_realm_that_the_user_names(home: Path) -> None:
    path = write(home / "auth.json", auths={"sso.example:8443": {}, "plain.example": {}})
    chain = Chain(path)
    assert chain.names(url("https://sso.example:8443/token", "test"))
    assert not chain.names(url("https://sso.example/token", "test"))
    assert chain.names(url("https://plain.example/token", "test"))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("a.b", "a.b"),
        ("a.b:5000/", "a.b:5000"),
        ("https://a.b/v1/", "a.b"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("index.docker.io", "docker.io"),
        ("a.b/team", "a.b/team"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_the_key_of_a_registry(text: str, key: str) -> None:
    assert registry_of(text) == key


@pytest.mark.parametrize("text", ["", "/", "a b/c d", "a:b:c", "a.b/ x"])
def test_what_is_no_registry(text: str) -> None:
    with pytest.raises(SpecError):
        registry_of(text)
