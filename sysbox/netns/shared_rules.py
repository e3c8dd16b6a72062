"""The rules of the other hosts on this network: embedded hosts and the machine have one packet filter.

Each tells the others its policies and its published ports, in a file beside that of its leases
(SHARED), and who makes rules makes those of all, in the packet filter that a further file names. Where no
embedded host is on the machine's network there is no such directory, and nothing to do.
"""

from __future__ import annotations

from sysbox.base.errors import FormatError
from sysbox.base.files import names, read_file, unlink, write_file
from sysbox.base.flock import BRIEFLY, Lock
from sysbox.host import exists, read_text
from sysbox.netns.rules import Policy, Published
from sysbox.netns.shared import SHARED, own_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

_LOCK = ".firewall.lock"
_BACKEND = ".firewall"
_SUFFIX = ".rules"  # after a dot and a host's name
_POLICY, _PORT = "policy ", "port "


class Locks:
    """This host's lock on its rules and, with other hosts on the network, the one that all of them take.

    A context manager. Raises Conflict where another process holds one for half a minute, KernelError.
    """

    def __init__(self, path: str) -> None:
        self._held = [Lock(path, timeout=BRIEFLY)]
        if exists(SHARED):
            try:
                self._held.append(Lock(f"{SHARED}/{_LOCK}", timeout=BRIEFLY))
            except BaseException:
                self._held[0].release()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in reversed(self._held):
            one.release()


def announce(policies: Iterable[Policy], published: Iterable[str]) -> None:
    """Tell the other hosts this one's policies and the lines of its ports. Raises KernelError."""
    if exists(SHARED):
        lines = [_POLICY + one.line() for one in policies] + [_PORT + one for one in published]
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        write_file(_file(own_name()), data)


def backend() -> str:
    """The packet filter that has the rules of all hosts on this network; "" where none has made any."""
    return read_text(f"{SHARED}/{_BACKEND}").strip()


def choose(name: str) -> None:
    """Tell the other hosts which packet filter has the rules of all; "" for none. Raises KernelError."""
    if not exists(SHARED):
        return
    if name:
        write_file(f"{SHARED}/{_BACKEND}", f"{name}\n".encode("ascii"))
    else:
        unlink(f"{SHARED}/{_BACKEND}")


def others(own: tuple[Policy, ...] = ()) -> tuple[tuple[Policy, ...], list[str]]:
    """(the policies of the other hosts' bridges but those of `own`, the lines of their published ports).

    What cannot be read is left out: it is another host's to repair.
    """
    mine = {one.bridge for one in own}
    policies: dict[str, Policy] = {}
    published: list[str] = []
    if not exists(SHARED):
        return (), []
    from sysbox.netns import ports  # few hosts share a network

    path = _file(own_name())
    for name in names(SHARED):
        file = f"{SHARED}/{name}"
        if not name.endswith(_SUFFIX) or file == path:
            continue
        for line in (read_file(file) or b"").decode("ascii", "replace").splitlines():
            try:
                if line.startswith(_PORT):
                    ports.parse([line.removeprefix(_PORT)])
                    published.append(line.removeprefix(_PORT))
                elif line.startswith(_POLICY):
                    one = Policy.read(line.removeprefix(_POLICY))
                    policies.setdefault(one.bridge, one)
            except (ValueError, FormatError):
                continue
    return tuple(one for one in policies.values() if one.bridge not in mine), published


def with_others(
    policies: tuple[Policy, ...], entries: tuple[Published, ...]
) -> tuple[tuple[Policy, ...], tuple[Published, ...]]:
    """The policies and published ports of all hosts on this network. Raises FormatError."""
    from sysbox.netns import ports

    theirs, lines = others(policies)
    return (*policies, *theirs), (*entries, *ports.parse(lines))


def forget(name: str) -> bool:
    """Forget the rules of an embedded host that has ended; whether it had any. Raises KernelError."""
    had = bool(read_file(_file(name)))
    unlink(_file(name))
    return had


def _file(name: str) -> str:
    return f"{SHARED}/.{name}{_SUFFIX}"
