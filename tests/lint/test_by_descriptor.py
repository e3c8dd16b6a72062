"""Where a container may change what a name means, nothing is changed or removed by name.

A container that shares a volume can put a symbolic link in the place of what was just made or looked at: a
mode that is set by name is the host's /etc/shadow's then. So the modules that work in such trees change an
entry through a descriptor of it, and add or remove names only in a directory that is open.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import source

# Modules that reach into a container's root, its writable layer, its volumes, or what an archive brings.
IN_TREES = """base.files base.tree build.content build.content_sources build.layers build.result
              build.root build.run_mounts content.copy content.extract content.layer content.root
              fs.changes fs.copyup fs.drivers.overlay fs.ops fs.place fs.secretfiles fs.treecopy fs.volumes
              image.layer image.layertree image.tarwriter lifecycle.gc lifecycle.prune
              run.exec run.init""".split()
# By name even with dir_fd: the last component is followed, or is another's hard link by now.
ATTRIBUTES = set("chmod lchmod chown lchown utime setxattr removexattr truncate".split())
# One name in an open directory is what it is: with dir_fd these are right.
NAMES = {
    **{name: {"dir_fd"} for name in "unlink rmdir remove mkdir mkfifo mknod symlink".split()},
    **{name: {"src_dir_fd", "dst_dir_fd"} for name in "rename replace link".split()},
}
NEVER = set("shutil tempfile pathlib".split())  # their helpers work by name
DESCRIPTORS = set("fd writer".split())  # what open descriptors are called as a first argument
# (module, function) -> why its paths are nobody else's to change.
EXCEPTIONS = {
    **{
        ("build.layers", name): "our own directories of the store, which root alone can enter"
        for name in ("directory", "take", "_unpacked", "settle")
    },
    **{
        ("build.result", name): "our own directories of the store, which root alone can enter"
        for name in ("_add_empty", "squash")
    },
    **{
        ("build.run_mounts", name): "below our own directories, which root alone can enter"
        for name in ("_copied", "_new_cache", "_ssh")
    },
    ("base.files", "make_private"): "our own directories, which root alone can enter",
    ("base.files", "write_file"): "our own files, in directories that root alone can enter",
    ("base.files", "unlink"): "our own files, in directories that root alone can enter",
    (
        "fs.sources",
        "make_directories",
    ): "a path of the host's that the user gave, and it is only made",
    (
        "fs.volumes",
        "ensure",
    ): "below the volumes, which root alone can enter; containers see _data only",
    ("fs.drivers.overlay", "prepare"): "a container's directory before the container is there",
    ("fs.drivers.overlay", "renew"): "a container's directory, which root alone can enter",
    ("image.layer", "_own"): "a layer before anybody but us can name it",
}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Every call in a file with the name of the outermost function (or method) around it."""

    def below(node: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            inner = function
            if not function and isinstance(child, ast.FunctionDef):
                inner = child.name
            if isinstance(child, ast.Call):
                yield inner, child
            yield from below(child, inner)

    return below(source.tree(path), "")


def by_name(call: ast.Call) -> str:
    """The call if it changes or removes something by name, "" if not."""
    function = call.func
    if not (isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name)):
        return ""
    origin, name = function.value.id, function.attr
    if origin in NEVER:
        return ast.unparse(call)
    if origin not in ("posix", "os"):
        return ""
    given = {keyword.arg for keyword in call.keywords}
    if name in ATTRIBUTES and not is_descriptor(call.args[0]):
        return ast.unparse(call)
    return ast.unparse(call) if name in NAMES and not NAMES[name] <= given else ""


def is_descriptor(argument: ast.expr) -> bool:
    """An open descriptor, or the path of one (`TreeEntry.path`)."""
    if isinstance(argument, ast.Attribute):
        return argument.attr == "path" and ast.unparse(argument.value) == "found"
    return isinstance(argument, ast.Name) and argument.id in DESCRIPTORS


def found_in(module: str) -> dict[str, list[str]]:
    """Function -> what it does by name."""
    found: dict[str, list[str]] = {}
    for function, call in calls(source.modules()[f"sysbox.{module}"]):
        if text := by_name(call):
            found.setdefault(function, []).append(text)
    return found


@pytest.mark.parametrize("module", IN_TREES)
def test_by_descriptor(module: str) -> None:
    wrong = {
        function: texts
        for function, texts in found_in(module).items()
        if (module, function) not in EXCEPTIONS
    }
    assert not wrong, f"{module} goes by name: {wrong}"


def test_no_exception_is_idle() -> None:
    idle = [pair for pair in EXCEPTIONS if pair[1] not in found_in(pair[0])]
    assert not idle


def test_what_counts() -> None:
    def says(text: str) -> bool:
        (statement,) = ast.parse(text).body
        assert isinstance(statement, ast.Expr)
        assert isinstance(statement.value, ast.Call)
        return by_name(statement.value) != ""

    assert says("posix.chmod(name, 0o755, dir_fd=parent)")
    assert says("posix.chown(name, 0, 0, dir_fd=parent, follow_symlinks=False)")
    assert says("posix.mkdir(path)")
    assert says("shutil.rmtree(name, dir_fd=parent)")
    assert says("posix.rename(one, other, src_dir_fd=parent)")
    assert not says("posix.chmod(found.path, 0o755)")
    assert not says("posix.fchmod(fd, 0o755)")
    assert not says("posix.setxattr(fd, key, value)")
    assert not says("posix.mkdir(name, dir_fd=parent)")
