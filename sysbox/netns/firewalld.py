"""firewalld, over its D-Bus interface: the zone of sysbox's bridges, and who may reach published ports.

firewalld(1) rejects what no zone or policy accepts, also what sysbox's own rules have accepted before. So
sysbox's bridges are in a zone that accepts, in the permanent configuration too: a reload and a restart keep
it. All that a network forbids is in sysbox's rules, as on any host.

Permanent objects become effective by firewalld's reload, which forgets what is in the runtime configuration
only (firewalld.dbus(5)): sysbox puts that back.
"""

from __future__ import annotations

from sysbox.base.errors import SystemdError
from sysbox.host import exists
from sysbox.netns import rules
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

ZONE = "sysbox"
INTO = "sysbox-in"  # policy: what goes to the bridges is decided by sysbox's own rules
PORTS = "sysbox-ports"  # policy: its zones may reach published ports, where Ports=ask
# a packet to a published port passes if a rule of its zone sets the mark so (firewalld.richlanguage(5))
RICH_MARK = f'mark set="{rules.ALLOWED:#x}/{rules.ALLOWED:#x}"'

_NAME = "org.fedoraproject.FirewallD1"
_PATH = "/org/fedoraproject/FirewallD1"
_CONFIG_PATH = f"{_PATH}/config"
# without one of these files nothing may have that name on the bus
_MAY_RUN = ("/usr/share/dbus-1/system.d/FirewallD.conf", "/etc/dbus-1/system.d/FirewallD.conf")
_DBUS = "org.freedesktop.DBus"
_PATIENCE = 60.0  # seconds: a reload makes all of firewalld's rules again
_ABOUT = "Made and removed by sysbox: see docs/packet-filter.md of sysbox."
# key of a zone's or policy's settings -> its type, for those that can be changed at run time
_TYPES = {
    "services": "as",
    "ports": "a(ss)",
    "icmp_blocks": "as",
    "masquerade": "b",
    "forward_ports": "a(ssss)",
    "sources": "as",
    "rules_str": "as",
    "rich_rules": "as",
    "protocols": "as",
    "source_ports": "a(ss)",
    "icmp_block_inversion": "b",
    "forward": "b",
    "ingress_zones": "as",
    "egress_zones": "as",
}


def running() -> bool:
    """Whether firewalld answers on the system bus; a host without it is found by one look at its files."""
    if not any(exists(path) for path in _MAY_RUN):
        return False
    try:
        with Bus.broker() as bus:
            path = "/org/freedesktop/DBus"
            (there,) = bus.call(path, _DBUS, "NameHasOwner", "s", (_NAME,), to=_DBUS)
            return bool(there)
    except SystemdError:
        return False  # no bus, so no firewalld


def ensure(bridges: tuple[str, ...], *, ask: bool) -> None:
    """Have the bridges in sysbox's zone, now and after a reload. Raises SystemdError."""
    with _Firewalld() as wall:
        made = wall.make_zone(bridges)
        made |= wall.make_policy(INTO, {
            "target": ("s", "ACCEPT"),
            "ingress_zones": ("as", ["ANY"]),
            "egress_zones": ("as", [ZONE]),
        })  # fmt: skip
        if ask:
            # egress to ANY: firewalld makes no rules for marks in a policy that only concerns the host
            made |= wall.make_policy(PORTS, {
                "target": ("s", "CONTINUE"),
                "egress_zones": ("as", ["ANY"]),
                "rich_rules": ("as", [f'rule priority="-1" {RICH_MARK}']),
            })  # fmt: skip
        if made or ZONE not in wall.zones() or not _policies(ask=ask) <= wall.policies():
            wall.reload()
        for bridge in bridges:
            wall.add_bridge(bridge)


def problem(bridges: tuple[str, ...], *, ask: bool) -> str:
    """What of `ensure` is missing now, or "". Raises SystemdError."""
    with _Firewalld() as wall:
        if ZONE not in wall.zones():
            return f"firewalld has no zone {ZONE}"
        missing = sorted(_policies(ask=ask) - wall.policies())
        if missing:
            return f"firewalld has no policy {missing[0]}"
        without = [one for one in bridges if not wall.zone_of(one)]
        return f"firewalld has {without[0]} in no zone" if without else ""


def release(bridge: str) -> None:
    """Take a bridge out of sysbox's zone; missing is success. Raises SystemdError."""
    with _Firewalld() as wall:
        wall.remove_bridge(bridge)


def remove() -> None:
    """Remove sysbox's zone and policies; missing ones are success. Raises SystemdError.

    A policy that says which zones may reach published ports is the administrator's word, and stays.
    """
    with _Firewalld() as wall:
        gone = wall.remove_policy(INTO)
        gone |= wall.remove_policy(PORTS, unless="ingress_zones")
        gone |= wall.remove_zone()
        if gone:
            wall.reload()


def _policies(*, ask: bool) -> set[str]:
    return {INTO, PORTS} if ask else {INTO}


class _Firewalld:
    """One connection to firewalld. Every method raises SystemdError, with firewalld's words."""

    def __init__(self) -> None:
        self._bus = Bus.broker()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def _call(self, path: str, interface: str, member: str, signature: str = "", *args: Any) -> Any:
        part = f"{_NAME}.{interface}" if interface else _NAME
        try:
            values = self._bus.call(path, part, member, signature, args, _PATIENCE, to=_NAME)
        except SystemdError as error:
            said = error.message.removeprefix("systemd: ")
            raise SystemdError(f"firewalld: {member}: {said}", dbus_name=error.dbus_name) from None
        return values[0] if values else None

    def zones(self) -> set[str]:
        return set(self._call(_PATH, "zone", "getZones"))

    def policies(self) -> set[str]:
        return set(self._call(_PATH, "policy", "getPolicies"))

    def zone_of(self, bridge: str) -> str:
        """The zone of a bridge now, or ""."""
        return str(self._call(_PATH, "zone", "getZoneOfInterface", "s", bridge))

    def _zone_object(self) -> str:
        """The permanent zone's object, or ""."""
        if ZONE not in self._call(_CONFIG_PATH, "config", "getZoneNames"):
            return ""
        return str(self._call(_CONFIG_PATH, "config", "getZoneByName", "s", ZONE))

    def _policy_object(self, name: str) -> str:
        if name not in self._call(_CONFIG_PATH, "config", "getPolicyNames"):
            return ""
        return str(self._call(_CONFIG_PATH, "config", "getPolicyByName", "s", name))

    def make_zone(self, bridges: tuple[str, ...]) -> bool:
        """Have a permanent zone with the bridges; whether it was made."""
        # one that the administrator has put in another zone stays there
        free = [one for one in bridges if not self._permanent_zone_of(one)]
        path = self._zone_object()
        if path:
            for bridge in free:
                self._call(path, "config.zone", "addInterface", "s", bridge)
            return False
        settings = {
            "short": ("s", "sysbox"),
            "description": ("s", _ABOUT),
            "target": ("s", "ACCEPT"),
            "interfaces": ("as", free),
        }
        self._call(_CONFIG_PATH, "config", "addZone2", "sa{sv}", ZONE, settings)
        return True

    def _permanent_zone_of(self, bridge: str) -> str:
        return str(self._call(_CONFIG_PATH, "config", "getZoneOfInterface", "s", bridge))

    def make_policy(self, name: str, settings: dict[str, tuple[str, Any]]) -> bool:
        """Have a permanent policy of this name; whether it was made."""
        if self._policy_object(name):
            return False
        about = {"short": ("s", name), "description": ("s", _ABOUT)}
        self._call(_CONFIG_PATH, "config", "addPolicy", "sa{sv}", name, {**about, **settings})
        return True

    def add_bridge(self, bridge: str) -> None:
        if not self.zone_of(bridge):
            self._call(_PATH, "zone", "addInterface", "ss", ZONE, bridge)

    def remove_bridge(self, bridge: str) -> None:
        path = self._zone_object()
        if path and self._call(path, "config.zone", "queryInterface", "s", bridge):
            self._call(path, "config.zone", "removeInterface", "s", bridge)
        if self.zone_of(bridge) == ZONE:
            self._call(_PATH, "zone", "removeInterface", "ss", ZONE, bridge)

    def remove_zone(self) -> bool:
        path = self._zone_object()
        if path:
            self._call(path, "config.zone", "remove")
        return bool(path)

    def remove_policy(self, name: str, unless: str = "") -> bool:
        """Remove a permanent policy, unless this setting of it has a value; whether it was removed."""
        path = self._policy_object(name)
        if not path or (unless and self._call(path, "config.policy", "getSettings").get(unless)):
            return False
        self._call(path, "config.policy", "remove")
        return True

    def reload(self) -> None:
        """Make the permanent configuration effective, and keep what only the runtime configuration has."""
        before = self._runtime()
        self._call(_PATH, "", "reload")
        after = self._runtime()
        for key, settings in before.items():
            if key not in after:
                continue  # it was removed from the permanent configuration
            kind, name = key
            # what an interface belongs to is kept by firewalld
            lost = {
                word: (_TYPES[word], value)
                for word, value in settings.items()
                if word in _TYPES and value != after[key].get(word)
            }
            if lost:
                member = "setZoneSettings2" if kind == "zone" else "setPolicySettings"
                self._call(_PATH, kind, member, "sa{sv}", name, lost)

    def _runtime(self) -> dict[tuple[str, str], dict[str, Any]]:
        found = {}
        for kind, names, member in (
            ("zone", self.zones(), "getZoneSettings2"),
            ("policy", self.policies(), "getPolicySettings"),
        ):
            for name in sorted(names):
                settings = self._call(_PATH, kind, member, "s", name)
                found[(kind, name)] = settings
        return found
