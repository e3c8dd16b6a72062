"""Contexts that another user changes while they are read, and what a build writes for its caller."""

from __future__ import annotations

import ctypes
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builds import Builds, cleaned
from lane import Sysbox

pytestmark = pytest.mark.usefixtures("image")

CLOSED_UNWRITTEN = 0x10  # inotify(7), IN_CLOSE_NOWRITE
MANY = 3000  # files that are read between one and its copy


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    with cleaned(sysbox, tmp_path) as builds:
        yield builds


def once_read(path: Path, change: Callable[[], object]) -> threading.Thread:
    """A thread that calls `change` as soon as somebody has read a file."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_CLOEXEC)
    assert libc.inotify_add_watch(watch, os.fsencode(path), CLOSED_UNWRITTEN) > 0

    def wait() -> None:
        os.read(watch, 4096)
        os.close(watch)
        change()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def archive(path: Path, text: str) -> None:
    """A tar archive of one file, as large for any text of this length."""
    with tarfile.open(path, "w") as made:
        inner = path.with_name("inner")
        inner.write_text(text)
        made.add(inner, "inner")
        inner.unlink()


STEPS = {
    "copy": "COPY a many /x/\nRUN cat /x/a > /seen",
    "add": "ADD a many /x/\nRUN cat /x/inner > /seen",
    "bind": "RUN --mount=type=bind,target=/m cat /m/a > /seen",
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_context_that_changes_while_it_is_read(build: Builds, kind: str) -> None:
    """The cache never has one content under the key of another."""
    many = build.context / "many"
    many.mkdir()
    for number in range(MANY):
        (many / str(number)).touch()
    build.write(f"FROM busybox:test\n{STEPS[kind]}\n")
    path = build.context / "a"

    def write(text: str) -> None:
        if kind == "add":
            archive(path, text)
        else:
            path.write_text(text)

    write("good")
    thread = once_read(path, lambda: write("evil"))
    build()
    thread.join()
    assert build.run("cat", "/seen") == "evil"
    write("good")
    build()
    assert build.run("cat", "/seen") == "good"
    write("evil")
    build()
    assert build.run("cat", "/seen") == "evil"


def test_directories_that_become_links(build: Builds, tmp_path: Path) -> None:
    """Whoever exchanges them meanwhile gets no file of the host's into the image."""
    private, inside = tmp_path / "private", build.context / "d"
    for top, text in ((private, "of the host"), (inside, "of the context")):
        top.mkdir()
        for number in range(200):
            (top / str(number)).write_text(text)
    link, over = build.context / "link", threading.Event()
    link.symlink_to(private)
    libc = ctypes.CDLL(None)

    def exchange() -> None:
        while not over.is_set():
            libc.renameat2(-100, os.fsencode(inside), -100, os.fsencode(link), 2)

    build.write("FROM busybox:test\nCOPY . /x/\nRUN ! grep -r 'of the host' /x/d/. /x/link/.\n")
    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for _ in range(5):
            build("--no-cache")
    finally:
        over.set()
        thread.join()


def test_files_of_a_build_have_no_rights_here(build: Builds, tmp_path: Path) -> None:
    """Neither a set-user-ID program, nor a device of this machine, nor another user's file."""
    os.mknod(build.context / "device", 0o660 | stat.S_IFBLK, os.makedev(7, 0))
    build.write(
        "FROM scratch\nCOPY --from=busybox:test --chmod=6755 --chown=5:6 /bin/busybox /su\n"
        "COPY device /device\n"
    )
    out = tmp_path / "out"
    done = build("--output", f"type=local,dest={out}")
    status = (out / "su").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o755, 0, 0)
    assert not (out / "device").exists()
    assert "sysbox: --output: left out device: it is a device" in done.stderr
