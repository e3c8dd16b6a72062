"""Plan the files of secrets and credentials: on a tmpfs of the container's own, which is in no layer. Pure.

The plan has names, owners and places; the values come beside it (`Private` of `fs/secretfiles.py`), so that
neither `--dry-run` nor anything that is written down has them.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.fs.mountoptions import check_depth
from sysbox.linux import userns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.fs.sockets import Socket
    from sysbox.linux.userns import IdMap
    from sysbox.spec import ContainerSpec

SECRETS = "/run/secrets"
CREDENTIALS = "/run/host/credentials"  # as in systemd's container interface


class PrivateFile(Frozen):
    """One file; `path` is absolute, in the container."""

    key: str  # of its value
    path: str
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


class PrivateFiles(Frozen):
    """Files on a read-only tmpfs: those below `target` are there, each other one is mounted at its path."""

    target: str
    files: tuple[PrivateFile, ...]

    def describe(self) -> str:
        named = ", ".join(f"{one.path} mode {one.mode:04o}" for one in self.files)
        return f"mount tmpfs on {self.target} (ro,nosuid,nodev,noexec), values not shown: {named}"


class Credentials(Frozen):
    """The container's credentials on a read-only tmpfs, for its user alone; names come with the values."""

    target: str
    sought: tuple[str, ...]  # names and patterns

    def describe(self) -> str:
        return (
            f"mount tmpfs on {self.target} (ro,nosuid,nodev,noexec), values not shown: "
            f"{', '.join(self.sought)}"
        )


if TYPE_CHECKING:
    Special = PrivateFiles | Credentials | Socket  # operations of which most roots have none


def plan_secrets(
    spec: ContainerSpec, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]
) -> tuple[PrivateFiles, ...]:
    """The files of the container's secrets. Raises SpecError for an owner that its user namespace lacks."""
    files = []
    for one in spec.secrets:
        if one.kind != "mount":
            continue
        check_depth(one.target, f"secret {one.name}: target")
        userns.outside(uids, one.uid, f"the owner of secret {one.name}")
        userns.outside(gids, one.gid, f"the group of secret {one.name}")
        files.append(
            PrivateFile(
                key=key_of_secret(one.name),
                path=one.target,
                uid=one.uid,
                gid=one.gid,
                mode=one.mode,
            )
        )
    return (PrivateFiles(target=SECRETS, files=tuple(files)),) if files else ()


def plan_credentials(spec: ContainerSpec) -> tuple[Credentials, ...]:
    """The mount of the container's credentials."""
    sought = tuple(one.name for one in spec.credentials)
    return (Credentials(target=CREDENTIALS, sought=sought),) if sought else ()


def key_of_secret(name: str) -> str:
    """The key of a secret's value."""
    return f"secret {name}"
