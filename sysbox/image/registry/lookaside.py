"""Fetch a file of a lookaside: a web server beside the registry that has the signatures of images.

See containers-registries.d(5). Credentials of registries are never sent there.
"""

from __future__ import annotations

from sysbox.image.registry import url
from sysbox.image.registry.answers import failure
from sysbox.image.registry.endpoint import Endpoint
from sysbox.image.registry.transport import Request, Transport


def fetch(address: str, limit: int) -> bytes | None:
    """The file at a URL, of at most `limit` bytes; None where there is none (404).

    Raises FormatError for more bytes or no URL, RegistryError, Unreachable.
    """
    target = url.parse(address, "lookaside")
    endpoint = Endpoint(
        registry=target.authority(),
        host=target.host,
        port=target.port,
        insecure=target.scheme == "http",
        scheme=target.scheme,
    )
    transport = Transport(endpoint)
    try:
        answer = transport.send(Request(method="GET", url=target))
        if answer.status == 404:
            answer.drop()
            return None
        if answer.status != 200:
            raise failure(answer, target.place())
        return answer.document(limit, target.place())
    finally:
        transport.close()
