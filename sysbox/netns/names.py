"""Who has which name on a network: in a directory for each network, a file for each of its containers.

A file is written by rename before the container's command runs, with the first process of the container,
and removed at its end. The resolver (`sysbox/resolver/`) reads them: it never answers about a container whose
process has ended, whether or not its file is still there.
"""

from __future__ import annotations

import posix

from sysbox.base import codec, paths
from sysbox.base.errors import KernelError
from sysbox.base.files import make_private, names, read_file, unlink, write_file
from sysbox.container.identity import is_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sysbox.netns.attachment import Attachment
    from sysbox.netns.network import Network

DIRECTORY = f"{paths.RUN}/names"
SETTINGS = (
    "network"  # the file with what the resolver is to know of the network; no id is such a word
)
_READABLE = (
    0o644  # by the resolver, which has a user of its own; DIRECTORY itself is closed to all others
)


def directory_of(network: str) -> str:
    """The directory of a network."""
    return f"{DIRECTORY}/{network}"


def resolved(attachments: tuple[Attachment, ...]) -> tuple[Attachment, ...]:
    """Those of the networks that have a resolver."""
    return tuple(one for one in attachments if one.dns)


def reserve(container: str, network: str) -> bool:
    """Make the directory of a network, with a file that names nobody yet: from now on it is in use.

    True where it was not there. The caller holds the lock of the names. Raises KernelError.
    """
    path = directory_of(network)
    make_private(DIRECTORY)
    try:
        posix.mkdir(path, 0o755)
        posix.chmod(path, 0o755)
        new = True
    except FileExistsError:
        new = False
    except OSError as error:
        raise KernelError.of("make", path, error) from None
    write_file(f"{path}/{container}", codec.dumps({"pid": 0, "start": 0}), _READABLE)
    return new


def configure(network: str, known: Attachment | Network) -> None:
    """Write what the resolver is to know of a network, if it differs. The caller holds the lock."""
    settings = {
        "subnets": _given(known.subnet, known.subnet6),
        "gateways": _given(known.gateway, known.gateway6),
        "servers": list(known.dns_servers),
        "internal": known.internal,
    }
    path, data = f"{directory_of(network)}/{SETTINGS}", codec.dumps(settings)
    if read_file(path) != data:
        write_file(path, data, _READABLE)


def publish(
    container: str,
    who: tuple[str, str],
    process: tuple[int, int],
    attachments: tuple[Attachment, ...],
    servers: tuple[str, ...] = (),
    links: Mapping[str, str] | None = None,
) -> None:
    """Name a container on each of its networks, at once and for as long as its first process runs.

    `who` is (name, host name), `process` (pid, start time). `servers` are those of `--dns`; `links` are names
    that only this container knows, each with the id of whose it is. Raises KernelError.
    """
    mine = resolved(attachments)
    for one in mine:
        others = [
            gateway
            for other in mine
            if other is not one
            for gateway in _given(other.gateway, other.gateway6)[:1]
        ]
        data = {
            "pid": process[0],
            "start": process[1],
            "name": who[0],
            "hostname": who[1],
            "aliases": list(one.aliases),
            "addresses": _given(one.address, one.address6),
            "servers": list(servers),
            "links": dict(links or {}),
            "others": others,
            "internal": all(other.internal for other in attachments),
        }
        path = f"{directory_of(one.network)}/{container}"
        write_file(path, codec.dumps(data), _READABLE)


def withdraw(container: str, network: str) -> bool:
    """Name a container no longer on a network; True where it was the last one, and the directory is removed.

    The caller holds the lock of the names. Raises KernelError.
    """
    path = directory_of(network)
    unlink(f"{path}/{container}")
    if any(is_id(one) for one in names(path)):
        return False
    for one in names(path):
        unlink(f"{path}/{one}")
    try:
        posix.rmdir(path)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise KernelError.of("remove", path, error) from None
    return True


def networks() -> list[str]:
    """The networks on which there are names."""
    return names(DIRECTORY)


def containers(network: str) -> list[str]:
    """The ids of the containers that have a file."""
    return [one for one in names(directory_of(network)) if is_id(one)]


def dead(is_alive: Callable[[str], bool]) -> list[tuple[str, str]]:
    """(network, id) of each file whose container is not alive."""
    return [
        (network, one) for network in networks() for one in containers(network) if not is_alive(one)
    ]


def _given(*texts: str) -> list[str]:
    return [one for one in texts if one]
