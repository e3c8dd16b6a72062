"""The embedded host, booted within the one the tests run on: systemd, namespaces, cgroups, stop."""

from __future__ import annotations

import contextlib
import os
import pty
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import PATIENCE, eventually
from lane import SYSBOX, Sysbox

from sysbox.base.paths import RUN
from sysbox.embedded import cgroups, state

NAME = "inner"


@pytest.fixture(autouse=True)
def stopped(no_leaks: None, sysbox: Sysbox) -> Iterator[None]:
    """Whatever a test does, its host is gone before the leak check looks."""
    yield
    sysbox("host", "stop", "--name", NAME, "--purge", check=True)


@pytest.fixture
def host(sysbox: Sysbox) -> str:
    """A running embedded host."""
    sysbox("host", "start", "--name", NAME, "--private-network", check=True)
    return NAME


@contextlib.contextmanager
def client(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A command that runs on the host while the test goes on; killed at the end."""
    words = [SYSBOX, "host", "exec", "--name", NAME, "--", *command]
    # a group of its own, as a shell's jobs have: in an orphaned one SIGTSTP stops nobody (setpgid(2))
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, process_group=0)
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=30)


def ready(process: subprocess.Popen[str]) -> None:
    """Wait for it to say so."""
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def inside(sysbox: Sysbox, *command: str) -> str:
    return sysbox("host", "exec", "--name", NAME, "--", *command, check=True).stdout.strip()


def await_inside(sysbox: Sysbox, command: str, *, at_terminal: bool = False) -> None:
    """Until it runs on the host, and has the terminal if it is to."""

    def runs() -> bool:
        listed = inside(sysbox, "ps", "-A", "-o", "stat=,args=").splitlines()
        states = [
            state for state, args in (line.split(None, 1) for line in listed) if args == command
        ]
        return any(state[0] == "S" and (not at_terminal or "+" in state) for state in states)

    eventually(runs, command)


def test_boots_a_healthy_systemd(sysbox: Sysbox, host: str) -> None:
    assert inside(sysbox, "systemctl", "is-system-running") == "running"
    assert inside(sysbox, "cat", "/proc/1/comm") == "systemd"
    assert inside(sysbox, "systemctl", "is-active", "dbus.service", "systemd-journald.service") == (
        "active\nactive"
    )
    assert "org.freedesktop.systemd1" in inside(sysbox, "busctl", "list", "--acquired")
    assert "running" in sysbox("host", "status", "--name", NAME, check=True).stdout


def test_starts_nothing_that_the_machine_has_enabled(sysbox: Sysbox, host: str) -> None:
    services = inside(
        sysbox, "systemctl", "list-units", "--type=service,timer", "--no-legend", "--plain"
    )
    names = {line.split()[0] for line in services.splitlines()}
    allowed = {"dbus.service", "dbus-broker.service", "sysbox-boot.service"}
    assert {name for name in names - allowed if not name.startswith("systemd-")} == set()
    assert "systemd-sysctl.service" not in names
    assert "systemd-timesyncd.service" not in names


def test_start_is_idempotent_and_safe_at_once(sysbox: Sysbox) -> None:
    command = [SYSBOX, "host", "start", "--name", NAME, "--private-network"]
    starts = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = {start.communicate(timeout=60)[0] for start in starts}
    assert len(outputs) == 1
    assert [start.returncode for start in starts] == [0, 0, 0, 0]


def test_exec_passes_status_streams_and_directory(
    sysbox: Sysbox, host: str, tmp_path: Path
) -> None:
    script = "cat; echo err >&2; exit 7"
    done = sysbox("host", "exec", "--name", NAME, "--", "sh", "-c", script, input="in")
    assert (done.returncode, done.stdout, done.stderr) == (7, "in", "err\n")
    assert sysbox("host", "exec", "--name", NAME, "--", "sh", "-c", "kill -9 $$").returncode == 137
    assert sysbox("host", "exec", "--name", NAME, "--", "/no/such").returncode == 127
    assert sysbox("host", "exec", "--name", NAME, "--", "/etc/passwd").returncode == 126
    done = subprocess.run(
        [SYSBOX, "host", "exec", "--name", NAME, "pwd"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(tmp_path)


def test_exec_is_a_process_of_the_host_in_all_its_namespaces(sysbox: Sysbox, host: str) -> None:
    for kind in ("mnt", "pid", "cgroup", "uts", "ipc", "net"):
        inner = inside(sysbox, "readlink", f"/proc/self/ns/{kind}")
        assert inner == inside(sysbox, "readlink", f"/proc/1/ns/{kind}")
        assert inner != os.readlink(f"/proc/self/ns/{kind}")
    groups = inside(sysbox, "cat", "/proc/self/cgroup").splitlines()
    assert [line for line in groups if ":/.." in line] == []


def test_exec_passes_signals_on(sysbox: Sysbox, host: str) -> None:
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    with client("sh", "-c", script) as process:
        ready(process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 9


def test_exec_ends_with_the_command_that_was_killed(sysbox: Sysbox, host: str) -> None:
    with client("sleep", "4711") as process:
        await_inside(sysbox, "sleep 4711")
        process.kill()
    # its output has ended: nobody holds the other end any more
    assert "sleep 4711" not in inside(sysbox, "ps", "-A", "-o", "args")


def expect(terminal: int, marker: bytes, timeout: float = PATIENCE) -> bytes:
    """What the terminal shows up to `marker`, or without one to its end."""
    text = b""
    deadline = time.monotonic() + timeout
    while not marker or marker not in text:
        left = deadline - time.monotonic()
        assert select.select([terminal], [], [], max(left, 0))[0], text
        try:
            text += os.read(terminal, 4096)
        except OSError:  # EIO: nobody has it open any more
            assert not marker, text
            break
    return text


def test_shell_has_job_control(sysbox: Sysbox, host: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(SHELL="/bin/bash", HOME="/nonexistent", PS1="ready> ")
        os.execv(SYSBOX, ["sysbox", "host", "shell", "--name", NAME])
    try:
        os.write(terminal, b"echo up-$((6*7))\n")
        expect(terminal, b"up-42")
        os.write(terminal, b"echo asleep-$((6*8)); sleep 60\n")
        expect(terminal, b"asleep-48")
        await_inside(sysbox, "sleep 60", at_terminal=True)
        os.write(terminal, b"\x1a")
        expect(terminal, b"Stopped")
        os.write(terminal, b"fg\n")
        expect(terminal, b"sleep 60")
        await_inside(sysbox, "sleep 60", at_terminal=True)
        os.write(terminal, b"\x03")
        os.write(terminal, b"echo done-$((6*9))\n")
        expect(terminal, b"done-54")
        os.write(terminal, b"exit 5\n")
        expect(terminal, b"")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        pid = 0
        assert status == 5
    finally:
        os.close(terminal)
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def test_real_directories_and_private_ones(sysbox: Sysbox, host: str, tmp_path: Path) -> None:
    (tmp_path / "seen").write_text("real")
    assert inside(sysbox, "cat", str(tmp_path / "seen")) == "real"
    inside(
        sysbox,
        "sh",
        "-c",
        f"echo back > {tmp_path}/written; touch /run/inner /etc/inner /var/inner",
    )
    assert (tmp_path / "written").read_text() == "back\n"
    for path in ("/run/inner", "/etc/inner", "/var/inner"):
        assert not Path(path).exists()
    before = os.stat("/dev/null")
    inside(sysbox, "chmod", "600", "/dev/null")
    assert os.stat("/dev/null") == before
    refused = sysbox("host", "exec", "--name", NAME, "--", "touch", "/usr/inner")
    assert "Read-only" in refused.stderr


def test_mounts_of_the_machine_outlive_the_host(sysbox: Sysbox, tmp_path: Path) -> None:
    points = [tmp_path / "below", Path(f"/srv/below-{secrets.token_hex(4)}")]
    for point in points:
        point.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "below", point], check=True)
    try:
        sysbox("host", "start", "--name", NAME, check=True)
        for point in points:
            inside(sysbox, "mountpoint", str(point))
            inside(sysbox, "mkdir", str(point / "deeper"))
            inside(sysbox, "mount", "-t", "tmpfs", "deeper", str(point / "deeper"))
        sysbox("host", "stop", "--name", NAME, check=True)
        assert all(os.path.ismount(point) for point in points)
        assert not any(os.path.ismount(point / "deeper") for point in points)
    finally:
        for point in points:
            subprocess.run(["umount", point], check=True)
            point.rmdir()


def test_limits_act_in_its_own_subtree(sysbox: Sysbox, host: str) -> None:
    # else it may not be in all of its cgroups yet
    executed = ("--property=Type=exec", "--property=MemoryMax=64M")
    inside(sysbox, "systemd-run", "--unit=probe", *executed, "sleep", "60")
    pid = inside(sysbox, "systemctl", "show", "-P", "MainPID", "probe.service")
    lines = inside(sysbox, "cat", f"/proc/{pid}/cgroup").splitlines()
    memory = next((line for line in lines if ":memory:" in line), lines[-1])
    assert memory.endswith("/system.slice/probe.service")
    outer = next(
        Path("/sys/fs/cgroup").glob(f"**/{state.cgroup_name(NAME)}/system.slice/probe.service")
    )
    assert outer.is_dir()
    inside(sysbox, "systemctl", "stop", "probe.service")


def test_state_and_journal_survive_a_stop(sysbox: Sysbox, host: str) -> None:
    inside(sysbox, "sh", "-c", "echo kept > /var/lib/sysbox/mark; logger -t probe said-before")
    inside(sysbox, "journalctl", "--sync")
    sysbox("host", "stop", "--name", NAME, check=True)
    assert sysbox("host", "status", "--name", NAME).returncode == 3
    sysbox("host", "start", "--name", NAME, "--private-network", check=True)
    assert inside(sysbox, "cat", "/var/lib/sysbox/mark") == "kept"
    assert "said-before" in inside(sysbox, "journalctl", "-t", "probe", "-o", "cat")


def test_declarations_and_what_was_enabled_survive_a_stop(sysbox: Sysbox, host: str) -> None:
    container = "Image=host\nExec=sleep 1000\nStopSignal=KILL"
    declared = f"[Container]\n{container}\n[Install]\nWantedBy=multi-user.target\n"
    script = f"""mkdir -p /etc/sysbox/units && printf '{declared}' >/etc/sysbox/units/kept.container
        printf '[Service]\nExecStart=sleep 1000\n[Install]\nWantedBy=multi-user.target\n' \
            >/etc/systemd/system/own.service
        systemctl daemon-reload && systemctl enable --quiet own.service && systemctl start kept.service"""
    inside(sysbox, "sh", "-ec", script)
    assert inside(sysbox, "systemctl", "show", "-P", "UnitFileState", "kept.service") == "generated"
    sysbox("host", "stop", "--name", NAME, check=True)
    sysbox("host", "start", "--name", NAME, "--private-network", check=True)
    for unit in ("own.service", "kept.service"):
        eventually(
            lambda unit=unit: (
                inside(sysbox, "systemctl", "show", "-P", "ActiveState", unit) == "active"
            ),
            f"{unit} runs after the boot",
        )
    assert not Path("/etc/sysbox/units/kept.container").exists(), "they are the host's alone"
    sysbox("host", "stop", "--name", NAME, "--purge", check=True)
    sysbox("host", "start", "--name", NAME, "--private-network", check=True)
    assert inside(sysbox, "systemctl", "show", "-P", "LoadState", "own.service") == "not-found"


def test_stop_is_ordered_and_leaves_nothing(sysbox: Sysbox, host: str, tmp_path: Path) -> None:
    trap = f"trap 'echo stopped > {tmp_path}/stopped; exit 0' TERM; sleep 600 & wait"
    inside(sysbox, "systemd-run", "--unit=probe", "sh", "-c", trap)
    await_inside(sysbox, "sleep 600")  # which comes after the trap
    sysbox("host", "stop", "--name", NAME, check=True)
    assert (tmp_path / "stopped").read_text() == "stopped\n"
    assert list(Path("/sys/fs/cgroup").glob(f"**/{state.cgroup_name(NAME)}")) == []
    assert not Path(state.run_directory(NAME)).exists()
    sysbox("host", "stop", "--name", NAME, check=True)


def test_stop_does_not_wait_for_a_client_that_heeds_nothing(sysbox: Sysbox, host: str) -> None:
    script = "trap '' TERM HUP; echo ready; while :; do sleep 1; done"
    with client("bash", "-c", script) as process:
        ready(process)
        begin = time.monotonic()
        sysbox("host", "stop", "--name", NAME, check=True)
        # a host that waited for it would take a minute
        assert time.monotonic() - begin < 30
        assert process.wait(timeout=PATIENCE) == 128 + signal.SIGKILL


def test_stop_continues_a_client_that_is_stopped(sysbox: Sysbox, host: str) -> None:
    # its waiting side is stopped too, and the pid namespace cannot end before that has waited
    with client("sh", "-c", "kill -TSTP $$; sleep 60") as process:
        deadline = time.monotonic() + PATIENCE
        while " T " not in Path(f"/proc/{process.pid}/stat").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sysbox("host", "stop", "--name", NAME, check=True)
        assert process.wait(timeout=PATIENCE) > 128


@pytest.mark.parametrize("delay", [0.02, 0.06, 0.12])
def test_a_start_that_is_killed_is_cleared_by_the_next(sysbox: Sysbox, delay: float) -> None:
    with subprocess.Popen([SYSBOX, "host", "start", "--name", NAME, "--private-network"]) as start:
        time.sleep(delay)
        start.kill()
    sysbox("host", "start", "--name", NAME, "--private-network", check=True)
    assert inside(sysbox, "systemctl", "is-system-running") == "running"


def test_a_boot_that_fails_says_why_and_leaves_nothing(sysbox: Sysbox) -> None:
    # the machine's systemd is not one: it ends at once
    script = (
        f"mount --bind /bin/false /usr/lib/systemd/systemd;exec {SYSBOX} host start --name {NAME}"
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "systemd ended at once" in done.stderr
    assert not Path(state.run_directory(NAME)).exists()
    assert list(Path("/sys/fs/cgroup").glob(f"**/{state.cgroup_name(NAME)}")) == []


def test_without_the_permission_to_mount_one_line_says_so(requires: Any) -> None:
    command = [requires.program("setpriv"), "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"]
    for words, reason in (
        (command, "permission to mount"),
        ([command[0], "--reuid=65534", "--clear-groups"], "only root"),
    ):
        done = subprocess.run(
            [*words, SYSBOX, "host", "start", "--name", NAME],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        message, advice = done.stderr.splitlines()
        assert reason in message
        assert advice


def test_a_killed_host_is_noticed_and_started_anew(sysbox: Sysbox, host: str) -> None:
    dead = state.load(NAME)
    assert dead is not None
    os.kill(dead.pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    while dead.alive:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sysbox("host", "status", "--name", NAME).returncode == 3
    assert inside(sysbox, "systemctl", "is-system-running") == "running"
    again = state.load(NAME)
    assert again is not None
    assert again.pid != dead.pid


def test_a_pid_that_was_used_again_is_not_the_host(sysbox: Sysbox) -> None:
    os.makedirs(state.run_directory(NAME))
    state.save(
        state.Host(name=NAME, pid=os.getpid(), start=1, phase="running", private_network=False)
    )
    assert sysbox("host", "status", "--name", NAME).returncode == 3
    sysbox("host", "stop", "--name", NAME, check=True)
    assert not Path(state.run_directory(NAME)).exists()


def test_a_leader_that_is_a_directory_keeps_no_other_down(sysbox: Sysbox, host: str) -> None:
    odd = Path(state.run_directory("odd")) / "leader"
    (odd / "in").mkdir(parents=True)
    listed = sysbox("host", "ls", check=True)
    assert {line.split()[0]: line.split()[1] for line in listed.stdout.splitlines()[1:]} == {
        NAME: "running",
        "odd": "stopped",
    }
    assert sysbox("host", "status", "--name", "odd").returncode == 3
    sysbox("host", "stop", "--name", "odd", check=True)
    assert not odd.parent.exists()


def test_on_a_host_those_that_were_started_there_are_listed(sysbox: Sysbox, host: str) -> None:
    """The machine's are out of its sight."""
    done = sysbox("host", "exec", "--name", NAME, "--", SYSBOX, "host", "ls", check=True)
    assert done.stdout.split() == ["NAME", "STATE", "PID", "NETWORK"]
    assert done.stderr.splitlines()[-1].startswith(f"sysbox: this is the embedded host '{NAME}'")


def test_bad_arguments_get_one_line(sysbox: Sysbox) -> None:
    for words in (("jump",), ("start", "--name", "../x"), ("exec", "--name", NAME), ("stop", "-9")):
        done = sysbox("host", *words)
        assert done.returncode == (125 if words[0] == "exec" else 1), words
        assert done.stderr.startswith("sysbox: ")
        assert "Traceback" not in done.stderr


def test_hierarchies_of_the_common_layouts() -> None:
    hybrid = cgroups.hierarchies(
        "3:cpu,cpuacct:/a\n2:memory:/\n1:name=systemd:/\n0::/\n",
        "#subsys_name hierarchy num_cgroups enabled\ncpu 3 1 1\nmemory 2 1 1\nnet_cls 0 1 1\nrdma 0 1 0\n",
    )
    assert [one.directory for one in hybrid] == [
        "cpu,cpuacct",
        "memory",
        "net_cls",
        "systemd",
        "unified",
    ]
    assert [one.data for one in hybrid] == [
        "cpu,cpuacct",
        "memory",
        "net_cls",
        "none,name=systemd",
        "",
    ]
    (lone,) = cgroups.hierarchies("0::/\n", "memory 0 1 1\n")
    assert (lone.fstype, lone.directory) == ("cgroup2", "")


def test_the_variable_names_the_host(host: str, sysbox: Sysbox) -> None:
    """Every verb of `host` acts on that one, and none on the default one."""
    there = {"SYSBOX_HOST": f"embedded:{host}"}
    shown = sysbox("host", "status", env=there, check=True).stdout
    assert shown.startswith(f"name:    {host}\n")
    inside = sysbox("host", "exec", "cat", "/run/host/sysbox-host", env=there, check=True).stdout
    assert inside == f"{host}\n"
    lines = [line.split() for line in sysbox("host", "ls", check=True).stdout.splitlines()]
    assert lines[0] == ["NAME", "STATE", "PID", "NETWORK"]
    assert [host, "running", "private"] in [[*line[:2], *line[3:]] for line in lines]
    # what --name says goes before it
    assert sysbox("host", "status", "--name", "nosuch", env=there).stdout.startswith(
        "name:    nosuch"
    )
    sysbox("host", "stop", env=there, check=True)
    assert state.load_running(host) is None
    lines = [line.split() for line in sysbox("host", "ls", check=True).stdout.splitlines()]
    assert [host, "stopped"] in lines


def test_two_hosts_on_one_network_never_give_the_same_address(sysbox: Sysbox) -> None:
    """They share the bridge. (A container cannot run there: its root would be the third overlay.)"""
    second = f"{NAME}-2"
    ask = (
        "import sys; from sysbox.netns import leases\n"
        "with leases.NetworkLock(): print(leases.lease('', sys.argv[1], '10.90.0.0/16', '10.90.0.1'))"
    )
    addresses = []
    try:
        for letter, name in (("a", NAME), ("b", second), ("c", NAME)):
            sysbox("host", "start", "--name", name, check=True)
            there = ("host", "exec", "--name", name, "--")
            # what it puts right after a boot are leases of containers that do not exist, as these
            sysbox(*there, "systemctl", "start", "sysbox-boot.service", check=True)
            words = (sys.executable, "-I", "-c", ask, letter * 64)
            done = sysbox(*there, *words, check=True)
            addresses.append(done.stdout.strip())
    finally:
        sysbox("host", "stop", "--name", second, "--purge", check=True)
    assert all(addresses)
    assert len(set(addresses)) == 3


def test_the_last_host_on_a_network_takes_the_bridge_and_the_rules_with_it(
    sysbox: Sysbox, tmp_path: Path
) -> None:
    """On a network of its own, as if no container of the machine's had ever been there."""
    del sysbox
    use = tmp_path / "use.py"
    use.write_text(
        "from sysbox.netns import firewall, links, topology\n"
        "from sysbox.spec import ContainerSpec\n"
        "plan = topology.plan_network('a' * 64, ContainerSpec(image='x'))\n"
        "links.ensure_bridge(plan.attachments[0])\n"
        "firewall.ensure(plan)\n"
        "earlier = topology.Network(bridge='br7', subnet='10.97.0.0/24', gateway='10.97.0.1')\n"
        "plan = topology.plan_network('b' * 64, ContainerSpec(image='x'), earlier)\n"
        "links.ensure_bridge(plan.attachments[0])\n",
        encoding="ascii",
    )
    look = "ip -o link show type bridge; nft list tables | grep -c sysbox"
    script = (
        f"mount -t tmpfs none {RUN}; ip link set lo up; "
        f'for name in {NAME} {NAME}-2; do "$0" host start --name $name >&2; '
        f'"$0" host exec --name $name -- "$1" -I "$2" >&2; done; '
        f'"$0" host stop --name {NAME}-2 --purge >&2; {look}; echo; '
        f'"$0" host stop --name {NAME} --purge >&2; {look}'
    )
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script, SYSBOX, sys.executable, use],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    before, _, after = done.stdout.partition("\n\n")
    assert "sysbox0" in before, done.stderr
    assert "br7" in before, done.stderr
    assert (before.splitlines()[-1] != "0", after) == (True, "0\n"), done.stderr
