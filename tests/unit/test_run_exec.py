"""What enters a container: not the cgroups of another process that has its number by now."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from sysbox.base.errors import Conflict, StartError
from sysbox.container.store import Runtime
from sysbox.run import exec as entering


def test_a_number_that_is_another_s_by_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths of the cgroups were read by it, so they may be that one's."""
    monkeypatch.setattr(entering, "_check_held", lambda *_: None)
    monkeypatch.setattr(entering, "_entering", lambda *_: None)
    monkeypatch.setattr(entering.tree, "open_entry", lambda *_: (-1, ()))
    monkeypatch.setattr(entering.parent, "fork_helper", lambda *_: pytest.fail("it entered"))
    record: Any = SimpleNamespace(name="x")
    run = Runtime(
        pid=os.getpid(), start_time=1, supervisor=os.getpid(), supervisor_start=1, scope=""
    )
    spec = entering.ExecSpec(argv=("true",), emits_events=False, detach=True)
    with pytest.raises(Conflict, match="x has just ended"):
        entering._run(record, spec, run, entering.ExecContext())


def test_it_ends_while_it_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its namespaces are gone before its first process is: setns(2) fails with ESRCH in the helper."""

    def enter(*_: object) -> int:
        raise StartError("enter the container's namespaces: No such process", phase="namespaces")

    # as a process that ends meanwhile: not yet gone where nobody waits for it
    run = SimpleNamespace(await_end=lambda timeout: timeout > 0)
    monkeypatch.setattr(entering, "_running", lambda _: run)
    monkeypatch.setattr(entering, "_run", enter)
    record: Any = SimpleNamespace(name="x")
    with pytest.raises(Conflict, match="x has just ended"):
        entering.exec_in(record, entering.ExecSpec(argv=("true",)))
