"""A secret in the shape of podman's `inspect`, which docker's is a part of; never its value."""

from __future__ import annotations

import time

from sysbox.container import secrets
from sysbox.docker.human import human_duration
from sysbox.docker.shapes import Strings, Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.secrets import Secret


def describe(word: str) -> dict[str, Any]:
    """What is known of a secret, by its name or id. Raises NotFound, Conflict, FormatError."""
    found = secrets.find(word)
    return Struct(
        {
            "ID": found.id,
            "CreatedAt": _timestamp(found.created_ns),
            "UpdatedAt": _timestamp(found.updated_ns),
            "Spec": {
                "Name": found.name,
                "Driver": {"Name": found.kept, "Options": Strings()},
                "Labels": Strings(found.labels),
            },
        }
    )


def row(found: Secret) -> dict[str, Any]:
    """One line of the listing, under docker's keys."""
    now = time.time()
    return {
        "ID": found.id,
        "Name": found.name,
        "Driver": found.kept,
        "CreatedAt": f"{human_duration(now - found.created_ns / 1e9)} ago",
        "UpdatedAt": f"{human_duration(now - found.updated_ns / 1e9)} ago",
        "Labels": ",".join(f"{key}={value}" for key, value in found.labels.items()),
        "Label": lambda key: found.labels.get(key, ""),
    }


def _timestamp(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09}Z"
