"""Which capabilities a container's processes hold: an allowlist, `--cap-drop`, `--cap-add`.

An allowlist and never a drop list, so that a capability which a future kernel adds starts dropped.
The same mask becomes the bounding, permitted and effective sets; inheritable and ambient stay
empty, since a non-empty inheritable set lets file capabilities raise it (CVE-2022-24769).
"""

from __future__ import annotations

from sysbox.base.errors import SpecError, Unsupported
from sysbox.base.suggest import did_you_mean
from sysbox.linux import capability
from sysbox.spec import Security

# without NET_RAW: whoever can forge ARP takes a neighbour's traffic. ping(8) needs none where its group may
# (security/sysctls.py)
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
    """`cap_sys-admin`, `SYS_ADMIN`, `all` -> `SYS_ADMIN`, `ALL`.

    Raises SpecError, with the nearest name, for one that no kernel has.
    """
    plain = name.strip().upper().replace("-", "_").removeprefix("CAP_")
    if plain == ALL or plain in capability.NAMES:
        return plain
    hint = did_you_mean(plain, (*capability.NAMES, ALL))
    raise SpecError(f"unknown capability '{name}'", hint=hint or "capabilities(7) lists them")


def resolve(security: Security, held: int | None = None, *, more: tuple[str, ...] = ()) -> int:
    """The capability mask of a container, bit N being capability N.

    `held` is what the caller can hand on, None asks the kernel. What it lacks is silently left out
    of the defaults, of `more`, which are added to them, of ALL and of `--privileged`, which mean "as
    much as there is". Raises
    Unsupported for a capability that `--cap-add` names and the host cannot give, SpecError for an
    unknown name.
    """
    held = capability.held() if held is None else held
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
        missing = " ".join(capability.names(named & ~held))
        raise Unsupported(
            f"cannot add the capability {missing}: sysbox itself does not hold it here",
            hint="run sysbox outside the container or service that took it away",
        )
    return (base & ~_mask(drops)) | named


def _mask(names: tuple[str, ...]) -> int:
    return capability.mask(tuple(name for name in names if name != ALL))
