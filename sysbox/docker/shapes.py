"""The types that docker's values have in Go, which templates depend on and JSON does not have.

docker's templates look up a name in Go's structures, and then in the JSON. So a structure has two spellings
of some names, a missing key of a map of strings is no error, and a null list or map prints as an empty one,
has the length 0 and can be ranged over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Go's name of a field -> its names in JSON, where they differ
_GO_NAMES = {
    "APIVersion": ("ApiVersion",),
    "BridgeNfIP6tables": ("BridgeNfIp6tables",),
    "CPUCfsPeriod": ("CpuCfsPeriod",),
    "CPUCfsQuota": ("CpuCfsQuota",),
    "CPUCount": ("CpuCount",),
    "CPUPercent": ("CpuPercent",),
    "CPUPeriod": ("CpuPeriod",),
    "CPUQuota": ("CpuQuota",),
    "CPURealtimePeriod": ("CpuRealtimePeriod",),
    "CPURealtimeRuntime": ("CpuRealtimeRuntime",),
    "CPUShares": ("CpuShares",),
    "DNS": ("Dns",),
    "DNSOptions": ("DnsOptions",),
    "DNSSearch": ("DnsSearch",),
    "From": ("from",),
    "HTTPProxy": ("HttpProxy",),
    "HTTPSProxy": ("HttpsProxy",),
    "HostIP": ("HostIp",),
    "ID": ("Id", "id"),
    "NanoCPUs": ("NanoCpus",),
    "OSVersion": ("OsVersion",),
    "Scope": ("scope",),
    "Status": ("status",),
    "Time": ("time",),
    "TimeNano": ("timeNano",),
}


class Struct(dict[str, "Any"]):
    """A structure: templates find its fields by Go's names too."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or bool(self._other(name))

    def __missing__(self, name: str) -> Any:
        other = self._other(name)
        if not other:
            raise KeyError(name)
        return self[other]

    def _other(self, name: object) -> str:
        spellings = _GO_NAMES.get(name, ()) if isinstance(name, str) else ()
        return next((one for one in spellings if super(Struct, self).__contains__(one)), "")


class Map(dict[str, "Any"]):
    """A map: for a missing key, a template prints `<no value>`."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> Any:
        return None


class Strings(Map):
    """A map of strings: for a missing key, `index` returns an empty one."""

    def get(self, key: str, default: Any = "") -> Any:
        return super().get(key, default)


class Null:
    """A value that is null in JSON."""


class NullList(Null, list["Any"]):
    """A null list."""


class NullMap(Null, Map):
    """A null map."""


class NullPointer(Null):
    """A null pointer to a structure, a number or a boolean."""

    def __bool__(self) -> bool:
        return False

    def __str__(self) -> str:
        return "<nil>"


NULL = NullPointer()


def listed(items: Any) -> list[Any]:
    """A list; null where it would be empty."""
    return list(items) or NullList()


def mapped(items: dict[str, Any] | None) -> dict[str, Any]:
    """A map; null where it would be empty."""
    return Map(items) if items else NullMap()


def pointer(value: Any) -> Any:
    """A value, or null."""
    return NULL if value is None else value
