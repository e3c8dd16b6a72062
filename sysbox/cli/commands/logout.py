"""`sysbox logout`: forget the credentials of a registry, or of all."""

from __future__ import annotations

from sysbox.base.errors import UsageError
from sysbox.cli.output import line, note
from sysbox.image.registry import auth_file, conf
from sysbox.image.registry.credentials import Chain, registry_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values


def main(values: Values) -> int:
    """0, also where there was nothing to forget, as with docker."""
    path = auth_file.place(values.authfile or "")
    if values.all:
        if values.registry:
            raise UsageError("logout: --all takes no registry")
        count = auth_file.remove_all(path)
        line(f"Removed the credentials of {count} registries from {path}")
        return 0
    key = registry_of(values.registry or "docker.io")
    if auth_file.remove(path, key):
        line(f"Removing login credentials for {key}")
    else:
        line(f"Not logged in to {key}")
    host, _, repository = key.partition("/")
    endpoint = conf.registry(host).replace(repository=repository)
    left = Chain(values.authfile or "").find(endpoint)
    if left:
        note(f"{left.source} still has credentials for {key}: they are used from now on")
    return 0
