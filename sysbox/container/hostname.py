"""The host name of a container."""

from __future__ import annotations

from sysbox.base.errors import NotFound
from sysbox.container import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record


def own_hostname(record: Record) -> str:
    """The host name of the container's own UTS namespace; "" where it has none."""
    return hostname_of(record) if record.spec.namespaces.uts == "private" else ""


def hostname_of(record: Record) -> str:
    """The container's host name; "" where it has the host's. A container that shares another's network has
    that one's name, as in docker: the name belongs to the address.
    """
    spec = record.spec
    uts, network = spec.namespaces.uts, spec.namespaces.network
    other = uts if uts.startswith("container:") else ""
    if uts == "private":
        if spec.hostname:
            return spec.hostname
        other = network if network.startswith("container:") else ""
        own = record.id[:12]
    elif spec.pod:
        from sysbox.container import pods  # few containers are in one

        return pods.hostname_of(uts)
    else:
        own = ""
    if not other:
        return own
    try:
        return hostname_of(store.find(other.removeprefix("container:"))) or own
    except NotFound:
        return own  # the other was removed while this one runs
