"""Contexts and addresses that are far too large: holes stay holes, the rest has bounds that a file sets."""

from __future__ import annotations

import hashlib
import http.server
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Builds, answering, cleaned, configured
from containers import eventually
from lane import SYSBOX, TIMEOUT, Sysbox

from sysbox.base.paths import IMAGES

pytestmark = pytest.mark.usefixtures("image")
GIB = 1 << 30
SIZE = GIB // 4


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    with cleaned(sysbox, tmp_path) as builds:
        yield builds


def allocated(top: str) -> int:
    """Bytes on the disk below a directory."""
    done = subprocess.run(["du", "-s", "-B1", top], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_a_huge_hole(build: Builds) -> None:
    """It is a hole in the image's files and in the layer's archive, whose digest is that of the zeros."""
    with (build.context / "huge").open("wb") as file:
        file.truncate(SIZE)
        file.seek(SIZE // 2)
        file.write(b"in the middle")
    before = allocated(IMAGES)
    build.write(
        "FROM busybox:test\nCOPY huge /huge\nRUN cp /bin/busybox /b && truncate -s 256M /made\n"
    )
    build()
    assert allocated(IMAGES) - before < 50 << 20
    script = "stat -c '%s %b' /huge /made; tail -c +134217729 /huge | head -c 13"
    sizes = build.run("sh", "-c", script).split("\n")
    assert sizes[2] == "in the middle"
    for line in sizes[:2]:
        size, blocks = line.split()
        assert size == str(SIZE)
        assert int(blocks) * 512 < 10 << 20
    blob = Path(IMAGES, "blobs", build.layers()[1].replace(":", "/"))
    assert blob.stat().st_size > SIZE
    with blob.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == blob.name
    listed = subprocess.run(["tar", "-tvf", blob], capture_output=True, text=True, check=True)
    assert listed.stdout.split()[2] == str(SIZE)
    build("--no-cache")
    assert Path(IMAGES, "blobs", build.layers()[1].replace(":", "/")) == blob


@pytest.mark.parametrize("step", ["COPY huge /", "RUN truncate -s 65G /huge"], ids=["copy", "run"])
def test_a_hole_that_no_layer_can_have(build: Builds, step: str) -> None:
    """Said before its zeros are hashed."""
    with (build.context / "huge").open("wb") as file:
        file.truncate(65 * GIB)
    build.write(f"FROM busybox:test\n{step}\n")
    error = build.fails()
    assert (
        f"Containerfile:2:1: {step[:4].strip()}: /huge: the layer would have more than 64 GiB"
        in error
    )
    assert "a hole counts too" in error


@pytest.fixture
def tight() -> Iterator[None]:
    """Bounds that a test reaches in no time."""
    with configured("ContextFiles=20\nFetchSize=4m"):
        yield


@pytest.mark.usefixtures("tight")
def test_too_many_files(build: Builds) -> None:
    """What the ignore file leaves out is not looked at."""
    many = build.context / "many"
    for number in range(30):
        path = many / str(number % 3) / str(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    build.write("FROM busybox:test\nCOPY . /x\n")
    error = build.fails()
    assert "Containerfile:2:1: COPY: more than 20 files are to be copied" in error
    assert "ContextFiles= of sysbox.conf(5)" in error
    build.write("FROM busybox:test\nRUN --mount=type=bind,target=/x true\n")
    assert "more than 20 files" in build.fails()
    for number in range(30):
        (many / "0" / f"more{number}").touch()
    assert "many/0/: more than 20 files in one directory" in build.fails()
    # of an image or a stage there may be more
    build.write("FROM busybox:test\nCOPY --from=busybox:test / /x\n")
    build()
    (build.context / ".containerignore").write_text("many\n")
    build.write("FROM busybox:test\nCOPY . /x\n")
    build()
    assert build.run("ls", "/x") == "Containerfile\n"


def test_the_root_by_mistake(build: Builds) -> None:
    """A line says how much it is, an interrupt ends it at once, and nothing is left."""
    build.write("FROM busybox:test\nCOPY . /x\n")
    before = allocated(f"{IMAGES}/layers")
    words = [SYSBOX, "build", "--progress", "plain", "-f", f"{build.context}/Containerfile", "/"]
    with subprocess.Popen(
        words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as building:
        assert building.stderr is not None
        seen = []
        for line in building.stderr:
            seen.append(line)
            if "files" in line:
                break
        assert " read so far" in seen[-1], seen
        building.send_signal(signal.SIGINT)
        building.stderr.read()
        building.wait(TIMEOUT)
    assert building.returncode == 130
    assert allocated(f"{IMAGES}/layers") == before
    eventually(lambda: not list(Path(IMAGES, "temporary").glob("*")), "its files are gone")


class _Endless(http.server.BaseHTTPRequestHandler):
    """A web server whose file has no end."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        if self.path == "/said":
            self.send_header("Content-Length", str(1 << 50))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        except OSError:
            pass  # the client has gone


@pytest.mark.usefixtures("tight")
def test_an_address_without_end(build: Builds) -> None:
    """The bound is that of sysbox.conf, for ADD and for a context; nothing is left."""
    before = allocated(IMAGES)
    with answering(_Endless) as address:
        build.write(f"FROM busybox:test\nADD {address}/file /x\n")
        error = build.fails()
        assert f"Containerfile:2:1: ADD: {address}/file: more than 4194304 bytes" in error
        assert "FetchSize= of sysbox.conf(5)" in error
        build.write(f"FROM busybox:test\nADD {address}/said /x\n")
        assert f"{1 << 50} bytes are over the limit of 4194304" in build.fails()
        done = build(context=f"{address}/file", name="failed:1", check=False)
        assert (done.returncode, "more than 4194304 bytes" in done.stderr) == (1, True), done.stderr
    with Path("/dev/zero").open("rb") as zeros:
        piped = subprocess.run(
            [SYSBOX, "build", "-"], stdin=zeros, capture_output=True, text=True, timeout=TIMEOUT
        )
    assert piped.returncode == 1
    assert "sysbox: standard input: more than 4194304 bytes" in piped.stderr
    assert list(Path(IMAGES, "temporary").glob("*")) == []
    assert allocated(IMAGES) - before < 1 << 20
