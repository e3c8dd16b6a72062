"""Declared units that wait for each other, of which systemd would start none, or leave one out. Pure."""

from __future__ import annotations

from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.units.quadlet.units import Service

SAID = "each waits for the next one: "  # what the error of such a unit says after its path
_SHOWN = 5  # steps at each end of a cycle


def marked(services: Iterable[Service]) -> Iterator[Service]:
    """The services; one that starts after another that starts after it is wrong, and says so."""
    every = list(services)
    after = _order(every)
    for one in every:
        way = _way_back(one.unit, after) if one.unit in after else []
        if not way:
            yield one
            continue
        yield one.replace(
            error=f"{one.source.path}: {SAID}{_steps(way)}: leave out one After= or Before="
        )


def _steps(way: list[str]) -> str:
    """The same text for each unit of a cycle; of a long one the middle is left out."""
    first = way.index(min(way))
    turned = [*way[first:-1], *way[: first + 1]]
    steps = [f"{left} after {right}" for left, right in pairwise(turned)]
    if len(steps) > 2 * _SHOWN:
        steps[_SHOWN:-_SHOWN] = [f"and {len(steps) - 2 * _SHOWN} more"]
    return ", ".join(steps)


def _order(services: list[Service]) -> dict[str, set[str]]:
    """What each unit starts after, without those that are in no cycle for sure."""
    after: dict[str, set[str]] = {one.unit: set() for one in services}
    for one in services:
        for key, value in one.unit_keys:
            if key not in ("After", "Before"):
                continue
            for other in value.split():
                first, second = (other, one.unit) if key == "After" else (one.unit, other)
                if first in after and second in after and first != second:
                    after[second].add(first)
    while free := {unit for unit, others in after.items() if not others}:
        after = {unit: others - free for unit, others in after.items() if unit not in free}
    return after


def _way_back(unit: str, after: dict[str, set[str]]) -> list[str]:
    """A shortest way from a unit back to itself, both ends included; [] where there is none."""
    came: dict[str, str] = {}
    waiting = [unit]
    while waiting:
        here = waiting.pop(0)
        for other in sorted(after[here]):
            if other == unit:
                way = [unit, here]
                while way[-1] != unit:
                    way.append(came[way[-1]])
                return way[::-1]
            if other not in came:
                came[other] = here
                waiting.append(other)
    return []
