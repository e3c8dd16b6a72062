"""Whether a declared unit waits for the network: DefaultDependencies= of [Quadlet]. Pure.

podman's generator makes each unit wait for network-online.target, which a host without its network reaches
after minutes or never. Here what always needs the network does: a build, and a pull unless it has
Policy=missing or never. A container whose image is missing waits when it starts (cli/unit_pull.py).
"""

from __future__ import annotations

from sysbox.units.quadlet.keys import QUADLET
from sysbox.units.quadlet.values import Section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion

_TARGET = "network-online.target"


def dependencies(made: Conversion) -> list[tuple[str, str]]:
    """The keys of [Unit] for it. Raises FormatError for what [Quadlet] cannot have."""
    section = Section(made.source, "Quadlet", QUADLET)
    if not section.is_true("DefaultDependencies", default=_needs(made)):
        return []
    return [("Wants", _TARGET), ("After", _TARGET)]


def _needs(made: Conversion) -> bool:
    if made.source.kind == "build":
        return True
    return made.source.kind == "image" and made.section.one("Policy") not in ("missing", "never")
