"""Volumes: directories that outlive containers, below paths.VOLUMES/<name>/_data."""

from __future__ import annotations

import posix

from sysbox.errors import KernelError
from sysbox.files import is_directory, make_private, remove_tree
from sysbox.paths import VOLUMES


def directory(name: str) -> str:
    """Where a volume's content is. The name has been checked: it has no slash."""
    return f"{VOLUMES}/{name}/_data"


def ensure(name: str) -> None:
    """Make a volume unless it is there. Raises KernelError."""
    path = directory(name)
    if is_directory(path):
        return
    make_private(f"{VOLUMES}/{name}")
    try:
        posix.mkdir(path, 0o755)
        posix.chmod(path, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise KernelError.of("mkdir", path, error) from None


def remove(name: str) -> None:
    """Remove a volume and its content; already gone is success."""
    remove_tree(f"{VOLUMES}/{name}")


def new_name() -> str:
    """The name of an anonymous volume."""
    return posix.urandom(32).hex()
