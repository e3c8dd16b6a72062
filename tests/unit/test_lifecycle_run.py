"""`run`, while a container is made."""

from __future__ import annotations

import signal
import socket
import tempfile
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from sysbox.lifecycle import create, remove, run
from sysbox.run import attach_socket
from sysbox.spec import ContainerSpec

if TYPE_CHECKING:
    from sysbox.container.records import Record


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


def test_the_monitor_of_one_that_is_abandoned_waits_for_no_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Somebody is connected as long as the container is being removed."""
    served: list[bool] = []
    with (
        tempfile.TemporaryDirectory() as directory
    ):  # not tmp_path: too long for a socket's address
        record = cast(
            "Record",
            SimpleNamespace(
                run_directory=directory, directory=directory, spec=SimpleNamespace(cidfile="")
            ),
        )
        with socket.socket(fileno=attach_socket.listen(record)) as listener:

            def removed(*_: object, **__: object) -> None:
                client, _address = listener.accept()
                client.send(b"H")
                served.append(True)

            attach_socket.expect(record)
            monkeypatch.setattr(remove, "remove", removed)
            listener.settimeout(10)
            run._abandon(record)
        assert served
        assert attach_socket.is_expected(record) is None
        # nor does it matter that nobody listens
        monkeypatch.setattr(remove, "remove", lambda *_, **__: None)
        run._abandon(record)
