"""A volume in docker's `inspect` shape."""

from __future__ import annotations

import time

from sysbox.docker.shapes import NULL, NullMap, Strings
from sysbox.fs import volume_options, volumes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def describe(name: str) -> dict[str, Any]:
    """What docker shows of a volume, every key of API 1.41. Raises NotFound, SpecError, FormatError."""
    volumes.check(name)
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(volumes.created(name)))
    labels = volumes.labels(name)
    nameless = volumes.is_anonymous(name)
    options = volume_options.load(name)
    return {
        "CreatedAt": moment,
        "Driver": "local",
        "Labels": NullMap() if nameless and not labels else Strings(labels),
        "Mountpoint": options.device or volumes.directory(name),
        "Name": name,
        "Options": NullMap() if nameless and not options.given else Strings(options.given),
        "Scope": "local",
        "Status": NullMap(),
        "UsageData": NULL,
    }
