"""SELinux denies, and a container's streams are what its caller has opened, whoever that is.

The kernel closes what a new label may not use, and says nothing to the program: it reads an end of file, and
writes into nothing.
"""

from __future__ import annotations

import os
import pty
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import PATIENCE, Containers, eventually, popen, systemctl
from denials import nothing_denied as nothing_denied
from denials import unexpected
from lane import SYSBOX, Sysbox

pytestmark = pytest.mark.enforcing("the kernel closes descriptors without a word")
RUNTIME = "container_runtime_t"
BOOLEAN = "sysbox_callers_streams"
ANSWER = ("sh", "-c", "read -r word; echo out $word; echo err $word >&2")


def domain(pid: int | str) -> str:
    """The SELinux type of a process."""
    context = Path(f"/proc/{pid}/attr/current").read_text(encoding="ascii")
    return context.split(":")[2]


def test_who_supervises(containers: Containers, image: str) -> None:
    """The manager has a domain of its own: begun by hand, and begun by systemd."""
    process = popen("run", "-i", "--rm", image, "sh", "-c", "echo up; cat", stdin=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    assert domain("self") == "unconfined_t"
    assert domain(process.pid) == RUNTIME
    process.stdin.close()
    assert process.wait() == 0
    one = containers()
    monitor = systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service")
    assert domain(monitor) == RUNTIME
    assert domain(one.pid) != RUNTIME


@pytest.mark.parametrize("kept", ["--rm", "--log-driver=journald"])
def test_pipes(sysbox: Sysbox, image: str, kept: str) -> None:
    """The caller's own pipes (--rm), and those that sysbox copies to."""
    done = sysbox("run", "-i", kept, "--name", "streams", image, *ANSWER, input="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out hello\n", "err hello\n")
    sysbox("rm", "-f", "streams")


def test_files(sysbox: Sysbox, image: str, containers: Containers, tmp_path: Path) -> None:
    """Files as streams, of `run` and of `exec`, below /tmp and below the caller's home directory."""
    one = containers()
    home = Path.home() / "streams-test"
    home.mkdir()
    try:
        for directory in (tmp_path, home):
            (directory / "in").write_text("hello\n")
            for words in (("run", "-i", "--rm", image), ("exec", "-i", one.id)):
                with (
                    (directory / "in").open() as given,
                    (directory / "out").open("w") as out,
                    (directory / "err").open("a") as err,
                ):
                    command = [SYSBOX, *words, *ANSWER]
                    subprocess.run(command, stdin=given, stdout=out, stderr=err, check=True)
                assert (directory / "out").read_text() == "out hello\n"
                assert (directory / "err").read_text() == "err hello\n"
                (directory / "err").unlink()
    finally:
        for file in home.iterdir():
            file.unlink()
        home.rmdir()


def test_sockets(image: str) -> None:
    """As of a caller over ssh without a terminal."""
    near, far = socket.socketpair()
    with near, far:
        words = [SYSBOX, "run", "-i", "--rm", image, "cat"]
        process = subprocess.Popen(words, stdin=far, stdout=far)
        far.close()
        near.settimeout(PATIENCE)
        near.sendall(b"there and back")
        near.shutdown(socket.SHUT_WR)
        assert near.recv(100) == b"there and back"
        assert process.wait(PATIENCE) == 0


ASK = ("sh", "-c", "while ! read -r -t 1 word; do echo ready; done; echo got $word; exit 3")


def where_they_are() -> str:
    """What each process that takes part waits for: in the kernel, and at which descriptors."""
    columns = "pid,ppid,pgid,sid,tpgid,stat,tty,wchan:20,args"
    listed = ["ps", "-eo", columns]
    shown = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    for line in shown.splitlines()[1:]:
        if "sysbox" not in line and ASK[-1] not in line:
            continue
        place = Path("/proc", line.split()[0])
        try:
            links = " ".join(f"{fd.name}={fd.readlink()}" for fd in (place / "fd").iterdir())
            shown += (
                f"{line}\n{(place / 'syscall').read_text()}{(place / 'stack').read_text()}{links}\n"
            )
        except OSError as error:
            shown += f"{error}\n"
    return shown


def on_a_terminal(*words: str) -> int:
    """`sysbox WORDS...` on a terminal, which answers what ASK asks; its exit status."""
    pid, master = pty.fork()
    if not pid:
        os.execv(SYSBOX, [SYSBOX, *words])
    seen, deadline, answer = b"", time.monotonic() + PATIENCE, b"hello\r"
    while True:
        if time.monotonic() > deadline:
            doing = where_they_are()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail(f"{words} has said {seen!r} in {PATIENCE:g} s\n{doing}")
        if not select.select([master], [], [], 0.5)[0]:
            continue
        try:
            seen += os.read(master, 4096)
        except OSError:
            break  # the other side has closed it
        if answer and b"ready" in seen:
            os.write(master, answer)
            answer = b""
    os.close(master)
    assert b"got hello" in seen, seen
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_terminals(image: str, containers: Containers) -> None:
    """Of `run`, of `exec`, and of a detached container that one attaches to."""
    one = containers("-it", command=ASK)
    for words in (
        ("run", "-it", "--rm", image, *ASK),
        ("exec", "-it", one.id, *ASK),
        ("attach", one.id),
    ):
        assert on_a_terminal(*words) == 3


def test_logs_and_attach(containers: Containers) -> None:
    """What follows a detached container reads what that has written, and sends what it reads."""
    one = containers("-i", command=("sh", "-c", "read -r word; echo got $word"))
    follower = popen("logs", "-f", one.id)
    attached = popen("attach", one.id, stdin=subprocess.PIPE)
    assert attached.stdin
    attached.stdin.write("hello\n")
    attached.stdin.close()
    assert attached.wait(PATIENCE) == 0
    assert attached.stdout
    assert attached.stdout.read() == "got hello\n"
    assert follower.wait(PATIENCE) == 0
    assert follower.stdout
    assert follower.stdout.read() == "got hello\n"


def in_a_service(image: str, said: str, *properties: str) -> None:
    """`sysbox run` as an administrator's own unit has it."""
    # under a name of its own: the one before may not be unloaded yet
    words = ["systemd-run", "-q", "--wait", *properties]
    command = [*words, str(SYSBOX), "run", "--rm", image, "echo", said]
    assert subprocess.run(command, check=False).returncode == 0


def is_logged(said: str) -> None:
    """Wait until the journal has it: as of the scope, or of the unit if its writer had ended already."""
    words = ["journalctl", "-b", "-q", "-o", "cat"]

    def logged() -> bool:
        log = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        return said in log.splitlines()

    eventually(logged, f"the journal has {said!r}")


def test_in_a_service(image: str, tmp_path: Path) -> None:
    """Its output is the journal's, or a file."""
    in_a_service(image, "into the journal")
    in_a_service(image, "into a file", "-p", f"StandardOutput=file:{tmp_path}/out")
    assert (tmp_path / "out").read_text() == "into a file\n"
    is_logged("into the journal")


@pytest.fixture
def off() -> Iterator[None]:
    """No container may use what its caller has opened."""
    subprocess.run(["setsebool", BOOLEAN, "off"], check=True)
    yield
    subprocess.run(["setsebool", BOOLEAN, "on"], check=True)
    unexpected()  # what has been denied is no news in the next test


@pytest.mark.usefixtures("off")
def test_with_the_boolean_off(sysbox: Sysbox, image: str, containers: Containers) -> None:
    """Of the caller's own pipes nothing is read and nothing gets out; what sysbox has made is used as before:
    output that is copied, terminals, logs.
    """
    done = sysbox("run", "-i", "--rm", image, *ANSWER, input="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = sysbox("run", "-i", "--name", "copied", image, *ANSWER, input="hello\n")
    sysbox("rm", "copied", check=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")
    one = containers(command=("sh", "-c", "echo up; sleep 1000"))
    eventually(lambda: one("logs") == "up\n", "its log has it")
    assert on_a_terminal("run", "-it", "--rm", image, *ASK) == 3
    assert on_a_terminal("exec", "-it", one.id, *ASK) == 3


@pytest.fixture
def mislabelled() -> Iterator[None]:
    """The command has lost its label, as a copy of it has, and runs as its caller."""
    label = os.getxattr(SYSBOX, "security.selinux")
    os.setxattr(SYSBOX, "security.selinux", label.replace(b"container_runtime_exec_t", b"bin_t"))
    yield
    os.setxattr(SYSBOX, "security.selinux", label)


@pytest.mark.usefixtures("off", "mislabelled")
def test_a_command_without_its_label(sysbox: Sysbox, image: str) -> None:
    """It says what the kernel would do without a word, and makes nothing; unconfined containers run."""
    before = sysbox("ps", "-aq").stdout
    for verb in (("run", "--rm"), ("create",)):
        done = sysbox(*verb, image, "true")
        assert done.returncode == 125
        said, hint = done.stderr.splitlines()
        assert "SELinux would close the output of containers: its policy does not know" in said
        assert ":unconfined_t:" in said
        assert "make install-selinux" in hint
    assert sysbox("ps", "-aq").stdout == before
    flags = ("--rm", "--security-opt", "label=disable")
    assert sysbox("run", *flags, image, "echo", "hello", check=True).stdout == "hello\n"
