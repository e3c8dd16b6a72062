"""Files of web servers: redirects, errors, cut connections, slow servers, and bounds."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sysbox.base.errors import FormatError, NotFound, RegistryError, Unreachable
from sysbox.image.registry.paced import Patience
from sysbox.image.web import WebFile, is_url

HASTY = Patience(
    connect=1.0, answer=1.0, window=0.5, least=1000, attempts=2, pause=0.01, longest_pause=0.1
)
BODY = bytes(range(256)) * 1000


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers.get("Authorization", "")))
        kind = self.path.strip("/").partition("?")[0]
        getattr(self, f"_{kind}", self._missing)()

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self) -> None:
        self._send(200, BODY)

    def _missing(self) -> None:
        self._send(404, b"<html>")

    def _moved(self) -> None:
        self._send(302, Location="/file?sig=x")

    def _circle(self) -> None:
        self._send(302, Location="/circle")

    def _elsewhere(self) -> None:
        self._send(302, Location="file:///etc/passwd")

    def _cut(self) -> None:
        self._send(200, BODY, Content_Length=str(len(BODY) + 1))
        self.close_connection = True

    def _chunked(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for _ in range(3):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(BODY), BODY))
        self.wfile.write(b"0\r\n\r\n")

    def _broken(self) -> None:
        self._send(500)

    def _slow(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        try:
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass  # the client has lost its patience
        self.close_connection = True


@pytest.fixture
def server() -> Iterator[str]:
    """Its address."""
    handler = type("Own", (Handler,), {"asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join()


def fetched(url: str, **how: int) -> bytes:
    with WebFile(url, HASTY, **how) as file:
        data = b""
        while piece := file.read(1 << 16):
            data += piece
        return data


@pytest.mark.parametrize("path", ["file", "moved", "file?query=1"])
def test_a_file(server: str, path: str) -> None:
    assert fetched(f"{server}/{path}") == BODY


def test_without_a_length(server: str) -> None:
    assert fetched(f"{server}/chunked") == 3 * BODY


@pytest.mark.parametrize(
    ("path", "error", "why"),
    [
        ("none", NotFound, "answers 404"),
        ("circle", RegistryError, "circle"),
        ("elsewhere", RegistryError, "not a URL"),
        ("broken", RegistryError, "answers 500"),
        ("cut", Unreachable, "127.0.0.1"),
        ("slow", Unreachable, "too slow"),
    ],
)
def test_what_goes_wrong(server: str, path: str, error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why) as caught:
        fetched(f"{server}/{path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["file", "chunked"])
def test_too_large(server: str, path: str) -> None:
    with pytest.raises(FormatError, match=r"limit|more than"):
        fetched(f"{server}/{path}", most=1000)


def test_no_server() -> None:
    with pytest.raises(Unreachable):
        fetched("http://127.0.0.1:1/x")


@pytest.mark.parametrize(
    "url", ["http://user:word@h/", "http:///x", "https://h:99999/", "http://h/a b"]
)
def test_not_a_url(url: str) -> None:
    assert is_url(url)
    with pytest.raises(FormatError):
        WebFile(url)


def test_what_is_a_file() -> None:
    tell: Callable[[str], bool] = is_url
    assert not any(map(tell, ["rootfs.tar", "-", "./http://x", "ftp://x", "/http"]))
