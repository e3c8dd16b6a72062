"""What cannot be done gets one clear line and the documented status, and leaves nothing behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers
from lane import SYSBOX, Sysbox

from sysbox.base import paths
from sysbox.cli.table.options import arguments as arguments_of
from sysbox.cli.table.verbs import VERBS


def refused(sysbox: Sysbox, *words: str, status: int = 125) -> str:
    """What it says: one line of why, and perhaps one of advice."""
    done = sysbox(*words)
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert 1 <= len(lines) <= 2, done.stderr
    assert all(line.startswith("sysbox: ") for line in lines), done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--naem x", "--name"),
        ("--memory 1x", "--memory 1x"),
        ("-m 1k", "at least 6m"),
        ("-m 64m --memory-swap 32m", "--memory-swap"),
        ("--memory-swap 64m", "--memory"),
        ("-c 1", "--cpu-shares"),
        ("--cpus -1", "--cpus"),
        ("--cpus 1 --cpu-quota 5000", "--cpu"),
        ("--cpuset-cpus 0-99", "0-99"),
        ("--cpuset-cpus 3-1", "3-1"),
        ("--pids-limit x", "--pids-limit"),
        ("--blkio-weight 5", "--blkio-weight"),
        ("-p 99999", "99999"),
        ("-p 80:80:80:80", "80:80:80:80"),
        ("-p 80/icmp", "icmp"),
        ("-u 4294967296", "4294967296"),
        ("-u nobodyhere", "nobodyhere"),
        ("-u 0:nogrouphere", "nogrouphere"),
        ("--group-add nogrouphere", "nogrouphere"),
        ("-v /a:b", "/a:b"),
        ("-v /a:/b:nonsense", "nonsense"),
        ("--mount type=bind,src=/nope,dst=/x", "/nope"),
        ("--mount type=nonsense,dst=/x", "nonsense"),
        ("--mount dst=x", "x"),
        ("--tmpfs relative", "relative"),
        ("--tmpfs /x:size=abc", "abc"),
        ("-v /tmp:/x -v /var:/x", "/x"),
        ("--device /dev/nope", "/dev/nope"),
        ("--device /etc/passwd", "/etc/passwd"),
        ("--device /dev/null:/x:q", "q"),
        ("--device-write-bps /dev/nope:1m", "/dev/nope"),
        ("--device-write-bps /dev/null:1m", "/dev/null"),
        ("--ulimit bogus=1", "bogus"),
        ("--ulimit nofile=9:5", "nofile=9:5"),
        ("--cap-add sys-admn", "SYS_ADMIN"),
        ("--sysctl kernel.panic=1", "kernel.panic"),
        ("--sysctl net.ipv4.nonsense=1", "nonsense"),
        ("--security-opt nonsense=1", "nonsense"),
        ("--security-opt seccomp=/nope", "/nope"),
        ("--network nonsense", "nonsense"),
        ("--network container:nope", "nope"),
        ("--pid container:nope", "nope"),
        ("--name -x", "-x"),
        ("--name a/b", "a/b"),
        ("--hostname a_b!", "a_b!"),
        ("--add-host nonsense", "nonsense"),
        ("--add-host a:nonsense", "nonsense"),
        ("--env-file /nope", "/nope"),
        ("--env-file /tmp", "/tmp"),
        ("--label-file /nope", "/nope"),
        ("-e =x", "=x"),
        ("-w relative", "relative"),
        ("-w /etc/passwd", "/etc/passwd"),
        ("--stop-signal NOPE", "NOPE"),
        ("--stop-timeout x", "x"),
        ("--slice a/b", "a/b"),
        ("--property Nonsense=1", "Nonsense"),
        ("--property CPUShares=abc", "abc"),
        ("--property ExecStart=/x", "ExecStart"),
        ("--pull nonsense", "nonsense"),
        ("--cidfile /nope/x", "/nope/x"),
        ("--pidfile /nope/x", "/nope/x"),
        ("--shm-size 0", "--shm-size"),
    ],
)
@pytest.mark.parametrize("verb", ["run", "create"])
def test_flags(sysbox: Sysbox, image: str, verb: str, flags: str, says: str) -> None:
    if verb == "create" and flags.split(maxsplit=1)[0] in IN_THE_CONTAINER:
        done = sysbox(verb, *flags.split(), image, "true")
        sysbox("rm", done.stdout.strip())
        return
    assert says in refused(sysbox, verb, *flags.split(), image, "true")


# what is looked up in the image, or done in the container, is known only when it starts
IN_THE_CONTAINER = ("-u", "--group-add", "-w", "--pidfile", "--mount", "--sysctl", "--security-opt")


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("frobnicate", 1, "frobnicate"),
        ("strat x", 1, "start"),
        ("run", 125, "IMAGE"),
        ("run nosuch:image true", 125, "nosuch:image"),
        ("run ../../etc true", 125, "../../etc"),
        ("exec", 125, "CONTAINER"),
        ("exec nope true", 125, "nope"),
        ("logs nope", 1, "nope"),
        ("rm nope", 1, "nope"),
        ("stop nope", 1, "nope"),
        ("start nope", 1, "nope"),
        ("kill nope", 1, "nope"),
        ("wait nope", 1, "nope"),
        ("rm ../../../etc", 1, "../../../etc"),
        ("rmi nope", 1, "nope"),
        ("import /nope name", 1, "/nope"),
        ("import /etc/passwd name", 1, "/etc/passwd"),
        ("import - Bad_Name!", 1, "Bad_Name!"),
    ],
)
def test_verbs(sysbox: Sysbox, words: str, status: int, says: str) -> None:
    assert says in refused(sysbox, *words.split(), status=status)


def test_of_a_running_container(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("--name", "here")
    for words, status, says in (
        (("rm", "here"), 1, "running"),
        (("kill", "-s", "NOPE", "here"), 1, "NOPE"),
        (("stop", "-t", "x", "here"), 1, "x"),
        (("exec", "here", "nosuch"), 127, "nosuch"),
        (("exec", "here", "/etc"), 126, "/etc"),
        (("exec", "-w", "/nope", "here", "true"), 126, "/nope"),
        (("exec", "-u", "nobodyhere", "here", "true"), 125, "nobodyhere"),
        (("rename", "here", "a/b"), 1, "a/b"),
        (("rename", "here", ""), 1, ""),
    ):
        assert says in refused(sysbox, *words, status=status)
    assert one.inspect("State.Running") is True


def test_not_root(image: str, tmp_path: Path) -> None:
    """No traceback, and what to do about it."""
    for words in (
        ("run", "--rm", image, "true"),
        ("ps",),
        ("rm", "x"),
        ("create", image, "true"),
        ("gc",),
        ("info",),
        ("images",),
        ("volume", "ls"),
        ("network", "ls"),
        ("load", "-i", "/root/any"),
        ("manifest", "inspect", "localhost:1/any"),
    ):
        done = subprocess.run(
            ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", SYSBOX, *words],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=30,
            env={**os.environ, "HOME": "/root"},
        )  # fmt: skip
        assert done.returncode != 0, words
        assert 1 <= len(done.stderr.splitlines()) <= 2, done.stderr
        assert "Traceback" not in done.stderr
        # the permissions of what is root's are as they should be: no hint leads to chmod or SELinux
        assert done.stderr.endswith("run it with sudo\n"), done.stderr


@pytest.fixture
def full_disk() -> Iterator[Path]:
    """sysbox's state on a file system without a block to spare."""
    top = Path("/run/full")
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "full", top], check=True)
    yield top
    subprocess.run(["umount", top], check=True)
    top.rmdir()


def test_a_full_disk(sysbox: Sysbox, full_disk: Path) -> None:
    """An import that does not fit says so, and what it had written is gone."""
    done = subprocess.run(
        ["tar", "-C", "/usr/bin", "-c", "."], capture_output=True, check=True, timeout=60
    )
    env = {"SYSBOX_STATE_DIR": str(full_disk)}
    failed = subprocess.run(
        [SYSBOX, "import", "-", "big"], input=done.stdout[: 4 << 20], capture_output=True,
        check=False, timeout=60, env={**os.environ, **env},
    )  # fmt: skip
    assert failed.returncode == 1
    text = failed.stderr.decode()
    assert "No space left" in text or "full" in text
    assert len(text.splitlines()) <= 2
    assert sysbox("images", "-q", env=env).stdout == ""


def test_a_record_that_is_damaged(sysbox: Sysbox, containers: Containers) -> None:
    """The others work on, it is named, and it can be removed."""
    one, two = containers("--name", "good"), containers("--name", "bad", verb=("create",))
    record = Path(paths.CONTAINERS) / two.id / "record.json"
    # an empty one is another story: test_lost_files.py
    for text in ("{", "[]", '{"id": 1}', '{"id": "' + two.id + '"}', "\0" * 100, '{"id": NaN}'):
        record.write_text(text, encoding="ascii")
        shown = sysbox("ps", "-a", "--format", "{{.Names}}", check=True)
        assert shown.stdout.split() == ["good"]
        (line,) = shown.stderr.splitlines()
        assert line.startswith(f"sysbox: the record of container {two.id[:12]}")
        assert line.endswith(f"; `sysbox rm -f {two.id[:12]}` removes it")
        assert sysbox("info", "-f", "{{.Containers}}", check=True).stderr.splitlines() == [line]
        both = sysbox("inspect", "-f", "{{.Name}}", "bad", "good")
        assert (both.returncode, both.stdout) == (1, "/good\n")
        assert f"the record of container {two.id[:12]}" in both.stderr
        for verb in ("start", "inspect", "stop"):
            done = sysbox(verb, "bad")
            assert done.returncode != 0
            assert "Traceback" not in done.stderr
            assert "bug" not in done.stderr, done.stderr
            assert len(done.stderr.splitlines()) <= 2
    assert sysbox("gc").returncode == 0
    sysbox("rm", "-f", "bad", check=True)
    assert one.inspect("State.Running") is True


PASS_STATUSES = ("run", "create", "exec")
TESTED = sorted(
    {verb.name for verb in VERBS.values() if verb.module != "host"}
)  # the others: test_embedded.py


def failing(name: str) -> list[str]:
    """A command line of a verb that fails: by what it names, or by a flag that is none."""
    words = {"CONTAINER": "nosuch", "IMAGE": "nosuch", "VOLUME": "nosuch", "FILE": "/nosuch"}
    arguments = [words.get(one.name, "nosuch:x") for one in arguments_of(VERBS[name])]
    # some succeed with any name, or with none; the last one answers with its status alone
    others = ("volume create", "stats", "images")
    if not arguments or name in others or name.endswith(" exists"):
        return [*name.split(), "--nosuch"]
    return [*name.split(), *arguments]


@pytest.mark.parametrize("name", TESTED)
def test_the_status_of_a_failure(sysbox: Sysbox, name: str) -> None:
    """1, as docker; 125 where any other status may be that of a command in the container."""
    for words in (failing(name), [*name.split(), "--nosuch"]):
        done = sysbox(*words)
        assert done.returncode == (125 if name in PASS_STATUSES else 1), done.stderr
        assert done.stderr.startswith(("sysbox: ", "Error: no such object"))


def test_rm_of_one_that_is_missing(sysbox: Sysbox) -> None:
    """As docker since 20.10: with -f a word about it, and success."""
    refused(sysbox, "rm", "nosuch", status=1)
    done = sysbox("rm", "-f", "nosuch")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "sysbox: no such container: nosuch\n"
