"""`sysbox port`: the published ports of a container."""

from __future__ import annotations

from sysbox.base.errors import NotFound
from sysbox.cli.output import line
from sysbox.container import store
from sysbox.container.status import read_networks
from sysbox.parse.common import bad, is_digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.spec import Port


def endpoint(port: Port) -> str:
    """ "0.0.0.0:8080": the host's address of a published port."""
    ip, number = port.host_ip or "0.0.0.0", port.host_text or "0"
    return f"[{ip}]:{number}" if ":" in ip else f"{ip}:{number}"


def main(values: Values) -> int:
    """0; docker's status 1 when the port that was asked for is not published."""
    record = store.find(values.container)
    _, ports = read_networks(record)
    if values.port is None:
        for port in ports:
            line(f"{port.container_port}/{port.protocol} -> {endpoint(port)}")
        return 0
    number, _, protocol = values.port.partition("/")
    if not is_digits(number):
        bad("port", values.port, "not PORT[/PROTOCOL]")
    found = [
        port
        for port in ports
        if str(port.container_port) == number and port.protocol == (protocol or "tcp")
    ]
    if not found:
        raise NotFound(f"no public port '{values.port}' published for {values.container}", status=1)
    for port in found:
        line(endpoint(port))
    return 0
