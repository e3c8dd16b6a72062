"""What is released at the end of a run that the kernel does not end by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sysbox.run import teardown
from sysbox.spec import Bandwidth


@pytest.mark.parametrize(
    ("pid", "failed", "alive", "stopped"),
    [
        ("private", False, False, False),  # the kernel has killed its pid namespace
        ("host", False, False, True),
        ("container:x", False, False, True),
        ("private", True, False, True),
        ("private", False, True, True),
    ],
)
def test_processes_that_only_the_scope_holds_together_are_killed(
    monkeypatch: pytest.MonkeyPatch, *, pid: str, failed: bool, alive: bool, stopped: bool
) -> None:
    steps: list[str] = []

    def note(module: Any, name: str) -> None:
        monkeypatch.setattr(module, name, lambda *_, **__: steps.append(name))

    note(teardown, "stop_scope")
    note(teardown.tree, "remove_cgroups")
    note(teardown.tuned, "unwatch")
    note(teardown, "disconnect")
    monkeypatch.setattr(teardown, "probe", lambda: None)
    namespaces = SimpleNamespace(pid=pid, network="bridge")
    spec = SimpleNamespace(namespaces=namespaces, bandwidth=Bandwidth(), unit="")
    record: Any = SimpleNamespace(id="x", spec=spec)
    runtime: Any = SimpleNamespace(scope="x.scope", cgroup="/x", alive=lambda: alive)
    teardown.unwind(record, runtime, failed=failed)
    # its processes first: a cgroup that has one cannot be removed
    first = ["stop_scope"] if stopped else []
    assert steps == [*first, "remove_cgroups", "unwatch", "disconnect"]
