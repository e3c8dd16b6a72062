"""What a question is answered, from the names of the network; or that another resolver is to be asked."""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.resolver import wire
from sysbox.resolver.wire import AAAA, ANY, PTR, A, Question, Wire
from sysbox.resolver.zone import records_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.resolver.zone import Host, Zone

_CACHED = 4096  # answers
_CACHED_QUESTION = 128  # bytes
_ORDERS = 8  # of an answer with several addresses, which are given in turn


class Forward(Frozen):
    """A question for other resolvers."""

    question: Question
    siblings: tuple[
        str, ...
    ]  # gateways of the client's other networks: asked first, for their names only
    servers: tuple[str, ...]  # asked then; () is the host's own
    outside: bool  # whether servers are asked at all


class Answers:
    """Answers questions. Whole answers are kept for as long as the names are the same, by the question's
    bytes: those of a container that has names or servers of its own are not.
    """

    def __init__(self, zone: Zone, codec: Wire) -> None:
        self._zone = zone
        self._wire = codec
        self._kept: dict[bytes, tuple[bytes, ...]] = {}
        self._version = -1
        self._turn = 0

    def answer(self, data: bytes, client: str, *, stream: bool = False) -> bytes | Forward | None:
        """An answer, a question to forward, or None for what is not answered at all.

        The caller has refreshed the zone since it received the question.
        """
        zone = self._zone
        if zone.version != self._version:
            self._kept.clear()
            self._version = zone.version
        special = stream or client in zone.special
        if not special:
            kept = self._kept.get(data[2:])
            if kept:
                self._turn += 1
                return data[:2] + kept[self._turn % len(kept)]
        question = self._wire.parse(data)
        if question is None:
            return None
        found = self._find(question, client)
        if isinstance(found, Forward):
            return found
        limit = wire.ANSWER_MAX if stream else question.limit
        code, records = found
        orders = tuple(
            self._wire.answer(question, code, records[at:] + records[:at], limit=limit)
            for at in range(min(max(len(records), 1), _ORDERS))
        )
        if not special and len(data) <= _CACHED_QUESTION:
            if len(self._kept) >= _CACHED:
                self._kept.clear()
            self._kept[data[2:]] = tuple(one[2:] for one in orders)
        return orders[0]

    def _find(
        self, question: Question, client: str
    ) -> Forward | tuple[int, tuple[tuple[int, str], ...]]:
        """(response code, records), or whom to ask."""
        if question.opcode:
            return wire.NOTIMP, ()
        if not question.internet:
            return wire.REFUSED, ()
        hosts = self._zone.find(question.labels, client)
        if hosts:
            # a name is known with all its types: where one has no record, no other resolver is asked
            return wire.NOERROR, _records(hosts, question.kind)
        local, name = self._zone.reverse(question.labels)
        if local:
            pointer = ((PTR, name),) if name and question.kind in (PTR, ANY) else ()
            return (wire.NOERROR if name else wire.NXDOMAIN), pointer
        if self._zone.is_ours(question.labels) or self._zone.is_host(client):
            # the host has its own resolver: forwarding its questions could go round in a circle
            return wire.NXDOMAIN, ()
        return self._forward(question, client)

    def _forward(self, question: Question, client: str) -> Forward | tuple[int, tuple[()]]:
        asking = self._zone.clients.get(client)
        settings = self._zone.settings
        internal = asking.internal if asking else settings.internal
        siblings = asking.others if asking else ()
        if internal and not siblings:
            return wire.NXDOMAIN, ()
        own = asking.servers if asking else ()
        return Forward(
            question=question,
            siblings=siblings,
            servers=own or settings.servers,
            outside=not internal,
        )


def _records(hosts: list[Host], kind: int) -> tuple[tuple[int, str], ...]:
    if kind == ANY:
        return records_of(hosts, A) + records_of(hosts, AAAA)
    return records_of(hosts, kind) if kind in (A, AAAA) else ()
