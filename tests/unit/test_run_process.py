"""The last steps before a container's command: what it must not be, and what the process waits for.

A created container waits before its command, with its parent gone, until somebody starts it.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from forked import in_child, needs_root

from sysbox.base.errors import FAILED, NOT_FOUND, KernelError, StartError
from sysbox.container.process_plan import ProcessPlan
from sysbox.linux import _sys
from sysbox.linux.capability import Sets, docker_sets, mask, user_sets
from sysbox.linux.mount import MS_BIND
from sysbox.linux.namespace import CLONE_NEWNS
from sysbox.run import init, process, streams
from sysbox.run.handshake import Channel
from sysbox.run.parent import fork_helper, let_start
from sysbox.security.identity import Identity

PLAN = ProcessPlan(
    argv=("/bin/sh", "-c", "echo ran; exit 3"),
    image_env=(),
    env=(),
    workdir="/",
    user="",
    group_add=(),
    kept_groups=None,
    umask=0o022,
    hostname="",
    tty=False,
    capabilities=Sets(),
    user_capabilities=Sets(),
    no_new_privileges=False,
    seccomp="default",
    rlimits=(),
    sysctls=(),
    oom_score_adj=0,
)


class Waiting:
    """A process that waits at `path`, whose parent has gone; what its command prints can be read."""

    def __init__(self, path: str, plan: ProcessPlan) -> None:
        self.path = path
        self._output, output = os.pipe()
        told, tell = os.pipe()
        middle = os.fork()
        if middle == 0:
            try:
                parked = fork_helper(lambda channel: self._child(channel, plan, output))
                parked.await_waiting()
                os.write(tell, b"%d" % parked.pid)
            finally:
                os._exit(0)
        os.close(output)
        os.close(tell)
        # we adopt nobody: the pidfd tells of its end
        self.pid = int(os.read(told, 20))
        self.pidfd = os.pidfd_open(self.pid)
        os.close(told)
        os.waitpid(middle, 0)

    def _child(self, channel: Channel, plan: ProcessPlan, output: int) -> NoReturn:
        gate = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        gate.bind(self.path)
        gate.listen(1)
        os.dup2(output, 1)
        process.run_command(plan, ("PATH=/usr/bin",), channel, gate=gate.detach())

    def output(self) -> str:
        """Until its end."""
        with os.fdopen(self._output) as file:
            return file.read()

    def end(self) -> None:
        try:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(self.pidfd)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[str]:
    """A path that is short enough for a socket."""
    os.chdir(tmp_path)
    yield "gate"
    os.chdir("/")


def test_it_outlives_its_parent_and_is_started_by_another(place: str) -> None:
    waiting = Waiting(place, PLAN)
    try:
        assert Path(f"/proc/{waiting.pid}/cmdline").read_bytes().find(b"echo ran") < 0
        let_start(place)
        assert waiting.output() == "ran\n"
    finally:
        waiting.end()


def test_why_it_cannot_run_is_told_to_who_starts_it(place: str) -> None:
    waiting = Waiting(place, PLAN.replace(argv=("nosuch",)))
    try:
        with pytest.raises(StartError, match="cannot find nosuch") as raised:
            let_start(place)
        assert raised.value.status == NOT_FOUND
        assert waiting.output() == ""
    finally:
        waiting.end()


def test_it_is_started_once(place: str) -> None:
    waiting = Waiting(place, PLAN)
    try:
        let_start(place)
        with pytest.raises(KernelError, match="start the container that waits at gate"):
            let_start(place)
    finally:
        waiting.end()


def test_nothing_waits_there(place: str) -> None:
    with pytest.raises(KernelError, match="No such file or directory"):
        let_start(place)


@pytest.mark.parametrize("kind", ["fifo", "device", "link", "directory", "missing", "file"])
def test_an_image_s_user_database_is_a_file_or_nothing(tmp_path: Path, kind: str) -> None:
    """A FIFO would be waited for without end, with the container's lock held."""
    needs_root()
    place, inside = tmp_path / "etc/passwd", tmp_path / "other"
    place.parent.mkdir()
    inside.write_bytes(b"text")
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "device":
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    elif kind == "link":
        place.symlink_to("/other")
    elif kind == "directory":
        place.mkdir()
    elif kind == "file":
        place.write_bytes(b"text")
    root, procfs = os.open(tmp_path, os.O_PATH), os.open("/proc", os.O_PATH)
    found = process.read_database(root, procfs, "/etc/passwd")
    assert found == (b"text" if kind in ("link", "file") else b"")
    for fd in (root, procfs):
        os.close(fd)


@pytest.mark.parametrize("kind", ["null", "zero", "fifo", "file", "link", "missing"])
def test_a_null_device_is_never_another_file(tmp_path: Path, kind: str) -> None:
    """A container may have put anything at its /dev/null, which exec opens (CVE-2025-31133)."""
    needs_root()
    place = tmp_path / "dev/null"
    place.parent.mkdir()
    numbers = {"null": (1, 3), "zero": (1, 5)}
    if kind in numbers:
        os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(*numbers[kind]))
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "file":
        place.touch()
    elif kind == "link":
        place.symlink_to("/dev/file")
        (tmp_path / "dev/file").touch()
    root, procfs = os.open(tmp_path, os.O_PATH), os.open("/proc", os.O_PATH)
    spare = streams.new_null()
    found = streams.open_null(root, procfs, spare)
    assert (found == spare) == (kind != "null")
    status = os.fstat(found)
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, os.makedev(1, 3))
    for fd in {root, procfs, spare, found}:
        os.close(fd)


@pytest.mark.parametrize(
    ("call", "user"), [("setresuid", 1000), ("setresgid", 1000), ("capset", 0), ("none", 1000)]
)
def test_a_system_call_that_only_seems_to_succeed(call: str, user: int) -> None:
    """A filter can replace it by a return of 0: the command would run as root."""
    needs_root()
    who = Identity(uid=user, gid=user)

    def become() -> str:
        with pytest.MonkeyPatch.context() as patch:
            module: object = process.posix if call.startswith("set") else _sys
            if call != "none":
                patch.setattr(module, call, lambda *_: None)
            try:
                process._become(PLAN, who)
            except KernelError as error:
                return error.message
        return ""

    assert in_child(become).startswith("become the container's user") is (call != "none")


@pytest.mark.parametrize("user", [0, 1000])
def test_root_and_others_have_sets_of_their_own(user: int) -> None:
    needs_root()
    roots, users = (
        docker_sets(mask(("KILL", "CHOWN"))),
        user_sets(mask(("KILL", "CHOWN")), mask(("KILL",))),
    )
    plan = PLAN.replace(
        capabilities=roots, user_capabilities=users, umask=0o077, kept_groups=(7, 9)
    )

    def become() -> list[int]:
        process.keep_groups(plan)
        who = Identity(uid=user, gid=user, groups=(user,))
        process.drop_privileges(plan, who, None, Channel.pair()[1])
        with open("/proc/thread-self/status", encoding="ascii") as file:
            lines = [line.split() for line in file]
        sets = [int(words[1], 16) for words in lines if words[0].startswith("Cap")]
        return [*sets, os.umask(0), *os.getgroups()]

    wanted = roots if user == 0 else users
    assert in_child(become) == [
        wanted.inheritable, wanted.permitted, wanted.effective, wanted.bounding, wanted.ambient,
        0o077, 7, 9,
    ]  # fmt: skip


def test_a_terminal_is_one_of_a_devpts(tmp_path: Path) -> None:
    """A volume at /dev/pts may have any file for its ptmx."""
    (tmp_path / "dev/pts").mkdir(parents=True)
    (tmp_path / "dev/pts/ptmx").touch()
    root = os.open(tmp_path, os.O_PATH)
    ours, theirs = Channel.pair()
    with pytest.raises(StartError, match="/dev/pts is not a devpts"):
        streams.open_terminal(root, theirs, b"")
    for end in (ours, theirs):
        end.close()
    os.close(root)


def test_a_command_does_not_run_without_the_parent_that_attends_it(tmp_path: Path) -> None:
    """The parent died before the kernel was told to end the child with it."""
    plan = PLAN.replace(argv=("/bin/sh", "-c", f"echo >{tmp_path}/ran"))

    def run() -> None:
        ours, theirs = Channel.pair()
        ours.close()
        process.run_command(plan, ("PATH=/usr/bin",), theirs)

    child = os.fork()
    if child == 0:
        try:
            run()
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == FAILED
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("inside", [True, False])
def test_the_working_directory_is_inside_of_the_root(tmp_path: Path, inside: bool) -> None:
    """CVE-2024-21626: else the command begins in a directory of the host's."""
    (tmp_path / "work").mkdir()

    def enter() -> str:
        _sys.mount(str(tmp_path), str(tmp_path), None, MS_BIND, None)
        root = os.open(tmp_path, os.O_PATH)
        directory = os.open(tmp_path / "work" if inside else "/proc", os.O_PATH)
        try:
            init._enter_root(root, directory, "/")
        except StartError as error:
            return error.message
        return os.getcwd()

    found = in_child(enter, CLONE_NEWNS)
    assert found == ("/work" if inside else "the working directory is outside of the container")
