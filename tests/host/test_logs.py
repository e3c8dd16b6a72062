"""What a container writes, as it was written: in the journal, and from there."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from containers import Containers, eventually
from lane import SYSBOX, TIMEOUT, Sysbox

# trailing blanks, empty lines, tabs, a carriage return, bytes that are no text, a line without its end
ODD = rb"a  \n\n\tb\t\n c\r\n\377x\0y\n\n\nend"
WRITTEN = b"a  \n\n\tb\t\n c\r\n\xffx\0y\n\n\nend"
# docker cuts at 16 KiB: just below, there, just above, and several times that
LENGTHS = (16383, 16384, 16385, 50000)


def logs(name: str, *flags: str) -> tuple[bytes, bytes]:
    """Both streams of `sysbox logs`, as bytes."""
    done = subprocess.run(
        [SYSBOX, "logs", *flags, name], capture_output=True, check=True, timeout=TIMEOUT
    )
    return done.stdout, done.stderr


def journal(*matches: str) -> list[dict[str, Any]]:
    """The entries that journalctl has."""
    done = subprocess.run(
        ["journalctl", "-q", "-a", "-o", "json", *matches], capture_output=True, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    # not what systemd says of the scope
    return [entry for entry in found if "SYSBOX_STREAM" in entry]


def test_bytes_are_as_they_were_written(sysbox: Sysbox, containers: Containers) -> None:
    one = containers(
        "--name",
        "odd",
        command=("sh", "-c", f"printf '{ODD.decode()}'; exec 1>&-; printf '{ODD.decode()}' >&2"),
    )
    one.await_state("exited")
    assert logs(one.id) == (WRITTEN, WRITTEN)
    assert logs(one.id, "--tail", "2") == (b"", b"\nend")
    # as an administrator, and a log collector, look for them
    for matches in (("-u", one.scope), ("CONTAINER_NAME=odd",)):
        found = journal(*matches)
        assert [entry["PRIORITY"] for entry in found] == ["6"] * 8 + ["3"] * 8
        assert {entry["CONTAINER_ID_FULL"] for entry in found} == {one.id}
        assert {entry["_SYSTEMD_UNIT"] for entry in found} == {one.scope}
        assert {entry["SYSLOG_IDENTIFIER"] for entry in found} == {"odd"}
    one("rm")
    assert logs("odd") == (WRITTEN, WRITTEN)
    assert logs(one.id[:12]) == (WRITTEN, WRITTEN)


def test_long_lines_have_dockers_marks(containers: Containers) -> None:
    script = (
        "".join(f"head -c {length} /dev/zero | tr '\\0' x; echo; " for length in LENGTHS)
        + "head -c 16384 /dev/zero | tr '\\0' x"
    )
    one = containers(command=("sh", "-c", script))
    one.await_state("exited")
    expected = b"".join(b"x" * length + b"\n" for length in LENGTHS) + b"x" * 16384
    assert logs(one.id) == (expected, b"")
    marks = ("MESSAGE", "ORDINAL", "LAST")
    found = [
        tuple(entry.get(f"CONTAINER_PARTIAL_{mark}") for mark in marks)
        for entry in journal("-u", one.scope)
    ]
    assert found == [
        (None, None, None),
        ("true", "1", "false"), (None, "2", "true"),
        ("true", "1", "false"), (None, "2", "true"),
        ("true", "1", "false"), ("true", "2", "false"), ("true", "3", "false"), (None, "4", "true"),
        ("true", "1", "false"), ("true", "2", "true"),
    ]  # fmt: skip
    ids = [
        entry["CONTAINER_PARTIAL_ID"]
        for entry in journal("-u", one.scope, "CONTAINER_PARTIAL_ORDINAL=1")
    ]
    assert len(set(ids)) == len(ids) == 4


@pytest.mark.parametrize("flags", [(), ("-t",)])
def test_in_the_foreground(sysbox: Sysbox, image: str, flags: tuple[str, ...]) -> None:
    script = f"printf '{ODD.decode()}'; exec 1>&-; printf '{ODD.decode()}' >&2; head -c 100000 /dev/zero >&2"
    command = [SYSBOX, "run", "--name", "shown", *flags, image, "sh", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT)
        errors = WRITTEN + bytes(100_000)
        if flags:
            # a terminal has one stream, and makes a carriage return of its own
            whole = (WRITTEN + errors).replace(b"\n", b"\r\n")
            assert done.stdout == whole
            assert logs("shown") == (whole, b"")
        else:
            assert (done.stdout, done.stderr) == (WRITTEN, errors)
            assert logs("shown") == (WRITTEN, errors)
    finally:
        sysbox("rm", "-f", "shown", check=True)


def test_no_line_is_lost_when_it_ends_at_once(containers: Containers) -> None:
    """Its last lines are sent for a process that has ended; nobody reaps it before journald has looked."""
    made = [containers("--network", "none", command=("echo", str(number))) for number in range(10)]
    for number, one in enumerate(made):
        one.await_state("exited")
        assert logs(one.id) == (f"{number}\n".encode(), b"")


def test_a_journal_that_is_started_anew(containers: Containers) -> None:
    """Also where its socket is made anew: what is written meanwhile waits, or is counted."""
    one = containers(
        "--init",
        command=("sh", "-c", "trap 'echo again' USR1; echo first; while :; do sleep 0.1; done"),
    )
    eventually(lambda: logs(one.id)[0] == b"first\n", "its first line")
    subprocess.run(["systemctl", "restart", "systemd-journald.service"], check=True)
    one("kill", "-s", "USR1")
    eventually(
        lambda: logs(one.id)[0] == b"first\nagain\n", "a line after journald was started anew"
    )
    units = [
        "systemd-journald.socket",
        "systemd-journald-dev-log.socket",
        "systemd-journald-audit.socket",
    ]
    subprocess.run(["systemctl", "stop", "systemd-journald.service", *units], check=False)
    subprocess.run(
        [
            "systemctl",
            "start",
            "systemd-journald.socket",
            "systemd-journald-dev-log.socket",
            "systemd-journald.service",
        ],
        check=True,
    )
    one("kill", "-s", "USR1")
    eventually(
        lambda: logs(one.id)[0] == b"first\nagain\nagain\n", "a line after its socket was made anew"
    )


def test_too_many_lines(containers: Containers) -> None:
    """At the lowest rate, so that no further line is allowed while a busy machine reads the first hundred."""
    one = containers(
        "--log-opt", "rate-limit=1", "--log-opt", "rate-burst=100", command=("seq", "20000")
    )
    one.await_state("exited")
    output, errors = logs(one.id)
    assert output == b"".join(b"%d\n" % number for number in range(1, 101))
    assert errors == b"sysbox: 19900 lines dropped: more than 1 a second (--log-opt rate-limit)\n"
    other = containers("--log-opt", "rate-limit=0", command=("seq", "20000"))
    other.await_state("exited")
    output, errors = logs(other.id)
    assert (output.count(b"\n"), errors) == (20_000, b"")


def test_lines_are_told_of_once_they_may_come_again(containers: Containers) -> None:
    script = "seq 1000; while [ ! -e /go ]; do sleep 0.05; done; echo later; sleep 1000"
    one = containers(
        "--log-opt", "rate-limit=1", "--log-opt", "rate-burst=100", command=("sh", "-c", script)
    )
    eventually(
        lambda: b"900 lines dropped" in logs(one.id)[1], "the mark, though nothing more comes"
    )
    one.sh("touch /go")
    eventually(lambda: logs(one.id)[0].endswith(b"\nlater\n"), "what comes after it")


CHOSEN = ("-l", "color=blue", "-l", "other=1", "-e", "my.mode=fast", "--log-opt", "labels=color,none",
          "--log-opt", "env=my.mode", "--log-opt", "tag={{.Name}}/{{ .ImageName }}")  # fmt: skip


def test_what_stands_beside_each_line(sysbox: Sysbox, containers: Containers, image: str) -> None:
    one = containers(*CHOSEN, "--name", "chosen", command=("echo", "line"))
    other = containers(*CHOSEN, "--log-driver", "json-file", command=("echo", "line"))
    for made in (one, other):
        made.await_state("exited")
        assert logs(made.id, "--details") == (b"color=blue,my.mode=fast line\n", b"")
    (entry,) = journal("-u", one.scope)
    assert (entry["COLOR"], entry["MY_MODE"], entry["SYSLOG_IDENTIFIER"], entry["CONTAINER_TAG"]) == (
        "blue", "fast", f"chosen/{image}", f"chosen/{image}",
    )  # fmt: skip
    assert "OTHER" not in entry
    with open(other.inspect("LogPath"), encoding="utf-8") as file:
        attributes = json.load(file)["attrs"]
    tag = f"{other.inspect('Name')[1:]}/{image}"
    assert attributes == {"color": "blue", "my.mode": "fast", "tag": tag}
    assert one.inspect("HostConfig.LogConfig.Config")["labels"] == "color,none"
    done = sysbox("run", "-d", "--log-opt", "tag={{.Nope}}", image, "true")
    assert (done.returncode, "{{.FullID}}" in done.stderr) == (125, True)


def test_of_a_removed_container(sysbox: Sysbox, image: str) -> None:
    """The journal keeps a log; a file is removed with its container."""
    logs = {}
    for driver in ("journald", "json-file", "none"):
        name = f"removed-{driver}"
        words = ("run", "-d", "--name", name, "--log-driver", driver, image, "echo", "line")
        sysbox(*words, check=True)
        sysbox("wait", name, check=True)
        sysbox("rm", name, check=True)
        logs[driver] = sysbox("logs", name)
    assert logs["journald"].stdout == "line\n"
    for driver, why in (("json-file", "was a file, and was removed"), ("none", "kept no log")):
        assert (logs[driver].returncode, logs[driver].stdout) == (1, "")
        assert why in logs[driver].stderr


def test_events_are_silent(sysbox: Sysbox) -> None:
    """B26: whoever waits for journalctl did so in a thread, which came too late now and then."""
    for _ in range(10):
        assert sysbox("events", "--since", "0", "--until", "0s", check=True).stderr == ""
