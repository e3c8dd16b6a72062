"""A module imports from lower rows, or downward inside its own package."""

from __future__ import annotations

import pytest
import source

# A module's own name decides, else its package's. A new one is given a row here, on purpose.
ROWS = {
    0: "base",
    1: "linux",
    2: "spec private host base.files base.tree base.flock container.identity security.idmap",
    3: "parse embedded.caller_root netns.attachment netns.network netns.subnets",
    4: """build security units.limits units.names units.syntax units.wire units.cgroup.blockdev
          units.scopeplan units.resolverplan units.serviceplan units.quadlet
          fs.mountoptions fs.notify fs.private fs.rootfs fs.sockets netns.topology
          netns.rules netns.rules_iptables netns.rules_nft netns.ways""",
    5: """conf units.bus units.declares fs.labelled fs.mapped fs.policy_contexts container.clocks
          container.health container.records container.locks container.systemd_mode container.systemd_plan
          container.process_plan container.lease_files container.id_ranges container.levels""",
    6: "plan lifecycle.update_plan",
    7: """units units.cgroup fs fs.drivers netns image image.formats image.registry image.trust
          container.names container.store""",
    8: "scope run.handshake container resolver",
    9: """run.attach_socket run.process run.streams run.init run.builder run.name_hold run.stop_requests
          run.json_log run.listener run.parent run.recording
          run.supervisor run.monitor run.terminal run.stdio run.disk_weights run.cgroup_watch
          run.detach_keys units.unit_file""",
    10: "run",
    11: "content",
    12: "lifecycle",
    13: """docker embedded build.channel build.config build.content build.content_sources build.context
           build.digests build.fetch build.git build.layers build.options build.origins build.result
           build.root build.run build.run_agent build.run_mounts build.stage build.stage_copy build.state
           build.workers""",
    14: "lifecycle.build",
    15: "cli cli.commands cli.doctor cli.parse cli.request cli.table",
    16: "_main",
}
ROW_OF = {f"sysbox.{name}": row for row, names in ROWS.items() for name in names.split()}
MODULES = source.modules()
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}
# Imports that close a circle, each with its reason: (who imports, the module or package).
CIRCLES = {
    (
        "sysbox.cli.invoke",
        "sysbox.cli.commands",
    ): "by the name that was typed: a verb may guard another",
}


def row(module: str) -> int:
    """The row of a module: its own, or its package's; empty packages lie below everything."""
    if module in PACKAGES and not source.tree(MODULES[module]).body[1:]:
        return -1
    package = module if module in PACKAGES else module.rpartition(".")[0]
    if not {module, package} & set(ROW_OF):
        pytest.fail(f"{module} has no row: add it to the table in tests/lint/test_layers.py")
    return ROW_OF.get(module, ROW_OF.get(package, -1))


def test_the_table_names_what_there_is() -> None:
    gone = sorted(set(ROW_OF) - set(MODULES))
    assert not gone, f"in the table of tests/lint/test_layers.py, and nowhere else: {gone}"
    names = [name for names in ROWS.values() for name in names.split()]
    assert len(names) == len(ROW_OF), "a module has two rows"
    none = sorted(PACKAGES - set(ROW_OF) - {"sysbox"})
    assert not none, f"these packages have no row: {none}"
    for importing, imported in CIRCLES:
        assert importing in MODULES, importing
        assert imported in MODULES, imported


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
    """Inside a package too: downward means that an order exists. What a function imports counts as well."""
    graph = {
        name: {other for other in source.own(source.imports(path)) if not allowed(name, other)}
        & set(MODULES) - {name}
        for name, path in MODULES.items()
    }
    cycles = [
        f"{name} <-> {other}"
        for name, needs in graph.items()
        for other in needs
        if name in source.reachable(graph, other)
    ]
    assert not cycles, "these import each other: " + ", ".join(sorted(cycles))


def allowed(importing: str, imported: str) -> bool:
    """Whether this import may be part of a circle."""
    return bool({(importing, imported), (importing, imported.rpartition(".")[0])} & set(CIRCLES))


def test_the_exceptions_are_needed() -> None:
    graph = {
        name: source.own(source.imports(path)) & set(MODULES) for name, path in MODULES.items()
    }
    for importing, imported in CIRCLES:
        assert any(
            importing in source.reachable(graph, other)
            for other in graph[importing]
            if other.startswith(imported)
        ), f"{importing} and {imported} are no circle any more: remove the exception"
