"""Parts of the registry client that decide without asking: URLs, proxies, challenges, realms, pace."""

from __future__ import annotations

import io

import pytest

from sysbox.base.errors import FormatError, SpecError, Unreachable
from sysbox.image.registry import auth, challenges, proxies
from sysbox.image.registry import url as urls
from sysbox.image.registry.paced import Paced, Patience


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.b", "https://a.b/"),
        ("HTTPS://A.b:443/x?y=z#f", "https://a.b/x?y=z"),
        ("http://a.b:80/", "http://a.b/"),
        ("http://a.b:443/", "http://a.b:443/"),
        ("http://[::1]:5000/x", "http://[::1]:5000/x"),
        ("/x/y", "https://base:1/x/y"),
        ("z", "https://base:1/v2/z"),
        ("../z?a", "https://base:1/z?a"),
        ("//other/z", "https://other/z"),
        ("", "https://base:1/v2/app"),
    ],
)
def test_urls(text: str, expected: str) -> None:
    base = urls.make("https", "base", 1, "/v2/app")
    assert str(urls.parse(text, "test", base)) == expected


def test_what_is_shown_of_a_url_has_no_signature() -> None:
    assert urls.parse("https://a.b/x?sig=1", "test").place() == "https://a.b/x"


@pytest.mark.parametrize(
    "text",
    ["a", "ftp://a", "https://", "https://a:b", "https://u@a/", "https://a\\b/", "https://a\tb/", "https://\u00e4"],
)  # fmt: skip
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(FormatError, match=r"^test: "):
        urls.parse(text, "test")


@pytest.mark.parametrize(
    ("no_proxy", "host", "expected"),
    [
        ("", "a.b", False),
        ("*", "a.b", True),
        ("a.b", "a.b", True),
        ("A.B", "a.b", True),
        ("a.b", "x.a.b", True),
        ("a.b", "xa.b", False),
        (".a.b", "a.b", False),
        (".a.b", "x.a.b", True),
        ("*.a.b", "x.a.b", True),
        ("x.y, a.b", "a.b", True),
        ("a.b:443", "a.b", True),
        ("a.b:444", "a.b", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:443", "fd00::1", True),
        ("10.0.0.0/99", "10.1.2.3", False),
        (",,", "a.b", False),
    ],
)
def test_no_proxy(no_proxy: str, host: str, *, expected: bool) -> None:
    assert proxies.excluded(urls.make("https", host, 0, "/"), no_proxy) is expected


def test_proxies() -> None:
    def chosen(text: str, **environment: str) -> str:
        return proxies.choose(urls.parse(text, "test"), environment)

    assert chosen("https://a.b/") == ""
    assert chosen("https://a.b/", HTTPS_PROXY="http://p:1") == "http://p:1"
    assert chosen("https://a.b/", https_proxy="p:1") == "http://p:1"
    assert chosen("https://a.b/", HTTP_PROXY="http://p:1") == ""
    assert chosen("http://a.b/", http_proxy="http://p:1", NO_PROXY="a.b") == ""
    assert chosen("http://127.0.0.1/", HTTP_PROXY="http://p:1") == ""
    with pytest.raises(SpecError, match="HTTPS_PROXY: a proxy of the kind 'socks5'"):
        chosen("https://a.b/", HTTPS_PROXY="socks5://p:1")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("registry.example.com", "auth.example.com", True),
        ("example.com", "auth.example.com", True),
        ("registry-1.docker.io", "auth.docker.io", True),
        ("a.example.com", "a.example.org", False),
        ("a.example.co.uk", "b.example.co.uk", True),
        ("example.co.uk", "evil.co.uk", False),
        ("a.co.uk", "co.uk", False),
        ("host", "host", True),
        ("host", "other", False),
        ("com", "example.com", False),
        ("127.0.0.1", "localhost", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("1.2.3.4", "9.9.3.4", False),
        ("::1", "127.0.0.1", True),
        ("fd00::1", "fd00::2", False),
        ("example.com", "exampleXcom", False),
        ("registry.example.com", "example.com.evil.net", False),
    ],
)
def test_hosts_of_one_site(one: str, other: str, *, expected: bool) -> None:
    assert auth.same_site(one, other) is expected
    assert auth.same_site(other, one) is expected


def parsed(*headers: str) -> list[tuple[str, dict[str, str]]]:
    return [(one.scheme, one.parameters) for one in challenges.parse(list(headers), "test")]


def test_challenges() -> None:
    assert parsed() == []
    assert parsed("") == []
    assert parsed("Basic") == [("basic", {})]
    assert parsed('Bearer realm="https://a/b",service="a b",scope="x:y:z,w"') == [
        ("bearer", {"realm": "https://a/b", "service": "a b", "scope": "x:y:z,w"})
    ]
    assert parsed("BASIC Realm = x , Negotiate", 'Bearer realm="\\"\\\\"') == [
        ("basic", {"realm": "x"}),
        ("negotiate", {}),
        ("bearer", {"realm": '"\\'}),
    ]
    assert parsed("Negotiate dG9rZW4=, Basic") == [("negotiate", {}), ("basic", {})]


@pytest.mark.parametrize("header", ['Basic realm="', "=", '"x"', "Basic a=b=c"])
def test_malformed_challenges(header: str) -> None:
    with pytest.raises(FormatError, match="test: WWW-Authenticate"):
        parsed(header)


class Ticking:
    """A clock, and a stream of which each read takes a second."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def stream(self, count: int) -> io.RawIOBase:
        ticking = self

        class Raw(io.RawIOBase):
            def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
                ticking.now += 1
                taken = min(count, len(buffer))
                buffer[:taken] = b"x" * taken
                return taken

        return Raw()


@pytest.mark.parametrize(("count", "fails"), [(1, True), (99, True), (101, False)])
def test_the_pace_of_a_server(count: int, *, fails: bool) -> None:
    clock = Ticking()
    patience = Patience(window=10, least=1000)
    paced = io.BufferedReader(Paced(clock.stream(count), patience, "host", clock), 1000)
    if fails:
        with pytest.raises(Unreachable, match=f"host: too slow: {count * 10} bytes in 10 s"):
            paced.read(5000)
        assert clock.now == 11
    else:
        assert len(paced.read(5000)) == 5000


def test_time_between_reads_is_the_readers_own() -> None:
    clock = Ticking()
    paced = Paced(clock.stream(1), Patience(window=10, least=1000), "host", clock)
    for _ in range(10):
        assert paced.readinto(memoryview(bytearray(10))) == 1
        clock.now += 1000
