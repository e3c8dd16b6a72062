"""sysbox.slice, in which all that looks after containers runs: outside of their limits, so with less weight
than they have together.
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
Description=What looks after sysbox containers: supervisors, and health checks being made
Before=slices.target

[Slice]
CPUWeight=50
"""
_DIRECTORY = "/run/systemd/system"
_OTHERS = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")


def ensure(facts: HostFacts) -> None:
    """Write its unit file where there is none, before the first unit in it starts: until the next boot.

    An administrator's file, or drop-in, wins over it. Raises KernelError.
    """
    if exists(f"{facts.controllers.get('name=systemd', '')}/{NAME}"):
        return  # it is active: too late, or done
    if not any(exists(f"{directory}/{NAME}") for directory in (*_OTHERS, _DIRECTORY)):
        write_file(f"{_DIRECTORY}/{NAME}", TEXT.encode(), 0o644)
