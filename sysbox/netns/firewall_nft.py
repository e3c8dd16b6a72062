"""nf_tables: everything by one run of nft(8), a published port by one message."""

from __future__ import annotations

import errno as _errno

from sysbox.base.errors import KernelError, SysboxError, Unsupported
from sysbox.linux import process
from sysbox.netns import nfnetlink, rules, rules_nft
from sysbox.netns import rtnetlink as rt
from sysbox.netns.rules import Policy, Published

_PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}  # /etc/protocols
_HINT = "install the package `nftables`, or use --network host or none"
# what the kernel answers where it has no nf_tables
_NONE = (_errno.EOPNOTSUPP, _errno.EINVAL, _errno.EPROTONOSUPPORT)


def lacking() -> str:
    """Why this packet filter cannot be used on this host, or ""."""
    if "/" not in process.find_program("nft"):
        return "nft is not installed"
    try:
        with nfnetlink.Socket() as wire:
            wire.chains()
    except KernelError as error:
        if error.errno in _NONE:
            return "this kernel has no nf_tables"
        return error.message
    return ""


def in_place(policies: tuple[Policy, ...]) -> bool:
    """Whether the table is as `apply` has made it. Raises KernelError."""
    with nfnetlink.Socket() as wire:
        found = {
            one.name: one.used
            for one in wire.chains()
            if one.table == rules_nft.TABLE and one.family == nfnetlink.INET
        }
    return all(found.get(name, -1) == count for name, count in _counts(policies).items())


def _counts(policies: tuple[Policy, ...]) -> dict[str, int]:
    made = {name: len(found) for name, found in rules.chains(policies).items()}
    return {**made, "prerouting": 3, "output": 1}


def apply(policies: tuple[Policy, ...], entries: tuple[Published, ...]) -> None:
    """Make all rules, in one transaction. Raises Unsupported, SysboxError."""
    _run(rules_nft.script(policies, entries))


def publish(entries: tuple[Published, ...]) -> bool:
    """Add ports; False where everything has to be made again. Raises SysboxError."""
    errno = _commit(nfnetlink.NEWSETELEM, rt.NLM_F_CREATE, entries)
    # EEXIST: a port of a container whose host was killed
    if errno not in (0, _errno.ENOENT, _errno.EEXIST):
        raise KernelError("publish in", f"the table {rules_nft.TABLE}", errno)
    return not errno


def withdraw(entries: tuple[Published, ...]) -> bool:
    """Remove ports; False where not all could be removed, and everything has to be made again."""
    errno = _commit(nfnetlink.DELSETELEM, 0, entries)
    if errno == _errno.ENOENT:
        # one of them is missing, or the whole table: the others by themselves
        results = {_commit(nfnetlink.DELSETELEM, 0, (entry,)) for entry in entries}
        return results <= {0, _errno.ENOENT}
    return not errno


def remove() -> None:
    """Remove the table; a missing one is success. Raises SysboxError, Unsupported."""
    with nfnetlink.Socket() as wire:
        try:
            there = any(one.table == rules_nft.TABLE for one in wire.chains())
        except KernelError as error:
            if error.errno in _NONE:
                return
            raise
    if there:
        _run(f"delete table inet {rules_nft.TABLE}\n")


def _commit(kind: int, flags: int, entries: tuple[Published, ...]) -> int:
    members: dict[str, list[tuple[bytes, bytes, str]]] = {}
    for entry in entries:
        key, data = _key(entry), _data(entry)
        new = kind == nfnetlink.NEWSETELEM
        member = (key, data, f"sysbox:{entry.id}") if new else (key, b"", "")
        members.setdefault(rules_nft.map_of(entry), []).append(member)
    messages = [
        (kind, flags, body)
        for name, found in members.items()
        for body in nfnetlink.elements(rules_nft.TABLE, name, found)
    ]
    with nfnetlink.Socket() as wire:
        return wire.commit(messages)


def _key(entry: Published) -> bytes:
    port = entry.port
    fields = [bytes((_PROTOCOLS[port.protocol],)), port.host_port.to_bytes(2, "big")]
    if not rules.is_everywhere(port):
        fields.insert(0, rules.packed(port.host_ip))
    return nfnetlink.join(*fields)


def _data(entry: Published) -> bytes:
    number = entry.port.container_port.to_bytes(2, "big")
    return nfnetlink.join(rules.packed(entry.address), number)


def _run(script: str) -> None:
    words = [process.find_program("nft"), "-f", "-"]
    if "/" not in words[0]:
        raise Unsupported("the packet filter: nft is not installed", hint=_HINT)
    status, output = process.spawn(words, None, script.encode("ascii"), merge_stderr=True)
    if status:
        said = output.decode("utf-8", "replace").strip().partition("\n")[0]
        raise SysboxError(f"the packet filter: nft: {said or f'status {status}'}")
