"""The flags of the verbs that talk to registries, as the fields of `image.registry.access`."""

from __future__ import annotations

from sysbox.parse.common import parse_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values

_MOST_RETRIES = 100


def access(values: Values) -> dict[str, Any]:
    """Those that all of these verbs have."""
    return {
        "authfile": values.authfile or "",
        "certificates": values.cert_dir or "",
        "insecure": not values.tls_verify,
    }


def transfer(values: Values) -> dict[str, Any]:
    """Those of `pull` and `push`. Raises SpecError."""
    found = access(values)
    if values.retry is not None:
        found["retries"] = parse_int(values.retry, "--retry", 0, _MOST_RETRIES)
    return {**found, "creds": values.creds or ""}
