"""`--sysctl`: only settings of a namespace that is the container's own.

Any other setting would change the host (CVE-2022-0532). Names and values must be plain text, since special
characters could make one setting into another (CVE-2022-0811).
"""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.suggest import nearest
from sysbox.spec import Namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.linux.userns import IdMap

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

# docker's defaults for a container with its own network namespace; `--sysctl` overrides them. Every group may
# ping and every user may bind ports below 1024: in a container's own namespace that limit protects nothing.
DEFAULTS = {
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}
OPTIONAL = tuple(name.replace(".", "/") for name in DEFAULTS)

_OWN = ("private", "bridge", "none")
_NAME = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_MAX_VALUE = 4096  # bytes; the kernel accepts at most a page


def check(sysctls: dict[str, str], namespaces: Namespaces) -> tuple[tuple[str, str], ...]:
    """(path below /proc/sys, value) for each setting, sorted by name.

    Raises SpecError for a name outside the allowlist, for a setting whose namespace is not the container's
    own, and for a name or value that is not plain text.
    """
    return tuple((_path(name, namespaces), _value(name, sysctls[name])) for name in sorted(sysctls))


def settings(
    sysctls: dict[str, str], namespaces: Namespaces, gids: tuple[IdMap, ...] = ()
) -> tuple[tuple[str, str], ...]:
    """`check`, with DEFAULTS added where the network namespace is the container's own. Raises SpecError.

    `gids` is the map of its groups: the kernel refuses others in a range.
    """
    if namespaces.network in _OWN:
        defaults = dict(DEFAULTS)
        if gids:
            last = max(one.inside + one.count for one in gids) - 1
            defaults["net.ipv4.ping_group_range"] = f"0 {last}"
        sysctls = {**defaults, **sysctls}
    return check(sysctls, namespaces)


def _path(name: str, namespaces: Namespaces) -> str:
    if not name or not set(name) <= _NAME or "" in name.split("."):
        raise SpecError(f"--sysctl {_shown(name)}: not a name, which is words joined by dots")
    kind, mode = _namespace(name, namespaces)
    if not kind:
        # compared without what they all begin with, which would make every name near
        above, _, last = name.rpartition(".")
        near = nearest(last, (one.rpartition(".")[2] for one in IPC + UTS))
        hint = f"did you mean 'kernel.{near}'?" if near and above == "kernel" else ""
        raise SpecError(
            f"--sysctl {name}: not a setting of a namespace, it would change the host",
            hint=hint
            or "allowed: net.*, fs.mqueue.*, kernel.{msg*,sem,shm*,domainname}; sysctl(8) sets others",
        )
    if mode not in _OWN:
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
