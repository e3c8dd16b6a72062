"""What a step leaves in its layer, and caches that two steps want at once."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Builds, cleaned
from containers import PATIENCE, eventually
from lane import SYSBOX, Sysbox

from sysbox.base.paths import RUN, STATE

pytestmark = pytest.mark.usefixtures("image")


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    with cleaned(sysbox, tmp_path) as builds:
        yield builds


BIND = """
import socket
socket.socket(socket.AF_UNIX).bind("/run-socket")
"""


def test_what_is_no_part_of_a_layer(build: Builds) -> None:
    """Sockets; and a file whose name would mean a deletion is an error."""
    build.write(
        "FROM host\nCOPY bind /\nRUN /usr/bin/python3 /bind && test -S /run-socket && touch /f\n",
        bind=BIND,
    )
    build()
    script = "ls /f; test ! -e /run-socket && echo gone"
    assert build.run("sh", "-c", script) == "/f\ngone\n"
    build.write("FROM busybox:test\nRUN touch /etc/.wh.passwd\n")
    assert "/etc/.wh.passwd: no layer can have a file of this name" in build.fails()


def test_what_is_pushed_is_what_is_here(build: Builds, tmp_path: Path) -> None:
    """What a step removes, or makes anew, is gone in an archive of the image too."""
    build.write(
        """
        FROM busybox:test
        RUN mkdir -p /d/e && touch /d/secret /d/e/secret /secret
        RUN rm -r /d /secret && mkdir -p /d/e && touch /d/e/new
        """
    )
    build("-o", f"type=oci,dest={tmp_path}/image.tar")
    script = "cd / && find d secret 2>/dev/null | sort"
    here = build.run("sh", "-c", script)
    assert here == "d\nd/e\nd/e/new\n"
    build.sysbox("rmi", "-f", "built:1", check=True)
    build.sysbox("builder", "prune", "-af", check=True)
    build.sysbox("gc", check=True)
    build.sysbox("load", "-i", f"{tmp_path}/image.tar", check=True)
    assert build.run("sh", "-c", script) == here


# each waits for the other one, in a cache that they share
MEET = "touch /m/$NAME && until test -e /m/one && test -e /m/two; do sleep 0.05; done"


def two_stages(build: Builds, sharing: str, meanwhile: str = MEET) -> list[str]:
    """What two stages that are built at once see in one cache."""
    step = (
        f"RUN --mount=type=cache,id=c,sharing={sharing},target=/c --mount=type=cache,id=m,target=/m "
        f"touch /c/$NAME && {meanwhile} && ls /c > /seen"
    )
    build.write(
        f"FROM busybox:test AS one\nENV NAME=one\n{step}\nFROM busybox:test AS two\nENV NAME=two\n{step}\n"
        "FROM busybox:test\nCOPY --from=one /seen /one\nCOPY --from=two /seen /two\n"
    )
    build()
    return sorted(build.run("cat", f"/{name}") for name in ("one", "two"))


@pytest.mark.parametrize(
    ("sharing", "seen"),
    [
        pytest.param("shared", ["one\ntwo\n", "one\ntwo\n"], id="shared"),
        pytest.param("private", ["one\n", "two\n"], id="private"),
    ],
)
def test_a_cache_for_two(build: Builds, sharing: str, seen: list[str]) -> None:
    assert two_stages(build, sharing) == seen


def test_a_locked_cache(build: Builds) -> None:
    """One after the other: the first sees only its own file, the second both."""
    first, second = sorted(two_stages(build, "locked", "sleep 1"), key=len)
    assert first in ("one\n", "two\n")
    assert second == "one\ntwo\n"


def test_a_trigger_runs_once(build: Builds) -> None:
    """In the stage that begins with the image, and in none above that one."""
    build.write("FROM busybox:test\nONBUILD RUN echo x >> /times\n")
    build(name="built:base")
    build.write(
        "FROM built:base AS one\nRUN true\nFROM one AS two\nRUN true\nFROM two\nRUN cat /times > /seen\n"
    )
    build()
    assert build.run("cat", "/seen") == "x\n"
    assert build.config()["OnBuild"] is None


def test_a_trigger_of_a_stage(build: Builds) -> None:
    """In the stage that begins with it, of which it is no trigger any more."""
    build.write(
        "FROM busybox:test AS one\nONBUILD RUN echo x >> /times\nFROM one AS two\nRUN true\n"
        "FROM two\nRUN cat /times > /seen\n"
    )
    build()
    assert build.run("cat", "/seen") == "x\n"
    assert build.config()["OnBuild"] is None


def test_a_worker_that_is_killed(build: Builds) -> None:
    """The container of its step ends with it."""
    build.write("FROM busybox:test\nRUN sleep 1000\n")
    words = [SYSBOX, "build", "--progress", "plain", "-t", "failed:1", build.context]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as building:
        shown = ("ps", "--format", "{{.Names}}")
        eventually(lambda: "build-" in build.sysbox(*shown, check=True).stdout, "the step runs")
        found = subprocess.run(["pgrep", "-P", str(building.pid)], capture_output=True, check=True)
        for worker in found.stdout.split():
            os.kill(int(worker), signal.SIGKILL)
        # a container that stays has its standard error open, and the build waits for it
        try:
            told = building.communicate(timeout=PATIENCE)[1]
        finally:
            building.kill()
    assert "the process that built the stage stage-0 was killed" in told
    assert building.returncode == 1
    eventually(lambda: build.sysbox(*shown, check=True).stdout == "", "the step has ended")
    build.sysbox("gc", check=True)
    assert build.sysbox("ps", "-aq", check=True).stdout == ""


def test_a_secret_of_a_step_that_is_kept(build: Builds, tmp_path: Path) -> None:
    """No file of sysbox's has it, of a container that is left to look into neither."""
    secret = "kq93hd0a7x"
    (tmp_path / "token").write_text(secret)
    build.write('FROM busybox:test\nRUN --mount=type=secret,id=t,env=TOKEN test -z "$TOKEN"\n')
    flags = ("--keep-failed", "--secret", f"id=t,src={tmp_path}/token")
    assert build(*flags, check=False, name="failed:1").returncode == 1
    name = build.sysbox("ps", "-a", "--format", "{{.Names}}", check=True).stdout.strip()
    assert secret not in build.sysbox("inspect", name, check=True).stdout
    found = subprocess.run(["grep", "-rl", secret, STATE, RUN], capture_output=True, text=True)
    assert found.stdout == ""
    build.sysbox("rm", name, check=True)
