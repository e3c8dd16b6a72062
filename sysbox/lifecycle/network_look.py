"""Look at networks, changing nothing: those that are defined, and those that always are there."""

from __future__ import annotations

from sysbox.conf import settings
from sysbox.container import pods, store
from sysbox.host import read_text
from sysbox.netns import networks
from sysbox.netns.network import BUILTIN, Network
from sysbox.netns.topology import network_of
from sysbox.spec import Bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def find(word: str) -> Network | str:
    """A network by its name or id; the name of a built-in one without a definition. Raises NotFound."""
    for name, network_id in BUILTIN.items():
        if word == name or (len(word) >= 4 and network_id.startswith(word)):
            return name
    return networks.find(word)


def builtin(name: str) -> Network:
    """A network without a definition."""
    if name == "bridge":
        return default_network()
    return Network(
        name=name, id=BUILTIN[name], driver="host" if name == "host" else "null", bridge=""
    )


def default_network() -> Network:
    """The network `bridge` as sysbox.conf and the host have it now."""
    chosen = settings.settings()
    return network_of(
        Bridge(name=chosen.bridge, subnet=chosen.subnet), read_text("/proc/net/route")
    )


def listed(damaged: list[str]) -> Iterable[Network]:
    """All networks, the built-in ones among them; `damaged` is given a line about each that is not."""
    yield default_network()
    for name in ("host", "none"):
        yield builtin(name)
    yield from networks.all_networks(damaged)


def users(name: str) -> list[str]:
    """The names of all containers and pods that are made for a network, running or not."""
    found = [(one.name, one.spec) for one in store.all_records()]
    found += [(one.name, one.spec) for one in pods.all_pods()]
    return [one for one, spec in found if any(each.network == name for each in spec.networks)]
