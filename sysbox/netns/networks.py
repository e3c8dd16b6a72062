"""The definitions of networks: a file for each, NAME.json below paths.NETWORKS.

A stop of an embedded host keeps them, as it keeps images and volumes. A definition is written once, as a
whole, under the lock; what a container has of its network is in the record of its run. DECLARED has those of
units, which others write there, by rename: they are read here, and go with the boot. Of two definitions with
one name that of `network create` counts.
"""

from __future__ import annotations

import posix

from sysbox.base import codec, flock, paths
from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError
from sysbox.base.files import make_private, names, read_file, unlink, write_file
from sysbox.base.paths import NETWORKS
from sysbox.container.identity import find_short, is_id
from sysbox.netns.network import BUILTIN, Network, ends
from sysbox.parse.common import check_name

# Of a definition; absent is 1. A file leaves out defaults: when one changes, raise this number and translate.
FORMAT = 1
DECLARED = f"{paths.RUN}/networks"
_SUFFIX = ".json"
# names that --network gives another meaning
RESERVED = ("bridge", "container", "default", "host", "none", "ns", "private")


class Lock(flock.Lock):
    """The lock on all definitions; a context manager. Raises KernelError."""

    def __init__(self) -> None:
        super().__init__(f"{NETWORKS}/.lock")


def path_of(name: str) -> str:
    """The file of a definition. The caller has checked the name: it has no slash."""
    return f"{NETWORKS}/{name}{_SUFFIX}"


def declared(name: str) -> str:
    """The file below DECLARED that defines a network, or "". The caller has checked the name."""
    path = f"{DECLARED}/{name}{_SUFFIX}"
    return path if not _is_there(path_of(name)) and _is_there(path) else ""


def refuse_declared(name: str) -> None:
    """Raises Conflict for a network that a file below DECLARED defines."""
    if path := declared(name):
        raise Conflict(
            f"network {name}: is declared by {path}",
            hint="change it where that file comes from: commands change only what `network create` made",
        )


def check(name: str) -> None:
    """Raises SpecError for a name that no network can have."""
    check_name(name, "network", shortest=1)
    if name in RESERVED:
        raise SpecError(f"network {name}: the name has a meaning of its own")


def load(name: str) -> Network:
    """A network by its exact name. Raises NotFound, SpecError, FormatError."""
    check_name(name, "network", shortest=1)
    for path in (path_of(name), f"{DECLARED}/{name}{_SUFFIX}"):
        data = read_file(path)
        if data is not None:
            return from_file(data, path, name)
    raise NotFound(f"no such network: {name}", hint=_hint(name))


def find(word: str) -> Network:
    """A network by its name, its id or the first digits of that. Raises NotFound, Conflict, FormatError.

    Of the networks without a definition, this knows none.
    """
    if exists(word):
        return load(word)
    found = find_short("network", word, all_networks)
    if found is None:
        raise NotFound(f"no such network: {word}", hint=_hint(word))
    return found


def _hint(name: str) -> str:
    from sysbox.base.suggest import did_you_mean
    from sysbox.parse.network import OF_USERS, OF_USERS_HINT
    from sysbox.units import declares

    if name in OF_USERS:
        return OF_USERS_HINT
    known = (*BUILTIN, *defined())
    usual = "`sysbox network ls` lists them, `sysbox network create` makes one"
    # its service stays active where the network was removed since: a start would do nothing
    return declares.hint(name, did_you_mean(name, known) or usual, "network create", "restart")


def exists(name: str) -> bool:
    """Whether a network of exactly this name is defined."""
    if not name or "/" in name or "\0" in name:
        return False
    return _is_there(path_of(name)) or declared(name) != ""


def _is_there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def defined(directory: str = "") -> list[str]:
    """The names of all definitions, sorted; also of those that cannot be read. `directory` is one of them."""
    found = {
        one
        for place in ((directory,) if directory else (NETWORKS, DECLARED))
        for one in names(place)
    }
    return sorted(one.removesuffix(_SUFFIX) for one in found if one.endswith(_SUFFIX))


def subnets_of(directory: str = "") -> tuple[str, ...]:
    """The subnets of all networks that can be read, of this host or of one with that directory."""
    found: list[str] = []
    for name in defined(directory):
        path = f"{directory}/{name}{_SUFFIX}" if directory else declared(name) or path_of(name)
        try:
            found += [one[1] for one in ends(from_file(read_file(path) or b"", path, name))]
        except FormatError:
            continue  # no container starts on it
    return tuple(found)


def all_networks(damaged: list[str] | None = None) -> list[Network]:
    """All networks that can be read, by name; `damaged` is given a line about each of the others."""
    found = []
    for name in defined():
        try:
            found.append(load(name))
        except (FormatError, SpecError) as error:
            if damaged is not None:
                damaged.append(error.message)
        except NotFound:
            continue  # removed since it was listed
    return found


def store(network: Network) -> None:
    """Write a definition; the caller holds the lock. Raises KernelError."""
    make_private(NETWORKS)
    write_file(path_of(network.name), to_file(network), durable=True)


def forget(name: str) -> bool:
    """Remove a definition; the caller holds the lock. Whether it was there. Raises KernelError."""
    return unlink(path_of(name))


def to_file(network: Network) -> bytes:
    """The content of a definition. Raises FormatError where it is too large to be read again."""
    return codec.dumps({"format": FORMAT, **network.to_data()})


def from_file(data: bytes, where: str, name: str) -> Network:
    """The network in a file. Raises FormatError, which names the file."""
    hint = f"repair it, or remove the network with `sysbox network rm --force {name}`"
    if where.startswith(f"{DECLARED}/"):
        hint = "repair it where that file comes from"
    try:
        values = codec.loads(data, where)
        codec.take_format(values, where, FORMAT)
        network = Network.from_data(values, where)
        if network.name != name or not is_id(network.id):
            raise FormatError(f"{where}.name: must be {name}")
    except ValueError as error:
        raise FormatError(f"the network's definition {error}", hint=hint) from None
    except FormatError as error:
        raise FormatError(f"the network's definition {error.message}", hint=hint) from None
    return network
