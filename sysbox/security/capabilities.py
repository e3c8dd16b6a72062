"""Which capabilities a container's processes hold: an allowlist, `--cap-drop`, `--cap-add`.

An allowlist and never a drop list, so that a capability of a future kernel is dropped until it is listed.
The same mask becomes the bounding, permitted and effective sets of root. Inheritable and ambient stay empty,
since file capabilities could raise a non-empty inheritable set (CVE-2022-24769). Another user has of it only
what `--cap-add` names, as ambient capabilities: podman's rule. With docker such a user has none.
"""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.base.suggest import did_you_mean
from sysbox.linux import capability
from sysbox.spec import Security

# without NET_RAW: with it a container can forge ARP and intercept its neighbours' traffic. ping(8) works
# without it, by net.ipv4.ping_group_range (security/sysctls.py)
DEFAULT = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
)

ALL = "ALL"


def normalize(name: str) -> str:
    """A capability's name in upper case without CAP_: `SYS_ADMIN` from `cap_sys-admin`, or `ALL`.

    Raises SpecError for an unknown name; the hint names the nearest.
    """
    plain = name.strip().upper().replace("-", "_").removeprefix("CAP_")
    if plain == ALL or plain in capability.NAMES:
        return plain
    hint = did_you_mean(plain, (*capability.NAMES, ALL))
    raise SpecError(f"unknown capability '{name}'", hint=hint or "capabilities(7) lists them")


def resolve(security: Security, held: int | None = None, *, more: tuple[str, ...] = ()) -> int:
    """The capability mask of a container: bit N is capability N.

    `held` is the mask that sysbox can give; None asks the kernel. `more` is added to the defaults.
    Capabilities that sysbox lacks are silently left out of the defaults, `more`, ALL and `--privileged`.
    Raises Unsupported for one that `--cap-add` names and sysbox lacks, SpecError for an unknown name.
    """
    held = capability.grantable() if held is None else held
    adds = tuple(normalize(name) for name in security.cap_add)
    drops = tuple(normalize(name) for name in security.cap_drop)
    if security.privileged:
        return held & ~_mask(drops)
    # docker's rules: "add all, drop X" is everything but X; "drop all, add X" is only X
    base = (
        held
        if ALL in adds
        else 0
        if ALL in drops
        else _mask((*DEFAULT, *more, *security.cap_kept)) & held
    )
    named = _mask(adds)
    if named & ~held:
        raise _missing(named & ~held)
    return (base & ~_mask(drops)) | named


def of_users(security: Security, granted: int) -> int:
    """The mask of capabilities that a user other than root has, of those `granted` to the container."""
    adds = tuple(normalize(name) for name in security.cap_add)
    return granted if ALL in adds else granted & _mask(adds)


def _missing(mask: int) -> Unsupported:
    last = capability.last_cap()
    if absent := capability.names((mask >> (last + 1)) << (last + 1)):
        return Unsupported(
            f"cannot add the capability {' '.join(absent)}: this kernel does not have it",
            hint=f"its last one is {capability.names(1 << last)[0]}: leave out --cap-add",
        )
    return Unsupported(
        f"cannot add the capability {' '.join(capability.names(mask))}: sysbox itself does not hold it here",
        hint="run sysbox outside the container or service that removed it",
    )


def _mask(names: tuple[str, ...]) -> int:
    return capability.mask(tuple(name for name in names if name != ALL))
