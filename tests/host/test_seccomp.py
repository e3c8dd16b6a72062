"""Profiles of system calls: by name, and with a listener that answers calls in the container's place."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import Containers, eventually, systemctl
from lane import Sysbox
from test_units import SERVICE, Declare

ALLOW = "SCMP_ACT_ALLOW"
NAMED = Path("/etc/sysbox/seccomp")
# linux/seccomp.h: struct seccomp_notif, and seccomp_notif_resp
RECEIVE, SEND = 0xC0502100, 0xC0182101


def write(path: Path, **values: object) -> str:
    path.write_text(json.dumps({"defaultAction": ALLOW, **values}), encoding="ascii")
    return f"seccomp={path}"


def refusing(*names: str, errno_: int = errno.ENOTSUP) -> list[dict[str, object]]:
    return [{"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": errno_}]


class Agent:
    """Listens as a profile's agent: each container's calls are answered with `answer`, an errno or 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.states: list[dict[str, Any]] = []
        self.calls: list[int] = []
        self.answer = errno.EXDEV
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._ending, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._end.close()
        self._thread.join()
        self._socket.close()
        self._ending.close()

    def _serve(self) -> None:
        listeners: list[int] = []
        while True:
            ready, _, _ = select.select([self._ending, self._socket], [], [], 0)
            if self._ending in ready:
                break
            poll = select.poll()
            for fd in (self._ending, self._socket):
                poll.register(fd, select.POLLIN)
            for listener in listeners:
                poll.register(listener, select.POLLIN)
            for fd, events in poll.poll():
                if fd == self._socket.fileno():
                    listeners.append(self._accept())
                elif fd in listeners and events & select.POLLIN:
                    self._answer(fd)
                elif fd in listeners:
                    listeners.remove(fd)
                    socket.close(fd)
        for fd in listeners:
            socket.close(fd)

    def _accept(self) -> int:
        with self._socket.accept()[0] as connection:
            data, fds, _, _ = socket.recv_fds(connection, 1 << 16, 1)
            while more := connection.recv(1 << 16):
                data += more
        self.states.append(json.loads(data))
        return fds[0]

    def _answer(self, fd: int) -> None:
        notification = array.array("B", bytes(80))
        fcntl.ioctl(fd, RECEIVE, notification)
        key, _pid, _flags, number = struct.unpack_from("=QIIi", notification)
        self.calls.append(number)
        fcntl.ioctl(fd, SEND, struct.pack("=QqiI", key, 0, -self.answer, 0))


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    one = Agent(tmp_path / "agent")
    yield one
    one.close()


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path, image: str) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path, image)
    yield one
    one.remove()


@pytest.fixture
def named() -> Iterator[Path]:
    """The directory of the administrator's profiles."""
    made = not NAMED.exists()
    NAMED.mkdir(parents=True, exist_ok=True)
    yield NAMED
    for path in NAMED.iterdir():
        path.unlink()
    if made:
        NAMED.rmdir()


def test_a_profile_by_its_name(
    sysbox: Sysbox, containers: Containers, image: str, named: Path
) -> None:
    """In `run`, `exec`, and at each start as it is then."""
    write(named / "no-mkdir.json", syscalls=refusing("mkdir", "mkdirat"))
    flags = ("--network", "none", "--security-opt", "seccomp=no-mkdir")
    done = sysbox("run", "--rm", *flags, image, "mkdir", "/x")
    assert (done.returncode, "not supported" in done.stderr) == (1, True)
    one = containers(*flags)
    assert "seccomp=no-mkdir" in one.inspect("HostConfig.SecurityOpt")
    done = sysbox("exec", one.id, "mkdir", "/x")
    assert (done.returncode, "not supported" in done.stderr) == (1, True)
    write(named / "no-mkdir.json")
    one.exec("mkdir", "/x")
    done = sysbox(
        "run", "--rm", "--network", "none", "--security-opt", "seccomp=no-mkdri", image, "true"
    )
    assert done.returncode == 125
    assert done.stderr.splitlines()[0].endswith(
        "seccomp=no-mkdri: no profile of this name in /etc/sysbox/seccomp or /usr/share/sysbox/seccomp"
    )
    assert "did you mean 'no-mkdir'?" in done.stderr


def test_what_is_wrong_with_a_profile_is_said_before_anything_is_made(
    sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    path = tmp_path / "p.json"
    flags = ("--name", "never", "--network", "none", "--security-opt", f"seccomp={path}")
    for content, said in (
        ('{"defaultAction": "SCMP_ACT_ALLOW",\n "syscalls": [,]}', "not JSON in line 2, column 15"),
        ('{"defaultAction": "SCMP_ACT_ALLW"}', "did you mean 'SCMP_ACT_ALLOW'?"),
    ):
        path.write_text(content)
        for verb in (("run", "-d"), ("run",), ("create",)):
            done = sysbox(*verb, *flags, image, "true")
            assert (done.returncode, said in done.stderr) == (125, True), done.stderr
            assert len(done.stderr.splitlines()) <= 2
        assert sysbox("ps", "-aq", "--filter", "name=never").stdout == ""
    write(path, syscalls=refusing("mkdri", "a_call_of_the_future"))
    done = sysbox("run", "--rm", *flags, image, "true", check=True)
    assert done.stderr == (
        f"sysbox: seccomp profile {path}: ignoring unknown system calls: mkdri (did you mean mkdir?), "
        "a_call_of_the_future\n"
    )


def test_of_a_declared_container(
    sysbox: Sysbox, declare: Declare, named: Path, tmp_path: Path
) -> None:
    """SeccompProfile= has names, files beside the declaration, and the file of a recording."""
    write(named / "no-mkdir.json", syscalls=refusing("mkdir", "mkdirat"))
    write(tmp_path / "beside.json", syscalls=refusing("mkdir", "mkdirat"))
    made = tmp_path / "made.json"
    for value in ("no-mkdir", "./beside.json"):
        one = declare(f"Exec=sleep 1000\nStopSignal=KILL\nNetwork=none\nSeccompProfile={value}")
        done = sysbox("exec", one.id, "mkdir", "/x")
        assert (done.returncode, "not supported" in done.stderr) == (1, True), done.stderr
        declare.remove()
    one = declare(f"Exec=sleep 1000\nStopSignal=KILL\nNetwork=none\nSeccompProfile=record:{made}")
    one.exec("mkdir", "/x")
    systemctl("stop", SERVICE)
    assert '"mkdir' in made.read_text()
    done = sysbox("unit", "check", declare.file("SeccompProfile=no-mkdri"))
    assert (done.returncode, "did you mean 'no-mkdir'?" in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("detached", [False, True], ids=["foreground", "background"])
def test_an_agent_answers(
    sysbox: Sysbox, containers: Containers, image: str, tmp_path: Path, agent: Agent, detached: bool
) -> None:
    """It gets the descriptor and the state of the OCI runtime specification, of `exec` too."""
    asked = write(
        tmp_path / "p.json",
        syscalls=[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
        listenerPath=str(agent.path), listenerMetadata="of the test",
        flags=["SECCOMP_FILTER_FLAG_LOG"],
    )  # fmt: skip
    flags = ("--network", "none", "--annotation", "a=b", "--security-opt", asked)
    if not detached:
        done = sysbox("run", "--rm", *flags, image, "mkdir", "/x")
        assert (done.returncode, "ross-device link" in done.stderr) == (1, True), done.stderr
        agent.answer = 0
        done = sysbox(
            "run", "--rm", *flags, image, "sh", "-c", "mkdir /x && test ! -e /x", check=True
        )
        (first, _) = agent.states
        assert first["metadata"] == "of the test"
        assert first["fds"] == ["seccompFd"]
        assert first["state"]["status"] == "creating"
        assert first["state"]["annotations"] == {"a": "b"}
        assert first["pid"] == first["state"]["pid"] > 1
        return
    one = containers(*flags)
    # what it was sent may wait in its socket yet
    eventually(lambda: agent.states, "the agent has read it")
    assert agent.states[0]["state"]["id"] == one.id
    assert agent.states[0]["pid"] == one.pid
    done = sysbox("exec", one.id, "mkdir", "/x")
    assert (done.returncode, "ross-device link" in done.stderr) == (1, True), done.stderr
    assert agent.states[1]["state"]["status"] == "running"
    assert agent.states[1]["state"]["pid"] == one.pid
    # what runs in it has no descriptor of the listener
    assert "seccomp" not in one.sh("ls -l /proc/1/fd /proc/self/fd")
    assert len(agent.calls) == 1


def test_without_its_agent_nothing_starts(
    sysbox: Sysbox, containers: Containers, image: str, tmp_path: Path, agent: Agent
) -> None:
    rules = [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    asked = write(tmp_path / "p.json", syscalls=rules, listenerPath=f"{tmp_path}/nobody")
    flags = ("--rm", "--network", "none", "--name", "alone", "--security-opt", asked)
    for more in ((), ("-d",)):
        done = sysbox("run", *more, *flags, image, "true")
        assert done.returncode == 125
        assert f"listenerPath {tmp_path}/nobody: No such file or directory" in done.stderr
        assert sysbox("ps", "-aq", "--filter", "name=alone").stdout == ""
    write(tmp_path / "p.json", syscalls=rules, listenerPath=str(agent.path))
    one = containers(*flags[1:])
    agent.close()
    done = sysbox("exec", one.id, "true")
    assert (done.returncode, "Connection refused" in done.stderr) == (125, True)
    assert one.inspect("State.Running")
