"""Translate the options of one mount to the kernel's flags. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.files import DEPTH
from sysbox.linux.mount import (
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_PRIVATE,
    MS_SHARED,
    MS_SLAVE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import Mount

_NOTHING = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
_PROPAGATION = {
    "private": MS_PRIVATE, "rprivate": MS_PRIVATE,
    "slave": MS_SLAVE, "rslave": MS_SLAVE,
    "shared": MS_SHARED, "rshared": MS_SHARED,
}  # fmt: skip
_FLAG_OPTIONS = {
    "nosuid": MOUNT_ATTR_NOSUID,
    "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC,
    "noatime": MOUNT_ATTR_NOATIME,
    "nodiratime": MOUNT_ATTR_NODIRATIME,
    "strictatime": MOUNT_ATTR_STRICTATIME,
}
_TMPFS_OPTIONS = ("size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "huge")  # tmpfs(5)
_IGNORED_OPTIONS = (
    "rw",
    "ro",
    "suid",
    "dev",
    "exec",
    "relatime",
    "z",
    "Z",
    "bind",
    "rbind",
    "nocopy",
    "consistent",
    "cached",
    "delegated",
    "idmap",
    "noidmap",
    "U",
)


def parse_options(mount: Mount) -> tuple[int, int, tuple[tuple[str, str], ...]]:
    """(attributes, propagation, options of the file system). Raises SpecError for an unknown one."""
    attributes = MOUNT_ATTR_RDONLY if mount.read_only else 0
    propagation = MS_PRIVATE
    options: dict[str, str] = {}
    if ids_of(mount) not in ("", "idmap"):
        # a file of set-user-ID is run as who owns it on disk, and here that may be another: chown(2), which
        # podman uses, clears that bit
        attributes |= MOUNT_ATTR_NOSUID
    if mount.kind == "tmpfs":
        # docker's defaults are noexec, nosuid and nodev; "exec", "suid" and "dev" each clear one
        attributes |= _NOTHING
        options["mode"] = "1777"
    for option in mount.options:
        key, _, value = option.partition("=")
        if key in _PROPAGATION:
            propagation = _PROPAGATION[key]
        elif key in _FLAG_OPTIONS:
            attributes |= _FLAG_OPTIONS[key]
        elif f"no{key}" in _FLAG_OPTIONS:
            attributes &= ~_FLAG_OPTIONS[f"no{key}"]
        elif key in _TMPFS_OPTIONS and mount.kind == "tmpfs":
            options[key] = value
        elif key not in _IGNORED_OPTIONS:
            raise SpecError(
                f"mount {mount.target}: unknown option '{option}'",
                hint="known: ro, rw, nosuid, nodev, noexec, [r]private, [r]slave, [r]shared, size=, mode=",
            )
    return attributes, propagation, tuple(options.items())


def ids_of(mount: Mount) -> str:
    """How the ids of a mount are mapped, if that was asked: idmap, idmap=..., U; else ""."""
    found = [one for one in mount.options if one == "U" or one.partition("=")[0] == "idmap"]
    return max(found, key=len, default="") if "U" not in found else "U"


def check_depth(path: str, what: str) -> None:
    """Raises SpecError for a path in the container with more than DEPTH directories."""
    if path.count("/") > DEPTH:
        raise SpecError(f"{what} {path[:60]}...: more than {DEPTH} directories deep")
