"""Where hosts on one network, embedded ones and the machine, tell each other what they have."""

from __future__ import annotations

from sysbox.base import paths
from sysbox.host import read_text

SHARED = f"{paths.RUN}/addresses"  # exists while an embedded host is on the machine's network
MACHINE = "machine."  # the machine's own name here; no embedded host can have it
_NAME = "/run/host/sysbox-host"  # on an embedded host, the file with its name


def own_name() -> str:
    """What this host is called here."""
    return read_text(_NAME).strip() or MACHINE
