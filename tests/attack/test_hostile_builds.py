"""Builds that attack the host: hostile contexts, repositories and steps; the host must be as it was.

tests/host/test_build_copy.py has the archives, sources and bases whose names and links lead out.
"""

from __future__ import annotations

import http.server
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builds import Builds, answering
from lane import SYSBOX, Sysbox

from sysbox.base.paths import IMAGES, RUN

pytestmark = pytest.mark.usefixtures("image")

SECRET = "the-secret-of-this-test"


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    """Builds of a context of its own; their images, and the cache, are removed."""
    context = tmp_path / "context"
    context.mkdir()
    yield Builds(sysbox, context)
    for name in ("built:1", "failed:1"):
        sysbox("rmi", "-f", name)
    sysbox("builder", "prune", "-af", check=True)
    sysbox("gc", check=True)
    assert list(Path(IMAGES, "temporary").glob("*")) == []
    assert list(Path(RUN, "build").glob("*")) == []


@pytest.mark.parametrize("name", ["Containerfile", ".containerignore", ".dockerignore"])
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_files_that_are_none(build: Builds, name: str, kind: str) -> None:
    """A Containerfile is not waited for, and no device is read, in an archive neither."""
    if name != "Containerfile":
        build.write("FROM busybox:test\n")
    path = build.context / name
    os.mknod(path, stat.S_IFIFO if kind == "fifo" else stat.S_IFCHR, os.makedev(1, 5))
    error = f"sysbox: {name} in the build context: not a regular file"
    assert build.fails() == error
    archive = build.context.parent / "context.tar"
    subprocess.run(["tar", "-C", build.context, "-cf", archive, "."], check=True)
    done = subprocess.run(
        [SYSBOX, "build", "-"],
        stdin=archive.open("rb"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, f"{error}\n")


class _Hostile(http.server.BaseHTTPRequestHandler):
    """A web server whose answers lead elsewhere, or end too early."""

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        targets = {
            "/file": "file:///etc/passwd",
            "/circle": "/circle",
            "/user": "http://u:p@[::1]/",
        }
        if self.path in targets:
            self.send_response(302)
            self.send_header("Location", targets[self.path])
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.wfile.write(b"short")


def test_a_hostile_web_server(build: Builds) -> None:
    with answering(_Hostile) as address:
        for path, error in (
            ("file", "is not a URL of http or https"),
            ("circle", "go round in a circle"),
            ("user", "is not a URL of http or https"),
            ("short", "the connection was cut"),
        ):
            build.write(f"FROM busybox:test\nADD {address}/{path} /got\n")
            assert error in build.fails(), path


@pytest.mark.parametrize("kind", ["bind", "cache", "tmpfs"])
def test_a_mount_over_the_root(build: Builds, kind: str) -> None:
    """What a step leaves would be below the mount."""
    build.write(f"FROM busybox:test\nRUN --mount=type={kind},target=a/../.. true\n")
    error = build.fails()
    assert f"Containerfile:2:1: RUN: a mount of type {kind} would cover the whole root" in error


@pytest.mark.parametrize("kind", ["bind", "cache"])
def test_a_mount_shows_nothing_that_is_ignored(build: Builds, kind: str) -> None:
    """The whole context, a directory, and a file of it."""
    a, d = (",id=a", ",id=d") if kind == "cache" else ("", "")
    build.write(
        f"""
        FROM busybox:test
        RUN --mount=type={kind}{a},source=/,target=/all --mount=type={kind}{d},source=d,target=/d \\
            (cd /all && find . -type f; cd /d && find . -type f) | sort > /seen
        """,
        secret="x",
        d__secret="x",
        d__kept="x",
        d__e__secret="x",
    )
    (build.context / ".containerignore").write_text(
        "secret\nd/secret\nd/e/secret\nContainerfile\n.*\n"
    )
    build()
    assert build.run("cat", "/seen").split() == ["./d/kept", "./kept"]
    build.write(f"FROM busybox:test\nRUN --mount=type={kind},source=d/secret,target=/x true\n")
    assert "d/secret: the ignore file leaves it out of the build context" in build.fails()


def test_a_link_to_what_is_ignored(build: Builds) -> None:
    """No link of the context is a way around its ignore file."""
    build.write("", d__secret="x", d__kept="x")
    (build.context / "way").symlink_to("d")
    (build.context / "file").symlink_to("d/secret")
    (build.context / ".containerignore").write_text("d/secret\n")
    for source in ("way/secret", "file", "way/../way/secret"):
        build.write(f"FROM busybox:test\nCOPY {source} /x\n")
        assert f"{source}: the ignore file leaves it out" in build.fails()
    build.write(
        "FROM busybox:test\nCOPY way /x\nRUN --mount=type=bind,source=way,target=/m ls /m > /seen\n"
    )
    build()
    assert build.run("ls", "/x") == "kept\n"
    assert build.run("cat", "/seen") == "kept\n"


def test_a_cache_from_a_file(build: Builds) -> None:
    build.write("FROM busybox:test\nRUN --mount=type=cache,source=f,target=/x true\n", f="x")
    assert build.fails() == (
        "sysbox: Containerfile:2:1: RUN: a mount of type cache: f is not a directory"
    )


def test_names_of_caches(build: Builds) -> None:
    """The id of a cache is no path."""
    decoy = build.context.parent / "decoy"
    decoy.mkdir()
    for name in (f"../../../../../../../../{decoy}", str(decoy), ".."):
        build.write(f"FROM busybox:test\nRUN --mount=type=cache,id={name},target=/c touch /c/f\n")
        build()
    assert list(decoy.iterdir()) == []
    assert [path.name for path in Path(IMAGES, "build").iterdir() if path.is_dir()] == ["mounts"]


def test_a_step_leaves_no_process(build: Builds) -> None:
    """What a step starts ends with it, in a session of its own too."""
    build.write(
        "FROM busybox:test\nRUN (setsid sleep 4711 >/dev/null 2>&1 &) ; sleep 4711 & true\n"
    )
    build()
    found = subprocess.run(["pgrep", "-f", "^sleep 4711"], capture_output=True, check=False)
    assert found.stdout == b""


def test_a_step_sees_no_other_steps_secret(build: Builds, tmp_path: Path) -> None:
    """Neither at the same time in another stage, nor in the processes of the build."""
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    build.write(
        """
        FROM busybox:test AS one
        RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s test -n "$S" && sleep 2
        FROM busybox:test AS two
        RUN sleep 1; cat /proc/*/environ /proc/*/cmdline /proc/mounts /run/secrets/* > /seen 2>&1; true
        FROM busybox:test
        COPY --from=one /etc/passwd /one
        COPY --from=two /seen /seen
        """
    )
    build("--secret", f"id=s,src={secret}")
    assert SECRET not in build.run("cat", "/seen")
