"""What JSON alone does not tell a template: the types that docker's values have in Go.

docker's own templates see Go's structures, and only what is not found there is looked up in the JSON. So a
structure has two spellings of some names, what is missing in a map of strings is no error, and a null that
is a list or a map prints as an empty one, has the length 0 and can be ranged over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Go's names of fields whose JSON names are others
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
    """A structure of docker's: templates find its fields by Go's names too."""

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
    """A map: a template may name a key that is not there, and prints `<no value>`."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> Any:
        return None


class Strings(Map):
    """A map of strings: what `index` does not find is an empty one."""

    def get(self, key: str, default: Any = "") -> Any:
        return super().get(key, default)


class Null:
    """What is null in JSON."""


class NullList(Null, list["Any"]):
    """A list that there is not."""


class NullMap(Null, Map):
    """A map that there is not."""


class NullPointer(Null):
    """A structure, a number or a truth value that there is not."""

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
