"""Being attached: output, input, keys that leave, several at once; and the log drivers behind it."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Containers, eventually, popen, systemctl
from lane import SYSBOX, Sysbox

COUNT = """while [ ! -e /go ]; do sleep 0.02; done
for i in 1 2 3; do echo out $i; echo err $i >&2; done; exit 4"""


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *words: str) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execv(SYSBOX, [SYSBOX, *words])
        self.seen = b""

    def await_raw(self) -> None:
        """Until it passes keys on: it is attached."""
        eventually(lambda: not termios.tcgetattr(self.fd)[3] & termios.ICANON, "it is attached")

    def type(self, keys: bytes) -> None:
        os.write(self.fd, keys)

    def expect(self, text: bytes) -> None:
        deadline = time.monotonic() + 20
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} not in {self.seen!r}"
            if select.select([self.fd], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.fd, 4096)
                except OSError:
                    assert text in self.seen, f"{text!r} not in {self.seen!r}"

    def status(self) -> int:
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return status


def attached(one: Container, *words: str, **options: Any) -> subprocess.Popen[str]:
    """`sysbox attach`, once it is connected."""
    process = popen("attach", *words, one.id, **options)
    eventually(lambda: connections(one) or process.poll() is not None, "it is connected")
    return process


def connections(one: Container) -> int:
    """How many the monitor serves."""
    path = f"/run/sysbox/containers/{one.id}/attach"
    lines = Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()
    found = [line.split() for line in lines if line.endswith(path)]
    # the listening socket has the flag 00010000; one that is not accepted yet has no inode: output that comes
    # before that would not be for it
    return sum(fields[3] != "00010000" and fields[6] != "0" for fields in found)


def test_several_at_once(containers: Containers) -> None:
    one = containers(command=("sh", "-c", COUNT))
    first = attached(one)
    second = popen("attach", "--no-stdin", one.id)
    eventually(lambda: connections(one) == 2, "both are connected")
    one.sh("touch /go")
    for process in (first, second):
        out, err = process.communicate(timeout=30)
        assert process.returncode == 4
        assert out == "".join(f"out {i}\n" for i in (1, 2, 3))
        assert err == "".join(f"err {i}\n" for i in (1, 2, 3))
    assert one("logs") == out


def test_one_too_many(sysbox: Sysbox, containers: Containers) -> None:
    """It says so at once, and the others go on; who comes when one has left is served."""
    one = containers("-i", command=("cat",))
    path = f"/run/sysbox/containers/{one.id}/attach"
    others = [socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(64)]
    for each in others:
        each.connect(path)
        assert each.recv(1) == b"H"
    done = sysbox("attach", one.id)
    assert done.returncode == 1
    assert "64 are attached already" in done.stderr
    others.pop().close()
    last = attached(one, stdin=subprocess.PIPE)
    assert last.stdin
    assert last.stdout
    last.stdin.write("here\n")
    last.stdin.flush()
    assert last.stdout.readline() == "here\n"
    assert others[0].recv(64) == b"1here\n"
    for each in others:
        each.close()
    one("rm", "-f")
    assert last.wait(timeout=20) == 137
    last.communicate()


def test_input_without_a_terminal(containers: Containers) -> None:
    """It stays open when one who wrote to it leaves."""
    one = containers("-i", command=("cat",))
    for text in ("hello\n", "again\n"):
        process = attached(one, "--sig-proxy=false", stdin=subprocess.PIPE)
        assert process.stdin
        assert process.stdout
        process.stdin.write(text)
        process.stdin.flush()
        assert process.stdout.readline() == text
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=20)
        eventually(lambda: not connections(one), "it has left")
    assert one.inspect("State.Running")


def test_signals_are_passed_on(containers: Containers) -> None:
    one = containers(
        command=("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done")
    )
    eventually(lambda: "ready" in one("logs"), "its trap is set")
    process = attached(one)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 5


def test_keys_leave_and_come_back(containers: Containers) -> None:
    one = containers("-it", command=("sh", "-c", "while read -r line; do echo got-$line; done"))
    here = Terminal("attach", one.id)
    here.await_raw()
    here.type(b"first\n")
    here.expect(b"got-first")
    here.type(b"\x10\x11")
    here.expect(b"detached; ")
    assert here.status() == 0
    assert one.inspect("State.Running")
    again = Terminal("attach", "--detach-keys", "ctrl-x,q", one.id)
    again.await_raw()  # in the terminal's own mode ctrl-q is not passed on
    # the beginning of the keys, then something else: it is all passed on
    again.type(b"\x10\x11second\n")
    again.expect(b"got-")
    again.type(b"\x18q")
    again.expect(b"detached; ")
    assert again.status() == 0
    assert one.inspect("State.Running")


def test_its_size_follows(containers: Containers) -> None:
    one = containers(
        "-dt", command=("sh", "-c", "while :; do stty size; sleep 0.05; done"), verb=("run",)
    )
    here = Terminal("attach", one.id)
    termios.tcsetwinsize(here.fd, (33, 101))
    here.expect(b"33 101")
    here.type(b"\x10\x11")
    assert here.status() == 0


def test_run_with_keys(sysbox: Sysbox, containers: Containers) -> None:
    """A foreground run that may be left is a service's from the beginning."""
    here = Terminal(
        "run",
        "-it",
        "--name",
        "left",
        "--detach-keys",
        "ctrl-a",
        "host",
        "sh",
        "-c",
        "echo up; read x; exit 6",
    )
    try:
        here.expect(b"up")
        here.type(b"\x01")
        assert here.status() == 0
        assert sysbox("inspect", "-f", "{{.State.Running}}", "left", check=True).stdout == "true\n"
        back = Terminal("attach", "left")
        back.await_raw()
        back.type(b"x\n")
        assert back.status() == 6
    finally:
        sysbox("rm", "-f", "left")


def test_run_under_a_service(sysbox: Sysbox, image: str) -> None:
    done = subprocess.run(
        [SYSBOX, "run", "-i", "--rm", "--log-driver", "none", image, "sh", "-c", "cat; echo end >&2; exit 9"],
        input="a\nb\n", capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (9, "a\nb\n", "end\n")


def test_run_with_restarts_in_the_foreground(sysbox: Sysbox, image: str) -> None:
    done = sysbox(
        "run",
        "--name",
        "thrice",
        "--restart",
        "on-failure:2",
        image,
        "sh",
        "-c",
        "echo again; exit 3",
    )
    try:
        assert (done.returncode, done.stdout.count("again")) == (3, 3)
    finally:
        sysbox("rm", "-f", "thrice")


def test_attach_to_what_cannot_be(sysbox: Sysbox, containers: Containers) -> None:
    one = containers(command=("true",))
    one.await_state("exited")
    done = sysbox("attach", one.id)
    assert done.returncode == 1
    assert "is not running" in done.stderr
    assert sysbox("attach", "--detach-keys", "ctrl-!", one.id).returncode == 1


# log drivers


def json_log(one: Container, number: int = 0) -> Path:
    path = f"{one.inspect('LogPath')}" + (f".{number}" if number else "")
    return Path(path)


def test_json_file(containers: Containers) -> None:
    script = r"""printf 'plain\n'; printf 'quote" tab\t \001 \377 ü\n' >&2
    head -c 40000 /dev/zero | tr '\0' x; printf end"""
    one = containers("--log-driver", "json-file", command=("sh", "-c", script))
    one.await_state("exited")
    entries = [json.loads(line) for line in json_log(one).read_text(encoding="utf-8").splitlines()]
    errors = [entry["log"] for entry in entries if entry["stream"] == "stderr"]
    output = [entry["log"] for entry in entries if entry["stream"] == "stdout"]
    assert errors == ['quote" tab\t \x01 � ü\n']
    assert output[0] == "plain\n"
    assert [len(part) for part in output[1:]] == [16384, 16384, 40003 - 2 * 16384]
    assert all(entry["time"].endswith("Z") for entry in entries)
    assert one("logs") == "plain\n" + "x" * 40000 + "end"
    assert one.inspect("HostConfig.LogConfig.Type") == "json-file"


def test_json_file_is_rotated(containers: Containers) -> None:
    one = containers(
        "--log-driver", "json-file", "--log-opt", "max-size=1k", "--log-opt", "max-file=3",
        command=("sh", "-c", "for i in $(seq 100); do echo line $i; done"),
    )  # fmt: skip
    one.await_state("exited")
    sizes = [json_log(one, number).stat().st_size for number in range(3)]
    assert all(0 < size <= 1024 for size in sizes)
    assert not json_log(one, 3).exists()
    shown = one("logs").splitlines()
    assert shown[-1] == "line 100"
    assert shown == [f"line {i}" for i in range(101 - len(shown), 101)]
    assert one("logs", "--tail", "2").splitlines() == ["line 99", "line 100"]


def test_json_file_is_followed(containers: Containers, tmp_path: Path) -> None:
    """What nobody has read by the time that its file goes is lost: so the reader sets the pace."""
    script = "while read -r i; do echo line $i; done"
    one = containers(
        "-i", "--log-driver", "json-file", "--log-opt", "max-size=1k", "--log-opt", "max-file=3",
        command=("sh", "-c", script),
    )  # fmt: skip
    shown = tmp_path / "shown"
    with shown.open("w") as file:
        following = popen("logs", "-f", "-t", one.id, stdout=file)
    typing = attached(one, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert typing.stdin
    for end in range(10, 61, 10):  # ten fit into one file
        typing.stdin.write("".join(f"{i}\n" for i in range(end - 9, end + 1)))
        typing.stdin.flush()
        eventually(lambda end=end: shown.read_text().count("\n") >= end, "they are shown")  # type: ignore[misc]
    one("stop", "-t", "0")
    typing.communicate(timeout=30)
    following.communicate(timeout=30)
    assert following.returncode == 0
    assert [line.split(" ", 1)[1] for line in shown.read_text().splitlines()] == [
        f"line {i}" for i in range(1, 61)
    ]


def test_the_journal_outlives_the_container(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("--name", "gone", command=("echo", "still here"))
    one.await_state("exited")
    eventually(lambda: one("logs"), "it is written")
    one("rm")
    for text in ("gone", one.id, one.id[:12]):
        assert sysbox("logs", text, check=True).stdout == "still here\n"
    assert sysbox("logs", "nobody").returncode == 1


def test_much_output_and_a_reader_that_stands_still(containers: Containers) -> None:
    """It waits, as on a pipe; the monitor keeps no more of it than before, and nothing is lost."""
    script = r"""while [ ! -e /go ]; do sleep 0.02; done
    head -c 64000000 /dev/zero | tr '\0' x; while [ -e /go ]; do sleep 0.02; done; echo end"""
    one = containers("--log-driver", "none", command=("sh", "-c", script))
    reader = attached(one, "--no-stdin")
    monitor = systemctl("show", "-P", "MainPID", f"sysbox-{one.id}.service")
    one.sh("touch /go")
    assert reader.stdout
    pipe = reader.stdout.fileno()
    eventually(lambda: stands_still(pipe), "as much is on its way as there is room for")
    before = resident(monitor)
    for _ in range(64):
        assert reader.stdout.read(1_000_000) == "x" * 1_000_000
    assert resident(monitor) <= before + 16
    one.sh("rm /go")
    assert reader.communicate(timeout=20)[0] == "end\n"


def stands_still(pipe: int) -> bool:
    """Whether there is something in it, and no more of it than a moment ago."""
    found = []
    for _ in range(2):
        found.append(int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder))
        time.sleep(0.15)
    return found[0] == found[1] > 0


def resident(pid: str) -> int:
    """KiB."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmHWM:")[2].split()[0])


def test_no_log(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("--log-driver", "none", command=("echo", "lost"))
    one.await_state("exited")
    done = sysbox("logs", one.id)
    assert done.returncode == 1
    assert "keeps no log" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--log-driver", "syslog"), "not a log driver"),
        (("--log-opt", "max-size=1m"), "journald has no such option"),
        (("--log-driver", "json-file", "--log-opt", "max-file=0"), "max-file"),
        (("--log-driver", "json-file", "--log-opt", "colour=red"), "unknown option"),
    ],
)  # fmt: skip
def test_bad_logging(sysbox: Sysbox, image: str, words: tuple[str, ...], reason: str) -> None:
    done = sysbox("run", "-d", *words, image, "true")
    assert done.returncode == 125
    assert reason in done.stderr
