"""Address leases: for each network and family a small file under /run, changed under the network's lock.

Line 1 is the last address that was assigned; each other line is "ADDRESS ID". A released address is assigned
again only after all others, so that neighbours' caches and clients that remember it do not reach its next
owner. The files are on a tmpfs: after a boot there are no leases, and no containers.

A network is named by its id here, the network `bridge` by "". Its leases apply to a network namespace, which
the machine may share with embedded hosts. These hosts share a directory with a copy of each host's file, so
that no two hosts assign the same address. Other networks are of one host, and have subnets of their own: the
directory has a list of each host's.
"""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import Conflict, FormatError, KernelError
from sysbox.base.files import make_private, names, read_file, remove_tree, unlink, write_file
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.container.identity import is_id
from sysbox.host import exists
from sysbox.netns import subnets
from sysbox.netns.shared import MACHINE, SHARED, own_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from collections.abc import Set as AbstractSet

FILE = f"{paths.NETWORK}/leases"
_LOCK = f"{paths.NETWORK}/leases.lock"
_SHARED_LOCK = ".lock"
_SUBNETS = ".subnets"  # after a dot and a host's name: the subnets of its networks
_FAMILIES = (4, 6)


class NetworkLock(Lock):
    """The lock on the leases of a network, and on what its first container makes and its last removes.

    A context manager. Raises Conflict where another process holds it for half a minute, KernelError.
    """

    def __init__(self, network_id: str = "") -> None:
        path = f"{directory(network_id)}/lock" if network_id else _LOCK
        super().__init__(path, timeout=BRIEFLY)


def directory(network_id: str) -> str:
    """What is kept of a network, other than `bridge`, while containers are on it."""
    return f"{paths.NETWORK}/{network_id}"


def lease(
    network_id: str,
    container_id: str,
    subnet: str,
    gateway: str,
    *,
    ip_range: str = "",
    wanted: str = "",
    host: AbstractSet[str] = frozenset(),
) -> str:
    """An address of the subnet for the container; the caller holds the network's lock.

    It is the one that the container has, or `wanted`, or a free one of the range; `host` are this
    host's own, which no container can have. Raises Conflict where another container has it or none is
    free, FormatError, KernelError.
    """
    family = subnets.family_of(subnet)
    last, leases = _load(network_id, family)
    held = leases.get(container_id)
    if held is not None and wanted in ("", held):
        return held
    leases.pop(container_id, None)
    if host and wanted and subnets.text_of(subnets.number_of(wanted), family) in host:
        raise Conflict(f"address {wanted}: is this host's own", hint="choose another address")
    if network_id or not exists(SHARED):
        address = _pick(subnet, gateway, last, leases, {*host}, ip_range, wanted)
    else:
        with Lock(f"{SHARED}/{_SHARED_LOCK}", timeout=BRIEFLY):
            foreign = _foreign_addresses()
            address = _pick(subnet, gateway, last, leases, foreign, ip_range, wanted)
            leases[container_id] = address
            _store(network_id, family, address, leases)
            return address
    leases[container_id] = address
    _store(network_id, family, last if wanted else address, leases)
    return address


def _pick(
    subnet: str,
    gateway: str,
    last: str,
    leases: dict[str, str],
    foreign: set[str],
    ip_range: str,
    wanted: str,
) -> str:
    if not wanted:
        return choose(subnet, gateway, last, {*leases.values(), *foreign}, ip_range)
    _check_free(wanted, leases)
    if wanted in foreign:
        raise Conflict(f"address {wanted}: is that of a container of another embedded host")
    return subnets.text_of(subnets.number_of(wanted), subnets.family_of(wanted))


def _check_free(wanted: str, leases: dict[str, str]) -> None:
    if holder := _holder(wanted, leases):
        raise Conflict(
            f"address {wanted}: is that of container {holder[:12]}",
            hint="choose another address, or stop that container",
        )


def _holder(wanted: str, leases: dict[str, str]) -> str:
    number = subnets.number_of(wanted)
    return next(
        (one for one, address in leases.items() if subnets.number_of(address) == number), ""
    )


def owner(network_id: str, family: int, wanted: str) -> str:
    """The id of the container that has an address; "" without one. Raises FormatError."""
    return _holder(wanted, all(network_id, family))


def check_others(network_id: str, family: int, wanted: str, without: str) -> None:
    """Raise Conflict where a container other than the one of id `without` has the address; FormatError."""
    held = all(network_id, family)
    held.pop(without, None)
    _check_free(wanted, held)


def _foreign_addresses() -> set[str]:
    """The addresses that other hosts on this network have assigned."""
    found: set[str] = set()
    for name in posix.listdir(SHARED):
        if name[0] != "." and name != own_name():
            data = read_file(f"{SHARED}/{name}") or b""
            found.update(parse(data.decode("ascii", "replace"))[1].values())
    return found


def share(name: str, own: tuple[str, ...] = (), others: tuple[str, ...] = ()) -> None:
    """Share leases with the embedded host `name`: make the directory, with a copy of the machine's file.

    `own` are the subnets of the machine's networks, `others` those of the host's. Called on the machine
    before an embedded host boots on its network. Raises KernelError, FormatError.
    """
    make_private(SHARED)
    write_file(f"{SHARED}/{own_name()}", read_file(FILE) or b"")
    write_file(f"{SHARED}/{name}", b"")
    announce(others, name)
    if own:
        announce(own)


def announce(taken: Iterable[str], name: str = "") -> None:
    """Tell the hosts on this network which subnets the networks of a host have, by default of this one."""
    if exists(SHARED):
        data = "".join(f"{one}\n" for one in taken).encode("ascii")
        write_file(_subnets_file(name or own_name()), data)


def announced() -> list[tuple[str, str]]:
    """(subnet, whose it is) of the networks of other hosts on this network. Raises FormatError."""
    found = []
    own = _subnets_file(own_name())
    for name in names(SHARED):
        path = f"{SHARED}/{name}"
        if name.endswith(_SUBNETS) and path != own:
            host = name.removesuffix(_SUBNETS).removeprefix(".")
            who = "the machine" if host == MACHINE else f"the embedded host '{host}'"
            lines = (read_file(path) or b"").decode("ascii", "replace").split()
            found += [(one, f"a network of {who}") for one in lines]
    return found


def _subnets_file(name: str) -> str:
    return f"{SHARED}/.{name}{_SUBNETS}"


def forget_host(name: str) -> bool:
    """Release all addresses of the embedded host `name`; whether it was the last on the machine's network.

    Called on the machine after the host has ended. Raises KernelError.
    """
    unlink(_subnets_file(name))
    if not unlink(f"{SHARED}/{name}"):
        return False
    if any(one[0] != "." and one != own_name() for one in posix.listdir(SHARED)):
        return False
    remove_tree(SHARED)
    return True


def release(container_id: str, network_id: str = "") -> bool:
    """Release the container's addresses on a network; whether it had any. The lock is taken."""
    with NetworkLock(network_id):
        return drop(network_id, (container_id,).__contains__) != []


def drop(network_id: str, is_meant: Callable[[str], bool]) -> list[str]:
    """Release the addresses of all containers that are meant; their ids. The caller holds the lock."""
    dropped: list[str] = []
    for family in _FAMILIES if network_id else (4,):
        last, leases = _load(network_id, family)
        meant = [container_id for container_id in leases if is_meant(container_id)]
        if meant:
            for container_id in meant:
                del leases[container_id]
            _store(network_id, family, last, leases)
        dropped += (one for one in meant if one not in dropped)
    return dropped


def all(network_id: str = "", family: int = 4) -> dict[str, str]:  # noqa: A001 (used qualified: leases.all())
    """Every lease of a network: container id -> address. It takes no lock: a file is replaced as a whole."""
    return _load(network_id, family)[1]


def in_use() -> list[str]:
    """The ids of the networks, without `bridge`, that have containers, or had them. Raises KernelError."""
    try:
        return [name for name in names(paths.NETWORK) if is_id(name)]
    except OSError as error:
        raise KernelError.of("look into", paths.NETWORK, error) from None


def forget(network_id: str) -> None:
    """Remove the files of a network without leases; the caller holds its lock, which goes last."""
    for path in (_file(network_id, 4), _file(network_id, 6), f"{directory(network_id)}/lock"):
        unlink(path)
    try:
        posix.rmdir(directory(network_id))
    except OSError:
        pass  # ignoring: another process has made the lock again, or something else is kept there


def reclaim(is_alive: Callable[[str], bool]) -> list[str]:
    """Release the addresses on the network `bridge` of all containers that are not alive; their ids.

    `is_alive` is called under the lock, while no other process can acquire a lease; it must return True for a
    container that is starting.
    """
    with NetworkLock():
        return drop("", lambda one: not is_alive(one))


def choose(subnet: str, gateway: str, last: str, taken: set[str], ip_range: str = "") -> str:
    """The lowest free address above `last`, else the lowest free one (pure). Raises Conflict."""
    family = subnets.family_of(subnet)
    # excluding the network address and the broadcast address
    first, final = subnets.hosts(subnet)
    if ip_range:
        base, bits = subnets.split(ip_range)
        first = max(first, base)
        final = min(final, base + (1 << (subnets.BITS[family] - bits)) - 1)
    here = subnets.number_of(last) if last else first - 1
    if not first <= here <= final:
        here = first - 1
    for candidates in (range(here + 1, final + 1), range(first, min(here, final) + 1)):
        for number in candidates:
            address = subnets.text_of(number, family)
            if address != gateway and address not in taken:
                return address
    raise Conflict(
        f"no address is free in {ip_range or subnet}",
        hint="stop containers, run `sysbox gc`, or give the network a larger subnet",
    )


def parse(text: str, where: str = "") -> tuple[str, dict[str, str]]:
    """(last address, id -> address) from the file's text. Raises FormatError."""
    lines = text.splitlines()
    leases: dict[str, str] = {}
    for line in lines[1:]:
        address, space, container_id = line.partition(" ")
        if not space or not container_id or " " in container_id or container_id in leases:
            raise FormatError(f"{where or FILE}: cannot read the line '{line}'")
        leases[container_id] = address
    return (lines[0] if lines else ""), leases


def _file(network_id: str, family: int) -> str:
    if not network_id:
        return FILE
    return f"{directory(network_id)}/leases{'6' if family == 6 else ''}"


def _load(network_id: str, family: int) -> tuple[str, dict[str, str]]:
    path = _file(network_id, family)
    return parse((read_file(path) or b"").decode("ascii", "replace"), path)


def _store(network_id: str, family: int, last: str, leases: dict[str, str]) -> None:
    lines = [last, *(f"{address} {container_id}" for container_id, address in leases.items())]
    data = ("\n".join(lines) + "\n").encode("ascii")
    write_file(_file(network_id, family), data)
    if not network_id and exists(SHARED):
        write_file(f"{SHARED}/{own_name()}", data)
