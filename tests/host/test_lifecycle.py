"""What the verbs do to a container: states, statuses, names, signals, the end (S17).

In the guest: what is left in a scope is found and killed by cgroup.procs and cgroup.events of v2.
"""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from containers import Container, Containers, commands, eventually, popen, systemctl
from faults import traced
from lane import SLOWNESS, Sysbox

from sysbox.base import paths
from sysbox.container.locks import Lock

# A first process that says that it is ready, and ends well when it is asked to.
POLITE = (
    "sh",
    "-c",
    "trap 'echo bye; exit 0' TERM; trap 'exit 3' USR1; echo ready; while :; do sleep 0.02; done",
)
STUBBORN = ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done")


def ready(one: Container, run: int = 1) -> Container:
    """Once its traps are set, in its first run or a later one: the log has them all."""
    eventually(lambda: one("logs").count("ready") == run, "the payload is ready")
    return one


# run


@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize(
    ("command", "status"),
    [(("nosuch",), 127), (("/nosuch",), 127), (("/etc/passwd",), 126), (("/etc",), 126)],
)
def test_a_command_that_cannot_run(
    sysbox: Sysbox, image: str, command: tuple[str, ...], status: int, detached: bool
) -> None:
    done = sysbox("run", "--rm", *["-d"] * detached, image, *command)
    assert done.returncode == status
    assert command[0] in done.stderr.splitlines()[0]
    assert done.stdout == ""


def test_a_command_that_cannot_run_leaves_nothing(sysbox: Sysbox, image: str) -> None:
    """Of `run`; what was made by `create` stays, with the reason."""
    for flags in ((), ("-d",)):
        assert sysbox("run", "--name", "broken", *flags, image, "nosuch").returncode == 127
    sysbox("create", "--name", "broken", image, "nosuch", check=True)
    assert sysbox("start", "broken").returncode != 0
    assert sysbox("start", "-a", "broken").returncode == 1
    template = "{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}"
    shown = sysbox("inspect", "-f", template, "broken", check=True).stdout
    assert shown.startswith("created 127 cannot find nosuch")
    sysbox("rm", "broken", check=True)


def test_128_plus_the_signal(sysbox: Sysbox, image: str) -> None:
    done = sysbox("run", "--rm", "--init", image, "sh", "-c", "kill -SEGV $$")
    assert done.returncode == 139


def test_streams_are_the_callers(sysbox: Sysbox, image: str) -> None:
    """Standard input only with -i; output and errors apart; all of it, however much."""
    done = sysbox("run", "--rm", "-i", image, "sh", "-c", "wc -c; echo no >&2", input="x" * 300_000)
    assert (done.stdout.strip(), done.stderr) == ("300000", "no\n")
    done = sysbox("run", "--rm", image, "cat", input="not for it")
    assert (done.returncode, done.stdout) == (0, "")
    for flags in (("--rm",), ()):
        done = sysbox("run", "--name", "much", *flags, image, "sh", "-c", "yes | head -n 200000")
        assert len(done.stdout) == 400_000
    sysbox("rm", "much", check=True)


def test_signals_are_passed_on(sysbox: Sysbox, image: str) -> None:
    process = popen("run", "--rm", image, *POLITE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(20 * SLOWNESS) == 3
    process = popen("run", "--rm", image, *POLITE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.wait(20 * SLOWNESS) == 0
    assert process.stdout.read() == "bye\n"


def test_ids_and_files(containers: Containers, sysbox: Sysbox, tmp_path: Path) -> None:
    cidfile, pidfile = tmp_path / "cid", tmp_path / "pid"
    one = containers("--cidfile", str(cidfile), "--pidfile", str(pidfile))
    assert cidfile.read_text() == one.id
    assert int(pidfile.read_text()) == one.pid
    again = sysbox("run", "-d", "--cidfile", str(cidfile), "busybox:test", "true")
    assert again.returncode == 125
    assert "exists" in again.stderr
    broken = sysbox(
        "create", "--cidfile", str(tmp_path / "other"), "--name", one.id[:12], "nosuch", "true"
    )
    assert broken.returncode == 125
    assert not (tmp_path / "other").exists()


def test_init_reaps(containers: Containers) -> None:
    """--init: PID 1 is ours, takes in orphans, and passes signals on."""
    one = containers("--init", "--stop-timeout", "500", command=("sleep", "1000"))
    assert one.sh("readlink /proc/1/exe") == "/dev/sysbox-init"
    one.sh("(sleep 0.01 &)")
    # the title, the first process, its child, and ps itself: an orphan that nobody reaps would stay
    eventually(lambda: len(one.exec("ps").splitlines()) == 4, "the orphan is reaped")
    one("stop")  # which fails if it has to wait for the time-out
    assert one.inspect("State.ExitCode") == 143


# create, start, stop, kill, restart, wait


def test_the_way_of_a_container(containers: Containers, sysbox: Sysbox) -> None:
    one = containers("--name", "way", verb=("create",), command=POLITE)
    assert one.inspect("State.Status") == "created"
    assert one.inspect("State.Pid") == 0
    one("start")
    ready(one)
    first = one.pid
    assert sysbox("start", "way").stdout == "way\n"  # runs already: success, and the same process
    assert one.pid == first
    one("restart")
    assert ready(one, run=2).pid != first
    waiting = popen("wait", "way")
    one("stop")
    assert waiting.communicate(timeout=20 * SLOWNESS)[0] == "0\n"
    assert one.inspect("State.Status") == "exited"
    assert one("wait") == "0\n"
    one("stop")  # stopped already: success
    assert sysbox("kill", "way").returncode == 1
    assert sysbox("exec", "way", "true").returncode != 0
    one("start")
    ready(one, run=3)
    one("kill", "-s", "USR1")
    assert one("wait") == "3\n"
    one("rm")
    assert sysbox("inspect", "way").returncode == 1


def test_what_was_written_survives_a_restart(containers: Containers) -> None:
    one = containers(command=("sh", "-c", "echo x >> /count; sleep 1000"))
    eventually(lambda: one.sh("cat /count || true") == "x", "first")
    one("restart", "-t", "0")
    eventually(lambda: one.sh("cat /count") == "x\nx", "second")


def test_start_attached(containers: Containers, sysbox: Sysbox) -> None:
    containers("--name", "attached", "-i", verb=("create",), command=("sh", "-c", "cat; exit 5"))
    done = sysbox("start", "-ai", "attached", input="hello\n")
    assert (done.returncode, done.stdout) == (5, "hello\n")
    done = sysbox("start", "-a", "attached", input="hello\n")
    assert (done.returncode, done.stdout) == (5, "")


def test_stop_signal_and_timeout(containers: Containers) -> None:
    one = ready(containers("--stop-signal", "USR1", command=POLITE))
    one("stop")
    assert one.inspect("State.ExitCode") == 3
    two = ready(containers("--stop-timeout", "1", command=STUBBORN))
    started = time.monotonic()
    two("stop")
    assert 0.9 < time.monotonic() - started < 8 * SLOWNESS
    assert two.inspect("State.ExitCode") == 137
    three = ready(containers("--stop-timeout", "500", command=STUBBORN))
    three("stop", "-t", "0")  # which fails if it waits for that
    assert three.inspect("State.ExitCode") == 137


@pytest.mark.parametrize("unit", ["scope", "service"])
def test_systemctl_stop_is_graceful(containers: Containers, unit: str) -> None:
    """`systemctl stop` of the scope, or of its supervisor: the payload traps TERM and exits 0."""
    one = ready(containers(command=POLITE))
    systemctl("stop", one.scope if unit == "scope" else f"sysbox-{one.id}.service")
    eventually(lambda: one.inspect("State.Status") == "exited", "its end is recorded")
    assert one.inspect("State.ExitCode") == 0
    assert one.inspect("State.Error") == ""
    assert "bye" in one("logs")


def test_systemctl_stop_after_the_timeout(containers: Containers) -> None:
    one = ready(containers("--stop-timeout", "1", command=STUBBORN))
    started = time.monotonic()
    systemctl("stop", one.scope)
    one.await_state("exited")
    assert time.monotonic() - started < 8 * SLOWNESS
    assert one.inspect("State.ExitCode") == 137


def test_systemctl_kill_and_stop_in_the_foreground(
    sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    cidfile = tmp_path / "cid"
    process = popen("run", "--rm", "--cidfile", str(cidfile), image, *POLITE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    systemctl("stop", f"docker-{cidfile.read_text()}.scope")
    assert process.wait(20 * SLOWNESS) == 0


def test_rm(containers: Containers, sysbox: Sysbox) -> None:
    one = containers("--name", "kept", "-v", "/data")
    refused = sysbox("rm", "kept")
    assert refused.returncode == 1
    assert "running" in refused.stderr
    volume = one.inspect("Mounts")[0]["Name"]
    assert (Path(paths.VOLUMES) / volume).is_dir()
    one("rm", "-f", "-v")
    assert not (Path(paths.VOLUMES) / volume).exists()
    done = sysbox("rm", "kept", "nosuch")
    assert done.returncode == 1
    assert "nosuch" in done.stderr


@pytest.mark.parametrize("flags", [(), ("-d",)])
def test_rm_by_itself(sysbox: Sysbox, image: str, flags: tuple[str, ...]) -> None:
    """--rm: nothing is left once it has ended, the anonymous volume neither (the leak check looks)."""
    sysbox("run", "--rm", "--name", "brief", "-v", "/data", *flags, image, "true", check=True)
    eventually(lambda: sysbox("inspect", "brief").returncode == 1, "it is removed")


def test_rm_of_many_at_once(containers: Containers, sysbox: Sysbox) -> None:
    made = [containers("--network", "none") for _ in range(6)]
    removers = [popen("rm", "-f", one.id) for one in made for _ in range(2)]
    for remover in removers:
        remover.communicate(timeout=30 * SLOWNESS)
    assert sysbox("ps", "-aq").stdout == ""
    assert [remover.returncode for remover in removers] == [0] * len(removers)


def test_rm_of_one_that_goes_meanwhile(containers: Containers, sysbox: Sysbox) -> None:
    """Another command removes the second while the first is waited for: it is gone, as was asked."""
    first, second = (containers("--network", "none") for _ in range(2))
    process = Path(f"/proc/{second.pid}")
    with Lock(first.id):
        remover = popen("rm", "-f", first.id, second.id)
        eventually(lambda: not process.exists(), "both are killed")
        sysbox("rm", "-f", second.id, check=True)
    output, _ = remover.communicate(timeout=30 * SLOWNESS)
    assert (remover.returncode, output.split()) == (0, [first.id, second.id])


def test_rm_of_all_kinds(containers: Containers, sysbox: Sysbox) -> None:
    """In one command, which kills them first, in parts of 32: what runs, is paused, restarts, has ended."""
    many = [containers("--network", "none", verb=("create",)).id for _ in range(33)]
    some = [
        containers("--name", "runs").id,
        containers("--name", "stubborn", command=STUBBORN).id,
        containers("--name", "again", "--restart", "always").id,
        containers("--name", "short", "--rm").id,
        containers("--name", "ended", verb=("create",)).id,
    ]
    paused = containers("--name", "paused")
    paused("pause")
    names = ("runs", "nosuch", "stubborn", "again", "short", "ended", "paused")
    done = sysbox("rm", "-f", *names, *many)
    assert done.returncode == 0
    assert done.stdout.split() == [name for name in names if name != "nosuch"] + many
    assert "nosuch" in done.stderr
    assert sysbox("ps", "-aq").stdout == ""
    for one in (*some, paused.id):
        eventually(lambda: not systemctl("list-units", "-q", f"*{one}*"), "its units are gone")  # noqa: B023


# names


def test_one_name_has_one_winner(sysbox: Sysbox, image: str) -> None:
    makers = [popen("create", "--name", "wanted", image, "true") for _ in range(8)]
    done = [(maker.communicate(timeout=30 * SLOWNESS), maker.returncode) for maker in makers]
    assert sorted(status for _, status in done) == [0] + [125] * 7
    assert all("wanted" in errors for (_, errors), status in done if status)
    assert sysbox("ps", "-a", "--format", "{{.Names}}").stdout == "wanted\n"
    sysbox("rm", "wanted", check=True)


def test_names_and_prefixes(containers: Containers, sysbox: Sysbox) -> None:
    made = [containers("--network", "none", verb=("create",), command=("true",)) for _ in range(17)]
    assert len({one.inspect("Name") for one in made}) == 17
    one = made[0]
    assert sysbox("inspect", "-f", "{{.Id}}", one.id[:12]).stdout.strip() == one.id
    # of 17 ids two begin alike
    firsts = [each.id[0] for each in made]
    twice = next(first for first in firsts if firsts.count(first) > 1)
    ambiguous = sysbox("start", twice)
    assert ambiguous.returncode == 1
    assert "beginning of" in ambiguous.stderr
    sysbox("rename", one.id, "newname", check=True)
    assert sysbox("inspect", "-f", "{{.Name}}", "newname").stdout == "/newname\n"
    taken = sysbox("rename", made[1].id, "newname")
    assert taken.returncode != 0
    assert "newname" in taken.stderr
    assert sysbox("create", "--name", "newname", "busybox:test", "true").returncode == 125


def test_rename_while_it_runs(containers: Containers, sysbox: Sysbox, image: str) -> None:
    containers("--name", "before")
    sysbox("rename", "before", "after", check=True)
    assert sysbox("ps", "--format", "{{.Names}}").stdout == "after\n"
    assert sysbox("inspect", "before").returncode == 1
    sysbox("rm", "-f", "after", check=True)
    sysbox("create", "--name", "after", image, "true", check=True)
    sysbox("rm", "after", check=True)


# the end


def processes(one: Container) -> int:
    """How many there are in its scope."""
    return len(one.limit("pids", "cgroup.procs").split())


@pytest.mark.guest("cgroup.kill is of v2")
def test_s17_nothing_outlives_pid_1(containers: Containers) -> None:
    """S17: when PID 1 dies everything in the container is gone, whatever it was doing."""
    script = "setsid sleep 4712 & trap '' TERM; (trap '' HUP TERM; sleep 4713) & sleep 4714"
    one = containers(command=("sh", "-c", script))
    eventually(lambda: len(sleeping()) == 3, "all of them sleep")
    one.sh("setsid sleep 4715 >/dev/null 2>&1 &")
    assert processes(one) >= 4
    os.kill(one.pid, signal.SIGKILL)
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == 137
    assert not sleeping()
    eventually(lambda: not one.cgroup("pids").exists(), "its scope is gone")


def sleeping() -> set[str]:
    """The host's processes that are `sleep 47..`; not the commands that have such words among theirs."""
    return {line for line in commands() if line.startswith("sleep 47")}


def test_s17_an_exec_ends_with_its_container(containers: Containers) -> None:
    """S17: an `exec` in the foreground returns when the container is killed."""
    one = containers()
    inside = popen("exec", one.id, "sleep", "4719")
    eventually(lambda: sleeping() == {"sleep 4719"}, "it runs")
    one("kill")
    assert inside.wait(20 * SLOWNESS) == 137


def test_exec_ends_with_its_command(containers: Containers) -> None:
    """kill -9 of `exec` takes what it started along: nobody would wait for it."""
    one = containers()
    inside = popen("exec", one.id, "sleep", "4716")
    eventually(lambda: sleeping() == {"sleep 4716"}, "its command is executed")
    inside.kill()
    inside.wait(20 * SLOWNESS)
    eventually(lambda: processes(one) == 1, "it is gone")


def test_without_a_pid_namespace_nothing_is_left_either(containers: Containers) -> None:
    """S17 with --pid host: the scope holds its processes together."""
    one = containers("--pid", "host", command=("sh", "-c", "sleep 4717 & sleep 4718"))
    eventually(lambda: sleeping() == {"sleep 4717", "sleep 4718"}, "both run")
    os.kill(one.pid, signal.SIGKILL)
    one.await_state("exited")
    eventually(lambda: not sleeping(), "they are killed")  # no pid namespace ends with them


def test_logs_of_both_kinds(containers: Containers, sysbox: Sysbox, image: str) -> None:
    one = containers(command=("sh", "-c", "echo out; echo err >&2"))
    one("wait")
    done = sysbox("logs", one.id)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    sysbox("run", "--name", "seen", image, "sh", "-c", "echo out; echo err >&2", check=True)
    done = sysbox("logs", "seen")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    sysbox("rm", "seen", check=True)


def test_many_at_once(sysbox: Sysbox, image: str) -> None:
    """Sixteen runs at the same time, each with an address of its own."""
    runs = [popen("run", "--rm", image, "hostname", "-i") for _ in range(16)]
    addresses = [run.communicate(timeout=60 * SLOWNESS)[0].strip() for run in runs]
    assert [run.returncode for run in runs] == [0] * 16
    assert len(set(addresses)) == 16


def test_what_a_container_is_survives_a_power_cut(
    sysbox: Sysbox, image: str, tmp_path: Path, requires: Any
) -> None:
    """Its record is synced before it gets its name, and the directories after; with --rm nothing is."""
    requires.program("strace")
    log = tmp_path / "calls"
    for flags, expected in (
        ((), ["fsync containers", "fsync record.json.PID", "rename record.json", "fsync ID"]),
        (("--rm",), ["rename record.json"]),
    ):
        trace = ["-f", "-y", "-e", "trace=fsync,rename", "-o", str(log)]
        done = traced(trace, "create", *flags, image, "true")
        one = done.stdout.strip()
        sysbox("rm", one, check=True)
        found = []
        for line in log.read_text(encoding="utf-8").splitlines():
            call = re.search(r"(fsync|rename)\(.*[/]([^/>\"]+)[>\"]", line)
            if call and paths.CONTAINERS in line:
                last = re.sub(r"\.\d+$", ".PID", call[2].replace(one, "ID"))
                found.append(f"{call[1]} {last}")
        assert [word for word in found if not word.startswith("rename ID")] == expected
