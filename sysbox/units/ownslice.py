"""sysbox.slice, which holds the supervisors and health checks of containers. They run outside the containers'
limits, so the slice has less CPU weight than all containers together.
"""

from __future__ import annotations

from sysbox.base.files import write_file
from sysbox.host import exists

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

NAME = "sysbox.slice"
# as systemd/system/sysbox.slice, which a distribution's package installs
TEXT = """\
[Unit]
Description=Supervisors and health checks of sysbox containers
Before=slices.target

[Slice]
CPUWeight=50
"""
_DIRECTORY = "/run/systemd/system"
_OTHERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")


def ensure(facts: HostFacts) -> None:
    """Write the slice's unit file below /run if there is none, before the first unit in the slice starts.

    An administrator's file, or drop-in, overrides it. Raises KernelError.
    """
    if exists(f"{facts.controllers.get('name=systemd', '')}/{NAME}"):
        return  # the slice is active: too late, or already done
    if not any(exists(f"{directory}/{NAME}") for directory in (*_OTHERS, _DIRECTORY)):
        write_file(f"{_DIRECTORY}/{NAME}", TEXT.encode(), 0o644)
