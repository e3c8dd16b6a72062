"""What goes wrong: things are killed at random, system calls fail, many want the same, records are damaged.

A short version of each; `make soak` runs the long ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, popen, systemctl
from faults import (
    SEED,
    SOAK,
    calls_of,
    injection,
    settled,
    spread,
    traced,
    unclean,
)
from lane import Sysbox
from storm import FURTHER, NETWORK, Storm

from sysbox.base import paths
from sysbox.netns import leases, names, ports


def nothing_more(sysbox: Sysbox) -> None:
    """gc has nothing to do after gc, there is no container, and no unit of one."""
    settled(sysbox)
    assert settled(sysbox) == []
    assert sysbox("ps", "-aq").stdout == ""
    with contextlib.suppress(AssertionError):
        eventually(lambda: not units_left(), "no unit is left")
    assert units_left() == []


def units_left() -> list[str]:
    listing = ("list-units", "--all", "--plain", "--no-legend", "docker-*", "sysbox-*")
    # but sysbox-boot.service
    return re.findall(r"^\S+-[0-9a-f]{64}\.\w+", systemctl(*listing), re.MULTILINE)


# whatever is killed


def test_anything_is_killed_at_any_instant(sysbox: Sysbox, image: str) -> None:
    """Every container can be removed, nothing is left of it, and no command shows a traceback."""
    rounds = int(os.environ.get("SYSBOX_SOAK_ROUNDS", "1000")) if SOAK else 25
    print(f"SYSBOX_SEED={SEED}")
    storm = Storm(image, SEED)
    for name in (NETWORK, FURTHER):
        sysbox("network", "create", "--ipv6", name, check=True)
    storm.run(rounds, at_once=4)
    print(f"{rounds} rounds: {storm.counts}")
    settled(sysbox)
    left = sysbox("ps", "-aq").stdout.split()
    undeletable = [one for one in left if sysbox("rm", "-f", "-v", one).returncode]
    assert not storm.complaints, "\n".join(storm.complaints)
    assert (left, undeletable) == ([], [])
    nothing_more(sysbox)
    assert leases.in_use() == []
    assert list(Path(names.DIRECTORY).glob("*")) == []
    assert ports.load() == ()
    sysbox("network", "rm", NETWORK, FURTHER, check=True)


# whatever fails

ERRORS = ("ENOSPC", "EIO", "EMFILE", "ENOMEM", "EPERM")
NAME = "unlucky"
# these have no error (their manual pages), or none that anybody could be told of; libc trusts brk and futex.
# close(2) that fails has freed the descriptor (its NOTES), but strace(1) does not make a call that it fails
NEVER_FAIL = set(
    "getuid geteuid getgid getegid getpid gettid exit exit_group rt_sigreturn execve munmap vfork "
    "brk futex close".split()
)
UNCHANGING = ("exec", "gc", "ps")
RUNNING = ("stop", *UNCHANGING)
RUN = ("run", "--rm", "--name", NAME, "--cpuset-cpus", "0", "-p", "80", "-v", "/data")


def cases(verb: str, file: Path, *words: str) -> list[tuple[str, str, int]]:
    """(call, error, which one): in the soak each error at several calls of each kind, else one of them."""
    found = []
    for kind, (before, total) in sorted(calls_of(file, *words).items()):
        if kind in NEVER_FAIL or before == total:
            continue
        if SOAK:
            numbers = spread(before + 1, total, 6)
            found += [(kind, error, number) for number in numbers for error in ERRORS]
            continue
        choice = hashlib.sha256(f"{verb} {kind}".encode()).digest()
        number = before + 1 + choice[0] % (total - before)
        found.append((kind, ERRORS[choice[1] % len(ERRORS)], number))
    return found if SOAK else found[len(verb) % 4 :: 4]


def attempt(sysbox: Sysbox, case: tuple[str, str, int], *words: str) -> list[str]:
    """Have one call fail; what was wrong with how that ended."""
    where = f"{words[0]}: {case[1]} from {case[0]} number {case[2]}"
    try:
        done = traced(injection(*case), *words)
    except subprocess.TimeoutExpired:
        return [f"{where}: does not end"]
    wrong = [f"{where}: {found}"] if (found := unclean(done)) else []
    done = sysbox("gc")
    if done.returncode or done.stderr:
        wrong.append(f"{where}: gc: {done.stderr}")
    if wrong:
        print(*wrong, sep="\n", flush=True)  # it is a while until the end
    return wrong


def removed(sysbox: Sysbox, where: object) -> list[str]:
    done = sysbox("rm", "-f", "-v", NAME)
    return [f"{where}: cannot be removed: {done.stderr}"] if done.returncode else []


@pytest.mark.parametrize("verb", ["create", "run", "start", "stop", "rm", "exec", "gc", "ps"])
def test_a_call_fails(sysbox: Sysbox, image: str, tmp_path: Path, verb: str) -> None:
    """One line says so, and nothing is left that `gc` and `rm -f` do not know."""
    sleeper = ("--name", NAME, "-v", "/data", image, "sleep", "1000")
    prepare: dict[str, tuple[str, ...]] = {
        "create": (), "run": (), "start": ("create", *sleeper), "rm": ("create", *sleeper),
        **dict.fromkeys(RUNNING, ("run", "-d", *sleeper)),
    }  # fmt: skip
    asked: dict[str, tuple[str, ...]] = {
        "create": ("create", *sleeper), "run": (*RUN, image, "true"), "start": ("start", NAME),
        "stop": ("stop", "-t", "0", NAME), "rm": ("rm", "-v", NAME), "exec": ("exec", NAME, "true"),
        "gc": ("gc",), "ps": ("ps", "-a"),
    }  # fmt: skip

    def ready() -> None:
        if prepare[verb] and sysbox("inspect", "-f", "{{.State.Running}}", NAME).stdout != (
            "true\n" if verb in RUNNING else "false\n"
        ):
            sysbox("rm", "-f", "-v", NAME, check=True)
            sysbox(*prepare[verb], check=True)

    ready()
    planned = cases(verb, tmp_path / "calls", *asked[verb])
    wrong = removed(sysbox, verb)
    assert planned
    for case in planned:
        ready()
        wrong += attempt(sysbox, case, *asked[verb])
        if verb not in UNCHANGING:
            wrong += removed(sysbox, case)
        elif sysbox("inspect", "-f", "{{.State.Running}}", NAME).stdout != "true\n":
            wrong.append(f"{verb}: {case}: what has run runs no more")
    wrong += removed(sysbox, verb)
    print(f"{verb}: {len(planned)} failures")
    assert not wrong, "\n".join(wrong)
    nothing_more(sysbox)


@pytest.mark.parametrize("call", ["pidfd_open", "prctl", "clone3"])
def test_exec_meets_the_end(containers: Containers, tmp_path: Path, call: str) -> None:
    """A container that ends while somebody enters it has ended: not one of its cgroups, or a namespace."""
    one = containers()
    calls = tmp_path / "calls"
    trace = ["-e", f"trace={call}", "-e", f"inject={call}:signal=STOP:when=1", "-o", str(calls)]
    with popen("exec", one.id, "true", under=("strace", "-qq", *trace)) as entering:
        eventually(
            lambda: calls.exists() and "stopped by SIGSTOP" in calls.read_text(),
            f"it stops at {call}",
        )
        one("kill")
        one.await_state("exited")
        subprocess.run(["pkill", "-CONT", "-P", str(entering.pid)], check=True)
        _, errors = entering.communicate()
    known = f"container {one.inspect('Name').removeprefix('/')}"
    assert errors.splitlines()[0] in (
        f"sysbox: {known} has just ended",
        f"sysbox: {known} is not running",
    )
    assert entering.returncode == 125


# many at once


def test_many_start_at_once(sysbox: Sysbox, image: str) -> None:
    """All of them run, each with an address of its own."""
    names = [f"many-{number}" for number in range(64 if SOAK else 16)]
    try:
        with ThreadPoolExecutor(len(names)) as pool:
            started = list(
                pool.map(
                    lambda name: sysbox("run", "-d", "--name", name, image, "sleep", "1000"), names
                )
            )
        assert [done.stderr for done in started if done.returncode] == []
        listed = sysbox("ps", "--format", "{{.Names}} {{.State}}").stdout.splitlines()
        assert sorted(listed) == sorted(f"{name} running" for name in names)
        form = "{{.NetworkSettings.IPAddress}}"
        addresses = sysbox("inspect", "-f", form, *names).stdout.splitlines()
        assert len(set(addresses)) == len(names)
        assert all(addresses)
    finally:
        sysbox("rm", "-f", *names)
    nothing_more(sysbox)


def test_eight_want_the_same_name(sysbox: Sysbox, image: str) -> None:
    """One has it, the others are told whose it is."""
    words = ("run", "-d", "--name", NAME, image, "sleep", "1000")
    for _ in range(20 if SOAK else 2):
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda _: sysbox(*words), range(8)))
        won = [one for one in done if one.returncode == 0]
        assert len(won) == 1
        for one in done:
            if one is not won[0]:
                assert one.returncode == 125
                assert f"the name '{NAME}' is in use" in one.stderr
                assert unclean(one) == ""
        assert sysbox("ps", "-aq", "--no-trunc").stdout == won[0].stdout
        assert settled(sysbox) == []
        sysbox("rm", "-f", NAME, check=True)
    nothing_more(sysbox)


# damaged records


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def damage(path: Path) -> object:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        return make(path)

    return damage


def _socket(path: Path) -> None:
    here = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(f"/proc/self/fd/{here}/{path.name}")
    finally:
        os.close(here)


def _truncated(path: Path) -> None:
    data = path.read_bytes() if path.exists() else b'{"pid":'
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data[: len(data) // 2])


def _written(data: bytes) -> Callable[[Path], object]:
    return _replaced(lambda path: path.write_bytes(data))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": _written(b""),
    "truncated": _truncated,
    "binary": _written(bytes(range(256)) * 8),
    "list": _written(b"[]"),
    "null": _written(b"null"),
    "no keys": _written(b"{}"),
    "wrong types": _written(
        b'{"id":7,"name":[],"pid":"x","code":{},"signal":null,"oom":[],"timeout":"","finished":"",'
        b'"exit_code":[],"status":1,"log":3}'
    ),
    "deep": _written(b"[" * 100_000),
    "negative": _written(b'{"pid":-1,"start_time":-1,"supervisor":-1,"supervisor_start":-1,"scope":"x"}'),
    "another's": _written(b'{"pid":1,"start_time":0,"supervisor":1,"supervisor_start":0,"scope":"../x"}'),
    "huge": _replaced(lambda path: path.open("wb").truncate(1 << 40)),
    "large": _written(b" " * (3 << 20)),
    "link": _replaced(lambda path: path.symlink_to("/etc/passwd")),
    "loop": _replaced(lambda path: path.symlink_to(path.name)),
    "dangling": _replaced(lambda path: path.symlink_to("/nowhere/at/all")),
    "directory": _replaced(lambda path: (path / "below").mkdir(parents=True)),
    "pipe": _replaced(os.mkfifo),
    "socket": _replaced(_socket),
    "missing": _replaced(lambda path: None),
}  # fmt: skip
FILES = {
    "record.json": paths.CONTAINERS,
    "exit.json": paths.CONTAINERS,
    "lock": paths.CONTAINERS,
    "state.json": paths.RUN_CONTAINERS,
    "health.json": paths.RUN_CONTAINERS,
    "exit": paths.RUN_CONTAINERS,
}


def damages(file: str) -> list[str]:
    """All of them in the soak, else some, others for each file."""
    names = list(DAMAGES)
    return names if SOAK else names[list(FILES).index(file) % 7 :: 7]


def others_work(
    sysbox: Sysbox, image: str, bystander: Container, damaged: Sequence[Container] = ()
) -> None:
    """No command says anything of the damaged ones, except `ps`, which names them, a line each."""
    for words in (
        ("ps", "-a"), ("ps",), ("inspect", bystander.id), ("exec", bystander.id, "true"),
        ("run", "--rm", image, "true"), ("gc",), ("stats", "--no-stream"), ("volume", "ls"),
    ):  # fmt: skip
        done = sysbox(*words)
        lines = done.stderr.splitlines() if words[0] == "ps" else []
        named = [
            one for one in damaged if f"`sysbox rm -f {one.id[:12]}` removes it" in done.stderr
        ]
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert len(named) == len(lines), done.stderr
        assert lines or not done.stderr, f"{words}: {done.stderr}"
        if words[0] == "ps":
            assert bystander.id[:12] in done.stdout


@pytest.mark.parametrize("runs", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("file", FILES)
def test_a_record_is_damaged(
    containers: Containers, sysbox: Sysbox, image: str, file: str, *, runs: bool
) -> None:
    """Every other container works, and `rm -f` removes the one that is damaged."""
    bystander = containers()
    damaged = []
    for damage in damages(file):
        one = containers("--health-cmd", "true", "--network", "none")
        if not runs:
            one("stop", "-t", "0")
        DAMAGES[damage](Path(FILES[file], one.id, file))
        damaged.append((damage, one))
    others_work(sysbox, image, bystander, [one for _, one in damaged])
    wrong = []
    for damage, one in damaged:
        for verb in ("inspect", "exec", "stop", "start", "rm -f"):
            words = (*verb.split(), one.id, *(("true",) if verb == "exec" else ()))
            done = sysbox(*(("stop", "-t", "0", one.id) if verb == "stop" else words))
            if found := unclean(done):
                wrong.append(f"{file}, {damage}: {verb}: {found}")
        if done.returncode:
            wrong.append(f"{file}, {damage}: cannot be removed: {done.stderr}")
    others_work(sysbox, image, bystander)
    containers.remove()
    nothing_more(sysbox)
    assert not wrong, "\n".join(wrong)


def test_a_damaged_name_is_freed(containers: Containers, sysbox: Sysbox, image: str) -> None:
    """Whatever is where a name should be, others are found, and gc frees it."""
    bystander = containers()
    directory = Path(paths.NAMES)
    (directory / "file").write_text("x", encoding="ascii")
    (directory / "dangling").symlink_to("0" * 64)
    (directory / "outside").symlink_to("/etc/passwd")
    (directory / "directory").mkdir()
    others_work(sysbox, image, bystander)
    assert sorted(path.name for path in directory.iterdir()) == [
        bystander.inspect("Name").removeprefix("/")
    ]
    assert settled(sysbox) == []
