"""What a good layer becomes: the same files as with GNU tar, and whiteouts as overlayfs has them."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from forked import needs_root
from layers import fixtures
from layers.builder import archive, binary, directory, entry, hard_link, long_name, pax, symlink

from sysbox.base.errors import FormatError
from sysbox.image import layer, tar
from sysbox.image.decompress import compression
from sysbox.image.source import MappedSource, Source, open_source
from sysbox.image.tar import LayerLimits

LIMITS = LayerLimits()
BIG = 1 << 40


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


def unpack(data: bytes, target: Path, *lower: Path) -> tuple[str, int]:
    """Unpack an archive from memory into a new directory."""
    target.mkdir()
    fd = os.memfd_create("layer")
    os.write(fd, data)
    kind = compression(data[:8])
    source = open_source(fd, kind, "the layer", BIG, "sha256:mapped")
    handles = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (target, *lower)]
    try:
        return layer.unpack(source, handles[0], LIMITS, handles[1:])
    finally:
        source.close()
        for handle in (fd, *handles):
            os.close(handle)


def sample(base: Path) -> Path:
    """A tree with one of everything."""
    tree = base / "sample"
    (tree / "usr" / "bin").mkdir(parents=True)
    (tree / "usr" / "bin" / "su").write_bytes(b"\x7fELF" * 1000)
    os.chown(tree / "usr" / "bin" / "su", 0, 42)
    (tree / "usr" / "bin" / "su").chmod(0o4755)
    os.link(tree / "usr" / "bin" / "su", tree / "usr" / "bin" / "su2")
    (tree / "bin").symlink_to("usr/bin")
    os.chown(tree / "bin", 1000, 1000, follow_symlinks=False)
    (tree / "tmp").mkdir()
    (tree / "tmp").chmod(0o1777)
    (tree / "mail").mkdir()
    os.chown(tree / "mail", 0, 8)
    (tree / "mail").chmod(0o2775)
    (tree / "mail" / "box").write_text("owned by root, not by the group of its directory")
    (tree / "empty").touch()
    (tree / "locked").mkdir(mode=0)
    (tree / "locked" / "in").write_text("x")
    (tree / ("n" * 200)).mkdir()
    (tree / ("n" * 200) / ("m" * 200)).write_text("a long name")
    (tree / "ünïcode\n").write_text("odd")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(tree / "empty", "user.note", b"kept")
    os.setxattr(tree / "tmp", "user.note", b"kept too")
    for directory_name, below, names in os.walk(tree, topdown=False):
        for name in [*names, *(one for one in below if os.path.islink(f"{directory_name}/{one}"))]:
            os.utime(f"{directory_name}/{name}", (1, 1_600_000_000), follow_symlinks=False)
        os.utime(directory_name, (1, 1_500_000_000))
    return tree


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
@pytest.mark.parametrize("compressor", ["cat", "gzip", "xz", "bzip2"])
def test_the_same_tree_as_packed(tmp_path: Path, form: str, compressor: str) -> None:
    tree = sample(tmp_path)
    options = ["--xattrs", "--xattrs-include=*"] if form == "pax" else []
    packed = subprocess.run(
        ["tar", "-C", tree, f"--format={form}", *options, "--numeric-owner", "-c", "."],
        capture_output=True,
        check=form != "ustar",  # ustar has no room for the longest names: tar leaves them out
    ).stdout
    data = subprocess.run([compressor], input=packed, capture_output=True, check=True).stdout
    diff_id, size = unpack(data, tmp_path / "out")
    expected, found = fixtures.tree(tree), fixtures.tree(tmp_path / "out")
    if form != "pax":
        expected = {path: values[:6] for path, values in expected.items()}  # type: ignore[misc]
        found = {path: values[:6] for path, values in found.items()}  # type: ignore[misc]
    if form == "ustar":
        expected = {path: values for path, values in expected.items() if "nnn" not in path}
    assert found == expected
    out = tmp_path / "out" / "usr" / "bin"
    assert (out / "su").stat().st_ino == (out / "su2").stat().st_ino
    assert size >= 4000
    if compressor != "cat":
        import hashlib

        assert diff_id == f"sha256:{hashlib.sha256(packed).hexdigest()}"


def test_pythons_own_archives(tmp_path: Path) -> None:
    tree = sample(tmp_path)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
            file.add(tree, ".")
        unpack(buffer.getvalue(), tmp_path / f"out{form}")
        found = fixtures.tree(tmp_path / f"out{form}")
        assert {p: v[:3] for p, v in found.items()} == {
            p: v[:3] for p, v in fixtures.tree(tree).items()
        }


def test_umask_changes_nothing_and_stays(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        unpack(archive(entry("f", mode=0o666), directory("d", 0o777)), tmp_path / "out")
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out" / "f").stat().st_mode) == 0o666
    assert stat.S_IMODE((tmp_path / "out" / "d").stat().st_mode) == 0o777


def test_whiteouts(tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack(
        archive(
            directory("etc"), entry("etc/.wh.motd"), directory("var"), entry("var/.wh..wh..opq"),
            entry("var/new", b"x"), entry(".wh.gone"),
        ),
        out,
    )  # fmt: skip
    for name in ("etc/motd", "gone"):
        status = (out / name).lstat()
        assert stat.S_ISCHR(status.st_mode)
        assert status.st_rdev == 0
    assert os.getxattr(out / "var", "trusted.overlay.opaque") == b"y"
    assert (out / "var" / "new").read_text() == "x"


def test_a_whiteout_and_a_directory_of_one_name(tmp_path: Path) -> None:
    """In either order: what is new shows, what lies below does not."""
    unpack(archive(entry(".wh.d"), directory("d"), entry("d/x", b"x")), tmp_path / "before")
    unpack(archive(directory("d"), entry("d/x", b"x"), entry(".wh.d")), tmp_path / "after")
    for name in ("before", "after"):
        assert os.getxattr(tmp_path / name / "d", "trusted.overlay.opaque") == b"y"
        assert (tmp_path / name / "d" / "x").read_text() == "x"


def test_overlayfs_agrees(tmp_path: Path) -> None:
    """Mounted over a lower layer, in a mount namespace of its own."""
    unpack(
        archive(
            directory("d"), entry("d/old", b"old"), entry("gone", b"x"), entry("kept", b"kept"),
            directory("w"), entry("w/old", b"old"),
        ),
        tmp_path / "low",
    )  # fmt: skip
    unpack(
        archive(
            entry(".wh.gone"), directory("d"), entry("d/.wh..wh..opq"), entry("d/new", b"new"),
            entry(".wh.w"), directory("w"),
        ),
        tmp_path / "high",
    )  # fmt: skip
    (tmp_path / "merged").mkdir()
    script = (
        f"mount -t overlay none -o ro,lowerdir={tmp_path}/high:{tmp_path}/low {tmp_path}/merged"
        f" && cd {tmp_path}/merged && find . | sort"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [".", "./d", "./d/new", "./kept", "./w"]


def test_implied_directories_take_after_the_layer_below(tmp_path: Path) -> None:
    low = tmp_path / "low"
    unpack(archive(directory("srv", 0o750, uid=7, gid=8), directory("srv/a", 0o700, uid=9)), low)
    out = tmp_path / "out"
    unpack(archive(entry("srv/a/f", b"x"), entry("new/f", b"x")), out, low)
    status = (out / "srv").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o750, 7, 8)
    status = (out / "srv" / "a").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, 9)
    assert stat.S_IMODE((out / "new").stat().st_mode) == 0o755


def test_capabilities_are_kept(tmp_path: Path) -> None:
    value = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw=ep, revision 2
    data = archive(
        pax(("SCHILY.xattr.security.capability", value)), entry("ping", b"x", mode=0o755, uid=5)
    )
    unpack(data, tmp_path / "out")
    assert os.getxattr(tmp_path / "out" / "ping", "security.capability") == value


def test_extended_fields_win(tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack(
        archive(
            pax(("path", "p" * 150), ("uid", "70000"), ("gid", "3000000000"), ("mtime", "5.25"),
                ("size", "2")),
            entry("short", b"ab", size=0),
            long_name(b"q" * 150), entry("short", b"cd"),
            pax(("path", "pax")), long_name(b"gnu"), entry("short", b"ef"),
            long_name(b"x" * 150, b"K"), entry("l", kind=b"2", link="short"),
            entry("big", b"gh", uid=binary(2_000_000, 8), mtime=binary(7, 12)),
        ),
        out,
    )  # fmt: skip
    status = (out / ("p" * 150)).stat()
    assert (status.st_uid, status.st_gid, status.st_mtime) == (70_000, 3_000_000_000, 5.25)
    assert (out / ("p" * 150)).read_text() == "ab"
    assert (out / ("q" * 150)).read_text() == "cd"
    assert (out / "pax").read_text() == "ef"
    assert (out / "l").readlink() == Path("x" * 150)
    assert (out / "big").stat().st_uid == 2_000_000


def test_a_later_entry_replaces_an_earlier(tmp_path: Path) -> None:
    out = tmp_path / "out"
    unpack(
        archive(
            directory("a"), entry("a/b", b"1"), symlink("a/c", "b"), entry("a", b"file"),
            entry("f", b"1"), directory("f"), entry("f/g", b"2"),
            entry("h", b"1"), hard_link("i", "h"), entry("h", b"2"),
            directory("m", 0o700), directory("m", 0o711),
        ),
        out,
    )  # fmt: skip
    assert (out / "a").read_text() == "file"
    assert (out / "f" / "g").read_text() == "2"
    assert ((out / "h").read_text(), (out / "i").read_text()) == ("2", "1")
    assert stat.S_IMODE((out / "m").stat().st_mode) == 0o711


def test_many_directories_at_once(tmp_path: Path) -> None:
    """More than a process may have open, and none of them listed."""
    names = [f"d{index}/{index}/{index}" for index in range(700)]
    unpack(archive(*(entry(f"{name}/f", b"x") for name in names)), tmp_path / "out")
    assert all((tmp_path / "out" / name / "f").exists() for name in names)


def test_an_error_names_the_entry() -> None:
    with pytest.raises(FormatError, match="evil"):
        layer.clean(b"a/../evil", LIMITS)
    assert tar.shown(b"\x1b[31m\nred") == r"'\\x1b[31m\\x0ared'"
    assert len(tar.shown(b"x" * 4000)) < 220


def test_reading_in_pieces() -> None:
    """Whatever sizes a decompressor hands out, the bytes are the same."""
    data = archive(entry("a", b"x" * 1000), entry("b", b"y"))
    for step in (1, 7, 511, 512, 513, 100_000):
        chunks = [data[at : at + step] for at in range(0, len(data), step)]
        source = Source(lambda _, c=chunks: c.pop(0) if c else b"", "x", BIG)  # type: ignore[misc]
        seen = [(one.name, one.size) for one in tar.headers(source, LIMITS)]
        assert seen == [(b"a", 1000), (b"b", 1)]
        assert source.drain().startswith("sha256:")
        assert source.position == len(data)


def test_a_mapped_file_may_be_closed_twice() -> None:
    fd = os.memfd_create("x")
    os.write(fd, bytes(2048))
    before = mapped()
    source = MappedSource(fd, 2048, "x", BIG, "sha256:x")
    assert mapped() == before + 1
    source.close()
    assert mapped() == before
    source.close()
    assert mapped() == before
    os.close(fd)


def mapped() -> int:
    """How many files in memory this process has mapped."""
    return Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").count("/memfd:x")
