"""The kernel's list of AppArmor profiles, and the profile of a process. apparmor(7)."""

from __future__ import annotations

import errno
import posix

from sysbox.base.errors import KernelError
from sysbox.base.look import read_text
from sysbox.linux import lsm

LIST = "/sys/kernel/security/apparmor/profiles"
_MAX = 4 << 20  # bytes of the list
_LONGEST = 4096  # bytes of a name: the kernel shows at most a page
_CONFINED = (
    "sysbox has a profile itself (`cat /proc/self/attr/current`), which must allow it by change_profile;"
    " --security-opt apparmor=unconfined gives the container that of sysbox"
)
_HINTS = {
    errno.ENOENT: "`apparmor_parser -r FILE` loads it again",
    errno.EACCES: _CONFINED,
    errno.EPERM: _CONFINED,  # with no_new_privs
}


def loaded() -> dict[str, str]:
    """The profiles that the kernel has, and their modes: enforce, kill, complain, unconfined, prompt.

    None where its list cannot be read.
    """
    # "NAME (enforce)"
    found = (line.rpartition(" (") for line in read_text(LIST, _MAX).split("\n") if line)
    return {name: mode.rstrip(")") for name, _, mode in found}


def profile_of(pid: int) -> str:
    """The profile of a process, "unconfined" without one; "" where AppArmor is not active."""
    text = read_text(f"/proc/{pid}/attr/apparmor/current", _LONGEST).rstrip("\n\0")
    return text.rpartition(" (")[0] if text.endswith(")") else text


def enter_at_exec(procfs: int, profile: str) -> None:
    """Have this process, or a child of it, take a profile with its next execve(2). `procfs` is the host's.

    A process that no profile confines may do so with no_new_privs too (aa_change_profile() of the kernel's
    source). Raises KernelError.
    """
    fd = lsm.open_exec_label(procfs, lsm.APPARMOR)
    try:
        lsm.write(fd, f"exec {profile}")
    except KernelError as error:
        hint = _HINTS.get(error.errno, "")
        raise KernelError("take the AppArmor profile", profile, error.errno, hint=hint) from None
    finally:
        posix.close(fd)
