"""`sysbox network explain`: which rules meet the packets of a container, and what becomes of them."""

from __future__ import annotations

from sysbox.base.errors import Conflict, NotFound
from sysbox.cli.output import line
from sysbox.container import store
from sysbox.netns import firewall_mark, ports, rules, ways
from sysbox.netns.network import BRIDGE
from sysbox.parse.common import bad, is_digits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.container.store import Record, Runtime
    from sysbox.netns.rules import Published
    from sysbox.netns.ways import Way


def main(values: Values) -> int:
    """0; 1 if a rule that should be there is not."""
    record = store.find(values.container)
    runtime = store.runtime(record.id)
    attached = runtime.attachments() if runtime and runtime.alive() else ()
    if runtime is None or not attached:
        raise Conflict(
            f"{record.name} is on no network now", hint="start it, or connect it to a network"
        )
    for one in attached:
        if one.driver != BRIDGE:
            line(
                f"{one.network}: {one.driver} below {one.parent}, which the rules of the host do not meet:"
                f" all ports are reachable at {one.address}, but not from the host itself"
            )
    if all(one.driver != BRIDGE for one in attached):
        return 0
    mark = firewall_mark.read()
    if mark is None:
        raise NotFound("no rules of sysbox are known here", hint="`sysbox network reload`")
    found = ways.Filter(mark.policies, mark.backend)
    for way in _ways(found, runtime, _ports(record.id, values.port)):
        line(f"{way.name}: {way.outcome}")
        for step in way.steps:
            line(f"  {step.chain:<12} {step.verdict:<12} {step.rule}".rstrip())
    _lists(record)
    there = firewall_mark.in_place(mark)
    line(f"packet filter: {mark.backend}{'' if there else ', whose rules are missing'}")
    return 0 if there else 1


def _ways(found: ways.Filter, runtime: Runtime, entries: tuple[Published, ...]) -> list[Way]:
    made: list[Way] = []
    for one in runtime.attachments():
        if one.driver != BRIDGE:
            continue
        policy = next((it for it in found.policies if it.bridge == one.bridge), None)
        policy = policy or rules.policy_of(one)
        for family, address, gateway in (
            (4, one.address, one.gateway),
            (6, one.address6, one.gateway6),
        ):
            mine = [entry for entry in entries if entry.address == address]
            for entry in mine:
                made += ways.of_port(found, one.bridge, entry, gateway)
            if address:
                made += ways.of_network(found, policy, family, address, gateway)
    return made


def _lists(record: Record) -> None:
    """Print what --ip-allow and --ip-deny are, and where they are applied; nothing without them."""
    from sysbox.cli.commands.explain_rows import rows
    from sysbox.lifecycle.repair import repaired

    for one in rows(record, repaired(record).pid):
        if one.limit in ("--ip-allow", "--ip-deny") and (one.now or one.drift):
            line(f"{one.limit}: {one.property}, by {one.now or f'nothing: {one.drift}'}")


def _ports(container_id: str, word: str | None) -> tuple[Published, ...]:
    """The published ports, or those with this port of the host. Raises SpecError, NotFound."""
    entries = tuple(one for one in ports.load() if one.id == container_id)
    if word is None:
        return entries
    number, _, protocol = word.partition("/")
    if not is_digits(number):
        bad("port", word, "not PORT[/PROTOCOL]")
    chosen = tuple(
        one
        for one in entries
        if str(one.port.host_port) == number and one.port.protocol == (protocol or "tcp")
    )
    if not chosen:
        raise NotFound(
            f"port {word} of the host is not published", hint="`sysbox port` lists those that are"
        )
    return chosen
