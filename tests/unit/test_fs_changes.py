"""diff: what is in a writable layer, made by overlayfs itself, against the layers below."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked import needs_root

from sysbox.fs import changes
from sysbox.fs.changes import Layers

TARGETS = ("/proc", "/etc/hosts", "/data/deep/point", "/run/socket", "/var/run/inner")


@pytest.fixture(autouse=True)
def root() -> None:
    needs_root()


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Two layers below and an empty one above."""
    low, high = tmp_path / "low", tmp_path / "high"
    for path in ("etc", "keep/sub", "gone", "opaque", "var", "both"):
        (low / path).mkdir(parents=True)
    for path in ("etc/passwd", "keep/sub/file", "gone/a", "opaque/old", "opaque/same", "both/low"):
        (low / path).write_text(path)
    (low / "var" / "run").symlink_to("/run")
    (low / "run").mkdir()
    (low / "hidden").write_text("hidden by the layer above it")
    (high / "both").mkdir(parents=True)
    (high / "both" / "high").write_text("high")
    os.mknod(high / "hidden", 0o020000, 0)
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    return tmp_path


def run(base: Path, script: str) -> None:
    """A script in the merged tree, in a mount namespace of its own."""
    layers = f"lowerdir={base}/high:{base}/low,upperdir={base}/upper,workdir={base}/work"
    mounted = f"mount -t overlay overlay -o {layers} {base}/merged && cd {base}/merged\n{script}"
    subprocess.run(["unshare", "-m", "sh", "-euc", mounted], check=True)


@contextmanager
def layers(base: Path) -> Iterator[tuple[int, Layers]]:
    fds = [os.open(base / name, os.O_RDONLY) for name in ("upper", "high", "low")]
    yield fds[0], Layers(fds[1:])
    for fd in fds:
        os.close(fd)


def lines(base: Path, targets: tuple[str, ...] = TARGETS) -> list[str]:
    """As `diff` prints them."""
    with layers(base) as (upper, lower):
        ours = changes.placeholders(upper, lower, targets)
        return [f"{one.kind} {one.path}" for one in changes.changes(upper, lower, ours)]


CASES = {
    "nothing": ("true", []),
    "a new file": ("echo x >new", ["A /new"]),
    "in a directory": ("echo x >keep/sub/new", ["C /keep", "C /keep/sub", "A /keep/sub/new"]),
    "another content": ("echo x >>etc/passwd", ["C /etc", "C /etc/passwd"]),
    "another owner": ("chown 5 etc/passwd", ["C /etc", "C /etc/passwd"]),
    "a mode of a directory": ("chmod 700 keep", ["C /keep"]),
    "opened and not changed": ("exec 5<>etc/passwd", []),
    "a file deleted": ("rm etc/passwd", ["C /etc", "D /etc/passwd"]),
    "a tree deleted": ("rm -r gone", ["D /gone"]),
    "made and deleted": ("mkdir t; touch t/x; rm -r t", []),
    "a new tree": ("mkdir -p n/m; touch n/m/x", ["A /n", "A /n/m", "A /n/m/x"]),
    "deleted and made anew": (
        "cp -a opaque/same ../same; rm -r opaque; mkdir opaque; cp -a ../same opaque; touch opaque/new",
        ["C /opaque", "A /opaque/new", "D /opaque/old"],
    ),
    "a file instead of a directory": ("rm -r gone; echo x >gone", ["C /gone"]),
    "a directory instead of a file": (
        "rm etc/passwd; mkdir etc/passwd; touch etc/passwd/x",
        ["C /etc", "C /etc/passwd", "A /etc/passwd/x"],
    ),
    "hidden in the image": ("echo x >hidden", ["A /hidden"]),
    "of either layer": (
        "rm both/low; rm both/high; touch both/new",
        ["C /both", "D /both/high", "D /both/low", "A /both/new"],
    ),
    "a merged directory deleted": ("rm -r both", ["D /both"]),
    "renamed": ("mv etc/passwd etc/shadow", ["C /etc", "D /etc/passwd", "A /etc/shadow"]),
    "where something was mounted": (
        "mkdir -p proc data/deep/point; touch etc/hosts run/socket; mkdir run/inner", []
    ),
    "and something was put there": (
        "mkdir -p proc data/deep/point; echo x >etc/hosts; touch data/deep/mine",
        ["C /etc", "A /etc/hosts", "A /data", "A /data/deep", "A /data/deep/mine"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_changes(base: Path, case: str) -> None:
    script, expected = CASES[case]
    run(base, script)
    assert lines(base) == sorted(expected, key=lambda one: one[2:])


def test_a_directory_of_the_image_is_no_placeholder(base: Path) -> None:
    run(base, "rm etc/passwd; chmod 700 etc")
    assert lines(base, ("/etc",)) == ["C /etc", "D /etc/passwd"]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/etc/x", "/etc/x"),
        ("/var/run/x", "/run/x"),
        ("/var/../etc", "/etc"),
        ("/loop/x", "/loop/x"),
        ("/up/x", "/x"),
        ("/../..", "/"),
    ],
)
def test_links_of_the_image_are_followed_inside(base: Path, path: str, expected: str) -> None:
    (base / "low" / "loop").symlink_to("loop")
    (base / "low" / "up").symlink_to("../../..")
    with layers(base) as (_, lower):
        assert changes.resolve(path, lower) == expected
