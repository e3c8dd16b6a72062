"""The answer to a client that waits for a start, in particular where the process that starts was killed."""

from __future__ import annotations

import errno
import json
import os
import posix
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sysbox.base.errors import Conflict, Gone, described
from sysbox.linux import unix
from sysbox.run import reports

ID = "ab" * 32


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    # not tmp_path: that is longer than the address of a socket may be
    with (
        tempfile.TemporaryDirectory() as directory,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours,
    ):
        monkeypatch.setattr(reports, "DIRECTORY", directory)
        ours.bind(reports.path_of(ID))
        ours.setblocking(False)
        yield ours


def answer(client: socket.socket) -> Any:
    return json.loads(client.recv(1 << 16))


def test_a_start_and_a_failure(client: socket.socket) -> None:
    reports.send(ID, None)
    assert client.recv(100) == b""
    reports.send(ID, Conflict("no room", hint="make some"))
    assert answer(client) == {"message": "no room", "hint": "make some", "status": 125}
    # by which a client knows that another command has removed the container
    reports.send(ID, Gone(ID))
    assert answer(client)["gone"] == ID
    client.close()
    reports.send(ID, None)
    os.unlink(reports.path_of(ID))
    reports.send(ID, None)
    reports.send_after_end(ID)


def environ(monkeypatch: pytest.MonkeyPatch, *values: str) -> None:
    """What systemd tells ExecStopPost= of the end."""
    for name, value in zip((b"SERVICE_RESULT", b"EXIT_CODE", b"EXIT_STATUS"), values, strict=True):
        monkeypatch.setitem(posix.environ, name, value.encode())


@pytest.mark.parametrize(
    ("result", "code", "status", "said"),
    [
        ("signal", "killed", "KILL", "was killed by SIGKILL"),
        ("core-dump", "dumped", "SEGV", "was killed by SIGSEGV"),
        ("exit-code", "exited", "203", "ended with status 203"),
        ("oom-kill", "killed", "KILL", "was killed for lack of memory"),
        ("timeout", "", "", "was ended by its TimeoutStartSec="),
        ("", "", "", "ended"),
    ],
    ids=["killed", "dumped", "exited", "memory", "timeout", "unknown"],
)
def test_what_is_said_after_the_end(
    client: socket.socket,
    monkeypatch: pytest.MonkeyPatch,
    result: str,
    code: str,
    status: str,
    said: str,
) -> None:
    environ(monkeypatch, result, code, status)
    reports.send_after_end(ID)
    found = answer(client)
    assert (
        found["message"] == f"the process that starts the container {said} before it could say more"
    )
    assert f"sysbox-{ID}.service" in found["hint"]


@pytest.mark.parametrize(
    ("result", "code", "status"),
    [
        ("success", "killed", "TERM"),
        ("success", "exited", "143"),
        ("success", "exited", "0"),
        ("success", "", ""),
        ("signal", "", ""),
    ],
    ids=["early", "starting", "waiting", "before", "preparing"],
)
def test_a_stop_is_said_after_the_end(
    client: socket.socket, monkeypatch: pytest.MonkeyPatch, result: str, code: str, status: str
) -> None:
    environ(monkeypatch, result, code, status)
    reports.send_after_end(ID)
    assert answer(client)["message"] == "its service was stopped while it started"


def test_each_client_is_answered(client: socket.socket) -> None:
    path = f"{reports.DIRECTORY}/{ID}"  # as earlier versions named that of the only one
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as another:
        another.bind(path)
        Path(f"{reports.DIRECTORY}/{ID}.2").touch()
        reports.send(ID, Conflict("no room"))
        for one in (client, another):
            assert answer(one)["message"] == "no room"
        reports.send("cd" * 32, None)
        with pytest.raises(BlockingIOError):
            client.recv(1)
    assert (ID, path) in reports.sockets()


def test_whether_a_client_lives(client: socket.socket) -> None:
    path = reports.path_of(ID)
    assert unix.unheard(path) == 0
    client.close()
    assert Path(path).exists()
    assert unix.unheard(path) == errno.ECONNREFUSED
    os.unlink(path)
    assert unix.unheard(path) == errno.ENOENT


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (Conflict("it runs", hint="stop it"), "it runs", "stop it"),
        (
            OSError(28, "No space left on device", "/var"),
            "/var: No space left on device",
            "the file system",
        ),
        (OSError(5, "Input/output error"), "Input/output error", ""),
        (MemoryError(), "allocate memory: Cannot allocate memory", "the host is out of memory"),
        (ImportError("no sysbox.run"), "no sysbox.run", "a module of sysbox"),
        (KeyError("CONSOLE"), "KeyError: 'CONSOLE'", "this is a bug"),
    ],
    ids=["own", "file", "call", "memory", "module", "bug"],
)
def test_any_exception_in_words(error: Exception, message: str, hint: str) -> None:
    found = described(error)
    assert found.message == message
    assert found.hint.startswith(hint)
    assert found.status == 125
