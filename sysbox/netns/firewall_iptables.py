"""iptables by its restore programs: ports of both flavours, and all rules of iptables-nft."""

from __future__ import annotations

from sysbox.base.errors import KernelError, SysboxError, Unsupported
from sysbox.linux.process import find_program, spawn
from sysbox.netns import rules_iptables
from sysbox.netns.rules import Policy, Published

LEGACY, NFT = "legacy", "nft"  # the flavours, as the names of the programs have them
_FAMILIES = {4: "iptables", 6: "ip6tables"}
_NFT_FAMILIES = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
_WAIT = "30"  # seconds that iptables waits for its lock
_RESOURCE_PROBLEM = 4  # exit status of iptables where it cannot get its lock or the kernel's tables
_HINT = "install the package `iptables`, or use --network host or none"


def lacking() -> str:
    """Why iptables-nft cannot be used on this host, or ""."""
    from sysbox.netns import nfnetlink

    program = _program(4, NFT, "restore")
    if "/" not in find_program(program):
        return f"{program} is not installed"
    try:
        with nfnetlink.Socket() as wire:
            wire.chains()
    except KernelError:
        return "this kernel has no nf_tables"
    return ""


def in_place(policies: tuple[Policy, ...]) -> bool:
    """Whether the chains of iptables-nft are as `apply` has made them. Raises KernelError."""
    from sysbox.netns import nfnetlink

    with nfnetlink.Socket() as wire:
        found = {(one.family, one.table, one.name): one.used for one in wire.chains()}
    for family in rules_iptables.families(policies):
        for name in rules_iptables.TABLES[family]:
            wanted = rules_iptables.table(family, name, policies, ())
            made = rules_iptables.jumps(family, name)
            for chain, listed in wanted.items():
                used = found.get((_NFT_FAMILIES[family], name, chain), -1)
                jumps = sum(jump["target"] == chain for _, jump, _ in made)
                if used < len(listed) + jumps or (listed and used != len(listed) + jumps):
                    return False
    return True


def apply(policies: tuple[Policy, ...], entries: tuple[Published, ...]) -> None:
    """Make all rules with iptables-nft, each family in one run. Raises Unsupported, SysboxError."""
    for family in rules_iptables.families(policies):
        apply_family(family, NFT, policies, entries)


def apply_family(
    family: int, flavour: str, policies: tuple[Policy, ...], entries: tuple[Published, ...]
) -> None:
    """Make all rules of one family, in one run. Raises Unsupported, SysboxError."""
    text = rules_iptables.base_text(family, policies, entries, _saved(family, flavour))
    status, said = _restore(family, flavour, text)
    if status:
        raise SysboxError(f"the packet filter: {_program(family, flavour, 'restore')}: {said}")


def publish(entries: tuple[Published, ...], flavour: str = NFT) -> bool:
    """Add ports; False where a chain is missing. Raises Unsupported."""
    done = True
    for family, mine in _by_family(entries).items():
        done &= _restore(family, flavour, rules_iptables.restore_text("-A", mine))[0] == 0
    return done


def withdraw(entries: tuple[Published, ...], flavour: str = NFT) -> bool:
    """Remove ports; False where not all could be removed, and everything has to be made again.

    Raises Unsupported.
    """
    for family, mine in _by_family(entries).items():
        if _restore(family, flavour, rules_iptables.restore_text("-D", mine))[0]:
            # a missing rule fails the whole transaction, so remove each by itself
            for entry in mine:
                text = rules_iptables.restore_text("-D", (entry,))
                if _restore(family, flavour, text)[0] == _RESOURCE_PROBLEM:
                    return False
    return True


def remove() -> None:
    """Remove all chains of iptables-nft; missing ones are success. Raises SysboxError, Unsupported."""
    from sysbox.netns import nfnetlink

    ours = {chain for _, chain in rules_iptables.CHAINS}
    with nfnetlink.Socket() as wire:
        if not any(one.name in ours for one in wire.chains()):
            return
    for family in _FAMILIES:
        remove_family(family, NFT)


def remove_family(family: int, flavour: str) -> None:
    """Remove all chains of one family; missing ones are success. Raises SysboxError, Unsupported."""
    text = rules_iptables.removal_text(_saved(family, flavour))
    status, said = _restore(family, flavour, text) if text else (0, "")
    if status:
        raise SysboxError(f"the packet filter: {_program(family, flavour, 'restore')}: {said}")


def _by_family(entries: tuple[Published, ...]) -> dict[int, tuple[Published, ...]]:
    found: dict[int, tuple[Published, ...]] = {}
    for entry in entries:
        found[entry.family] = (*found.get(entry.family, ()), entry)
    return found


def _program(family: int, flavour: str, what: str) -> str:
    return f"{_FAMILIES[family]}-{flavour}-{what}"


def _restore(family: int, flavour: str, text: bytes) -> tuple[int, str]:
    """Run the restore program with --noflush: (exit status, what it said). Raises Unsupported."""
    program = _program(family, flavour, "restore")
    path = find_program(program)
    if "/" not in path:
        raise Unsupported(f"the packet filter: no {program} on this host", hint=_HINT)
    status, output = spawn([path, "-w", _WAIT, "--noflush"], None, text, merge_stderr=True)
    return status, output.decode("utf-8", "replace").strip().partition("\n")[0]


def _saved(family: int, flavour: str) -> str:
    path = find_program(_program(family, flavour, "save"))
    if "/" not in path:
        return ""
    return spawn([path], None, merge_stderr=True)[1].decode("utf-8", "replace")
