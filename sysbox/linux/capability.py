"""Capability sets as masks: bit N is capability N. capabilities(7)."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError, SpecError
from sysbox.base.frozen import Frozen
from sysbox.linux import _sys

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
_NUMBERS = {name: index for index, name in enumerate(NAMES)}

_BITS = 64  # in a set
_PR_SET_KEEPCAPS = 8
_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP = 28, 4  # securebits.h
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4


class Sets(Frozen):
    """The five sets of a process, as masks (capabilities(7), "Thread capability sets")."""

    bounding: int = 0
    permitted: int = 0
    effective: int = 0
    # must be empty for a container's first process: file capabilities could raise it (CVE-2022-24769)
    inheritable: int = 0
    ambient: int = 0  # a subset of permitted and inheritable


def number(name: str) -> int:
    """The number of a capability, with or without CAP_, in any case. Raises SpecError."""
    plain = name.upper().removeprefix("CAP_")
    if plain not in _NUMBERS:
        raise SpecError(f"unknown capability '{name}'", hint="capabilities(7) lists them")
    return _NUMBERS[plain]


def mask(names: tuple[str, ...]) -> int:
    """The mask of some capabilities. Raises SpecError for an unknown name."""
    total = 0
    for name in names:
        total |= 1 << number(name)
    return total


def names(mask: int) -> tuple[str, ...]:
    """The capabilities in a mask, in the kernel's order; one that is newer than NAMES as its number."""
    return tuple(
        NAMES[bit] if bit < len(NAMES) else str(bit)
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    )


def last_cap() -> int:
    """The highest capability of this kernel, found by prctl(2): /proc may not be mounted.

    Raises KernelError where a seccomp filter answers in the kernel's place.
    """
    last = len(NAMES) - 1
    while last >= 0 and not _known(last):
        last -= 1
    while last < _BITS and _known(last + 1):
        last += 1
    if not 0 <= last < _BITS:
        raise KernelError("ask for the capabilities of this kernel", "", errno.EPERM)
    return last


def _known(capability: int) -> bool:
    """Whether the kernel has a capability.

    Raises KernelError for any error but EINVAL, the only one of the kernel itself (prctl(2)).
    """
    try:
        _sys.prctl(_PR_CAPBSET_READ, capability)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise KernelError.of("ask for the capabilities of this kernel", "", error) from None
        return False
    return True


def grantable(*, own_namespace: bool = False) -> int:
    """Mask of the capabilities that this process can give to a container: bounding and permitted.

    In a user namespace of its own the first process has all (user_namespaces(7)).
    """
    if own_namespace:
        return (1 << last_cap() + 1) - 1
    bounding = 0
    for capability in range(last_cap() + 1):
        bounding |= _sys.prctl(_PR_CAPBSET_READ, capability) << capability
    return bounding & _sys.capget()[1]


def keep_caps() -> None:
    """Keep the permitted set across the next change from uid 0 to another. Raises KernelError."""
    try:
        _sys.prctl(_PR_SET_KEEPCAPS, 1)
    except OSError as error:
        raise KernelError.of("keep the capabilities", "", error) from None


def act_as(uid: int, gid: int) -> None:
    """Change the effective ids and keep all capabilities, by the securebits (capabilities(7)).

    Raises KernelError.
    """
    try:
        _sys.prctl(_PR_SET_SECUREBITS, _SECBIT_NO_SETUID_FIXUP)
        posix.setresgid(-1, gid, -1)
        posix.setresuid(-1, uid, -1)
    except OSError as error:
        raise KernelError.of("act as", f"the user {uid}", error) from None


def drop_bounding(keep_mask: int) -> None:
    """Drop all but `keep_mask` from the bounding set; needs CAP_SETPCAP. Raises KernelError."""
    for capability in range(last_cap() + 1):
        if keep_mask >> capability & 1 or not _sys.prctl(_PR_CAPBSET_READ, capability):
            continue
        try:
            _sys.prctl(_PR_CAPBSET_DROP, capability)
        except OSError as error:
            name = names(1 << capability)[0]
            raise KernelError.of("drop from the bounding set", name, error) from None


def docker_sets(mask: int) -> Sets:
    """docker's sets for a process that may have `mask`: bounding, permitted, effective; no inheritable."""
    return Sets(bounding=mask, permitted=mask, effective=mask)


def user_sets(bounding: int, mask: int) -> Sets:
    """The sets of a process whose user is not root: `mask` is ambient, since execve(2) takes what is not."""
    return Sets(bounding=bounding, permitted=mask, effective=mask, inheritable=mask, ambient=mask)


def apply(sets: Sets) -> None:
    """Set the calling thread's sets except the bounding set (see `drop_bounding`).

    Raises KernelError; EPERM for a capability that is not in its permitted set.
    """
    try:
        _sys.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _sys.capset(sets.effective, sets.permitted, sets.inheritable)
        for capability in range(sets.ambient.bit_length()):
            if sets.ambient >> capability & 1:
                _sys.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)
    except OSError as error:
        raise KernelError.of(
            "set the capabilities", " ".join(names(sets.permitted)), error
        ) from None
