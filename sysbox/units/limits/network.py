"""Plan with whom a container may exchange packets, and whether they are counted; called by plan.py.

systemd filters and counts by BPF programs on the scope's cgroup in the unified hierarchy, on a hybrid host
too: each packet that a socket of the scope sends or receives, whatever network the container has. Where it
cannot, a container's links are filtered (run/packet_lists.py), if it has links of its own.
"""

from __future__ import annotations

from sysbox.base.errors import Unsupported
from sysbox.parse.addresses import parse_networks, reduce
from sysbox.units.limits.properties import NETWORKS, Property

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts
    from sysbox.spec import Limits

LACK = "this host has no unified cgroup hierarchy, on which systemd filters and counts packets"
ADVICE = (
    "boot systemd with the hybrid or the unified hierarchy (systemd(1)); without either, --ip-deny needs a"
    " network of the container's own, at whose links it is applied"
)
OWN_LINKS = ("bridge", "none")  # modes of Namespaces.network with no links but the container's


def plan(limits: Limits, facts: HostFacts, properties: list[Property]) -> None:
    """Append properties for the limits. Raises SpecError and Unsupported that name the flag.

    The lists are properties on every host: where systemd does not act on them, it keeps them all the same.
    """
    for flag, texts, name in (
        ("--ip-allow", limits.ip_allow, "IPAddressAllow"),
        ("--ip-deny", limits.ip_deny, "IPAddressDeny"),
    ):
        if texts:
            networks = reduce(one for text in texts for one in parse_networks(text, flag))
            properties.append(Property(name=name, signature=NETWORKS, value=networks))
    if limits.ip_accounting:
        _require_unified(facts, "--ip-accounting")
        properties.append(Property(name="IPAccounting", signature="b", value=True))


def check_links(limits: Limits, facts: HostFacts, mode: str) -> None:
    """Raise Unsupported for lists that neither systemd nor a link's filter can apply.

    `mode` is that of Namespaces.network.
    """
    for flag, texts in (("--ip-allow", limits.ip_allow), ("--ip-deny", limits.ip_deny)):
        if texts and mode not in OWN_LINKS:
            _require_unified(facts, flag)


def _require_unified(facts: HostFacts, flag: str) -> None:
    if facts.cgroup_mode != "v2" and not facts.unified:
        raise Unsupported(f"{flag}: {LACK}", hint=ADVICE)
