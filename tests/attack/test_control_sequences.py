"""Names that an image or a container chose, on their way to the terminal of an administrator."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess

import pytest
from containers import Container, Containers, eventually
from lane import SYSBOX, TIMEOUT, Sysbox

# sets the title; clears the screen; the same in one character of C1; a line break; an override of direction
EVIL = "\x1b]0;title\x07\x1b[2J\x9b2J\u202egnp\u2066\rfake\ttab"
CLEAN = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\r\rfake")


def on_terminal(*words: str) -> str:
    """What a command writes to a terminal, both streams, without the colours that are sysbox's own."""
    master, end = pty.openpty()
    environ = os.environ | {"NO_COLOR": "1"}
    process = subprocess.Popen([SYSBOX, *words], stdin=end, stdout=end, stderr=end, env=environ)
    os.close(end)
    seen = b""
    while select.select([master], [], [], TIMEOUT)[0]:
        try:
            seen += os.read(master, 1 << 16)
        except OSError:  # the last has closed it
            break
    os.close(master)
    process.wait(timeout=TIMEOUT)
    return seen.decode()


@pytest.fixture
def evil(containers: Containers) -> Container:
    """A container that has an evil name in every place that takes one."""
    script = """
        mkdir "/tmp/$1"; : >"/tmp/$1/file"; ln -s busybox "/bin/$1"
        exec sh -c 'sleep 1000; true' "$1"
    """
    one = containers(
        "--label", f"evil={EVIL}", "-e", f"EVIL={EVIL}", "--tmpfs", "/t",
        command=("sh", "-c", script, "sh", EVIL),
    )  # fmt: skip
    # the line of the first process has the whole script in it
    eventually(
        lambda: any(line.endswith(" sleep 1000") for line in one("top").splitlines()),
        "it has made its files",
    )
    return one


def test_a_terminal_gets_no_control_sequences(sysbox: Sysbox, evil: Container) -> None:
    name = evil.inspect("Name").removeprefix("/")
    for words in (
        ("ps", "--no-trunc"),
        ("ps", "--format", "{{.Command}} {{.Labels}} {{json .}}"),
        ("ps", "--format", "table {{.Labels}}\\t{{.Label \"evil\"}}"),
        ("top", name),
        ("top", name, "-o", "pid,args"),
        ("diff", name),
        ("inspect", name),
        ("inspect", "-f", "{{.Args}}{{json .Config}}{{range .Config.Env}}{{println .}}{{end}}", name),
        ("stats", "--no-stream"),
        ("stats", "--no-stream", "--format", "{{.Name}}"),
        ("events", "--since", "10m", "--until", "0s"),
        ("events", "--since", "10m", "--until", "0s", "--format", "{{json .}}"),
        ("events", "--since", "10m", "--until", "0s", "--format", "{{.Actor.Attributes.evil}}"),
        ("cp", f"{name}:/tmp/{EVIL}/none", "/tmp"),
        ("cp", f"{name}:/none{EVIL}", "/tmp"),
        ("exec", name, f"none{EVIL}"),
        ("inspect", f"none{EVIL}"),
        ("rm", f"none{EVIL}"),
        ("run", "--rm", f"none{EVIL}"),
        ("volume", "inspect", f"none{EVIL}"),
        ("run", "--dry-run", "--label", f"evil={EVIL}", "host", EVIL),
        (f"verb{EVIL}",),
        ("ps", f"--flag{EVIL}"),
        ("ps", "--filter", f"key{EVIL}=1"),
        ("ps", "--format", f"{{{{.Names{EVIL}}}}}"),
    ):  # fmt: skip
        seen = on_terminal(*words)
        found = [repr(one) for one in CLEAN if one in seen]
        assert not found, f"{' '.join(words)!r}: {', '.join(found)} in {seen!r}"
        assert "this is a bug" not in seen, seen
    # its own words are shown, by their numbers
    assert "\\x1b]0;title\\x07\\x1b[2J\\u009b2J\\u202egnp" in on_terminal("top", name)
    assert "\\u009b2J\\u202egnp" in on_terminal("inspect", name)


def test_what_was_asked_for_raw_is_raw(sysbox: Sysbox, evil: Container) -> None:
    """Through a pipe a program gets what there is, but for tables; a template's own sequences act."""
    name = evil.inspect("Name").removeprefix("/")
    assert evil.inspect("Config.Labels") == {"evil": EVIL}
    formatted = sysbox("inspect", "-f", '{{index .Config.Labels "evil"}}', name, check=True).stdout
    assert formatted == f"{EVIL}\n".replace("\r", "\n")  # text mode reads a CR as a line's end
    assert json.loads(sysbox("inspect", name).stdout)[0]["Config"]["Labels"]["evil"] == EVIL
    table = sysbox("ps", "--no-trunc", check=True).stdout
    assert EVIL not in table
    assert len(table.splitlines()) == 2
    assert "\x1b[1m" in on_terminal("inspect", "-f", "\x1b[1m{{.Name}}", name)
    assert "\x1b[1mloud" in on_terminal("exec", name, "printf", "\\033[1mloud")
