"""Terminals: -t gives one of the container's own, through a real pty on the caller's side."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Iterator

import pytest
from containers import Containers, commands, eventually, popen
from lane import SYSBOX, Sysbox

PATIENCE = 60.0  # seconds for what comes by itself, on a busy machine too


class Terminal:
    """A terminal with `sysbox WORDS...` as the session that has it."""

    def __init__(self, *words: str, rows: int = 24, columns: int = 80) -> None:
        self.seen = ""
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execv(SYSBOX, [str(SYSBOX), *words])

    def type(self, text: str) -> None:
        rest = text.encode()
        while rest:
            rest = rest[os.write(self._master, rest) :]

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def modes(self) -> int:
        """The local modes of the caller's terminal: ECHO, ICANON..."""
        return int(termios.tcgetattr(self._master)[3])

    def expect(self, text: str) -> str:
        """Everything since the last call, up to and including `text`."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come, but {self.seen!r}"
            if not select.select([self._master], [], [], left)[0]:
                continue
            try:
                self.seen += os.read(self._master, 4096).decode(errors="replace")
            except OSError:
                raise AssertionError(
                    f"{text!r} did not come, but {self.seen!r} and the end"
                ) from None
        end = self.seen.index(text) + len(text)
        before, self.seen = self.seen[:end], self.seen[end:]
        return before

    def end(self) -> int:
        """Read to the end: the exit status."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if select.select([self._master], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self._master, 4096).decode(errors="replace")
                    continue
                except OSError:
                    break
        eventually(
            lambda: os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), "its end"
        )
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self._master)


@pytest.fixture
def open_terminal() -> Iterator[type[Terminal]]:
    """`open_terminal(WORDS...)`, closed at the end of the test."""
    opened: list[Terminal] = []

    class Opened(Terminal):
        def __init__(self, *words: str, rows: int = 24, columns: int = 80) -> None:
            super().__init__(*words, rows=rows, columns=columns)
            opened.append(self)

    yield Opened
    for one in opened:
        one.close()


def await_command(line: str) -> None:
    """Until it is what has the terminal: a shell sees to that before it executes it."""
    eventually(lambda: line in commands(), f"{line} runs")


def test_a_shell(open_terminal: type[Terminal], image: str) -> None:
    """A terminal of its own, with job control, of the caller's size, and its status."""
    one = open_terminal("run", "--rm", "-it", image, "sh", rows=31, columns=97)
    one.expect("# ")
    one.type("tty; stty size; ps -o tty 2>/dev/null | head -2; echo TERM=$TERM\n")
    shown = one.expect("TERM=xterm")
    assert "/dev/pts/0" in shown or "/dev/console" in shown
    assert "31 97" in shown
    assert "job control" not in shown
    one.type("test -t 0 -a -t 1 -a -t 2 && echo all three\n")
    one.expect("all three\r\n")
    one.resize(40, 120)
    one.type("until stty size | grep '40 120'; do sleep 0.02; done; echo ano''ther\n")
    one.expect("another")
    one.type("exit 7\n")
    assert one.end() == 7


def test_keys_go_to_the_container(open_terminal: type[Terminal], image: str) -> None:
    """^C, ^Z and ^D are for the container's terminal; the caller's is raw meanwhile."""
    one = open_terminal("run", "--rm", "-it", image, "sh")
    before_echo = termios.ECHO | termios.ICANON
    one.expect("# ")
    assert not one.modes() & before_echo
    one.type("sleep 1003\n")
    await_command("sleep 1003")
    one.type("\x03")
    one.expect("# ")
    one.type("echo $?\n")
    one.expect("130")
    one.type("sleep 1004\n")
    await_command("sleep 1004")
    one.type("\x1a")
    one.expect("Stopped")
    one.type("kill -KILL %1; true\n")
    one.expect("true\r\n")
    one.expect("# ")
    one.type("echo sta''rt; cat; exit 4\n")
    one.expect("start\r\n")
    await_command("cat")  # what is typed for the shell's editor is not for cat
    one.type("through\n")
    one.expect("through\r\nthrough\r\n")
    one.type("\x04")
    assert one.end() == 4


def test_the_terminal_is_put_back(
    open_terminal: type[Terminal], sysbox: Sysbox, image: str
) -> None:
    """Also when the container is killed from elsewhere."""
    one = open_terminal("run", "--rm", "-it", "--name", "killed", image, "sh")
    one.expect("# ")
    wanted = termios.ECHO | termios.ICANON
    assert not one.modes() & wanted
    sysbox("kill", "killed", check=True)
    eventually(lambda: one.modes() & wanted == wanted, "the modes are as before")
    assert one.end() == 137


def test_a_terminal_that_hangs_up(open_terminal: type[Terminal], image: str) -> None:
    """SIGHUP, which the caller's terminal sends as it goes, is passed on."""
    script = "trap 'exit 5' HUP; echo up; while :; do sleep 0.02; done"
    one = open_terminal("run", "--rm", "-it", image, "sh", "-c", script)
    one.expect("up")
    os.kill(one.pid, signal.SIGHUP)
    assert one.end() == 5


def test_without_t_the_callers_terminal_stays_the_callers(
    open_terminal: type[Terminal], image: str
) -> None:
    """CVE-2016-10124: no descriptor of the caller's terminal, nor a way to push input into it."""
    for flags in ((), ("-i",)):
        script = "for n in 0 1 2; do test -t $n && echo yes; done; (: < /dev/tty) 2>&1; ls -l /proc/self/fd"
        one = open_terminal("run", "--rm", *flags, image, "sh", "-c", script)
        if flags:
            one.type("\x04")
        assert one.end() in (0, 1)
        assert "yes" not in one.seen, one.seen
        assert "/dev/pts" not in one.seen
        assert "o such device" in one.seen


def test_without_t_input_is_passed_on(open_terminal: type[Terminal], image: str) -> None:
    one = open_terminal("run", "--rm", "-i", image, "sh", "-c", "read word; echo got $word")
    one.type("something\n")
    one.expect("got something")
    assert one.end() == 0


def test_exec(open_terminal: type[Terminal], containers: Containers) -> None:
    """`exec -it` has a terminal as well, with a size, keys, and a status."""
    one = containers()
    shell = open_terminal("exec", "-it", one.id, "sh", rows=33, columns=99)
    shell.expect("# ")
    shell.type("stty size; tty; test -t 0 && echo y''es\n")
    shown = shell.expect("yes\r\n")
    assert "33 99" in shown
    assert "/dev/pts/" in shown
    shell.type("sleep 1005\n")
    await_command("sleep 1005")
    shell.type("\x03")
    shell.expect("# ")
    shell.type("exit 9\n")
    assert shell.end() == 9
    assert one.inspect("State.Running") is True


def test_t_without_a_terminal(sysbox: Sysbox, image: str) -> None:
    """-t where the caller has none: the container still gets one (as podman has it, for scripts)."""
    done = sysbox("run", "--rm", "-t", image, "sh", "-c", "test -t 1 && echo terminal")
    assert (done.returncode, done.stdout) == (0, "terminal\n")


def test_detached_with_a_terminal(containers: Containers, sysbox: Sysbox) -> None:
    """-dit: a shell that waits for whoever comes, with a terminal that is nobody's meanwhile."""
    one = containers("-it", command=("sh",))
    assert one.inspect("State.Running") is True
    assert one.sh("test -c /dev/console && readlink /proc/1/fd/0") in ("/dev/pts/0", "/dev/console")
    two = containers("-t", command=("sh", "-c", "tty; echo said"))
    two("wait")
    assert "said" in two("logs")


def test_a_user_owns_its_terminal(open_terminal: type[Terminal], image: str) -> None:
    one = open_terminal(
        "run",
        "--rm",
        "-it",
        "-u",
        "1000",
        image,
        "sh",
        "-c",
        "echo x > $(tty) && stat -c %u $(tty)",
    )
    one.expect("1000")
    assert one.end() == 0


def test_output_is_whole(open_terminal: type[Terminal], image: str) -> None:
    """What was written just before the end still arrives."""
    for _ in range(5):
        one = open_terminal(
            "run", "--rm", "-t", image, "sh", "-c", "yes | head -n 2000; echo the end"
        )
        assert one.end() == 0
        assert one.seen.count("y\r\n") == 2000
        assert one.seen.endswith("the end\r\n")


# it reads nothing before /tmp/go is there, and says how much it got
SLOW = """stty raw -echo; echo rea''dy
while [ ! -e /tmp/go ]; do sleep 0.01; done
head -c 30000 | wc -c; cat >/dev/null"""


def test_input_that_waits(open_terminal: type[Terminal], containers: Containers) -> None:
    """A container that is slow to read: all of it arrives, by attach and by exec, and the keys detach."""
    for verb in ("attach", "exec"):
        one = containers("-it", command=("sh", "-c", SLOW if verb == "attach" else "sleep 1000"))
        if verb == "attach":
            eventually(lambda one=one: "ready" in one("logs"), "its terminal is raw")
        words = ("-it", one.id, "sh", "-c", SLOW) if verb == "exec" else (one.id,)
        here = open_terminal(verb, *words)
        if verb == "exec":
            here.expect("ready")
        eventually(lambda here=here: not here.modes() & termios.ECHO, "it is connected")
        here.type("x" * 60000)
        one.exec("touch", "/tmp/go")
        here.expect("30000")
        here.type("\x10\x11")
        assert here.end() == 0


ECHO = "stty raw -echo; echo rea''dy; head -c 300000 | tr x y; echo; echo the end"


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_both_ways_at_once(
    open_terminal: type[Terminal], containers: Containers, image: str, verb: str
) -> None:
    """As much comes out as goes in, while it goes in."""
    if verb == "run":
        here = open_terminal("run", "--rm", "-it", image, "sh", "-c", ECHO)
    else:
        here = open_terminal("exec", "-it", containers().id, "sh", "-c", ECHO)
    here.expect("ready")
    typing = threading.Thread(target=here.type, args=("x" * 300000,))
    typing.start()
    assert here.expect("the end").count("y") == 300000
    typing.join()
    assert here.end() == 0


def test_detach_from_run(
    open_terminal: type[Terminal], containers: Containers, sysbox: Sysbox, image: str
) -> None:
    """ctrl-p ctrl-q by default: it goes on, is attached to again, and --rm holds."""
    script = "while read -r line; do test $line = end && exit 3; echo got-$line; done"
    here = open_terminal("run", "-it", "--rm", "--name", "left", image, "sh", "-c", script)
    here.type("first\n")
    here.expect("got-first")
    here.type("\x10\x11")
    here.expect("`sysbox attach left` attaches again")
    assert here.end() == 0
    left = containers.known("left")
    assert "got-first" in left("logs")
    again = open_terminal("attach", "left")
    again.type("second\n")
    again.expect("got-second")
    again.type("end\n")
    assert again.end() == 3
    # attach ends with the run, and its supervisor removes it next
    eventually(lambda: sysbox("inspect", left.id).returncode == 1, "--rm holds")


def test_detach_from_exec(open_terminal: type[Terminal], containers: Containers) -> None:
    """The command goes on, with a terminal that takes what it writes; other keys are the command's."""
    one = containers()
    script = """echo up; while [ ! -e /go ]; do sleep 0.02; done
    head -c 100000 /dev/zero | tr '\\0' x; echo >/done; sleep 1006"""
    here = open_terminal("exec", "-it", "--detach-keys", "ctrl-x,q", one.id, "sh", "-c", script)
    here.expect("up")
    eventually(lambda: not here.modes() & termios.ECHO, "it is connected")
    here.type("\x10\x11\x18q")
    here.expect("the command is still running")
    assert here.end() == 0
    one.exec("touch", "/go")
    eventually(lambda: "done" in one.exec("ls", "/"), "it has written it all")
    await_command("sleep 1006")


def test_the_third_interrupt(image: str) -> None:
    """A container without a terminal that does not end by ctrl-c is killed by the third, and that is said."""
    script = "trap 'echo caught' INT; echo up; while :; do sleep 0.02; done"
    for flags in ((), ("--log-driver", "json-file")):
        process = popen("run", "--rm", *flags, image, "sh", "-c", script)
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "up\n"
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            assert process.stdout.readline() == "caught\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 137
        assert "ctrl-c three times: killing the container" in process.stderr.read()


def test_the_third_interrupt_of_attach(containers: Containers) -> None:
    """It leaves; the container goes on."""
    script = "trap 'echo caught' INT; while :; do echo up; sleep 0.02; done"
    one = containers(command=("sh", "-c", script))
    process = popen("attach", one.id)
    assert process.stdout
    assert process.stderr
    for _ in range(2):
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        while process.stdout.readline() != "caught\n":
            pass
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert one.inspect("State.Running") is True


def test_the_size_is_right_from_the_start(
    open_terminal: type[Terminal], containers: Containers, image: str
) -> None:
    """The first instruction of the command sees it: of a service's container, and of exec."""
    one = containers()
    for words in (("run", "--rm", "-it", image), ("exec", "-it", one.id)) * 3:
        here = open_terminal(*words, "stty", "size", rows=33, columns=101)
        assert here.end() == 0
        assert here.seen.split() == ["33", "101"]
