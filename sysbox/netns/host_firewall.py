"""The program that governs the host's packet filter, where one does: firewalld or ufw.

It decides where sysbox's rules have to be, and with Ports=ask who reaches published ports. Whether it is
there is looked up when rules are made, and kept in their mark (`firewall_mark`).
"""

from __future__ import annotations

from sysbox.base.errors import Conflict, SysboxError
from sysbox.host import exists, read_text
from sysbox.netns import firewall_choice, firewall_mark, firewalld
from sysbox.netns.firewall_mark import AUTO, NFT, Mark
from sysbox.netns.rules import FIREWALLD, UFW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.conf.values import Settings

UFW_CONF = "/etc/ufw/ufw.conf"
_UFW_CHAIN = "ufw-before-forward"


def find() -> tuple[str, str]:
    """(FIREWALLD or UFW, the packet filter that sysbox's rules have to be in); ("", "") for neither."""
    if firewalld.running():
        # a reload of firewalld leaves tables of nft alone that are not its own
        return FIREWALLD, NFT
    if not _ufw_enabled():
        return "", ""
    chains = firewall_choice.chains_of(_UFW_CHAIN)
    # ufw drops what its own chains do not accept, unless a rule before them in the same table does
    return (UFW, chains[0]) if chains else ("", "")


def _ufw_enabled() -> bool:
    if not exists(UFW_CONF):
        return False
    lines = read_text(UFW_CONF).lower().splitlines()
    return any(line.strip().replace('"', "") == "enabled=yes" for line in lines)


def decide(settings: Settings, before: Mark | None = None) -> Mark:
    """The mark of rules that are made now: `before` with what sysbox.conf and the host say today.

    A packet filter that has the rules, of this host or of another on its network, keeps them, unless
    sysbox.conf names another one or the host has got another firewall. Raises Unsupported, and Conflict for
    Ports=ask with firewalld where it is not nft.
    """
    host, backend = find()
    shared = firewall_mark.shared_backend()
    mark = before or (Mark(backend=shared, why=firewall_mark.OF_ALL) if shared else None)
    wanted = settings.firewall
    if mark is None or wanted not in (AUTO, mark.backend) or (host and host != mark.host):
        chosen, why = firewall_choice.choose(wanted, (host, backend))
        mark = (mark or Mark(backend=chosen)).replace(backend=chosen, why=why)
    ask = settings.ports == "ask"
    if ask and host == FIREWALLD and mark.backend != NFT:
        raise Conflict(
            f"the packet filter: Ports=ask needs nft where firewalld runs, and it is {mark.backend}",
            hint="set Firewall=nft in sysbox.conf, or Ports=open, and `sysbox network reload`",
        )
    return mark.replace(host=host, ask=ask)


def require(mark: Mark) -> None:
    """Raises Conflict where published ports need the word of a firewall that is not there."""
    if not mark.ask or (mark.host and find()[0] == mark.host):
        return
    what = f"{mark.host} is not running" if mark.host else "neither firewalld nor ufw is running"
    raise Conflict(
        f"no port can be published: Ports=ask in sysbox.conf, and {what}",
        hint="start it, or set Ports=open; then `sysbox network reload`",
    )


def tell(mark: Mark) -> None:
    """Have the host's firewall let through what sysbox's rules let through. Raises SystemdError."""
    if mark.host == FIREWALLD and firewalld.running():
        firewalld.ensure(tuple(one.bridge for one in mark.policies), ask=mark.ask)


def forget(mark: Mark | None, bridge: str = "") -> None:
    """Take a bridge, or all that is sysbox's, out of the host's firewall. Raises SystemdError."""
    if mark is None or mark.host != FIREWALLD or not firewalld.running():
        return  # while firewalld is stopped nobody can ask it
    if bridge:
        firewalld.release(bridge)
    else:
        for policy in mark.policies:
            firewalld.release(policy.bridge)
        firewalld.remove()


def missing(mark: Mark) -> str:
    """What of sysbox's rules is missing, in the packet filter or in the host's firewall, or who is, whom
    Ports=ask asks; "" for nothing. `network reload` helps, once that one is back.

    Raises KernelError, SystemdError.
    """
    if not firewall_mark.in_place(mark):
        return f"sysbox's rules are missing from {mark.backend}"
    found = find()[0]
    if found not in ("", mark.host):
        return f"{found} is running, and sysbox's rules do not reckon with it yet"
    if found == FIREWALLD:
        return firewalld.problem(tuple(one.bridge for one in mark.policies), ask=mark.ask)
    if mark.ask:
        try:
            require(mark)
        except Conflict as error:
            return error.message
    return ""


def failure(bridge: str) -> str:
    """What is wrong with the rules of a network's bridge, in one line; "" for nothing, or without rules."""
    try:
        mark = firewall_mark.read()
        if mark is None or bridge not in [one.bridge for one in mark.policies]:
            return ""
        return missing(mark)
    except SysboxError as error:
        return error.message
