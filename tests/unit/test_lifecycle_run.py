"""`run`, while a container is made."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sysbox.lifecycle import create, run
from sysbox.spec import ContainerSpec


@pytest.fixture
def handlers() -> Iterator[None]:
    """The process's own handlers and mask, as they were afterwards."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.usefixtures("handlers")
def test_a_signal_while_a_container_is_made_leaves_none(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits until the record is known to what removes the container."""
    spec = cast("ContainerSpec", SimpleNamespace(detach=True, ports=(), networks=()))
    made = SimpleNamespace(spec=spec)
    removed: list[Any] = []

    def interrupted(_spec: object, before: Any, _notices: object) -> tuple[Any, None]:
        before()
        signal.raise_signal(number)  # to this thread: pytest-xdist has others
        return made, None

    monkeypatch.setattr(create, "create", interrupted)
    monkeypatch.setattr(run, "needs_service", lambda _: False)
    monkeypatch.setattr(run, "_abandon", removed.append)
    with pytest.raises(KeyboardInterrupt):
        run.run(spec)
    assert removed == [made]
