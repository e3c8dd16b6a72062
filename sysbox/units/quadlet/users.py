"""Where declarations of ordinary users are (podman-systemd.unit(5)). Their containers are not started yet.

A user's directories are those of the caller's environment, /etc/containers/systemd/users, which is for
all users, and the directory there that is named after the uid.
"""

from __future__ import annotations

import posix

from sysbox.units.quadlet.sources import USERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BELOW = "containers/systemd"
_COMMON = (USERS, "/usr/share/containers/systemd/users")


class Places:
    """The directories of one set of declarations, which refer to each other."""

    def __init__(self, only: tuple[str, ...], tops: tuple[str, ...]) -> None:
        self.only = only  # without the directories below them
        self.tops = tops

    def have(self, path: str) -> bool:
        """Whether a file is in one of them."""
        above = path.rpartition("/")[0]
        return above in self.only or any(f"{path}/".startswith(f"{top}/") for top in self.tops)


def callers() -> Places:
    """Those of the caller's own environment."""
    found = []
    for variable, rest in (
        (b"XDG_RUNTIME_DIR", ""),
        (b"XDG_CONFIG_HOME", ""),
        (b"HOME", "/.config"),
    ):
        value = posix.environ.get(variable, b"").decode("utf-8", "surrogateescape")
        is_default = rest and posix.environ.get(b"XDG_CONFIG_HOME")
        if value.startswith("/") and not is_default:
            found.append(f"{value.rstrip('/')}{rest}/{_BELOW}")
    return Places((), tuple(found))


def common() -> Places:
    """Those for all users."""
    below = [f"{top}/{name}" for top in _COMMON for name in _listed(top) if not name.isdecimal()]
    return Places(_COMMON, tuple(one for one in below if not one.endswith(".d")))


def each() -> Iterator[Places]:
    """Those of single users."""
    uids = sorted({name for top in _COMMON for name in _listed(top) if name.isdecimal()}, key=int)
    for uid in uids:
        yield Places((), tuple(f"{top}/{uid}" for top in _COMMON))


def sets() -> Iterator[Places]:
    """All of them."""
    yield callers()
    yield common()
    yield from each()


def _listed(directory: str) -> list[str]:
    try:
        return sorted(posix.listdir(directory))
    except OSError:
        return []
