"""`sysbox publish` and `sysbox unpublish`: change the published ports of a container, also while it runs."""

from __future__ import annotations

from sysbox.cli.commands.port import endpoint
from sysbox.cli.output import line
from sysbox.container import store
from sysbox.lifecycle import publish as publishing
from sysbox.parse.network import parse_host_port, parse_port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.spec import Port


def main(values: Values) -> int:
    """0; prints each port as `sysbox port` does."""
    record = store.find(values.container)
    ports: tuple[Port, ...] = ()
    if values.verb.name == "publish":
        for text in values.port:
            ports += parse_port(text, "port")
        for port in publishing.publish(record, tuple(dict.fromkeys(ports))):
            line(f"{port.container_port}/{port.protocol} -> {endpoint(port)}")
        return 0
    for text in values.port:
        ports += parse_host_port(text, "port")
    publishing.unpublish(record, tuple(dict.fromkeys(ports)))
    return 0
