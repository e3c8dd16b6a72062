"""`--sysctl`: only settings that belong to a namespace of the container's own.

Any other one would change the host (CVE-2022-0532), and a name or value that is not plain would be
read as something else by whoever writes it (CVE-2022-0811).
"""

from __future__ import annotations

from sysbox.errors import SpecError
from sysbox.security.suggest import did_you_mean
from sysbox.spec import Namespaces

IPC = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)
IPC_PREFIX = "fs.mqueue."
NET_PREFIX = "net."
UTS = ("kernel.domainname",)

_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_MAX_VALUE = 4096  # bytes; the kernel takes at most a page


def check(sysctls: dict[str, str], namespaces: Namespaces) -> tuple[tuple[str, str], ...]:
    """(path below /proc/sys, value) for each setting, sorted by name.

    Raises SpecError for a name outside the allowlist, one whose namespace is not the container's
    own, and a name or value that is not plain text.
    """
    return tuple((_path(name, namespaces), _value(name, sysctls[name])) for name in sorted(sysctls))


def _path(name: str, namespaces: Namespaces) -> str:
    if not name or not set(name) <= _NAME or "" in name.split("."):
        raise SpecError(f"--sysctl {_shown(name)}: not a name, which is words joined by dots")
    kind, mode = _namespace(name, namespaces)
    if not kind:
        hint = did_you_mean(name, IPC + UTS)
        raise SpecError(
            f"--sysctl {name}: not a setting of a namespace, it would change the host",
            hint=hint or "allowed: net.*, fs.mqueue.*, kernel.{msg*,sem,shm*,domainname}",
        )
    if mode not in ("private", "bridge", "none"):
        raise SpecError(
            f"--sysctl {name}: needs a {kind} namespace of the container's own, not '{mode}'"
        )
    return name.replace(".", "/")


def _namespace(name: str, namespaces: Namespaces) -> tuple[str, str]:
    if name in IPC or name.startswith(IPC_PREFIX):
        return "ipc", namespaces.ipc
    if name.startswith(NET_PREFIX):
        return "network", namespaces.network
    if name in UTS:
        return "uts", namespaces.uts
    return "", ""


def _value(name: str, value: str) -> str:
    plain = value.replace("\t", " ")
    if not plain.isprintable() or not plain.isascii() or len(value) > _MAX_VALUE:
        raise SpecError(f"--sysctl {name}={_shown(value)}: the value must be one plain line")
    return value


def _shown(text: str) -> str:
    return ascii(text[:80])[1:-1]
