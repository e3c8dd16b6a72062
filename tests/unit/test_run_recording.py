"""What is beside the recorder (sysbox/run/recording.py): its table, and the directory of the file."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest
from forked import in_child

from sysbox.base.errors import FormatError, KernelError, SpecError
from sysbox.linux import _sys
from sysbox.linux.namespace import CLONE_NEWNS
from sysbox.run import recording


def test_the_blocks_of_the_table_are_allocated(tmp_path: Path) -> None:
    table = tmp_path / "calls"
    for noted in (bytes(8), b"a call's"):
        os.close(recording._open_table(str(table)))
        found = table.stat()
        assert found.st_blocks * 512 >= recording.SIZE
        assert found.st_size > recording.SIZE
        assert table.read_bytes()[:8] == noted
        # an earlier run's, whose recorder has taken its mark away
        table.write_bytes(b"a call's" + bytes(recording.SIZE - 8))


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [("tmpfs", "size=64k", errno.ENOSPC), ("ramfs", None, 0)],
    ids=["full", "without-fallocate"],
)
def test_a_disk_for_the_table(
    tmp_path: Path, kind: str, options: str | None, expected: int
) -> None:
    def make() -> tuple[int, bool]:
        _sys.mount(kind, str(tmp_path), kind, 0, options)
        table = f"{tmp_path}/calls"
        try:
            os.close(recording._open_table(table))
        except KernelError as error:
            return error.errno, "make the recorder's table" in error.message
        return 0, os.stat(table).st_size > recording.SIZE

    assert in_child(make, CLONE_NEWNS) == (expected, True)


def test_a_limit_of_file_sizes_is_named(tmp_path: Path) -> None:
    def make() -> tuple[int, str]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            recording._open_table(f"{tmp_path}/calls")
        except KernelError as error:
            return error.errno, error.hint
        return 0, ""

    number, hint = in_child(make)
    assert number == errno.EFBIG
    assert "131080 bytes: raise `ulimit -f`" in hint


@pytest.mark.parametrize("path", ["/proc/made.json", "/sys/made.json"], ids=["proc", "sys"])
def test_a_file_system_of_the_kernel_is_refused(path: str) -> None:
    with pytest.raises(SpecError, match="is in a file system of the kernel"):
        recording.check(path)


def test_a_removed_directory_is_another_though_its_inode_is_used_again(tmp_path: Path) -> None:
    above = tmp_path / "above"
    places = []
    for _ in range(20):
        above.mkdir()
        places.append(recording.check(f"{above}/made.json"))
        above.rmdir()
    for at, one in enumerate(places):
        assert one not in places[at + 1 :]


def test_where_the_profile_is_written(tmp_path: Path) -> None:
    path = tmp_path / "made.json"
    device, inode, handle, born = recording.check(str(path))
    assert handle or born
    for other in ([device, inode, "00", born], [device, inode, handle, born + 1], [], None):
        with pytest.raises(FormatError, match="not the one of the start any more"):
            recording._put(str(path), b"{}", other)  # type: ignore[arg-type]
        assert not os.listdir(tmp_path)
    # what an older version has noted of a container that runs now
    for known in ([device, inode], [device, inode, handle, born]):
        recording._put(str(path), b"{}", known)
        path.unlink()
