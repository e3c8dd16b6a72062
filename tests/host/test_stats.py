"""stats, top and what is kept of a run: beside the cgroup's files, and beside what was done in it.

In the guest: the figures come from other files of v2, and the pressure of a container's own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import PATIENCE, V1, Container, Containers, eventually, popen, systemctl, within
from lane import SLOWNESS, Sysbox
from test_terminal import Terminal

from sysbox.host import probe
from sysbox.units.cgroup import files

MIB = 1 << 20
GROUP, NESTED = "sysboxstats.slice", "sysboxstats-inner.slice"
DOCKERS = {
    "BlockIO", "CPUPerc", "Container", "ID", "MemPerc", "MemUsage", "Name", "NetIO", "PIDs",
}  # fmt: skip
TITLES = "CONTAINER ID,NAME,CPU %,MEM USAGE / LIMIT,MEM %,NET I/O,BLOCK I/O,PIDS"
BUSY = ("sh", "-c", "while :; do :; done")
EATER = "dd if=/dev/zero of=/dev/shm/file bs=1M count=20 2>/dev/null"
WRITER = "dd if=/dev/zero of=/file bs=64k count=64 oflag=direct 2>/dev/null"  # 4 MiB
ATTEMPTS = 20  # one in two fails where the machine is busy


@pytest.fixture
def slices(containers: Containers) -> Iterator[None]:
    """After the test the slices are gone."""
    yield
    containers.remove()
    systemctl("stop", GROUP)
    systemctl("revert", GROUP)


def stats(sysbox: Sysbox, *words: str) -> list[dict[str, Any]]:
    """Each line of one reading."""
    done = sysbox("stats", "--no-stream", "--format", "json", *words, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def one_of(sysbox: Sysbox, container: Container) -> dict[str, Any]:
    (found,) = stats(sysbox, container.id)
    return found


def numbers(sysbox: Sysbox, container: Container) -> dict[str, Any]:
    found: dict[str, Any] = one_of(sysbox, container)["Sysbox"]
    return found


def percent(text: str) -> float:
    assert text.endswith("%"), text
    return float(text[:-1])


def test_the_columns_are_docker_s(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("--name", "stats-one", "-m", "64m")
    eventually(lambda: one_of(sysbox, one)["CPUPerc"] == "0.00%", "its command sleeps")
    shown = sysbox("stats", "--no-stream", one.id, check=True).stdout.splitlines()
    assert re.split(" {3,}", shown[0]) == TITLES.split(",")
    fields = re.split(" {3,}", shown[1])
    assert fields[:3] == [one.id[:12], "stats-one", "0.00%"]
    assert re.fullmatch(r"[\d.]+[KM]iB / 64MiB", fields[3])
    assert re.fullmatch(r"[\d.]+k?B / [\d.]+k?B", fields[5])
    assert fields[7] == "1"


def test_the_formats(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("--name", "stats-two")
    found = one_of(sysbox, one)
    assert set(found) >= DOCKERS
    assert all(isinstance(found[key], str) for key in DOCKERS)
    assert (found["ID"], found["Container"]) == (one.id[:12], one.id)

    def formatted(template: str) -> str:
        return sysbox("stats", "--no-stream", "--format", template, one.id, check=True).stdout

    assert formatted("{{.Name}}: {{.PIDs}}") == "stats-two: 1\n"
    assert formatted("table {{.Name}}\t{{.PIDs}}").splitlines()[0].split() == ["NAME", "PIDS"]
    assert formatted("{{.Sysbox.TasksCurrent}}") == "1\n"
    assert sysbox("stats", "--no-stream", "--no-trunc", one.id).stdout.count(one.id) == 1


@pytest.mark.guest("files of v2")
def test_the_numbers_are_those_of_the_files(sysbox: Sysbox, containers: Containers) -> None:
    one = containers("--pids-limit", "50", "--cpus", "0.05", command=BUSY)
    eventually(lambda: numbers(sysbox, one)["CPUThrottledPeriods"] > 0, "its quota is used up")
    before = cpu_ns(one)
    found = numbers(sysbox, one)
    assert before <= found["CPUUsageNSec"] <= cpu_ns(one)
    usage = one.limit("memory", "memory.usage_in_bytes" if V1 else "memory.current")
    assert abs(found["MemoryCurrent"] - int(usage)) < MIB
    assert (found["TasksCurrent"], found["TasksLimit"]) == (1, 50)
    assert found["CPUPeriods"] >= found["CPUThrottledPeriods"] > 0
    assert found["CPUThrottledNSec"] > 0
    assert re.fullmatch(r"[\d.]+s \(\d+ of \d+ periods\)", one_of(sysbox, one)["Throttled"])


def cpu_ns(one: Container) -> int:
    unified = Path(files.unified_mount(probe()))
    if unified.name:
        # on hybrid too: what the first process has used before it joins cpuacct is in this one alone
        stat = unified / "system.slice" / one.scope / "cpu.stat"
        return int(stat.read_text(encoding="ascii").split()[1]) * 1000
    return int(one.limit("cpuacct", "cpuacct.usage"))


def test_processor_time(sysbox: Sysbox, containers: Containers) -> None:
    """Of one CPU: what is held at 20 percent shows that, over a second; what sleeps shows none."""
    idle, held = containers(), containers("--cpus", "0.2", command=BUSY)
    eventually(lambda: percent(one_of(sysbox, idle)["CPUPerc"]) == 0, "its command sleeps")
    # a tenth of a second may fall between two turns of one that overdrew its quota, as slow machines let it
    eventually(lambda: percent(one_of(sysbox, held)["CPUPerc"]) > 1, "it is seen to run")
    lines = iter(stream("--interval", "1s", "--format", "{{.CPUPerc}}", held.id))
    next(lines)

    def shown() -> float:
        # what it overdraws while a slow machine stands still it gives back in the next seconds
        found = [percent(next(lines)) for _ in range(1 if SLOWNESS == 1 else 4)]
        return sum(found) / len(found)

    within(shown, 10 / SLOWNESS, 30)


def stream(*words: str) -> Iterator[str]:
    """The lines of a `stats` that goes on, which ends with the iterator."""
    process = popen("stats", *words)
    assert process.stdout
    try:
        for line in process.stdout:
            yield line.rstrip("\n")
    finally:
        process.kill()
        process.communicate()


def test_memory(sysbox: Sysbox, containers: Containers) -> None:
    """What it holds counts; page cache that nobody uses does not, and is shown apart."""
    one = containers("-m", "100m")
    before = numbers(sysbox, one)["MemoryWorkingSet"]
    one.sh(EATER)
    after = one_of(sysbox, one)
    assert after["Sysbox"]["MemoryWorkingSet"] - before > 19 * MIB
    assert 19 < percent(after["MemPerc"]) < 40
    assert after["MemLimit"] == "100MiB"
    one.sh("dd if=/dev/zero of=/file bs=1M count=20 2>/dev/null; sync")
    cached = numbers(sysbox, one)
    assert cached["MemoryCurrent"] - cached["MemoryCache"] == cached["MemoryWorkingSet"]
    assert cached["MemoryWorkingSet"] - after["Sysbox"]["MemoryWorkingSet"] < 15 * MIB


def test_the_limit_that_acts(sysbox: Sysbox, containers: Containers, slices: None) -> None:
    """A slice above may have less than the container was given."""
    one = containers("-m", "64m", "--slice", NESTED)
    assert one_of(sysbox, one)["MemLimit"] == "64MiB"
    systemctl("set-property", GROUP, "MemoryMax=48M")
    found = one_of(sysbox, one)
    assert found["MemLimit"] == "48MiB"
    assert found["LimitedBy"] == f"/{GROUP}"
    assert "/ 48MiB" in sysbox("stats", "--no-stream", one.id).stdout
    free = containers()
    assert one_of(sysbox, free)["LimitedBy"] == "host"
    assert numbers(sysbox, free)["MemoryLimit"] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf(
        "SC_PAGE_SIZE"
    )


def test_block_io(sysbox: Sysbox, containers: Containers) -> None:
    """Bytes and operations, together and by device."""
    one = containers()
    one.sh(WRITER)
    found = numbers(sysbox, one)
    assert 4 * MIB <= found["IOWriteBytes"] < 8 * MIB
    assert found["IOWriteOperations"] >= 64
    assert sum(device["WrittenBytes"] for device in found["Devices"]) == found["IOWriteBytes"]
    for device in found["Devices"]:
        assert Path(f"/sys/class/block/{device['Name']}").exists()
        assert Path(f"/sys/dev/block/{device['Device']}").exists()
    assert re.fullmatch(r"[\d.]+k?M?B / [4-8][\d.]*MB", one_of(sysbox, one)["BlockIO"])


def test_network(sysbox: Sysbox, containers: Containers) -> None:
    """What its eth0 counts; nothing where it has none of its own."""
    one = containers("--cap-add", "NET_RAW")
    one.sh(
        "ping -q -c 3 -s 1000 $(ip route | sed -n 's/default via \\([^ ]*\\).*/\\1/p') >/dev/null"
    )
    counted = one.sh("sed -n 's/.*eth0://p' /proc/net/dev").split()
    found = numbers(sysbox, one)
    assert found["NetworkReceivedBytes"] >= 3000
    assert abs(found["NetworkReceivedBytes"] - int(counted[0])) < 1000
    assert abs(found["NetworkSentBytes"] - int(counted[8])) < 1000
    shared = containers("--network", f"container:{one.id}")
    assert numbers(sysbox, shared)["NetworkReceivedBytes"] >= 3000
    for mode in ("none", "host"):
        assert one_of(sysbox, containers("--network", mode))["NetIO"] == "0B / 0B"


@pytest.mark.guest("pressure files are of v2")
def test_pressure(sysbox: Sysbox, containers: Containers, requires: Any) -> None:
    """Two that want the one CPU they have wait for it."""
    requires(Path("/proc/pressure/cpu").exists(), "pressure stall information in the kernel")
    one = containers("--cpuset-cpus", "0", command=BUSY)
    sysbox("exec", "-d", one.id, *BUSY, check=True)
    before = numbers(sysbox, one)["Pressure"]["cpu"]["StalledUSec"]
    eventually(
        lambda: numbers(sysbox, one)["Pressure"]["cpu"]["StalledUSec"] > before + 10_000,
        "somebody waits",
    )
    assert set(numbers(sysbox, one)["Pressure"]) == {"cpu", "memory", "io"}
    assert re.match(r"cpu [\d.]+%, memory ", one_of(sysbox, one)["Pressure"])


def test_what_does_not_run(sysbox: Sysbox, containers: Containers) -> None:
    """Nothing but zeroes, by name or with -a, as docker has it; else it is left out."""
    runs, ended = containers("--name", "stats-runs"), containers(command=("true",))
    ended.await_state("exited")
    assert [line["Name"] for line in stats(sysbox)] == ["stats-runs"]
    assert {line["ID"] for line in stats(sysbox, "-a")} == {runs.id[:12], ended.id[:12]}
    found = one_of(sysbox, ended)
    assert found["MemUsage"] == "0B / 0B"
    assert [found[key] for key in ("CPUPerc", "MemPerc", "PIDs")] == ["0.00%", "0.00%", "0"]
    runs("pause")
    assert one_of(sysbox, runs)["PIDs"] == "1"
    runs("unpause")


def test_mistakes(sysbox: Sysbox, containers: Containers) -> None:
    one = containers()
    for words, said in {
        ("stats", "nobody"): "no such container: nobody",
        ("stats", "--slice", "x.slice", one.id): "give one of them",
        ("stats", "--slice", "nothere.slice"): "nothere.slice is not active",
        ("stats", "--slice", "a--b"): "'-' separates",
        ("stats", "--interval", "10ms"): "at least 0.1s",
        ("stats", "--interval", "soon"): "not a duration",
        ("top", "nobody"): "no such container: nobody",
        ("top", one.id, "-o", "args"): "add it",
        ("top", one.id, "--nonsense"): "failed with status",
    }.items():
        done = sysbox(*words)
        assert done.returncode != 0
        assert said in done.stderr, done.stderr


def test_who_ends_drops_out(containers: Containers) -> None:
    containers("--name", "stats-stays")
    leaves = containers("--name", "stats-leaves")
    lines = stream("--interval", "0.1s", "--format", "{{.Name}}")
    assert {next(lines), next(lines)} == {"stats-stays", "stats-leaves"}
    leaves("rm", "-f")
    # not by their number: until then there is one every tenth of a second, however long that took
    deadline = time.monotonic() + PATIENCE
    seen: list[str] = []
    while seen[-5:] != ["stats-stays"] * 5:
        seen.append(next(lines))
        assert time.monotonic() < deadline, seen


def test_it_ends_when_those_it_was_asked_for_are_gone(containers: Containers) -> None:
    both = [containers(), containers()]
    process = popen(
        "stats", "--interval", "0.1", "--format", "{{.ID}}", both[0].id, both[1].id[:12]
    )
    assert process.stdout
    assert {process.stdout.readline().strip() for _ in both} == {one.id[:12] for one in both}
    for one in both:
        one("rm", "-f")
    rest, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (0, "")
    assert set(rest.split()) <= {one.id[:12] for one in both}


def test_the_screen(containers: Containers) -> None:
    """Written over in place, as wide and as high as the terminal; after ^C that is as it was before."""
    names = [f"stats-screen-{number}" for number in range(4)]
    for name in names:
        containers("--name", name)
    terminal = Terminal("stats", "--interval", "0.2", rows=5, columns=60)
    before = terminal.modes()
    terminal.expect("\x1b[2J")
    first = terminal.expect("and 2 more")
    second = terminal.expect("and 2 more")
    assert first.startswith("\x1b[H")
    assert "\x1b[H" in second
    lines = [re.sub(r"\x1b\[\w", "", line) for line in first.splitlines()]
    assert max(map(len, lines)) <= 60
    # whole columns are left out, the name stays
    assert (
        next(line.split() for line in lines if "NAME" in line)
        == "NAME CPU % MEM USAGE / LIMIT MEM %".split()
    )
    assert sum(line.split()[0] in names for line in lines if line.strip()) == 2
    terminal.type("\x03")
    assert terminal.end() == 128 + signal.SIGINT
    assert terminal.modes() == before
    terminal.close()


def test_slices(sysbox: Sysbox, containers: Containers, slices: None) -> None:
    """A slice has what those below it have together, and each of them a line."""
    outer = containers("--name", "stats-outer", "--slice", GROUP)
    inner = containers("--name", "stats-inner", "--slice", NESTED)
    elsewhere = containers()
    inner.sh(EATER)
    lines = stats(sysbox, "--slice", GROUP)
    assert [line["Name"] for line in lines[:1]] == [GROUP]
    found = {line["Name"]: line["Sysbox"] for line in lines}
    assert set(found) == {GROUP, NESTED, "stats-outer", "stats-inner"}
    assert [found[name]["TasksCurrent"] for name in (GROUP, NESTED)] == [2, 1]
    assert found[GROUP]["MemoryWorkingSet"] >= found[NESTED]["MemoryWorkingSet"] > 19 * MIB
    assert found[GROUP]["CPUUsageNSec"] >= found["stats-outer"]["CPUUsageNSec"]
    assert found[GROUP]["NetworkSentBytes"] == sum(
        found[name]["NetworkSentBytes"] for name in ("stats-outer", "stats-inner")
    )
    everything = sysbox("stats", "--no-stream", "--slice", "-.slice", check=True).stdout
    for one in (outer, inner, elsewhere):
        assert everything.count(one.id[:12]) == 1


# top


def top(sysbox: Sysbox, one: Container, *options: str) -> list[list[str]]:
    done = sysbox("top", one.id, *options, check=True)
    return [line.split(maxsplit=7) for line in done.stdout.splitlines()]


def test_top_shows_everybody(sysbox: Sysbox, containers: Containers) -> None:
    """The first process, one by exec with a user of its own, one in a cgroup below; nobody else."""
    one = containers("--privileged")
    sysbox("exec", "-d", "--user", "1000", one.id, "sleep", "2001", check=True)
    sysbox("exec", "-d", one.id, "sh", "-c", "sleep 2002", check=True)
    wanted = {"sleep 1000", "sleep 2001", "sleep 2002"}
    # the shell is there before what it becomes
    eventually(lambda: {row[7] for row in top(sysbox, one)[1:]} == wanted, "all are there")
    below = one.cgroup("name=systemd" if V1 else "memory") / "below"
    below.mkdir()
    pid = next(row[1] for row in top(sysbox, one) if row[7] == "sleep 2002")
    (below / "cgroup.procs").write_text(pid)
    titles, *rows = top(sysbox, one)
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert {row[7] for row in rows} == wanted
    first = next(row for row in rows if row[7] == "sleep 1000")
    assert first[1] == str(one.pid)
    assert first[0] == "root"
    assert re.fullmatch(r"\d\d:\d\d:\d\d", first[6])
    user = next(row for row in rows if row[7] == "sleep 2001")
    assert user[0] in ("1000", name_of(1000))


def name_of(uid: int) -> str:
    done = subprocess.run(["id", "-nu", str(uid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def test_top_as_ps_has_it(sysbox: Sysbox, containers: Containers) -> None:
    """The same figures as ps(1), and its own options, of the container's processes only."""
    one = containers("-t", command=BUSY)
    # looked up in a file: a command each time would take the CPU from it
    eventually(lambda: cpu_ns(one) > 1_000_000_000, "it has used a second")
    eventually(lambda: top(sysbox, one)[1][6] >= "00:00:01", "top shows that")

    def both() -> list[list[str]]:
        """The lines of ps(1) and of top; none if C, a share of whole seconds, has changed in between."""
        shown = subprocess.run(
            ["ps", "-f", "-p", str(one.pid)], capture_output=True, text=True, check=True
        ).stdout.splitlines()[1]
        theirs, ours = shown.split(maxsplit=7), top(sysbox, one)[1]
        return [theirs, ours] if abs(int(ours[3]) - int(theirs[3])) < 20 else []

    theirs, ours = eventually(both, "they agree on C")
    # ids are those inside
    assert ours[:3] == ["root", *theirs[1:3]]
    # ps(1) counts from a boot that it knows to a second or two: at the turn of a minute both are right
    words = ["ps", "-o", "lstart=", "-p", str(one.pid)]
    began = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    moment = time.mktime(time.strptime(began))
    about = {time.strftime("%H:%M", time.localtime(moment + off)) for off in (-3, 0, 3)}
    assert {ours[4], theirs[4]} <= about
    assert ours[7] == theirs[7]
    assert ours[5].startswith("pts/")  # its name in the container: on the host it has none
    for options in (("-eo", "pid,args"), ("aux",), ("-o", "pid,args")):
        done = sysbox("top", one.id, *options, check=True).stdout.splitlines()
        assert len(done) == 2
        assert str(one.pid) in done[1].split()


def test_top_of_what_does_not_run(sysbox: Sysbox, containers: Containers) -> None:
    one = containers(command=("true",))
    one.await_state("exited")
    done = sysbox("top", one.id)
    assert done.returncode != 0
    assert "is not running" in done.stderr


# What is kept of a run


def known(make: Any) -> tuple[Container, dict[str, Any]]:
    """A container that has ended, and what it has used.

    systemd removes the cgroup as soon as it is empty: a busy machine may have done so before the supervisor
    has looked, or between two of its files.
    """
    for _ in range(ATTEMPTS):
        one = make()
        one.await_state("exited")
        usage = one.inspect("Sysbox.Usage")
        usage = {name: one for name, one in usage.items() if not name.startswith("IP")}
        if None not in usage.values():
            return one, usage
    raise AssertionError(f"{ATTEMPTS} times not all is known: {usage}")


WORK = f"{EATER}; rm /dev/shm/file; {WRITER}; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"


@pytest.mark.parametrize(
    "detached", [pytest.param(True, marks=pytest.mark.guest("files of v2")), False]
)
def test_what_a_run_has_used(sysbox: Sysbox, containers: Containers, *, detached: bool) -> None:
    """CPU time, the most memory, bytes written: kept at the end, by either kind of supervisor."""

    def make() -> Container:
        if detached:
            return containers(command=("sh", "-c", WORK))
        one = containers(verb=("create",), command=("sh", "-c", WORK))
        sysbox("start", "-a", one.id, check=True)
        return one

    one, usage = known(make)
    assert 10_000_000 < usage["CPUUsageNSec"] < 60_000_000_000
    assert 20 * MIB < usage["MemoryPeak"] < 60 * MIB
    assert 4 * MIB <= usage["IOWriteBytes"] < 40 * MIB
    assert usage["IOReadBytes"] >= 0
    template = "{{.ID}} {{.CPUTime}} {{.MemPeak}} {{.BlockRead}} {{.BlockWritten}}"
    lines = sysbox("ps", "-a", "--format", template, check=True).stdout.splitlines()
    line = next(line for line in lines if line.startswith(one.id[:12]))
    assert re.fullmatch(r"\w+ [\d.]+s [\d.]+MiB [\d.]+k?M?B [\d.]+MB", line), line


def test_what_a_run_has_used_so_far(sysbox: Sysbox, containers: Containers) -> None:
    """Of one that runs it is read now; of one that never ran nothing is known."""
    one = containers()
    one.sh(EATER)
    first = one.inspect("Sysbox.Usage")
    assert first["MemoryPeak"] > 20 * MIB
    one.sh("i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done")
    assert one.inspect("Sysbox.Usage.CPUUsageNSec") > first["CPUUsageNSec"]
    never = containers(verb=("create",))
    assert set(never.inspect("Sysbox.Usage").values()) == {None}
    shown = sysbox("ps", "-a", "--format", "{{.ID}} {{.CPUTime}} {{.MemPeak}}").stdout
    assert f"{never.id[:12]} -- --" in shown


def test_out_of_memory_is_in_the_report(containers: Containers) -> None:
    """Yes for one that was killed for its limit, and its peak is that limit; no for one killed by hand."""

    def make() -> Container:
        return containers(
            "-m",
            "16m",
            "--memory-swap",
            "16m",
            command=("sh", "-c", "x=aaaaaaaa; while :; do x=$x$x; done"),
        )

    one, usage = known(make)
    assert one.inspect("State.OOMKilled") is True
    assert 15 * MIB < usage["MemoryPeak"] <= 16 * MIB
    killed = containers("-m", "16m")
    killed("kill")
    killed.await_state("exited")
    assert killed.inspect("State.OOMKilled") is False


def test_stats_leaves_no_descriptor(containers: Containers) -> None:
    """A screen that goes on for weeks: as many open files after many readings as after one."""
    containers()
    process = popen("stats", "--interval", "0.1", "--format", "{{.Name}}")
    assert process.stdout
    try:
        process.stdout.readline()
        before = len(os.listdir(f"/proc/{process.pid}/fd"))
        for _ in range(5):
            process.stdout.readline()
        # on a busy machine this looks while the next reading has files open
        eventually(lambda: len(os.listdir(f"/proc/{process.pid}/fd")) <= before, "all are closed")
    finally:
        process.kill()
        process.communicate()
