"""`sysbox network connect` and `disconnect`."""

from __future__ import annotations

from sysbox.base.errors import NotFound
from sysbox.container import store
from sysbox.lifecycle import network_connect
from sysbox.parse.network import check_alias, complete
from sysbox.spec import Endpoint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

# flag -> field of Endpoint
_FLAGS = {
    "ip": "address",
    "ip6": "address6",
    "mac_address": "mac",
    "interface_name": "interface",
}


def main(values: Values) -> int:
    """0."""
    if values.verb.name == "network connect":
        network_connect.connect(store.find(values.container), _endpoint(values))
        return 0
    try:
        network_connect.disconnect(store.find(values.container), values.network)
    except NotFound:
        if not values.force:
            raise
    return 0


def _endpoint(values: Values) -> Endpoint:
    aliases = tuple(dict.fromkeys(check_alias(one, "--alias") for one in values.alias))
    found = Endpoint(network=values.network, aliases=aliases)
    for name, field in _FLAGS.items():
        if text := getattr(values, name):
            found = complete(found, {field: text}, "--" + name.replace("_", "-"))
    return found
