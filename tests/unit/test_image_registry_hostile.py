"""Servers that lie, stall, cut connections and lead astray: one clear error, and no credential sent on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hostileserver import Hostile, Reply, Seen, chunked, in_turn, reply, slowly
from registryserver import OCI_LAYER, OCI_MANIFEST, Certificates, basic, digest_of

from sysbox.base.errors import (
    AccessDenied,
    FormatError,
    NotFound,
    RateLimited,
    RegistryError,
    SysboxError,
    Unreachable,
)
from sysbox.image.documents import Descriptor, parse_manifest
from sysbox.image.registry import endpoint as endpoints
from sysbox.image.registry.access import Access
from sysbox.image.registry.client import Repository
from sysbox.image.registry.credentials import Chain, Credential, Given
from sysbox.image.registry.endpoint import of_location
from sysbox.image.registry.paced import Patience

PATIENCE = Patience(
    connect=5, answer=2, finish=2, window=0.5, least=1000, pause=0.001, attempts=3, longest_pause=1
)
USER = Credential(username="user", password="word", source="the tests")
HEADER = basic("user", "word")
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "size": 2,
            "digest": digest_of(b"{}"),
        },
        "layers": [],
    }
).encode()
GET = "GET /v2/app/manifests/1"
BLOB = os.urandom(300_000)
DESCRIPTOR = Descriptor(media_type=OCI_LAYER, digest=digest_of(BLOB), size=len(BLOB))
GET_BLOB = f"GET /v2/app/blobs/{DESCRIPTOR.digest}"
BASIC = {"WWW-Authenticate": 'Basic realm="x"'}


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))


@pytest.fixture
def server() -> Iterator[Hostile]:
    with Hostile() as one:
        one.routes["GET /v2/"] = reply(200)
        yield one


@pytest.fixture
def other() -> Iterator[Hostile]:
    with Hostile() as one:
        yield one


def at(server: Hostile, credential: Credential | None = None, **patience: Any) -> Repository:
    """The repository `app`, asked for without TLS from the first request on."""
    place = of_location(f"{server.host}/app", "test").replace(scheme="http")
    chain = Given(credential) if credential else Chain()
    return Repository(place, chain, PATIENCE.replace(**patience))


def fails(kind: type[SysboxError], match: str, call: Callable[[], object]) -> str:
    """The message of the error, which is one line."""
    with pytest.raises(kind, match=match) as found:
        call()
    assert "\n" not in found.value.message
    assert "word" not in found.value.message + found.value.hint
    return found.value.message


def read_all(repository: Repository, start: int = 0) -> bytes:
    with repository.blob(DESCRIPTOR, start) as stream:
        found = b""
        while part := stream.read(10_000):
            found += part
        return found


def ranged(seen: Seen) -> Reply:
    """What an honest server does with a Range."""
    text = seen.headers.get("range", "")
    if not text:
        return reply(200, BLOB)
    start = int(text.removeprefix("bytes=").rstrip("-"))
    place = f"bytes {start}-{len(BLOB) - 1}/{len(BLOB)}"
    return reply(206, BLOB[start:], Content_Range=place)


# documents


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(200, MANIFEST, Docker_Content_Digest=digest_of(b"x")), "has the digest sha256"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "app:1: "),
        (reply(200, b"{"), "app:1: "),
        (reply(200, b"\xff"), "app:1: "),
        (reply(200, b"[]"), "must be an object"),
        (reply(200, MANIFEST, Content_Type="text/html"), "is sent as 'text/html'"),
        (reply(200, b'{"schemaVersion":1,"fsLayers":[]}'), "schema 1"),
        (reply(200, b'{"schemaVersion":2,"manifests":[],"layers":[]}'), "has both"),
        (reply(200, b'{"schemaVersion":2,"layers":[],"layers":[]}'), "appears twice"),
        (reply(200, b"x", length=5 << 20), "5242880 bytes are over the limit"),
        (reply(200, MANIFEST, Content_Encoding="gzip"), "Content-Encoding"),
        (chunked(200, b"x" * (3 << 20), b"x" * (3 << 20)), "more than 4194304 bytes"),
        (reply(200, b'{"a":' * 200 + b"1" + b"}" * 200), "nested too deeply"),
    ],
)
def test_a_manifest_that_is_none(server: Hostile, answer: bytes, error: str) -> None:
    server.routes[GET] = answer
    fails(FormatError, error, lambda: at(server).manifest("1"))


def test_another_document_than_the_digest_says(server: Hostile) -> None:
    wanted = digest_of(b"something else")
    server.routes[f"GET /v2/app/manifests/{wanted}"] = reply(200, MANIFEST)
    fails(FormatError, "was expected", lambda: at(server).manifest(wanted))


def test_a_manifest_without_length_or_type(server: Hostile) -> None:
    server.routes[GET] = b"HTTP/1.0 200 OK\r\n\r\n" + MANIFEST
    assert at(server).manifest("1").media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, MANIFEST, length=len(MANIFEST) + 1),
        chunked(200, MANIFEST, end=False),
        b"",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
    ],
    ids=["short", "no end", "nothing", "tls", "status", "headers", "line"],
)
def test_an_answer_that_is_cut_or_garbage(server: Hostile, answer: bytes) -> None:
    server.routes[GET] = answer
    fails(Unreachable, f"{server.host}", lambda: at(server).manifest("1"))
    server.routes[GET] = in_turn(answer, reply(200, MANIFEST))
    assert at(server).manifest("1")


def test_the_hostile_digest_of_a_tag(server: Hostile) -> None:
    for claimed in ("", "sha256:../../x", "md5:0", "sha256:" + "A" * 64):
        server.routes["HEAD /v2/app/manifests/1"] = reply(200, Docker_Content_Digest=claimed)
        assert at(server).digest("1") == ""


# statuses


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, RegistryError, "answers with status 400: NAME_INVALID: no"),
        (401, AccessDenied, "asks for authorisation by nothing"),
        (403, AccessDenied, "access denied: NAME_INVALID: no"),
        (404, NotFound, "not found: NAME_INVALID: no"),
        (405, RegistryError, "status 405"),
        (418, RegistryError, "status 418"),
        (429, RateLimited, "too many requests"),
        (500, RegistryError, "the server fails with status 500"),
        (503, RegistryError, "the server fails with status 503"),
        (204, RegistryError, "status 204"),
    ],
)
def test_statuses(server: Hostile, status: int, kind: type[SysboxError], error: str) -> None:
    body = b'{"errors":[{"code":"NAME_INVALID","message":"no\\n\\u001b[31m"}]}'
    server.routes[GET] = reply(status, b"" if status == 204 else body)
    message = fails(kind, error, lambda: at(server).manifest("1"))
    assert message.isprintable()
    busy = status in (429, 500, 503)
    assert len(server.seen(GET)) == (PATIENCE.attempts if busy else 1)


@pytest.mark.parametrize(
    "body", [b"", b"x", b"[]", b'{"errors":1}', b'{"errors":[]}', b"{" * 100_000]
)
def test_errors_that_explain_nothing(server: Hostile, body: bytes) -> None:
    server.routes[GET] = reply(403, body)
    fails(AccessDenied, "app:1: access denied$", lambda: at(server).manifest("1"))


def test_what_a_busy_server_asks_for(server: Hostile) -> None:
    server.routes[GET] = in_turn(
        reply(429, Retry_After="1"),
        reply(503, Retry_After="Thu, 01 Jan 1970 00:00:00 GMT"),
        reply(200, MANIFEST),
    )
    began = time.monotonic()
    assert at(server).manifest("1")
    assert time.monotonic() - began >= 1


def test_a_server_that_wants_to_be_left_alone_for_long(server: Hostile) -> None:
    server.routes[GET] = reply(429, Retry_After="3600")
    repository = at(server)
    with pytest.raises(RateLimited) as found:
        repository.manifest("1")
    assert "asks to wait for 3600 s" in found.value.hint
    assert len(server.seen(GET)) == 1


# slow ones


@pytest.mark.parametrize("begin", [0, 17, len(reply(200, MANIFEST)) - len(MANIFEST)])
def test_one_byte_at_a_time(server: Hostile, begin: int) -> None:
    """Status line, headers, body: wherever it becomes slow."""
    whole = reply(200, MANIFEST)
    server.routes[GET] = lambda _: _then(whole[:begin], slowly(whole[begin:], 0.05))
    began = time.monotonic()
    fails(Unreachable, "too slow: [0-9]+ bytes in", lambda: at(server).manifest("1"))
    assert time.monotonic() - began < 10


def _then(first: bytes, rest: Any) -> Iterator[bytes]:
    yield first
    yield from rest


def test_a_blob_one_byte_at_a_time(server: Hostile) -> None:
    head = reply(200, length=len(BLOB))
    server.routes[GET_BLOB] = lambda _: _then(head + BLOB[:5000], slowly(BLOB[5000:], 0.05))
    fails(Unreachable, "too slow", lambda: read_all(at(server)))


def test_a_reader_that_takes_its_time_is_no_slow_server(server: Hostile) -> None:
    server.routes[GET_BLOB] = reply(200, BLOB)
    with at(server, window=0.05, least=1 << 20).blob(DESCRIPTOR) as stream:
        found = b""
        while part := stream.read(50_000):
            found += part
            time.sleep(0.1)
    assert found == BLOB


def test_how_often_a_request_is_repeated(server: Hostile) -> None:
    server.routes[GET] = reply(503)
    place = of_location(f"{server.host}/app", "test").replace(scheme="http")
    fails(RegistryError, "503", lambda: Access(retries=0).repository(place).manifest("1"))
    assert len(server.seen(GET)) == 1
    fails(RegistryError, "503", lambda: Access(retries=1).repository(place).manifest("1"))
    assert len(server.seen(GET)) == 3


def test_no_answer_at_all(server: Hostile) -> None:
    server.routes[GET] = lambda _: slowly(b"x", 5)
    fails(Unreachable, "no answer in time", lambda: at(server, answer=0.2).manifest("1"))
    assert len(server.seen(GET)) == PATIENCE.attempts


# blobs


@pytest.mark.parametrize("size", [0, 1, len(BLOB) - 1, len(BLOB) + 1, 1 << 60])
def test_a_blob_that_says_it_has_another_size(server: Hostile, size: int) -> None:
    server.routes[GET_BLOB] = reply(200, BLOB, length=size)
    fails(FormatError, f"has {size} bytes where its descriptor says", lambda: read_all(at(server)))


def test_a_blob_without_length_that_is_too_long_or_too_short(server: Hostile) -> None:
    server.routes[GET_BLOB] = chunked(200, BLOB, b"x")
    fails(FormatError, f"has more than {len(BLOB)} bytes", lambda: read_all(at(server)))
    server.routes[GET_BLOB] = chunked(200, BLOB[:-1])
    fails(FormatError, "ends after 299999 of 300000 bytes", lambda: read_all(at(server)))
    server.routes[GET_BLOB] = chunked(200, BLOB)
    assert read_all(at(server)) == BLOB


def test_a_blob_that_is_cut_goes_on_where_it_was(server: Hostile) -> None:
    cut = reply(200, BLOB[:100_000], length=len(BLOB))
    server.routes[GET_BLOB] = in_turn(cut, ranged)
    assert read_all(at(server)) == BLOB
    assert server.seen(GET_BLOB)[1].headers["range"] == "bytes=100000-"


def test_a_blob_that_is_cut_by_a_server_without_ranges(server: Hostile) -> None:
    cut = reply(200, BLOB[:100_000], length=len(BLOB))
    server.routes[GET_BLOB] = in_turn(cut, reply(200, BLOB))
    assert read_all(at(server)) == BLOB


def test_a_blob_that_is_always_cut(server: Hostile) -> None:
    server.routes[GET_BLOB] = reply(200, BLOB[:100_000], length=len(BLOB))
    fails(Unreachable, "was cut 3 times", lambda: read_all(at(server)))
    assert len(server.seen(GET_BLOB)) == PATIENCE.attempts


def test_ranges(server: Hostile) -> None:
    server.routes[GET_BLOB] = ranged
    assert read_all(at(server), 1000) == BLOB[1000:]
    server.routes[GET_BLOB] = reply(200, BLOB)
    assert read_all(at(server), 1000) == BLOB[1000:]
    server.routes[GET_BLOB] = in_turn(reply(416), reply(200, BLOB))
    assert read_all(at(server), 1000) == BLOB[1000:]
    server.routes[GET_BLOB] = reply(416)
    fails(RegistryError, "status 416", lambda: read_all(at(server), 1000))


@pytest.mark.parametrize(
    "place",
    [
        "", "bytes 0-299999/300000", "bytes 1000-299998/300000", "bytes 1000-299999/300001",
        "bytes 1000-/300000", "lines 1000-299999/300000", "bytes */300000",
    ],
)  # fmt: skip
def test_a_range_that_was_not_asked_for(server: Hostile, place: str) -> None:
    server.routes[GET_BLOB] = reply(206, BLOB[1000:], Content_Range=place)
    fails(FormatError, "were asked for", lambda: read_all(at(server), 1000))


def test_a_part_where_the_whole_was_asked_for(server: Hostile) -> None:
    server.routes[GET_BLOB] = reply(206, BLOB, Content_Range=f"bytes 0-{len(BLOB) - 1}/{len(BLOB)}")
    fails(RegistryError, "status 206", lambda: read_all(at(server)))


def test_the_urls_of_a_foreign_layer_are_not_followed(server: Hostile, other: Hostile) -> None:
    """CVE-2020-15157."""
    document = json.loads(MANIFEST)
    layer = {**DESCRIPTOR.to_json(), "urls": [f"{other.url}/layer"]}
    document["layers"] = [layer]
    server.routes[GET] = reply(200, json.dumps(document).encode())
    repository = at(server, USER)
    found = parse_manifest(repository.manifest("1").data)
    fails(NotFound, "not found", lambda: repository.blob(found.layers[0]))
    assert other.requests == []


# redirects


def test_a_redirect_elsewhere_brings_no_credentials(server: Hostile, other: Hostile) -> None:
    def guarded(seen: Seen) -> Reply:
        if seen.headers.get("authorization") != HEADER:
            return reply(401, **BASIC)
        return reply(307, Location=f"{other.url}/storage?signature=1")

    server.routes[GET_BLOB] = guarded
    other.routes["GET /storage"] = reply(200, BLOB)
    repository = at(server, USER)
    assert read_all(repository) == BLOB
    assert [one.headers.get("authorization") for one in server.seen(GET_BLOB)] == [None, HEADER]
    assert len(other.requests) == 1
    assert "authorization" not in other.requests[0].headers
    # nor on the way back
    other.routes["GET /storage"] = reply(307, Location=f"{server.url}/back")
    server.routes["GET /back"] = reply(200, BLOB)
    assert read_all(repository) == BLOB
    assert "authorization" not in server.seen("GET /back")[0].headers


def test_a_redirect_to_another_host_name_of_the_same_server(server: Hostile) -> None:
    server.routes[GET_BLOB] = lambda seen: (
        reply(307, Location=f"http://localhost:{server.port}/there")
        if seen.headers.get("authorization")
        else reply(401, **BASIC)
    )
    server.routes["GET /there"] = reply(200, BLOB)
    assert read_all(at(server, USER)) == BLOB
    assert "authorization" not in server.seen("GET /there")[0].headers


def test_a_redirect_on_the_same_server_keeps_them(server: Hostile) -> None:
    server.routes[GET_BLOB] = lambda seen: (
        reply(308, Location="../blobs/there")
        if seen.headers.get("authorization")
        else reply(401, **BASIC)
    )
    server.routes["GET /v2/app/blobs/there"] = reply(200, BLOB)
    assert read_all(at(server, USER)) == BLOB
    assert server.seen("GET /v2/app/blobs/there")[0].headers["authorization"] == HEADER


def test_another_server_that_asks_for_credentials_gets_none(
    server: Hostile, other: Hostile
) -> None:
    server.routes[GET_BLOB] = reply(307, Location=f"{other.url}/storage")
    other.routes["GET /storage"] = reply(401, **BASIC)
    fails(AccessDenied, "access denied", lambda: read_all(at(server, USER)))
    assert len(other.requests) == 1
    assert "authorization" not in other.requests[0].headers


@pytest.mark.parametrize(
    ("location", "error"),
    [
        ("", "without naming it"),
        ("ftp://127.0.0.1/x", "is not a URL of http or https"),
        ("file:///etc/passwd", "is not a URL of http or https"),
        ("http://user:pass@127.0.0.1/x", "without user name"),
        ("http://[::1/x", "is not a URL"),
        ("http://127.0.0.1:99999/", "is not a URL"),
        ("http://a b/", "printable ASCII"),
        ("http://127.0.0.1/" + "x" * 9000, "too long"),
    ],
)
def test_redirects_that_are_none(server: Hostile, location: str, error: str) -> None:
    server.routes[GET] = reply(302, Location=location)
    fails(RegistryError, error, lambda: at(server).manifest("1"))


def test_redirects_in_a_circle(server: Hostile, other: Hostile) -> None:
    server.routes[GET] = reply(302, Location=f"{other.url}/there")
    other.routes["any"] = reply(302, Location=f"{server.url}/v2/app/manifests/1")
    fails(RegistryError, "go round in a circle", lambda: at(server).manifest("1"))
    assert len(server.requests) == 1


def test_redirects_without_end(server: Hostile) -> None:
    server.routes["any"] = lambda seen: reply(302, Location=f"{seen.target}x")
    fails(RegistryError, "more than 10 redirects", lambda: at(server).manifest("1"))
    assert len(server.requests) == 11


# challenges and tokens


def bearer(realm: str, **more: str) -> dict[str, str]:
    rest = "".join(f',{name}="{value}"' for name, value in more.items())
    return {"WWW-Authenticate": f'Bearer realm="{realm}"{rest}'}


@pytest.mark.parametrize(
    ("realm", "error"),
    [
        ("http://198.51.100.1/token", "sends for tokens to http://198.51.100.1/token, without TLS"),
        (
            "https://elsewhere.example/token",
            "wants its credentials sent to elsewhere.example, which is",
        ),
        ("https://198.51.100.1:1/token", "wants its credentials sent to 198.51.100.1:1, which is"),
        ("", "is not a URL"),
        ("ftp://127.0.0.1/", "is not a URL"),
        ("https://user@elsewhere.example/", "is not a URL"),
        ("//elsewhere.example/", "is not a URL"),
    ],
)
def test_realms_that_get_nothing(server: Hostile, realm: str, error: str) -> None:
    server.routes[GET] = reply(401, **bearer(realm))
    fails(SysboxError, error, lambda: at(server, USER).manifest("1"))
    assert all("authorization" not in one.headers for one in server.requests)


def test_a_realm_that_the_users_file_names(server: Hostile, tmp_path: Path) -> None:
    server.routes[GET] = reply(401, **bearer("https://elsewhere.invalid/token"))
    (tmp_path / "auth.json").write_text('{"auths": {"elsewhere.invalid": {}}}')
    fails(Unreachable, "elsewhere.invalid: no such host", lambda: at(server, USER).manifest("1"))


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("Negotiate", "by negotiate"),
        ("Digest realm=x, nonce=y, Negotiate abc==", "by digest, negotiate"),
        ('Bearer realm="x', "a quoted string without an end"),
        ('Bearer realm="x", realm="y"', "appears twice"),
        ("Bearer", "is not a URL"),
        ("\x7f", "malformed"),
        ("a " * 10_000, "longer than"),
        ("a, " * 100, "more than 16 challenges"),
    ],
)
def test_challenges_that_cannot_be_met(server: Hostile, header: str, error: str) -> None:
    server.routes[GET] = reply(401, WWW_Authenticate=header)
    fails(SysboxError, error, lambda: at(server, USER).manifest("1"))


def test_a_registry_that_is_never_content(server: Hostile) -> None:
    server.routes[GET] = reply(401, **BASIC)
    fails(
        AccessDenied,
        "does not accept the credentials of the tests",
        lambda: at(server, USER).manifest("1"),
    )
    assert len(server.seen(GET)) == 2


def test_a_challenge_of_several(server: Hostile) -> None:
    server.routes[GET] = lambda seen: (
        reply(200, MANIFEST)
        if seen.headers.get("authorization") == HEADER
        else reply(401, WWW_Authenticate='Negotiate, Basic realm="a, \\"b", charset=UTF-8')
    )
    assert at(server, USER).manifest("1")


TOKEN = b'{"token": "good"}'


def with_tokens(server: Hostile, answer: Any) -> Repository:
    server.routes[GET] = lambda seen: (
        reply(200, MANIFEST)
        if seen.headers.get("authorization") == "Bearer good"
        else reply(
            401, **bearer(f"{server.url}/token?a=b", service="s", scope="repository:app:pull")
        )
    )
    server.routes["GET /token"] = server.routes["POST /token"] = answer
    return at(server, USER)


@pytest.mark.parametrize("body", [TOKEN, b'{"access_token": "good", "expires_in": null}'])
def test_tokens(server: Hostile, body: bytes) -> None:
    assert with_tokens(server, reply(200, body)).manifest("1")
    asked = server.seen("GET /token")[0]
    assert asked.target == "/token?a=b&service=s&account=user&scope=repository%3Aapp%3Apull"
    assert asked.headers["authorization"] == HEADER


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (reply(200, b""), "the token"),
        (reply(200, b"[]"), "the token: must be an object"),
        (reply(200, b"{}"), "sends no token"),
        (reply(200, b'{"token": 1}'), "sends no token"),
        (reply(200, b'{"token": "a\\r\\nHost: b"}'), "sends no token"),
        (reply(200, b'{"token": "\\u00e4"}'), "sends no token"),
        (reply(200, b"x" * (2 << 20)), "over the limit"),
        (reply(500), "gives no token: status 500"),
        (reply(302), "without naming it"),
        (reply(401), "does not accept the credentials"),
        (reply(200, b'{"token": "bad"}'), "does not accept the credentials"),
    ],
)
def test_servers_that_give_no_token(server: Hostile, answer: bytes, error: str) -> None:
    repository = with_tokens(server, answer)
    fails(SysboxError, error, lambda: repository.manifest("1"))


def test_a_realm_that_redirects_elsewhere(server: Hostile, other: Hostile) -> None:
    repository = with_tokens(server, reply(307, Location=f"{other.url}/token"))
    other.routes["GET /token"] = reply(200, TOKEN)
    assert repository.manifest("1")
    assert "authorization" not in other.requests[0].headers


def test_an_identity_token_follows_no_redirect(server: Hostile, other: Hostile) -> None:
    with_tokens(server, reply(307, Location=f"{other.url}/token"))
    repository = at(server, Credential(identity_token="identity", source="the tests"))
    fails(RegistryError, "gives no token: status 307", lambda: repository.manifest("1"))
    assert other.requests == []
    assert b"refresh_token=identity" in server.seen("POST /token")[0].body


def test_the_scopes_of_a_challenge_are_asked_for_too(server: Hostile) -> None:
    repository = with_tokens(server, reply(200, TOKEN))
    server.routes[GET] = in_turn(
        reply(401, **bearer(f"{server.url}/token", scope="repository:app:pull other:x:y")),
        reply(200, MANIFEST),
    )
    assert repository.manifest("1")
    asked = server.seen("GET /token")[0].target
    assert asked.endswith("scope=repository%3Aapp%3Apull&scope=other%3Ax%3Ay")


# tags

TAGS = "GET /v2/app/tags/list"


@pytest.mark.parametrize(
    ("answer", "kind", "error"),
    [
        (reply(200, b"[]"), FormatError, "must be an object"),
        (reply(200, b'{"tags": 1}'), FormatError, "must be a list"),
        (reply(200, b'{"tags": [1]}'), FormatError, "is not a tag"),
        (reply(200, b'{"tags": ["a\\n"]}'), FormatError, "is not a tag"),
        (reply(200, b'{"tags": [""]}'), FormatError, "is not a tag"),
        (reply(200, b'{"tags": ["../../other/manifests/1"]}'), FormatError, "is not a tag"),
        (reply(200, b'{"tags": ["1?x"]}'), FormatError, "is not a tag"),
        (
            reply(200, b'{"tags": [' + b'"a",' * 100_000 + b'"a"]}'),
            RegistryError,
            "more than 100000",
        ),
        (
            reply(200, b"{}", Link='<http://198.51.100.1/>; rel="next"'),
            FormatError,
            "at another server",
        ),
        (
            reply(200, b"{}", Link='</v2/app/tags/list?n=1000>; rel="next"'),
            RegistryError,
            "in a circle",
        ),
    ],
)
def test_tags_that_are_none(
    server: Hostile, answer: bytes, kind: type[SysboxError], error: str
) -> None:
    server.routes[TAGS] = answer
    fails(kind, error, lambda: list(at(server).tags()))


def test_tags_without_end(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysbox.image.registry.client._MAX_PAGES", 5)
    server.routes[TAGS] = lambda seen: reply(
        200, b'{"tags": ["a"]}', Link=f'<{seen.target}1>; rel="next"'
    )
    fails(RegistryError, "more than 5 pages", lambda: list(at(server).tags()))


def test_no_tags(server: Hostile) -> None:
    server.routes[TAGS] = reply(200, b'{"name": "app", "tags": null}')
    assert list(at(server).tags()) == []


# uploads

POST = "POST /v2/app/blobs/uploads/"


def upload(repository: Repository, tmp_path: Path, told: list[int] | None = None) -> None:
    (tmp_path / "blob").write_bytes(BLOB)
    fd = os.open(tmp_path / "blob", os.O_RDONLY)
    try:
        repository.upload(DESCRIPTOR, fd, (told if told is not None else []).append)
    finally:
        os.close(fd)


def test_an_upload_on_another_server_gets_no_credentials(
    server: Hostile, other: Hostile, tmp_path: Path
) -> None:
    server.routes[POST] = lambda seen: (
        reply(202, Location=f"{other.url}/up?session=1")
        if seen.headers.get("authorization")
        else reply(401, **BASIC)
    )
    other.routes["PUT /up"] = reply(201)
    upload(at(server, USER), tmp_path)
    (put,) = other.requests
    assert put.target == f"/up?session=1&digest={DESCRIPTOR.digest}"
    assert put.body == BLOB
    assert "authorization" not in put.headers


def test_an_upload_that_is_too_large_goes_in_pieces(
    server: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sysbox.image.registry.upload._PIECE", 100_001)
    server.routes[POST] = reply(202, Location="/up")
    server.routes["PUT /up"] = reply(413)
    server.routes["PATCH /up"] = reply(202, Location="/up2")
    server.routes["PATCH /up2"] = reply(202, Location="up2")
    server.routes["PUT /up2"] = reply(201)
    told: list[int] = []
    upload(at(server), tmp_path, told)
    pieces = server.seen("PATCH")
    assert b"".join(one.body for one in pieces) == BLOB
    assert [one.headers["content-range"] for one in pieces] == [
        "0-100000",
        "100001-200001",
        "200002-299999",
    ]
    assert sum(told) == len(BLOB)


def test_an_upload_that_is_cut_begins_anew(server: Hostile, tmp_path: Path) -> None:
    server.routes[POST] = reply(202, Location="/up")
    server.routes["PUT /up"] = in_turn(b"", reply(503), reply(201))
    told: list[int] = []
    upload(at(server), tmp_path, told)
    assert sum(told) == len(BLOB)
    assert len(server.seen(POST)) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "error"),
    [
        (reply(400, b'{"errors":[{"code":"DIGEST_INVALID"}]}'), RegistryError, "DIGEST_INVALID"),
        (reply(500), RegistryError, "fails with status 500"),
        (reply(403), AccessDenied, "access denied"),
        (reply(429, Retry_After="9999"), RateLimited, "too many requests"),
        (reply(307, Location="/up"), RegistryError, "status 307"),
        (b"", Unreachable, "was cut"),
    ],
)
def test_uploads_that_fail(
    server: Hostile, tmp_path: Path, answer: bytes, kind: type[SysboxError], error: str
) -> None:
    server.routes[POST] = reply(202, Location="/up")
    server.routes["PUT /up"] = answer
    fails(kind, error, lambda: upload(at(server), tmp_path))


def test_an_upload_waits_as_long_as_it_is_asked_to(server: Hostile, tmp_path: Path) -> None:
    server.routes[POST] = reply(202, Location="/up")
    server.routes["PUT /up"] = in_turn(reply(429, Retry_After="1"), reply(201))
    began = time.monotonic()
    upload(at(server), tmp_path)
    assert time.monotonic() - began >= 1
    server.routes["PUT /up"] = reply(503, Retry_After="9999")
    fails(RegistryError, "status 503", lambda: upload(at(server), tmp_path))
    assert len(server.seen("PUT")) == 3


def test_a_repository_that_may_not_be_read_is_not_mounted_from(server: Hostile) -> None:
    server.routes["POST /v2/app/blobs/uploads/"] = reply(401, **BASIC)
    assert not at(server, USER).mount(DESCRIPTOR.digest, "secret")
    server.routes["POST /v2/app/blobs/uploads/"] = reply(404)
    assert not at(server, USER).mount(DESCRIPTOR.digest, "secret")


def test_uploads_that_do_not_begin(server: Hostile, tmp_path: Path) -> None:
    server.routes[POST] = reply(202)
    fails(RegistryError, "without naming it", lambda: upload(at(server), tmp_path))
    server.routes[POST] = reply(200)
    fails(RegistryError, "status 200", lambda: upload(at(server), tmp_path))


def test_a_file_that_is_shorter_than_its_descriptor(server: Hostile, tmp_path: Path) -> None:
    server.routes[POST] = reply(202, Location="/up")
    (tmp_path / "short").write_bytes(BLOB[:10])
    fd = os.open(tmp_path / "short", os.O_RDONLY)
    try:
        fails(FormatError, "its file ends at 10 bytes", lambda: at(server).upload(DESCRIPTOR, fd))
    finally:
        os.close(fd)


def test_a_manifest_that_the_registry_has_stored_otherwise(server: Hostile) -> None:
    server.routes["PUT /v2/app/manifests/1"] = reply(201, Docker_Content_Digest=digest_of(b"x"))
    fails(FormatError, "has stored", lambda: at(server).put_manifest(MANIFEST, OCI_MANIFEST, "1"))


# TLS and proxies


@pytest.fixture(scope="module")
def certificates(requires: Any, tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    requires.program("openssl")
    return Certificates(tmp_path_factory.mktemp("tls"))


def test_from_https_to_http(certificates: Certificates, other: Hostile, tmp_path: Path) -> None:
    with Hostile(certificates.server) as server:
        certificates.trust(tmp_path / "config/containers/certs.d", server.host)
        place = of_location(f"{server.host}/app", "test")
        repository = Repository(place, Given(USER), PATIENCE)
        server.routes["any"] = reply(307, Location=f"{other.url}/there")
        fails(RegistryError, "refers from https to", lambda: repository.manifest("1"))
        server.routes["any"] = reply(401, **bearer(f"{other.url}/token"))
        other.routes["any"] = reply(200, TOKEN)
        server.routes[POST] = reply(202, Location=f"http://{server.host}/up")
        fails(RegistryError, "refers from https to", lambda: upload(repository, tmp_path))
    assert other.requests == []


def test_a_certificate_of_another_name(certificates: Certificates, tmp_path: Path) -> None:
    with Hostile(certificates.sign("elsewhere", "DNS:elsewhere.example")) as server:
        certificates.trust(tmp_path / "config/containers/certs.d", server.host)
        place = of_location(f"{server.host}/app", "test")
        message = fails(
            Unreachable,
            "is not trusted",
            lambda: Repository(place, Chain(), PATIENCE).manifest("1"),
        )
        assert "IP address mismatch" in message
        assert server.requests == []


def test_without_tls_where_that_is_not_accepted(
    server: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "is_loopback", lambda _: False)
    server.routes["any"] = reply(200, MANIFEST)
    place = of_location(f"{server.host}/app", "test")
    repository = Repository(place, Given(USER), PATIENCE)
    fails(Unreachable, "does not speak TLS", lambda: repository.manifest("1"))
    assert server.seen("GET") == []
    insecure = Repository(place.replace(insecure=True), Given(USER), PATIENCE)
    assert insecure.manifest("1")


def test_another_host_of_an_insecure_registry_is_verified(
    certificates: Certificates, tmp_path: Path
) -> None:
    with Hostile(certificates.server) as server:
        place = of_location(f"{server.host}/app", "test", insecure=True)
        repository = Repository(place, Chain(), PATIENCE)
        server.routes[GET] = reply(200, MANIFEST)
        server.routes["GET /v2/"] = reply(200)
        assert repository.manifest("1")
        server.routes[GET] = reply(307, Location=f"https://localhost:{server.port}/there")
        fails(Unreachable, "is not trusted", lambda: repository.manifest("1"))


def test_another_host_has_no_part_in_given_certificates(
    certificates: Certificates, tmp_path: Path
) -> None:
    """What --cert-dir names is for the registry alone: its authority, and the client's certificate."""
    own = certificates.trust(tmp_path, "own", client=True)
    with Hostile(certificates.server) as server:
        repository = Access(certificates=str(own)).repository(
            of_location(f"{server.host}/app", "test")
        )
        server.routes[GET] = reply(200, MANIFEST)
        server.routes["GET /v2/"] = reply(200)
        assert repository.manifest("1")
        server.routes[GET] = reply(307, Location=f"https://localhost:{server.port}/there")
        fails(Unreachable, "is not trusted", lambda: repository.manifest("1"))


def test_a_proxy(server: Hostile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://me:pass%3A@{server.host}")
    server.routes["any"] = reply(200, MANIFEST)
    place = of_location("registry.invalid:5000/app", "test", insecure=True).replace(scheme="http")
    assert Repository(place, Chain(), PATIENCE).manifest("1")
    (seen,) = server.requests
    assert seen.target == "http://registry.invalid:5000/v2/app/manifests/1"
    assert seen.headers["proxy-authorization"] == basic("me", "pass:")
    monkeypatch.setenv("NO_PROXY", "invalid")
    fails(Unreachable, "no such host", lambda: Repository(place, Chain(), PATIENCE).manifest("1"))


def test_a_tunnel_through_a_proxy(
    certificates: Certificates, server: Hostile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("https_proxy", server.host)
    with Hostile(certificates.sign("far", "DNS:registry.invalid")) as far:
        certificates.trust(tmp_path / "config/containers/certs.d", "registry.invalid")
        far.routes[GET] = reply(200, MANIFEST)
        server.tunnel = ("127.0.0.1", far.port)
        place = of_location("registry.invalid/app", "test")
        assert Repository(place, Chain(), PATIENCE).manifest("1")
        assert server.seen("CONNECT registry.invalid:443")
        assert far.requests[0].headers["host"] == "registry.invalid"
    server.tunnel = None
    server.routes["any"] = reply(407)
    place = of_location("registry.invalid/app", "test")
    fails(Unreachable, "the proxy", lambda: Repository(place, Chain(), PATIENCE).manifest("1"))
