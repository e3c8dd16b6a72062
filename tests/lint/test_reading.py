"""A verb that shows containers changes nothing but by one step before: lifecycle/repair.py."""

from __future__ import annotations

import pytest
import source

CHANGING = {
    f"sysbox.{name}"
    for name in """run.teardown run.exit lifecycle.control lifecycle.remove lifecycle.gc lifecycle.prune
                   netns.firewall netns.leases""".split()
}
REPAIR = "sysbox.lifecycle.repair"
# the verbs that repair before they show, and those that have no need of it
REPAIRING = ("explain", "info", "inspect", "ps")
SHOWING = "diff explain_rows image_inspect images logs port ps_filters stats top version".split()
VERBS = "sysbox.cli.commands."
MODULES = source.modules()
GRAPH = {name: source.own(source.imports(path)) & set(MODULES) for name, path in MODULES.items()}
READING = sorted(
    {name for name in MODULES if name.startswith("sysbox.docker.")}
    | {"sysbox.lifecycle.current", "sysbox.container.status"}
    | {VERBS + verb for verb in SHOWING}
)


def changed_by(start: str, graph: dict[str, set[str]]) -> list[str]:
    """Those modules that `start` imports, or a module that it imports, functions included."""
    return sorted(source.reachable(graph, start) & CHANGING)


def test_the_tables_name_what_there_is() -> None:
    assert CHANGING | {REPAIR} | {VERBS + verb for verb in REPAIRING} <= set(MODULES)
    assert set(READING) <= set(MODULES)


@pytest.mark.parametrize("module", READING)
def test_what_reads_changes_nothing(module: str) -> None:
    assert not changed_by(module, GRAPH)


@pytest.mark.parametrize("verb", REPAIRING)
def test_a_verb_repairs_in_one_step(verb: str) -> None:
    """All ways to a change lead through lifecycle/repair.py."""
    assert changed_by(VERBS + verb, GRAPH), f"{verb} repairs nothing: it belongs to SHOWING"
    without = {**GRAPH, REPAIR: set()}
    assert not changed_by(VERBS + verb, without)
