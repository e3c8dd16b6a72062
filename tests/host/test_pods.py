"""Pods: namespaces without a process, one address and one set of limits for several containers.

In the guest: the limits of the slice are files of v2.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from containers import Containers, eventually, popen, systemctl
from faults import kill, unclean
from lane import Sysbox
from pod_lab import HELD, POD, SLICE, nothing_is_left, shown, state
from pod_lab import pod as pod

from sysbox.base import paths
from sysbox.container.pods import lock_file

AT_ONCE = ("--stop-signal", "KILL")  # a stop of a payload that heeds no signal takes ten seconds


def test_containers_share_what_the_pod_has(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod("--publish", "8081:80", "--add-host", "db:192.0.2.7", "--hostname", "shop.example")
    assert state(sysbox) == "Created"
    one = containers("--pod", POD, "--name", "one")
    other = containers("--pod", POD, "--name", "other")
    for kind in ("net", "ipc", "uts", "user"):
        held = os.stat(HELD / POD / kind).st_ino
        assert one.namespace(kind) == other.namespace(kind) == f"{kind}:[{held}]"
    for kind in ("pid", "mnt", "cgroup"):
        assert one.namespace(kind) != other.namespace(kind)
    address = shown(sysbox, "Sysbox.Addresses")["bridge"][0]
    assert address in one.sh("ip -4 address show eth0")
    assert one.exec("hostname") == one.exec("cat", "/etc/hostname") == "shop.example"
    hosts = one.exec("cat", "/etc/hosts")
    assert re.search(rf"^{address}\tshop.example", hosts, re.MULTILINE)
    assert re.search(r"^192.0.2.7\tdb$", hosts, re.MULTILINE)
    # shared memory, and what listens on the loopback of one
    one.sh("echo told > /dev/shm/word")
    assert other.exec("cat", "/dev/shm/word") == "told"
    one.sh("echo served > /tmp/page; (nc -l -p 80 < /tmp/page) > /dev/null 2>&1 &")
    eventually(lambda: ":80 " in other.sh("netstat -ltn"), "one listens")
    assert other.sh("nc -w 5 127.0.0.1 80 < /dev/null") == "served"
    assert [port["HostPort"] for port in shown(sysbox, "InfraConfig.PortBindings")["80/tcp"]] == [
        "8081"
    ]
    # both are mapped to one range, in one slice, and say so
    assert one.sh("cat /proc/self/uid_map") == other.sh("cat /proc/self/uid_map")
    assert one.inspect("Sysbox.Slice") == other.inspect("Sysbox.Slice") == SLICE
    assert one.inspect("Sysbox.Pod") == POD
    assert one.inspect("NetworkSettings.IPAddress") == address
    assert one("port") == "80/tcp -> 0.0.0.0:8081\n"
    assert "8081->80" in sysbox("ps", "--filter", "name=one", check=True).stdout
    listed = sysbox("ps", "--filter", f"pod={POD}", "--format", "{{.Names}} {{.PodName}}").stdout
    assert listed.splitlines() == ["other shop", "one shop"]
    assert sysbox("ps", "-q", "--filter", "pod=nobody").stdout == ""
    assert state(sysbox) == "Running"


def test_the_address_is_the_pods_whoever_starts_and_ends(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod()
    one = containers("--pod", POD, "--restart", "on-failure")
    first, held = shown(sysbox, "Sysbox.Addresses"), os.stat(HELD / POD / "net").st_ino
    one("stop", "-t", "0")
    assert state(sysbox) == "Degraded", "up, and nothing runs"
    assert shown(sysbox, "Sysbox.Addresses") == first
    one("start")
    pid = one.pid
    kill(pid)
    eventually(lambda: one.pid not in (0, pid), "it restarts")
    assert first["bridge"][0] in one.sh("ip -4 address show eth0")
    assert os.stat(HELD / POD / "net").st_ino == held


@pytest.mark.guest("memory.max and pids.max of the slice are of v2")
def test_limits_of_the_pod_hold_for_all_its_containers_together(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod("--memory", "48m", "--pids-limit", "30")
    limits = shown(sysbox, "Sysbox.Limits")
    assert (limits["MemoryMax"], limits["TasksMax"]) == (48 << 20, 30)
    one, other = (containers("--pod", POD, *AT_ONCE, "--memory", "40m") for _ in range(2))
    fill = "head -c 30m /dev/zero > /dev/shm/$0; echo done"
    assert one.exec("sh", "-c", fill, "one") == "done"
    # the second 30 MB, whose end may be that of both, are within its own limit, and beyond that of the pod
    done = sysbox("exec", other.id, "sh", "-c", fill, "other")
    assert (done.returncode, done.stdout) != (0, "done\n")
    systemctl("set-property", SLICE, "TasksMax=7")
    assert shown(sysbox, "Sysbox.Limits.TasksMax") == 7
    sysbox("pod", "stop", POD, check=True)
    sysbox("pod", "start", POD, check=True)
    assert shown(sysbox, "Sysbox.Limits.TasksMax") == 7, "it outlives a stop of the pod"
    fork = "for i in 1 2 3 4 5 6 7 8; do sleep 9 >/dev/null 2>&1 & done"
    many = sysbox("exec", one.id, "sh", "-c", fork)
    assert "can't fork" in many.stderr
    sysbox("pod", "kill", POD, check=True)


def test_a_pod_beside_others_of_its_name(pod: Callable[..., str]) -> None:
    """ "-" separates slices: web-1 is not below web, whose limits would hold for it."""
    pod(name="web")
    pod("--memory", "32m", name="web-1")
    unit = "sysbox-pod-web\\x2d1.slice"
    assert systemctl("show", "-P", "Slice", unit) == "sysbox-pod.slice"
    assert systemctl("show", "-P", "ActiveState", unit) == "active"


def test_start_stop_kill_and_remove(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod_id = pod()
    for name in ("one", "other"):
        containers("--name", name, "--pod", pod_id[:12], verb=("create",))
    sysbox("pod", "start", POD, check=True)
    assert state(sysbox) == "Running"
    rows = sysbox("pod", "top", POD, check=True).stdout.splitlines()
    assert len(rows) == 3
    assert all("sleep 1000" in row for row in rows[1:])
    done = sysbox("pod", "rm", POD)
    assert (done.returncode, "2 running containers" in done.stderr) == (1, True)
    sysbox("pod", "kill", "--signal", "TERM", POD, check=True)
    sysbox("pod", "stop", "--time", "1", POD, check=True)
    assert state(sysbox) == "Exited"
    left = {*nothing_is_left()} - {lock_file(POD)}
    assert left == {f"{paths.PODS}/{POD}", f"{paths.PODS}/.ids/{pod_id}"}
    sysbox("pod", "start", POD, check=True)
    stats = sysbox(
        "pod", "stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", POD, check=True
    )
    assert stats.stdout.splitlines()[0] == f"{SLICE} 2"
    sysbox("pod", "rm", "--force", POD, check=True)
    assert sysbox("ps", "-aq").stdout == ""
    assert sysbox("pod", "rm", "--ignore", POD, check=True).stdout == ""
    assert sysbox("pod", "rm", POD).returncode == 1


@pytest.mark.parametrize(
    "flags",
    [
        ("--publish", "80"), ("--network", "none"), ("--hostname", "x"), ("--ipc", "host"),
        ("--dns", "192.0.2.1"), ("--userns", "host"), ("--slice", "other"), ("--shm-size", "1m"),
        ("--uts", "host"), ("--ip", "10.90.9.9"),
    ],
    ids="publish network hostname ipc dns userns slice shm-size uts ip".split(),
)  # fmt: skip
def test_what_belongs_to_the_pod_is_refused(
    pod: Callable[..., str], sysbox: Sysbox, image: str, flags: tuple[str, str]
) -> None:
    pod()
    done = sysbox("run", "--rm", "--pod", POD, *flags, image, "true")
    assert done.returncode == 125
    assert "belongs to the pod" in done.stderr
    assert unclean(done) == ""
    assert not list(Path(paths.PODS, POD, "members").iterdir())


def test_bad_input(pod: Callable[..., str], sysbox: Sysbox, image: str) -> None:
    pod()
    for words, said in (
        (("create", POD), "in use by another pod"),
        (("create", "--share", "pid", "xy"), "do not share it"),
        (("create", "--network", "nowhere", "xy"), "no such network"),
        (("create", "--network", "container:yy", "xy"), "a network of its own"),
        (("create", "--exit-policy", "x", "xy"), "continue or stop"),
        (("create", "--memory", "1k", "xy"), "at least 6m"),
        (("create", "../x"), "../x"),
        (("start", "nobody"), "no such pod"),
        (("kill", POD), "no container of pod"),
        (("stop",), "no pod is given"),
        (("ps", "--filter", "status=x"), "unknown status"),
    ):
        done = sysbox("pod", *words)
        assert said in done.stderr, (words, done.stderr)
        assert done.returncode in (1, 2, 125), words
        assert unclean(done) == "", words
    done = sysbox("run", "--rm", "--pod", "nobody", image, "true")
    assert (done.returncode, "no such pod: nobody" in done.stderr) == (125, True)
    assert [one["Name"] for one in (shown(sysbox),)] == [POD]


def test_a_pod_of_a_command_line(
    sysbox: Sysbox, containers: Containers, pod: Callable[..., str]
) -> None:
    containers("--pod", f"new:{POD}", "-p", "8082:80", "--hostname", "front")
    assert shown(sysbox, "InfraConfig.PortBindings")["80/tcp"][0]["HostPort"] == "8082"
    containers.remove()
    assert state(sysbox) == "Running"
    sysbox("pod", "rm", POD, check=True)
    # what fails leaves no pod
    done = sysbox(
        "run", "--rm", "--pod", f"new:{POD}", "--memory", "1k", "busybox-for-tests", "true"
    )
    assert done.returncode == 125
    assert nothing_is_left() == []


def test_names_on_a_network(
    pod: Callable[..., str], containers: Containers, network: Callable[..., str], sysbox: Sysbox
) -> None:
    network("lan")
    pod("--network", "lan", "--network-alias", "cart")
    member = containers("--pod", POD)
    address = shown(sysbox, "Sysbox.Addresses")["lan"][0]
    other = containers("--network", "lan")
    for name in (POD, "cart"):
        assert address in other.sh(f"nslookup {name}")
    peer = other.inspect("NetworkSettings.Networks.lan.IPAddress")
    assert peer in member.sh(f"nslookup {other.id[:12]}"), "it is answered too"
    done = sysbox("network", "rm", "lan")
    assert POD in done.stderr
    containers.remove()
    sysbox("pod", "rm", POD, check=True)


def test_the_last_one_takes_it_down_if_it_is_asked_to(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod("--exit-policy", "stop")
    one, other = containers("--pod", POD), containers("--pod", POD)
    one("kill")
    assert (HELD / POD / "net").exists()
    other("kill")
    eventually(lambda: not (HELD / POD).exists(), "it is down")
    assert state(sysbox) == "Exited"
    one("start")
    assert state(sysbox) == "Degraded"


def test_stopping_the_slice_stops_the_containers(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod("--memory", "64m")
    trap = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    one = containers("--pod", POD, command=("sh", "-c", trap))
    eventually(lambda: "ready" in one("logs"), "it waits for a signal")
    systemctl("stop", SLICE)
    one.await_state("exited")
    assert one.inspect("State.ExitCode") == 5, "gracefully"
    one("start")
    assert shown(sysbox, "Sysbox.Limits.MemoryMax") == 64 << 20, "the slice is made again"


def test_from_another_mount_namespace(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    """The namespaces are kept where PID 1 sees them, and a copy of the mounts elsewhere holds nothing."""
    pod()
    with popen(
        "pod", "start", POD, under=("unshare", "--mount", "--propagation", "slave")
    ) as began:
        assert began.wait() == 0
    assert f"{HELD / POD / 'net'} " in Path("/proc/1/mountinfo").read_text()
    one = containers("--pod", POD)
    inode = os.stat(HELD / POD / "net").st_ino
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", "echo; exec sleep 100"], stdout=-1
    ) as holder:
        assert holder.stdout
        holder.stdout.readline()
        elsewhere = Path(f"/proc/{holder.pid}/mountinfo")
        assert f"net:[{inode}]" in elsewhere.read_text()
        one("stop", "-t", "0")
        sysbox("pod", "stop", POD, check=True)
        assert f"net:[{inode}]" not in elsewhere.read_text()
        holder.kill()
    sysbox("pod", "start", POD, check=True)
    with popen(
        "pod", "rm", "-f", POD, under=("unshare", "--mount", "--propagation", "private")
    ) as ended:
        assert ended.communicate() == (f"{POD}\n", "")


def test_a_network_of_the_host_and_none(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod("--network", "host", name="hosts")
    one = containers("--pod", "hosts")
    assert one.namespace("net") == os.readlink("/proc/self/ns/net")
    pod("--network", "none", name="alone")
    other = containers("--pod", "alone")
    assert "eth0" not in other.sh("ip link")
    assert "127.0.0.1" in other.sh("ip -4 address show lo")
    pod("--share", "none", "--userns", "host", name="loose")
    third = containers("--pod", "loose", "-p", "8083:80")
    assert third.inspect("NetworkSettings.IPAddress")
    assert third.inspect("Sysbox.Slice") == "sysbox-pod-loose.slice"


def test_pause_restart_and_logs(
    pod: Callable[..., str], containers: Containers, sysbox: Sysbox
) -> None:
    pod()
    script = "echo $0 begins; echo $0 errs >&2; exec sleep 1000"
    one, other = (
        containers("--pod", POD, *AT_ONCE, "--name", name, command=("sh", "-c", script, name))
        for name in ("one", "other")
    )

    def logged() -> list[int]:
        """How often each line is there: what goes to one stream may come later than what to the other."""
        done = sysbox("pod", "logs", "--names", POD, check=True)
        told = (done.stdout + done.stderr).splitlines()
        ends = ("one begins", "one errs", "other begins", "other errs")
        return [told.count(f"{end.split()[0]} {end}") for end in ends]

    eventually(lambda: logged() == [1] * 4, "both have said all")
    one("pause")
    sysbox("pod", "pause", POD, check=True)
    assert state(sysbox) == "Paused"
    assert "already paused" in sysbox("pod", "pause", POD).stderr
    sysbox("pod", "unpause", "-a", check=True)
    assert state(sysbox) == "Running"
    assert f"no container of pod {POD} is paused" in sysbox("pod", "unpause", POD).stderr
    pids = one.pid, other.pid
    sysbox("pod", "restart", POD, check=True)
    assert state(sysbox) == "Running"
    assert not {*pids} & {one.pid, other.pid}
    eventually(lambda: logged() == [2] * 4, "both ran twice")
    done = sysbox("pod", "logs", "--names", POD, check=True)
    for name in ("one", "other"):
        assert done.stdout.splitlines().count(f"{name} {name} begins") == 2
        assert done.stderr.splitlines().count(f"{name} {name} errs") == 2
    done = sysbox("pod", "logs", "-c", "one", "--tail", "1", POD, check=True)
    assert done.stdout + done.stderr in (f"{one.id[:12]} one begins\n", f"{one.id[:12]} one errs\n")
    follower = popen("pod", "logs", "-f", "--names", POD)
    sysbox("pod", "stop", POD, check=True)
    said = follower.communicate(timeout=60)[0]
    assert said.count("one one begins") == said.count("other other begins") == 2
    assert follower.returncode == 0


def test_exists_and_prune(pod: Callable[..., str], containers: Containers, sysbox: Sysbox) -> None:
    """Those that are down after they were up go, with their containers."""
    for name in ("new", "up", POD):
        pod(name=name)
    containers("--pod", "up", "--name", "up-one")
    containers("--pod", POD, "--name", "one")
    sysbox("pod", "stop", "-t", "0", POD, check=True)
    assert sysbox("pod", "exists", POD).returncode == 0
    assert sysbox("pod", "prune", input="n\n").returncode == 1
    assert sysbox("pod", "prune", "-f", check=True).stdout == f"{POD}\n"
    assert sysbox("pod", "exists", POD).returncode == 1
    assert set(sysbox("pod", "ps", "--format", "{{.Name}}").stdout.split()) == {"new", "up"}
    assert sysbox("ps", "-a", "--format", "{{.Names}}").stdout.split() == ["up-one"]
