"""Who has which name on a network: read from the directory that `netns/names.py` writes.

The directory is read when its time of change differs, and files in it that are as before are not. Each
container's first process is watched by a descriptor: from its end on nothing is answered about it,
whether or not its file is still there.
"""

from __future__ import annotations

import _socket
import posix
import select
import time

from sysbox.base import codec
from sysbox.base.errors import SysboxError
from sysbox.base.frozen import Frozen
from sysbox.container.identity import is_id
from sysbox.linux import process
from sysbox.netns import names, subnets
from sysbox.resolver.wire import AAAA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Labels = tuple[bytes, ...]

_LABEL_MAX = 63
_NAME_MAX = 253
_FILE_MAX = 1 << 16  # bytes
_CLOCK_STEP = 50_000_000  # ns: more than the kernel's clock of file times moves at once
_OURS = (b"sysbox",)  # the domain that the host asks in


class Host(Frozen):
    """A container on the network."""

    id: str
    pidfd: int
    name: str
    names: tuple[Labels, ...]  # its name and aliases
    hostname: Labels | None
    addresses: tuple[str, ...]
    servers: tuple[str, ...]  # `--dns`
    links: dict[Labels, str]  # `--link`: a name that only this container knows -> whose it is
    others: tuple[str, ...]  # gateways of the other networks that it is on
    internal: bool  # whether all its networks are


class Settings(Frozen):
    """What the resolver is to know of its network."""

    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    internal: bool = False


class Zone:
    """The names of one network. `version` changes whenever an answer may."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        # as in docker: a network's own name is a domain there
        self._domains = (_OURS, labels_of(directory.rpartition("/")[2]) or _OURS)
        self._read_at: tuple[int, int] = (-1, -1)
        self._settled = False
        self._files: dict[str, tuple[tuple[int, int, int], Host | None]] = {}
        self._ends = select.epoll()
        self._by_pidfd: dict[int, str] = {}
        self._named: dict[Labels, list[Host]] = {}
        self._short: dict[Labels, Host] = {}
        self._hostnames: dict[Labels, list[Host]] = {}
        self._known: dict[str, bool] = {}
        self.version = 0
        self.settings = Settings()
        self.clients: dict[str, Host] = {}  # address -> container
        self.special: set[str] = set()  # addresses of containers whose answers are their own
        self.refresh()

    def refresh(self) -> None:
        """See what has changed. What was renamed into the directory before the call is known after it."""
        changed = False
        try:
            status = posix.stat(self._directory)
            now = (status.st_ino, status.st_mtime_ns)
            if now != self._read_at or not self._settled:
                # two changes within a step of that clock have the same time: the directory is read again
                # until the step is over
                self._settled = abs(time.time_ns() - status.st_mtime_ns) > _CLOCK_STEP
                self._read_at = now
                changed = self._read()
        except OSError:
            pass  # ignoring: the network has just been removed, and this process is about to be stopped
        # last: a process that was found may have ended before it was watched
        ended = self._ends.poll(0)
        for pidfd, _ in ended:
            self._forget(pidfd)
        if changed or ended:
            self._index()

    def _forget(self, pidfd: int) -> None:
        container = self._by_pidfd.pop(pidfd, "")
        self._ends.unregister(pidfd)
        posix.close(pidfd)
        if container in self._files:
            self._files[container] = (self._files[container][0], None)

    def _read(self) -> bool:
        """Read the files that are new; whether anything differs."""
        changed = False
        present = set()
        for name in posix.listdir(self._directory):
            path = f"{self._directory}/{name}"
            if name != names.SETTINGS and not is_id(name):
                continue
            try:
                status = posix.stat(path)
            except FileNotFoundError:
                continue
            present.add(name)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if name in self._files and self._files[name][0] == version:
                continue
            changed = True
            self._drop(name)
            self._files[name] = (version, self._load(name, path))
        for name in self._files.keys() - present:
            changed = True
            self._drop(name)
            del self._files[name]
        return changed

    def _drop(self, name: str) -> None:
        known = self._files.get(name)
        if known and known[1]:
            self._forget(known[1].pidfd)

    def _load(self, name: str, path: str) -> Host | None:
        try:
            data = codec.loads(_content(path), path)
            if name == names.SETTINGS:
                self.settings = Settings(
                    subnets=_texts(data, "subnets"),
                    gateways=_texts(data, "gateways"),
                    servers=_texts(data, "servers"),
                    internal=data["internal"] is True,
                )
                self._known.clear()
                return None
            return self._watch(name, data)
        except (
            SysboxError,
            OSError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            OverflowError,
        ):
            return None  # ignoring: a damaged file names nobody; `sysbox gc` removes it with its container

    def _watch(self, container: str, data: dict[str, object]) -> Host | None:
        pid, start = int(str(data["pid"])), int(str(data["start"]))
        if pid <= 0:
            return None  # it starts
        try:
            pidfd = posix.pidfd_open(pid)
        except ProcessLookupError:
            return None
        if not _is_same(pid, start):
            posix.close(pidfd)
            return None
        host = _host(container, pidfd, data)
        self._ends.register(pidfd, select.EPOLLIN)
        self._by_pidfd[pidfd] = container
        return host

    def _index(self) -> None:
        self.version += 1
        self._named, self._short, self._hostnames = {}, {}, {}
        self.clients, self.special = {}, set()
        for _, host in self._files.values():
            if host is None:
                continue
            for name in set(host.names):
                self._named.setdefault(name, []).append(host)
            self._short[(host.id[:12].encode(),)] = host
            if host.hostname:
                self._hostnames.setdefault(host.hostname, []).append(host)
            for address in host.addresses:
                self.clients[address] = host
                if host.servers or host.links or host.others:
                    self.special.add(address)

    def is_client(self, address: str) -> bool:
        """Whether it is an address of the network."""
        known = self._known.get(address)
        if known is None:
            # a link-local address has a scope: fe80::1%sb-0123
            known = "%" not in address and any(
                subnets.contains(subnet, address) for subnet in self.settings.subnets
            )
            if len(self._known) > 4096:
                self._known.clear()
            self._known[address] = known
        return known

    def is_host(self, address: str) -> bool:
        """Whether it is the host itself that asks, which may have any of its addresses: rules that masquerade
        what leaves a network apply to what the host sends to itself too.

        No packet with such an address comes from elsewhere (the kernel drops them as martians).
        """
        if self.is_client(address):
            return address in self.settings.gateways
        return _is_local(address)

    def find(self, labels: Labels, client: str) -> list[Host]:
        """The containers that have a name, as the container at the address `client` sees it.

        A name or an alias comes first, then a short id, then a host name: what was given to a container by
        default never stands in for a name that was chosen. Any of them may have a domain of ours.
        """
        asking = self.clients.get(client)
        meant = (labels, *self._without_domain(labels))
        for one in meant:
            if asking and one in asking.links:
                entry = self._files.get(asking.links[one])
                return [entry[1]] if entry and entry[1] else []
        for one in meant:
            if found := self._named.get(one):
                return found
        for one in meant:
            if one in self._short:
                return [self._short[one]]
            if one in self._hostnames:
                return self._hostnames[one]
        return []

    def _without_domain(self, labels: Labels) -> Iterator[Labels]:
        for domain in self._domains:
            size = len(domain)
            if len(labels) > size and labels[-size:] == domain:
                yield labels[:-size]

    def reverse(self, labels: Labels) -> tuple[bool, str]:
        """(whether the name is that of an address of this network, the container's name or "")."""
        address = _address(labels)
        if not address or not self.is_client(address):
            return False, ""
        host = self.clients.get(address)
        return True, (host.name if host else "")

    def is_ours(self, labels: Labels) -> bool:
        """Whether no other resolver has such a name."""
        return labels[-1:] == _OURS


def records_of(hosts: Iterable[Host], kind: int) -> tuple[tuple[int, str], ...]:
    """The records of a type, A or AAAA."""
    return tuple(
        (kind, address)
        for host in hosts
        for address in host.addresses
        if (":" in address) == (kind == AAAA)
    )


def labels_of(name: str) -> Labels | None:
    """A name as DNS has it, in lower case; None for one that DNS cannot express (RFC 1035, 2.3.4)."""
    try:
        labels = tuple(name.lower().encode("ascii").split(b"."))
    except UnicodeEncodeError:
        return None
    fits = all(0 < len(label) <= _LABEL_MAX for label in labels)
    return labels if fits and len(name) <= _NAME_MAX else None


def _content(path: str) -> bytes:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    try:
        return posix.read(fd, _FILE_MAX)
    finally:
        posix.close(fd)


def _is_same(pid: int, start: int) -> bool:
    """Whether a process is the one that was meant, and not a later one with its pid."""
    try:
        # 0: it has just ended, which the descriptor tells, or the host hides processes from other users
        # (hidepid=, proc(5))
        return process.start_time(pid) in (0, start)
    except SysboxError:
        return True  # hidden, too


def _host(container: str, pidfd: int, data: dict[str, object]) -> Host:
    texts = {key: str(data.get(key, "")) for key in ("name", "hostname")}
    lists = {key: _texts(data, key) for key in ("aliases", "addresses", "servers", "others")}
    links: dict[Labels, str] = {}
    for alias, target in (data.get("links") or {}).items():  # type: ignore[attr-defined]
        labels = labels_of(str(alias))
        if labels:
            links[labels] = str(target)
    named = (labels_of(one) for one in (texts["name"], *lists["aliases"]))
    return Host(
        id=container,
        pidfd=pidfd,
        name=texts["name"] if labels_of(texts["name"]) else container[:12],
        names=tuple(one for one in named if one),
        hostname=labels_of(texts["hostname"]),
        addresses=lists["addresses"],
        servers=lists["servers"],
        links=links,
        others=lists["others"],
        internal=data.get("internal") is True,
    )


def _texts(data: dict[str, object], key: str) -> tuple[str, ...]:
    found = data.get(key, [])
    if type(found) is not list:
        raise TypeError(key)
    return tuple(str(one) for one in found)


def _is_local(address: str) -> bool:
    """Whether an address is the host's: what is sent there has it as its source too."""
    family = _socket.AF_INET6 if ":" in address else _socket.AF_INET
    probe = _socket.socket(family, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        probe.connect((address, 9))  # a datagram socket: nothing is sent
        return str(probe.getsockname()[0]) == address
    except OSError:
        return False
    finally:
        probe.close()


def _address(labels: Labels) -> str:
    """The address of a reverse name; "" for any other name."""
    text = [label.decode("ascii", "replace") for label in labels]
    try:
        if text[-2:] == ["in-addr", "arpa"] and len(text) == 6:
            return subnets.text_of(subnets.number_of(".".join(reversed(text[:4]))), 4)
        if (
            text[-2:] == ["ip6", "arpa"]
            and len(text) == 34
            and all(len(one) == 1 for one in text[:32])
        ):
            return subnets.text_of(int("".join(reversed(text[:32])), 16), 6)
    except (SysboxError, ValueError):
        pass  # ignoring: it is a name like any other
    return ""
