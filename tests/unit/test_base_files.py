"""Files of our own: what is synced, by strace(1); what is removed, and what an error proves."""

from __future__ import annotations

import errno
import os
import posix
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sysbox.base import files, tree
from sysbox.base.errors import FormatError, KernelError
from sysbox.run import apparmor, early_stop
from sysbox.security import filter_cache
from sysbox.spec import Logging
from sysbox.units import journal

WRITE = "import sys; from sysbox.base.files import write_file; "


def calls(tmp_path: Path, code: str) -> list[str]:
    """What is done in the directory, in order: "fsync FILE", "rename FROM TO"."""
    log = tmp_path.with_name(f"{tmp_path.name}.log")
    subprocess.run(
        ["strace", "-y", "-o", log, "-e", "trace=fsync,rename,write",
         sys.executable, "-P", "-c", code, tmp_path],
        check=True, timeout=60,
    )  # fmt: skip
    found = []
    for line in log.read_text().splitlines():
        if str(tmp_path) in line and line.rpartition(" = ")[2].isdecimal():
            name = line.partition("(")[0]
            paths = re.findall(rf"{tmp_path}[^\">]*", line)
            words = [re.sub(r"\.\d+$", ".PID", path.removeprefix(f"{tmp_path}")) for path in paths]
            found.append(" ".join([name, *(word or "/" for word in words)]))
    return found


def test_a_durable_write_is_synced_before_it_is_renamed(tmp_path: Path, requires: Any) -> None:
    requires.program("strace")
    found = calls(tmp_path, WRITE + "write_file(f'{sys.argv[1]}/a', b'x', durable=True)")
    assert found == ["write /a.PID", "fsync /a.PID", "rename /a.PID /a", "fsync /"]


def test_what_can_be_made_again_is_not(tmp_path: Path, requires: Any) -> None:
    requires.program("strace")
    found = calls(tmp_path, WRITE + "write_file(f'{sys.argv[1]}/a', b'x')")
    assert found == ["write /a.PID", "rename /a.PID /a"]


WRITERS: dict[str, Callable[[str], object]] = {
    "file": lambda where: files.write_file(f"{where}/file", b"{}"),
    "fields": lambda _: journal.write_fields("unit", {"A": "b"}, Logging()),
    "filter": lambda _: filter_cache.store("name", b"content"),
    "mark": lambda _: apparmor._mark("name"),
}


@pytest.mark.parametrize("call", ["write", "close", "symlink", "rename"])
@pytest.mark.parametrize("writer", WRITERS)
def test_a_signal_while_it_is_written_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, call: str
) -> None:
    """As a stop of a service sends it while the container starts: after that system call."""
    for module, name in ((journal, "_UNITS"), (filter_cache, "DIRECTORY"), (apparmor, "MARKS")):
        monkeypatch.setattr(module, name, str(tmp_path))
    monkeypatch.setattr(filter_cache, "_make_directory", lambda _: None)  # above it
    real = getattr(posix, call)

    def interrupted(*arguments: Any, **options: Any) -> Any:
        monkeypatch.setattr(posix, call, real)
        try:
            return real(*arguments, **options)
        finally:
            signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    early_stop.heed()
    monkeypatch.setattr(posix, call, interrupted)
    try:
        WRITERS[writer](str(tmp_path))
    except KeyboardInterrupt:
        pass  # not every writer makes each of the calls
    finally:
        signal.signal(signal.SIGTERM, before)
    whole = {"file", "log-extra-fields:unit", "name"}
    assert {one.name for one in tmp_path.iterdir() if ":" not in one.name or one.is_file()} <= whole


def test_a_deep_tree_is_walked_and_removed(tmp_path: Path) -> None:
    """Deeper than the descriptors that stay open, and wider on the way back."""
    depth = 30
    inner = tmp_path / "top"
    for _ in range(depth):
        for name in "abc":
            (inner / name).mkdir(parents=True)
        (inner / "file").touch()
        inner = inner / "b"
    directory = os.open(tmp_path / "top", os.O_RDONLY)
    found = [one.name for one in tree.walk(directory)]
    os.close(directory)
    assert sorted(found) == sorted(["a", "b", "c", "file"] * depth)
    files.remove_tree(str(tmp_path / "top"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "there"),
    [(errno.ENOENT, False), (errno.ENOTDIR, False), (errno.ELOOP, False), (errno.EACCES, False)]
    + [(number, None) for number in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)],
)  # fmt: skip
def test_an_error_that_proves_nothing_is_not_taken_for_gone(
    monkeypatch: pytest.MonkeyPatch, number: int, there: bool | None
) -> None:
    """gc would remove what is in use. No test can have the kernel say EIO of a file."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(posix, "stat", fail)
    if there is None:
        with pytest.raises(KernelError, match="look at /x"):
            files.is_directory("/x")
    else:
        assert files.is_directory("/x") is there


def test_a_directory_is_emptied_and_a_link_to_one_is_not(tmp_path: Path) -> None:
    """Somebody may have put the link there since it was looked at."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "link").symlink_to("kept")
    parent = os.open(tmp_path, os.O_RDONLY)
    removed: list[object] = []
    try:
        with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
            files.empty_at(parent, "link", lambda _, name: removed.append(name) or True)
        assert removed == []
        files.empty_at(parent, "kept", lambda _, name: removed.append(name) or True)
        assert removed == ["file"]
    finally:
        os.close(parent)


def test_a_file_of_ours_is_ours_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        files.write_file(f"{tmp_path}/a", b"x")
        files.make_private(f"{tmp_path}/b/c")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b", "b/c")]
    assert modes == [0o600, 0o700, 0o700]


def test_a_file_that_another_user_has_laid_in_the_way(tmp_path: Path) -> None:
    """In a directory that others may write to, the new file is not theirs, nor where their link leads."""
    laid, target = tmp_path / f"a.{os.getpid()}", tmp_path / "target"
    for lay in (laid.touch, lambda: laid.symlink_to(target), lambda: os.mkfifo(laid)):
        lay()
        # a second name keeps the inode, whose number a new file could have otherwise
        kept = tmp_path / "kept"
        os.link(laid, kept, follow_symlinks=False)
        files.write_file(f"{tmp_path}/a", b"secret")
        assert (tmp_path / "a").read_bytes() == b"secret"
        assert os.lstat(tmp_path / "a").st_ino != os.lstat(kept).st_ino
        assert not os.path.exists(target)
        kept.unlink()
        assert stat.S_IMODE(os.lstat(tmp_path / "a").st_mode) == 0o600
        assert not os.path.lexists(laid)


def test_a_file_of_sysbox_is_no_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("file")
    assert files.read_file(str(tmp_path / "link"), is_ours=False) is None
    (tmp_path / "file").write_text("text")
    assert files.read_file(str(tmp_path / "link"), is_ours=False) == b"text"
    with pytest.raises(FormatError, match="symbolic link"):
        files.read_file(str(tmp_path / "link"))
