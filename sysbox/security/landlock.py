"""Decide what Landlock keeps from a container (`--security-opt landlock=on`). Pure.

Off by default: a process of `exec` has a domain of its own, and the kernel lets it neither trace processes of
another one nor look through /proc/PID/root, fd or environ there (landlock(7), "Ptrace restrictions"). Only by
being born in it does a process get into a domain. See docs/security.md.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.linux.capability import mask
from sysbox.linux.landlock import (
    IOCTL_DEV,
    LEAST,
    RESOLVE_UNIX,
    SCOPE_ABSTRACT_UNIX_SOCKET,
    SCOPE_SIGNAL,
    TRUNCATE,
    Domain,
    rights_of,
    scopes_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import Namespaces

FLAG = "--security-opt landlock=on"
# right or scope -> what it is about
_RIGHTS = {
    TRUNCATE: "truncate(2)",
    IOCTL_DEV: "ioctl(2) on devices",
    RESOLVE_UNIX: "connect(2) to sockets by path",
}
_SCOPES = {
    SCOPE_ABSTRACT_UNIX_SOCKET: "abstract sockets of the host",
    SCOPE_SIGNAL: "signals to processes of the host",
}


def plan(asked: Namespaces, bounding: int, version: int, *, booted: bool) -> Domain:
    """The domain of a container whose capabilities are at most `bounding`; `version`: of the kernel's ABI.

    Raises SpecError where the container is to mount, Unsupported.
    """
    if version < LEAST:
        have = f"this kernel's ABI is {version}" if version else "this kernel has no Landlock"
        raise Unsupported(
            f"{FLAG}: {have}",
            hint="Linux 5.19 or newer, with landlock in lsm=: see `sysbox doctor`",
        )
    if bounding & mask(("SYS_ADMIN",)) or booted:
        why = "systemd runs in it" if booted else "it has CAP_SYS_ADMIN"
        raise SpecError(
            f"{FLAG}: Landlock forbids mount(2) and pivot_root(2), and the container may need them: {why}",
            hint="leave out one of the two",
        )
    return Domain(rights=rights_of(version), scopes=_wanted(asked) & scopes_of(version))


def _wanted(asked: Namespaces) -> int:
    """The scopes, for what is reached in a namespace of the host's."""
    abstract = SCOPE_ABSTRACT_UNIX_SOCKET if asked.network == "host" else 0
    return abstract | (SCOPE_SIGNAL if asked.pid == "host" else 0)


def unrestricted(version: int, asked: Namespaces, *, newest: bool = True) -> tuple[str, ...]:
    """What a version of the ABI cannot keep from a container; () below LEAST, which `plan` refuses.

    Not `newest`: without what only Linux 7.1 and newer can.
    """
    if version < LEAST:
        return ()
    known = rights_of(version)
    lacking = _wanted(asked) & ~scopes_of(version)
    return (
        *(text for bit, text in _RIGHTS.items()
          if not known & bit and (newest or bit != RESOLVE_UNIX)),
        *(text for bit, text in _SCOPES.items() if lacking & bit),
    )  # fmt: skip


def describe(domain: Domain) -> str:
    """What the container keeps and what it can still reach, for `--dry-run`."""
    open_still = [text for bit, text in _RIGHTS.items() if not domain.rights & bit]
    closed = [text for bit, text in _SCOPES.items() if domain.scopes & bit]
    return "; ".join(
        (
            "landlock: what lies below /",
            *(f"no {one}" for one in closed),
            *(["this kernel cannot restrict " + ", ".join(open_still)] if open_still else []),
        )
    )
