"""Plan the socket and the service of a network's resolver, as transient units. Pure.

The socket is there from the first container of the network to the last; systemd starts the service with the
first question, and the service leaves when nobody asks (`sysbox/resolver/serve.py`). It needs nothing of the
host but its network, its /etc/resolv.conf and the files of one network's names, so it has nothing else: a
hole in the reading of DNS messages gives an attacker a user that owns nothing, without capabilities, in a
file system that it cannot write to.
"""

from __future__ import annotations

import errno

from sysbox.base.frozen import Frozen
from sysbox.units.limits.properties import Property

PORT = 53
MEMORY_MAX = 128 << 20  # bytes: ten times what it has with a thousand questions on their way
TASKS_MAX = 8
_FILES_MAX = 65536  # descriptors: one for each container, some for each question that is forwarded
_RECEIVE = (
    4 << 20
)  # bytes of the socket's queue: a flood from one container leaves room for the others
_BACKLOG = 256
_SECOND = 1_000_000  # microseconds
_LIMIT_INTERVAL = 10 * _SECOND
_STARTS = 20  # in this interval. It leaves after 30 s at the earliest, so only one that fails starts so often
_TRIGGERS = 200  # more than _STARTS: the service's own limit is met first, and says so
# systemd.exec(5), RestrictNamespaces=: none may be made
_NO_NAMESPACES = 0
# where other users may not enter, and a program for a user of its own may have been installed
_CLOSED_HOMES = ("/home/", "/root/", "/run/user/")

_INET, _INET6 = "AF_INET", "AF_INET6"


class ResolverPlan(Frozen):
    """The resolver of one network."""

    network: str
    directory: str  # with the names
    run: str  # the directory that hides everything else of sysbox's state
    addresses: tuple[str, ...]  # the gateways
    launcher: str
    package: str  # the directory that has the package
    network_unit: str = ""  # a unit that the socket is part of; "" is none


def socket_unit(network: str) -> str:
    """The socket of a network's resolver; "*" gives the pattern of all."""
    return f"sysbox-dns-{network}.socket"


def service_unit(network: str) -> str:
    """The service behind the socket."""
    return f"sysbox-dns-{network}.service"


def socket_properties(plan: ResolverPlan) -> tuple[Property, ...]:
    """FreeBind=: the bridge may get its address later, or be without a port. One socket for each protocol and
    address; no BindToDevice=, which would wait for udev, and an embedded host has none.
    """
    listen = [
        (kind, f"[{address}]:{PORT}" if ":" in address else f"{address}:{PORT}")
        for address in plan.addresses
        for kind in ("Datagram", "Stream")
    ]
    parts: tuple[tuple[str, str, object], ...] = (
        (("PartOf", "as", [plan.network_unit]),) if plan.network_unit else ()
    )
    return _properties(
        ("Description", "s", f"Names of the sysbox network {plan.network}"),
        ("Listen", "a(ss)", listen),
        ("FreeBind", "b", True),
        ("ReceiveBuffer", "t", _RECEIVE),
        ("Backlog", "u", _BACKLOG),
        ("TriggerLimitIntervalUSec", "t", _LIMIT_INTERVAL),
        ("TriggerLimitBurst", "u", _TRIGGERS),
        # one that has failed is forgotten, so that the next start of a container makes it anew
        ("CollectMode", "s", "inactive-or-failed"),
        *parts,
    )


def service_properties(plan: ResolverPlan) -> tuple[Property, ...]:
    """PartOf= the socket: a stop of it ends the service too."""
    argv = [plan.launcher, "_resolve", plan.network]
    return _properties(
        ("Description", "s", f"Resolver of the sysbox network {plan.network}"),
        ("Type", "s", "simple"),
        ("ExecStart", "a(sasb)", [(plan.launcher, argv, False)]),
        ("PartOf", "as", [socket_unit(plan.network)]),
        ("CollectMode", "s", "inactive-or-failed"),
        ("StartLimitIntervalUSec", "t", _LIMIT_INTERVAL),
        ("StartLimitBurst", "u", _STARTS),
        ("Slice", "s", "sysbox.slice"),
        ("MemoryMax", "t", MEMORY_MAX),
        ("TasksMax", "t", TASKS_MAX),
        ("LimitNOFILE", "t", _FILES_MAX),
        *_sandbox(plan),
    )


def _sandbox(plan: ResolverPlan) -> tuple[tuple[str, str, object], ...]:
    """What the service may do and see. The client that asks first waits while systemd makes it.

    systemd reads the whole table of mounts for each path that it closes or makes read-only. So /proc and /sys
    are read-only as two trees, in place of the dozen paths in them of ProtectKernelTunables=,
    ProtectKernelLogs= and ProtectControlGroups=: these protect from root and from capabilities, which this
    user does not have. Of ProtectKernelModules=, ProtectClock= and ProtectHostname= the same is true, and
    @system-service has none of their calls. DynamicUser= has PrivateTmp= in it.
    """
    homes = [
        (path, path, False, 0)
        for path in dict.fromkeys((_prefix(plan.launcher), plan.package))
        if path.startswith(_CLOSED_HOMES)
    ]
    names = [(plan.directory, plan.directory, False, 0)]
    yes = tuple(
        (name, "b", True)
        for name in (
            *("DynamicUser", "NoNewPrivileges", "PrivateDevices", "PrivateIPC"),
            *("LockPersonality", "MemoryDenyWriteExecute", "RestrictRealtime", "RestrictSUIDSGID"),
        )
    )
    return (
        *yes,
        ("ProtectSystem", "s", "strict"),
        ("ProtectHome", "s", "tmpfs"),
        ("ReadOnlyPaths", "as", ["/proc", "/sys"]),
        ("TemporaryFileSystem", "a(ss)", [(plan.run, "ro,mode=0755")]),
        ("BindReadOnlyPaths", "a(ssbt)", [*names, *homes]),
        ("CapabilityBoundingSet", "t", 0),
        ("RestrictNamespaces", "t", _NO_NAMESPACES),
        ("RestrictAddressFamilies", "(bas)", (True, [_INET, _INET6])),
        ("SystemCallArchitectures", "as", ["native"]),
        ("SystemCallFilter", "(bas)", (True, ["@system-service"])),
        # the launcher tries to mount, and goes on without (src/launcher.c)
        ("SystemCallErrorNumber", "i", errno.EPERM),
        ("KeyringMode", "s", "private"),
        ("UMask", "u", 0o077),
    )


def _prefix(launcher: str) -> str:
    """The directory of an installation: above the `bin` of its command."""
    return launcher.rpartition("/")[0].rpartition("/")[0]


def _properties(*settings: tuple[str, str, object]) -> tuple[Property, ...]:
    return tuple(Property(name=name, signature=kind, value=value) for name, kind, value in settings)
