"""Address leases: one small file under /run, changed under a lock and replaced by rename.

Line 1 is the last address that was assigned; each other line is "ADDRESS ID". A released address is assigned
again only after all others, so that neighbours' caches and clients that remember it do not reach its next
owner. The file is on a tmpfs: after a boot there are no leases, and no containers.

Leases apply to a network namespace, which the machine may share with embedded hosts. These hosts share a
directory with a copy of each host's file, so that no two hosts assign the same address.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import Conflict, FormatError
from sysbox.base.files import make_private, read_file, remove_tree, unlink, write_file
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.host import exists, read_text
from sysbox.netns.topology import (
    DEFAULT_NETWORK,
    address_number,
    address_text,
    split_subnet,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FILE = f"{paths.NETWORK}/leases"
_LOCK = f"{paths.NETWORK}/leases.lock"
SHARED = f"{paths.RUN}/addresses"  # exists while an embedded host is on the machine's network
_SHARED_LOCK = ".lock"
_NAME = "/run/host/sysbox-host"  # on an embedded host, the file with its name
_MACHINE = "machine."  # the machine's own name here; no embedded host can have it


def acquire(
    container_id: str,
    subnet: str = DEFAULT_NETWORK.subnet,
    gateway: str = DEFAULT_NETWORK.gateway,
) -> str:
    """The container's address; a new one if it has none.

    Raises Conflict where no address is free or the lock is held too long, FormatError, KernelError.
    """
    with Lock(_LOCK, timeout=BRIEFLY):
        last, leases = _load()
        held = leases.get(container_id)
        if held is not None:
            return held
        if not exists(SHARED):
            return _assign(
                container_id, choose(subnet, gateway, last, set(leases.values())), leases
            )
        with Lock(f"{SHARED}/{_SHARED_LOCK}", timeout=BRIEFLY):
            taken = {*leases.values(), *_foreign_addresses()}
            return _assign(container_id, choose(subnet, gateway, last, taken), leases)


def _assign(container_id: str, address: str, leases: dict[str, str]) -> str:
    leases[container_id] = address
    _store(address, leases)
    return address


def _foreign_addresses() -> set[str]:
    """The addresses that other hosts on this network have assigned."""
    found: set[str] = set()
    for name in posix.listdir(SHARED):
        if name[0] != "." and name != _own_name():
            data = read_file(f"{SHARED}/{name}") or b""
            found.update(parse(data.decode("ascii", "replace"))[1].values())
    return found


def _own_name() -> str:
    return read_text(_NAME).strip() or _MACHINE


def share(name: str) -> None:
    """Share leases with the embedded host `name`: make the directory, with a copy of the machine's file.

    Called on the machine before an embedded host boots on its network. Raises KernelError, FormatError.
    """
    make_private(SHARED)
    write_file(f"{SHARED}/{_own_name()}", read_file(FILE) or b"")
    write_file(f"{SHARED}/{name}", b"")


def forget_host(name: str) -> bool:
    """Release all addresses of the embedded host `name`; whether it was the last on the machine's network.

    Called on the machine after the host has ended. Raises KernelError.
    """
    if unlink(f"{SHARED}/{name}") and set(posix.listdir(SHARED)) <= {_own_name(), _SHARED_LOCK}:
        remove_tree(SHARED)
        return True
    return False


def release(container_id: str) -> None:
    """Release the container's address; a container without one is success."""
    with Lock(_LOCK, timeout=BRIEFLY):
        last, leases = _load()
        if leases.pop(container_id, None) is not None:
            _store(last, leases)


def all() -> dict[str, str]:  # noqa: A001 (used qualified: leases.all())
    """Every lease: container id -> address. It takes no lock: the file is replaced as a whole."""
    return _load()[1]


def reclaim(is_alive: Callable[[str], bool]) -> list[str]:
    """Release the addresses of all containers that are not alive; returns their ids.

    `is_alive` is called under the lock, while no other process can acquire a lease; it must return True for a
    container that is starting.
    """
    with Lock(_LOCK, timeout=BRIEFLY):
        last, leases = _load()
        dead = [container_id for container_id in leases if not is_alive(container_id)]
        if dead:
            for container_id in dead:
                del leases[container_id]
            _store(last, leases)
        return dead


def choose(subnet: str, gateway: str, last: str, taken: set[str]) -> str:
    """The lowest free address above `last`, else the lowest free one (pure). Raises Conflict."""
    base, bits = split_subnet(subnet)
    # excluding the network address and the broadcast address
    first, final = base + 1, base + (1 << (32 - bits)) - 2
    here = address_number(last) if last else base
    if not first <= here <= final:
        here = base
    for candidates in (range(here + 1, final + 1), range(first, min(here, final) + 1)):
        for number in candidates:
            address = address_text(number)
            if address != gateway and address not in taken:
                return address
    raise Conflict(
        f"no address is free in {subnet}",
        hint="stop containers, run `sysbox gc`, or give the network a larger subnet",
    )


def parse(text: str) -> tuple[str, dict[str, str]]:
    """(last address, id -> address) from the file's text. Raises FormatError."""
    lines = text.splitlines()
    leases: dict[str, str] = {}
    for line in lines[1:]:
        address, space, container_id = line.partition(" ")
        if not space or not container_id or " " in container_id or container_id in leases:
            raise FormatError(f"{FILE}: cannot read the line '{line}'")
        leases[container_id] = address
    return (lines[0] if lines else ""), leases


def _load() -> tuple[str, dict[str, str]]:
    return parse((read_file(FILE) or b"").decode("ascii", "replace"))


def _store(last: str, leases: dict[str, str]) -> None:
    lines = [last, *(f"{address} {container_id}" for container_id, address in leases.items())]
    data = ("\n".join(lines) + "\n").encode("ascii")
    write_file(FILE, data)
    if exists(SHARED):
        write_file(f"{SHARED}/{_own_name()}", data)
