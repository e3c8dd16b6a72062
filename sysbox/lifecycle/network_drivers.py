"""What `network create` settles and checks of a network whose links are below one of the host's, or are
none.
"""

from __future__ import annotations

import errno

from sysbox.base.errors import Conflict, NotFound, SpecError
from sysbox.base.files import names
from sysbox.base.suggest import did_you_mean, suggest
from sysbox.host import exists, read_text
from sysbox.netns import parents
from sysbox.netns import rtnetlink as rt
from sysbox.netns.network import (
    BELOW,
    BRIDGE,
    DRIVERS,
    MODES,
    NULL,
    Network,
    bridge_name,
    vlan_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.lifecycle.network import Wish

_LINKS = "/sys/class/net"
_ETHERNET = "1"  # ARPHRD_ETHER, linux/if_arp.h
_OTHER_WORDS = {"none": NULL}


def driver_of(word: str) -> str:
    """The driver of `--driver`. Raises SpecError."""
    driver = _OTHER_WORDS.get(word, word)
    if driver not in DRIVERS:
        known = ("none", *DRIVERS)
        raise SpecError(f"--driver {word}: there is no such driver", hint=suggest(word, known))
    return driver


def fields(wish: Wish, network_id: str, given: dict[str, Any], uplink: str) -> dict[str, Any]:
    """What the driver adds to `given`, the fields of the options; `uplink` is the link of the host's default
    route, or "". Pure. Raises SpecError.
    """
    if wish.driver == BRIDGE:
        return {"bridge": wish.bridge or given.get("bridge", "") or bridge_name(network_id)}
    if wish.driver == NULL:
        return {"bridge": "", "dns": False, "subnet": "", "gateway": "", "mtu": 0}
    parent = given.get("parent", "")
    if parent and wish.bridge not in ("", parent):
        raise SpecError(f"--interface-name {wish.bridge}: --opt parent={parent} names another link")
    parent = parent or wish.bridge
    if not parent:
        parent = bridge_name(network_id) if wish.internal else uplink
    if not parent:
        raise SpecError(
            f"--driver {wish.driver}: needs a parent, and this host has no default route",
            hint="--opt parent=LINK names a link of this host",
        )
    return {
        "bridge": "",
        # no resolver of the host can be reached by such a link
        "dns": False,
        "parent": parent,
        "mode": given.get("mode", MODES[wish.driver][0]),
        "mtu": given.get("mtu", 0),
    }


def refuse_links(wish: Wish) -> None:
    """Raises SpecError for what a network of the driver null has not."""
    for flag, value in (
        ("--subnet", wish.subnets),
        ("--gateway", wish.gateways),
        ("--ip-range", wish.ip_ranges),
        ("--ipv6", wish.ipv6),
        ("--dns", wish.dns_servers),
        ("--route", wish.routes),
        ("--interface-name", wish.bridge),
    ):
        if value:
            raise SpecError(
                f"{flag}: containers of the driver none have no link", hint="leave it out"
            )


def uplink() -> str:
    """The link of the host's first default route of IPv4, or ""."""
    for line in read_text("/proc/net/route").splitlines()[1:]:
        words = line.split()
        if len(words) > 7 and words[1] == words[7] == "00000000":
            return words[0]
    return ""


def check(made: Network, others: list[Network]) -> None:
    """Raises NotFound for a parent that is not there, Conflict for one that cannot be used, SpecError for the
    MTU, Unsupported where the kernel lacks the kind of link. Changes nothing.
    """
    if made.driver not in BELOW:
        return
    _check_others(made, others)
    base, number = vlan_of(made.parent)
    if exists(f"{_LINKS}/{made.parent}"):
        _check_link(made, made.parent)
        kind = ""
    elif made.parent == bridge_name(made.id):
        kind = "dummy"
    elif number and exists(f"{_LINKS}/{base}"):
        _check_link(made, base)
        kind = "vlan"
    else:
        raise NotFound(
            f"--opt parent={made.parent}: this host has no link {base or made.parent}",
            hint=did_you_mean(made.parent, names(_LINKS)) or "`ip link` lists them",
        )
    for one in filter(None, (made.driver, kind)):
        if not _has_kind(one):
            raise parents.lacking(made.name, one)


def _check_link(made: Network, name: str) -> None:
    where = f"{_LINKS}/{name}"
    if read_text(f"{where}/type").strip() != _ETHERNET:
        raise Conflict(f"--opt parent={made.parent}: {name} is no Ethernet link")
    if exists(f"{where}/brport") and name == made.parent:
        raise Conflict(
            f"--opt parent={name}: {name} is a port of a bridge", hint="the bridge can be a parent"
        )
    most = int(read_text(f"{where}/mtu").strip() or 0)
    if made.mtu > most:
        raise SpecError(f"--opt mtu={made.mtu}: is more than the {most} of {name}")


def _has_kind(kind: str) -> bool:
    """Whether the kernel has links of a kind. One with a name that no link can have is asked for: only for an
    unknown kind the refusal says so.
    """
    body = rt.ifinfo() + rt.text(rt.IFLA_IFNAME, "/")
    body += rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, kind))
    asked = rt.Message(rt.RTM_NEWLINK, rt.NLM_F_CREATE | rt.NLM_F_EXCL, body, f"ask for {kind}")
    with rt.Socket() as link:
        ((_, code, _),) = link.attempt([asked])
    return code != errno.EOPNOTSUPP


def _check_others(made: Network, others: list[Network]) -> None:
    """A link of the host has links of one driver below it; one that is made belongs to one network."""
    for one in others:
        if one.parent != made.parent:
            continue
        if not exists(f"{_LINKS}/{made.parent}") or parents.is_ours(one.parent, one.id):
            reason = "comes and goes with that one's containers"
        elif one.driver != made.driver:
            reason = f"has {one.driver} links below it"
        elif "passthru" in (one.mode, made.mode):
            reason = "passthru allows no other"
        else:
            continue
        raise Conflict(
            f"--opt parent={made.parent}: is the parent of the network {one.name}, and {reason}",
            hint="choose another parent",
        )
