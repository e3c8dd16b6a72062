"""Who listens at a seccomp profile's `listenerPath`: another user, or an agent that does nothing."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers, commands, eventually, popen
from lane import Sysbox

NOBODY = 65534
# listens, says so, and waits for the end of its input; a user's own directory is no place of root's
SQUAT = """
import os, socket, sys
os.umask(0)
one = socket.socket(socket.AF_UNIX)
one.bind(sys.argv[1])
one.listen()
print(flush=True)
sys.stdin.read()
"""
# each is six bytes of JSON; with annotations it is more than a socket takes unread
BIG = "\x01" * (1 << 15)
MORE = tuple(f"--annotation={key}={'x' * 100_000}" for key in "abcd")


def asked(directory: Path, listener: Path, *names: str, metadata: str = "") -> tuple[str, ...]:
    path = directory / "p.json"
    rules = [{"names": names, "action": "SCMP_ACT_NOTIFY"}]
    content = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    content |= {"listenerPath": str(listener), "listenerMetadata": metadata}
    path.write_text(json.dumps(content), encoding="ascii")
    return "--network", "none", "--security-opt", f"seccomp={path}"


@pytest.fixture
def deaf(tmp_path: Path) -> Iterator[socket.socket]:
    """An agent that has room for connections, reads nothing, and answers nothing."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(tmp_path / "deaf"))
        one.listen()
        yield one


def test_another_user_listens(
    sysbox: Sysbox, containers: Containers, image: str, tmp_path: Path, deaf: socket.socket
) -> None:
    """It gets no descriptor, and nothing starts; `exec` neither."""
    # hosts share /tmp
    open_to_all = Path(tempfile.mkdtemp(dir="/tmp"))
    open_to_all.chmod(0o777)
    squatted = open_to_all / "s"
    listening = [sys.executable, "-I", "-c", SQUAT, str(squatted)]
    with subprocess.Popen(
        listening, stdin=subprocess.PIPE, stdout=subprocess.PIPE, user=NOBODY, group=NOBODY,
        extra_groups=[],
    ) as squatter:  # fmt: skip
        try:
            assert squatter.stdout
            squatter.stdout.readline()
            said = f"listenerPath {squatted}: the user {NOBODY} listens there, not root\n"
            flags = ("--name", "agentless", *asked(tmp_path, squatted, "mkdir"))
            for more in ((), ("-d",)):
                done = sysbox("run", *more, *flags, image, "true")
                assert (done.returncode, said in done.stderr) == (125, True), done.stderr
                assert "answers for the container" in done.stderr
                assert sysbox("ps", "-aq", "--filter", "name=agentless").stdout == ""
            one = containers(*asked(tmp_path, Path(deaf.getsockname()), "mkdir"))
            asked(tmp_path, squatted, "mkdir")
            done = sysbox("exec", one.id, "true")
            assert (done.returncode, said in done.stderr) == (125, True), done.stderr
        finally:
            assert squatter.stdin
            squatter.stdin.close()
            squatter.wait(60)
            squatted.unlink(missing_ok=True)
            open_to_all.rmdir()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["int", "term"])
def test_a_signal_ends_the_wait(
    sysbox: Sysbox, image: str, tmp_path: Path, deaf: socket.socket, number: signal.Signals
) -> None:
    """While the agent reads nothing, and while it has the descriptor and does not answer."""
    path = Path(deaf.getsockname())
    for names, metadata, more in (("mkdir", BIG, MORE), ("execve", "", ())):
        flags = ("--name", "held", *more, *asked(tmp_path, path, names, metadata=metadata))
        with popen("run", *flags, image, "true") as process:
            connection, _ = deaf.accept()
            with connection:
                # the first part is there: it waits for the rest, or for an answer
                assert connection.recv(1, socket.MSG_PEEK)
                process.send_signal(number)
                _, error = process.communicate(timeout=60)
                assert process.returncode == 128 + number, error
                # no deadline did it
                assert "listenerPath" not in error
        assert sysbox("ps", "-aq", "--filter", "name=held").stdout == ""
        assert not [line for line in commands() if "--name held" in line]


def test_an_agent_that_reads_slowly(
    sysbox: Sysbox, image: str, tmp_path: Path, deaf: socket.socket
) -> None:
    """All that it has to read has one deadline: a part that it reads gives it no more time."""
    path = Path(deaf.getsockname())
    flags = ("--name", "held", *MORE, *asked(tmp_path, path, "mkdir", metadata=BIG))
    with popen("run", *flags, image, "true") as process:
        connection, _ = deaf.accept()
        with connection:
            while process.poll() is None:
                assert connection.recv(4096)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
            error = process.communicate()[1]
    said = f"listenerPath {path}: it does not read what it is sent"
    assert (process.returncode, [said in line for line in error.splitlines()]) == (125, [True])
    assert sysbox("ps", "-aq", "--filter", "name=held").stdout == ""


@pytest.mark.parametrize("mode", [(), ("-d",)], ids=["foreground", "background"])
def test_a_removal_ends_the_wait(
    sysbox: Sysbox, image: str, tmp_path: Path, deaf: socket.socket, mode: tuple[str, ...]
) -> None:
    """While the agent reads nothing; no deadline does it."""
    path = Path(deaf.getsockname())
    flags = (*mode, "--name", "held", *MORE, *asked(tmp_path, path, "mkdir", metadata=BIG))
    with popen("run", *flags, image, "true") as process:
        connection, _ = deaf.accept()
        with connection:
            assert connection.recv(1, socket.MSG_PEEK)
            sysbox("rm", "-f", "held", check=True)
            assert "listenerPath" not in process.communicate(timeout=60)[1]
    assert sysbox("ps", "-aq", "--filter", "name=held").stdout == ""


def test_who_holds_a_start_up_is_said(
    sysbox: Sysbox, image: str, tmp_path: Path, deaf: socket.socket
) -> None:
    """On standard error once, and as the state of the service; a removal ends it."""
    flags = ("--name", "held", *asked(tmp_path, Path(deaf.getsockname()), "execve"))
    said = f"waiting for the agent at {deaf.getsockname()}"
    with popen("run", "--rm", *flags, image, "true") as process:
        assert process.stderr
        assert process.stderr.readline() == f"sysbox: {said}\n"
        process.terminate()
        assert process.communicate(timeout=60)[1] == ""
    with popen("run", "-d", *flags, image, "true") as process:
        shown = ["systemctl", "show", "-P", "StatusText", "sysbox-*.service"]
        eventually(
            lambda: (
                said in subprocess.run(shown, capture_output=True, text=True, check=True).stdout
            ),
            "the service says what it waits for",
        )
        sysbox("rm", "-f", "held", check=True)
        process.communicate(timeout=60)
    assert sysbox("ps", "-aq", "--filter", "name=held").stdout == ""
