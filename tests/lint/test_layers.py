"""A module imports from lower rows, or downward inside its own package."""

from __future__ import annotations

import pytest
import source

# The longest name that matches decides. A new module is given a row here, on purpose.
ROWS = {
    0: "base",
    1: "linux",
    2: "spec host base.files base.tree base.flock container.identity container.process_plan",
    3: "parse embedded.caller_root",
    4: """security units.limits units.names units.syntax units.wire units.cgroup.blockdev units.scopeplan
          units.serviceplan fs.mountoptions fs.rootfs netns.topology netns.rules""",
    5: """conf container.health container.records container.locks container.systemd_mode
          container.systemd_plan""",
    6: "plan lifecycle.update_plan",
    7: "units fs netns image container.names container.store",
    8: "scope run.handshake container",
    9: """run.attach_socket run.process run.init run.name_hold run.stop_requests run.json_log run.parent
          run.supervisor run.monitor run.terminal run.stdio run.disk_weights run.cgroup_watch
          run.detach_keys units.unit_file""",
    10: "run units.quadlet",
    11: "content",
    12: "lifecycle",
    13: "docker oci embedded",
    14: "cli",
    15: "_main",
}
ROW_OF = {f"sysbox.{name}": row for row, names in ROWS.items() for name in names.split()}
MODULES = source.modules()


def row(module: str) -> int:
    """The row of a module; the package itself and empty packages lie below everything."""
    if not MODULES[module].read_text(encoding="utf-8").partition("\n")[2].strip():
        return -1
    name = module
    while name not in ROW_OF:
        if "." not in name:
            pytest.fail(f"{module} has no row: add it to the table in tests/lint/test_layers.py")
        name = name.rpartition(".")[0]
    return ROW_OF[name]


def package_of(module: str) -> str:
    """The package that a module is in: sysbox itself, or one below it."""
    part = ".".join(module.split(".")[:2])
    return part if MODULES[part].name == "__init__.py" else "sysbox"


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"sysbox"}))
def test_imports_point_downward(module: str) -> None:
    wrong = []
    for other in source.own(source.imports(MODULES[module])) - source.EXTENSIONS - {"sysbox"}:
        assert other in MODULES, f"{module} imports {other}, which does not exist"
        same_package = package_of(module) == package_of(other)
        if row(other) >= row(module) and not (same_package and row(other) == row(module)):
            wrong.append(f"{other} (row {row(other)})")
    assert not wrong, f"{module} (row {row(module)}) imports upward: {', '.join(wrong)}"


def test_no_import_cycle() -> None:
    """Inside a package too: downward means that an order exists.

    Only what is imported when a module is: a hot module may reach its cold half, which builds on it, from
    inside the one function that needs it.
    """
    graph = {
        name: source.own(source.imports(path, top_level_only=True)) & set(MODULES)
        for name, path in MODULES.items()
    }
    cycles = [
        f"{name} <-> {other}"
        for name, needs in graph.items()
        for other in needs
        if name <= other and name in reachable(graph, other)
    ]
    assert not cycles, "these import each other: " + ", ".join(sorted(cycles))


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All that `start` imports, directly or not, and itself."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting += graph[name]
    return seen
