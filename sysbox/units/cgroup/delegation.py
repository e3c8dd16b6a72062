"""The cgroups of a scope that systemd inside the container may make: who owns them, and how many."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError
from sysbox.host import exists
from sysbox.linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

_DESCENDANTS = "cgroup.max.descendants"
MAX_DESCENDANTS = 1024  # for systemd in a container: one per unit, some ten per nested container
_DELEGATED = ("cgroup.procs", "tasks", "cgroup.threads", "cgroup.subtree_control")


def bound_descendants(path: str, facts: HostFacts) -> None:
    """Limit how many cgroups a container can make below its scope's, if it may make any. Raises KernelError.

    On v2 and in the unified tree beside v1. v1 hierarchies have no such limit: there the kernel charges each
    cgroup to the container's memory (since Linux 6.0), which -m limits. Inside the file is read-only.
    """
    unified = facts.unified if facts.cgroup_mode == "v1" else facts.controllers["name=systemd"]
    directory = unified + path
    if unified and exists(f"{directory}/{_DESCENDANTS}"):
        cgroup.write(directory, _DESCENDANTS, str(MAX_DESCENDANTS))


def give(path: str, facts: HostFacts, owner: tuple[int, int]) -> None:
    """Let the host's (uid, gid) `owner` make cgroups below a scope's, where systemd inside does so.

    Only what moves processes and makes cgroups, no limit (cgroups(7), "Cgroups delegation"). Raises
    KernelError.
    """
    hierarchies = {facts.controllers["name=systemd"], facts.unified} - {""}
    for directory in (f"{one}{path}" for one in hierarchies):
        for name in ("", *_DELEGATED):
            try:
                posix.chown(f"{directory}/{name}", *owner)
            except FileNotFoundError:
                pass  # of the other version
            except OSError as error:
                raise KernelError.of("chown", f"{directory}/{name}", error) from None
