"""`system df`: docker's table and keys, and sizes that are those of du(1); `import` from a web server."""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane import Sysbox, rootfs

from sysbox.base import paths
from sysbox.docker.human import human_size

NAME = "df-test"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive") / "rootfs.tar.gz"
    path.write_bytes(gzip.compress(rootfs(Path("/bin/busybox"))))
    return path


@pytest.fixture
def image(sysbox: Sysbox, archive: Path) -> Iterator[str]:
    yield sysbox("import", archive, f"{NAME}:1", check=True).stdout.strip()
    sysbox("rmi", "-f", f"{NAME}:1", check=True)


def rows(sysbox: Sysbox) -> dict[str, dict[str, str]]:
    text = sysbox("system", "df", "--format", "json", check=True).stdout
    return {one["Type"]: one for one in map(json.loads, text.splitlines())}


def test_totals(sysbox: Sysbox, image: str) -> None:
    before = rows(sysbox)
    assert list(before) == ["Images", "Containers", "Local Volumes", "Build Cache"]
    done = subprocess.run(
        ["du", "-s", "-B1", paths.IMAGES], capture_output=True, text=True, check=True
    )
    assert before["Images"]["Size"] == human_size(int(done.stdout.split()[0]))
    assert before["Images"]["Reclaimable"].endswith("%)")
    words = ("--name", "df-c", "--network", "none", "-v", "df-volume:/data", f"{NAME}:1")
    script = "echo 12345 >/new; echo 123 >/data/file"
    sysbox("run", *words, "sh", "-c", script, check=True)
    try:
        after = rows(sysbox)
        assert int(after["Images"]["Active"]) == int(before["Images"]["Active"]) + 1
        assert int(after["Containers"]["TotalCount"]) == int(before["Containers"]["TotalCount"]) + 1
        assert after["Containers"]["Active"] == before["Containers"]["Active"]
        assert int(after["Local Volumes"]["Active"]) == int(before["Local Volumes"]["Active"]) + 1
        assert sorted(after["Images"]) == ["Active", "Reclaimable", "Size", "TotalCount", "Type"]
        text = sysbox("system", "df", "-v", check=True).stdout
        images, containers, volumes, cache = text.split(" space usage:\n\n")[1:] + [text]
        assert f"{NAME}" in images
        assert "SHARED SIZE" in images
        (line,) = [one for one in containers.splitlines() if "df-c" in one]
        assert " 6B " in line
        (line,) = [one for one in volumes.splitlines() if one.startswith("df-volume ")]
        assert line.split() == ["df-volume", "1", "4B"]
        assert "Build cache usage: 0B" in cache
    finally:
        sysbox("rm", "-f", "df-c", check=True)
        sysbox("volume", "rm", "df-volume", check=True)
    table = sysbox("system", "df", check=True).stdout.splitlines()
    assert table[0].split() == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    done = sysbox("system", "df", "-v", "--format", "json")
    assert (done.returncode, done.stdout) == (1, "")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_import_from_a_web_server(sysbox: Sysbox, archive: Path) -> None:
    handler = functools.partial(Quiet, directory=str(archive.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        base = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            url = f"{base}/{archive.name}"
            image = sysbox("import", url, f"{NAME}:web", check=True).stdout.strip()
            shown = sysbox("image", "inspect", "-f", "{{.Comment}}", image, check=True).stdout
            assert shown == f"Imported from {url}\n"
            done = sysbox(
                "run", "--rm", "--network", "none", f"{NAME}:web", "echo", "ok", check=True
            )
            assert done.stdout == "ok\n"
            sysbox("rmi", f"{NAME}:web", check=True)
            for words, text in (
                ((f"{base}/none.tar", f"{NAME}:x"), "answers 404"),
                ((url, "Bad"), "lower case"),
                (("http://127.0.0.1:1/x", f"{NAME}:x"), "127.0.0.1:1"),
            ):
                done = sysbox("import", *words)
                assert done.returncode == 1
                assert text in done.stderr
                assert done.stdout == ""
        finally:
            server.shutdown()
            thread.join()
    assert sysbox("images", "-q", f"{NAME}:x", check=True).stdout == ""
