"""What is written for a terminal alone: colours, and lines that fit its width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios

import pytest
from containers import Container, Containers
from lane import SYSBOX, Sysbox

SEQUENCE = re.compile(r"\x1b\[[0-9;]*m")


def on_terminal(*words: str, columns: int = 80, **environ: str) -> tuple[int, str]:
    """The status and output of `sysbox WORDS...` on a terminal with colours, as wide as that."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        unwanted = ("NO_COLOR", "COLUMNS", "LINES")
        inherited = {key: value for key, value in os.environ.items() if key not in unwanted}
        os.execve(SYSBOX, [str(SYSBOX), *words], inherited | {"TERM": "xterm"} | environ)
    seen = b""
    try:
        while more := os.read(master, 65536):
            seen += more
    except OSError:
        pass  # EIO: nobody has it open any more
    os.close(master)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, seen.decode().replace("\r\n", "\n")


def letters(text: str) -> list[str]:
    """All that is not blank, in no order."""
    return sorted("".join(text.split()))


@pytest.fixture
def limited(containers: Containers) -> Container:
    """One with limits."""
    return containers("--name", "look", "-m", "128m", "-c", "512")


def test_an_error_is_marked_by_its_prefix(sysbox: Sysbox) -> None:
    words = ("stop", "nobody-of-this-name")
    status, seen = on_terminal(*words)
    assert status == 1
    assert seen.startswith("\x1b[31msysbox:\x1b[m no such container: nobody-of-this-name\n")
    plain = seen.replace("\x1b[31m", "").replace("\x1b[m", "")
    for environ in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}):
        assert on_terminal(*words, **environ) == (1, plain)
    # https://no-color.org: an empty one says nothing
    assert on_terminal(*words, NO_COLOR="") == (1, seen)
    assert sysbox(*words).stderr == plain


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_doctor_and_explain_fit(sysbox: Sysbox, limited: Container, columns: int) -> None:
    for words in (("doctor",), ("explain", limited.id)):
        status, seen = on_terminal(*words, columns=columns)
        assert status == 0
        lines = SEQUENCE.sub("", seen).splitlines()
        assert max(map(len, lines)) <= columns
        assert not any(line.endswith(" ") for line in lines)
        piped = sysbox(*words, check=True).stdout
        if (
            lines[0].split()[0] == piped.split()[0]
        ):  # a table: its words are in other lines, and all there
            assert letters("".join(lines)) == letters(piped)
        else:  # blocks
            flat = "".join("".join(lines).split())
            for line in piped.splitlines()[1:]:
                for cell in re.split("  +", line.strip()):
                    assert "".join(cell.split()) in flat


def test_no_word_is_broken(sysbox: Sysbox) -> None:
    """Where all columns fit there is a table; narrower, what does not fit has a line of its own."""
    advice = "echo bfq >/sys/block/DISK/queue/scheduler"
    _, wide = on_terminal("doctor", columns=500)
    _, narrow = on_terminal("doctor", columns=60)
    piped = sysbox("doctor", check=True).stdout
    assert (f"\n    {advice}\n" in narrow) == (advice in piped)
    for text in (wide, narrow):
        assert "\x1b[32myes\x1b[m" in text
        assert ("\x1b[33mno\x1b[m" in text) == (" no  " in piped)
    assert (advice in SEQUENCE.sub("", wide)) == (advice in piped)
    assert "AREA" in wide
    assert "AREA" not in narrow
    assert re.search(r"^host +systemd +yes", SEQUENCE.sub("", narrow), re.MULTILINE)
    _, plain = on_terminal("doctor", NO_COLOR="1")
    assert "\x1b" not in plain


def test_a_value_that_differs_has_a_colour(limited: Container) -> None:
    """explain: status 3, and the kernel's value of the drifted limit alone is marked."""
    (limited.cgroup("cpu") / "cpu.shares").write_text("77", encoding="ascii")
    status, seen = on_terminal("explain", limited.id, columns=200)
    assert status == 3
    assert re.findall(r"\x1b\[33m(\w+)\x1b\[m", seen) == ["77"]


@pytest.mark.parametrize("columns", [60, 200])
@pytest.mark.parametrize("words", [("--help",), ("run", "--help"), ("help", "host")])
def test_help_fits(columns: int, words: tuple[str, ...]) -> None:
    status, seen = on_terminal(*words, columns=columns)
    assert status == 0
    widest = max(map(len, seen.splitlines()))
    assert widest <= columns
    assert not re.search(r"\w\.\.\.$", seen.partition("\n")[2], re.MULTILINE), "a summary is cut"
    if words == ("run", "--help") and columns == 200:
        assert widest > 80
