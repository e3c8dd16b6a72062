"""What runs in a container's place opens nothing by a name: around it everything is the container's.

The child behind pivot_root(2) and the process that `exec` makes reach files by descriptors alone, or from a
root fd with openat2(RESOLVE_IN_ROOT), which linux/mount.py does for them.
"""

from __future__ import annotations

import ast

import pytest
import source

# what runs between the fork and the execve, with what it calls there
MODULES = (
    "sysbox.run.init", "sysbox.run.process", "sysbox.run.exec", "sysbox.run.handshake",
    "sysbox.linux.capability", "sysbox.linux.keyring", "sysbox.linux.landlock", "sysbox.linux.seccomp",
    "sysbox.security.environment", "sysbox.security.identity",
)  # fmt: skip
# functions of posix that take a path, and are harmless with `dir_fd` alone
NAMED = frozenset(
    """access chdir chflags chmod chown chroot getxattr lchown link listdir listxattr lstat mkdir mkfifo mknod
       open pathconf posix_spawn posix_spawnp readlink remove removexattr rename replace rmdir scandir
       setxattr stat statvfs symlink truncate unlink utime""".split()
)
# and of our own, whose paths may be "/" and "." but no name
OWN = frozenset("chroot mount pivot_root umount2 inotify_add_watch".split())


def by_name(tree: ast.Module) -> list[str]:
    """The calls that look a name up."""
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        below = any(word.arg in ("dir_fd", "src_dir_fd") for word in node.keywords)
        texts = [one.value for one in node.args if isinstance(one, ast.Constant)]
        names = [text for text in texts if isinstance(text, str) and text not in ("/", ".", "")]
        wrong = (
            (owner in ("posix", "os") and called in NAMED and not below)
            or (owner == "_sys" and called in OWN and bool(names))
            or (owner in ("", "io") and called == "open")
        )
        if wrong:
            found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return found


@pytest.mark.parametrize("module", MODULES)
def test_nothing_is_opened_by_name(module: str) -> None:
    found = by_name(source.tree(source.modules()[module]))
    assert not found, f"{module} opens by a name: {'; '.join(found)}"


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("posix.open('/dev/null', 0)", True),
        ("posix.chmod(name, 0o644)", True),
        ("open('/etc/passwd')", True),
        ("_sys.mount(None, '/proc', 'proc', 0, None)", True),
        ("posix.open('null', 0, dir_fd=made)", False),
        ("_sys.mount(None, '/', None, 0, None)", False),
        ("mount.open_in_root(root, '/etc/passwd', 0)", False),
    ],
)
def test_the_rule_itself(line: str, wrong: bool) -> None:
    assert bool(by_name(ast.parse(line))) is wrong
