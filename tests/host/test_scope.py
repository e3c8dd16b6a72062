"""Scopes on a real systemd, around a parked process: started, limited, tuned live, stopped (S1-S5).

In the guest: the scope's cgroup is one of the unified hierarchy: other properties, files and ends of it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pystemd_peer
import pytest
from containers import eventually, within
from lane import SLOWNESS

from sysbox import host, scope
from sysbox.base import paths
from sysbox.base.errors import SpecError, SysboxError, SystemdError
from sysbox.linux import cgroup
from sysbox.run import cgroup_watch, stop_requests
from sysbox.spec import ContainerSpec, Limits, Logging
from sysbox.units import journal, listing, manager, names, scopeplan
from sysbox.units.bus import MANAGER, MANAGER_PATH, Bus
from sysbox.units.cgroup import blockdev, tree
from sysbox.units.journalread import read_logs
from sysbox.units.limits.plan import plan_limits
from sysbox.units.limits.properties import Property

MIB = 1 << 20
FACTS = host.probe()
V1 = FACTS.cgroup_mode == "v1"
DEVICES = (
    ("/dev/char/1:3", "rwm"),
    ("/dev/char/1:5", "rwm"),
    ("char-pts", "rwm"),
    ("char-*", "m"),
    ("block-*", "m"),
)
SCOPE = scope.INTERFACES[".scope"]


@pytest.fixture
def bus() -> Iterator[Bus]:
    connection = Bus.connect()
    yield connection
    connection.close()


def until_stopped(bus: Bus, unit: str) -> str:
    """Its state, once that is inactive or failed."""
    deadline = time.monotonic() + 30 * SLOWNESS
    while (state := scope.state(bus, unit)[0]) not in ("inactive", "failed"):
        assert time.monotonic() < deadline, f"{unit} is {state}"
        time.sleep(0.02)
    return state


class Parked:
    """A process that waits to be told to go on, as a container's first one does."""

    def __init__(self, argv: list[str], **streams: int) -> None:
        reader, self._go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._go)
                os.read(reader, 1)
                for target, fd in streams.items():
                    os.dup2(fd, {"stdout": 1, "stderr": 2}[target])
                os.execvp(argv[0], argv)
            finally:
                os._exit(127)
        os.close(reader)

    def release(self) -> None:
        if self._go >= 0:
            # a byte, not the end of the pipe: a process parked later holds this end too
            with contextlib.suppress(BrokenPipeError):
                os.write(self._go, b"x")
            os.close(self._go)
            self._go = -1

    def wait(self) -> int:
        self.release()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def end(self) -> None:
        self.release()
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def plan(identity: str = "", writes: tuple[Any, ...] = (), **spec: Any) -> scopeplan.ScopePlan:
    wanted = ContainerSpec(image="debian:12", name="parked", **{"remove": True, **spec})
    disks = blockdev.disks_of(wanted, FACTS)
    properties, limit_writes = plan_limits(wanted.limits, FACTS, disks)
    identity = identity or os.urandom(32).hex()
    return scopeplan.plan_scope(
        identity,
        wanted,
        # a scope without a service has a supervisor in the foreground, which hears of a stop instead
        service=names.service_unit(identity),
        properties=properties,
        writes=limit_writes + writes,
        devices=DEVICES,
        facts=FACTS,
        disks=disks,
    )


class Running:
    """A started scope and the process in it."""

    def __init__(self, bus: Bus, planned: scopeplan.ScopePlan, argv: list[str], **streams: int):
        self.bus = bus
        self.plan = planned
        self.unit = planned.unit
        self.process = Parked(argv, **streams)
        self.path = ""
        try:
            scope.begin(bus, planned, (self.process.pid,)).wait()
            self.path = tree.cgroup_path(self.process.pid, FACTS)
            tree.apply_writes(planned.writes, self.path, FACTS)
        except BaseException:
            self.end()
            raise

    def file(self, controller: str, name: str) -> str:
        return Path(FACTS.controllers[controller] + self.path, name).read_text().strip()

    def property(self, name: str) -> Any:
        return scope.properties(self.bus, self.unit, SCOPE, (name,))[name]

    def end(self) -> None:
        self.process.end()
        scope.stop(self.bus, self.unit)
        scope.reset_failed(self.bus, self.unit)
        if self.path:
            tree.remove_cgroups(self.path, FACTS)


@contextlib.contextmanager
def running(bus: Bus, argv: list[str] | None = None, **spec: Any) -> Iterator[Running]:
    one = Running(bus, plan(**spec), argv or ["sleep", "60"])
    one.process.release()
    try:
        yield one
    finally:
        one.end()


def systemctl(*args: str) -> str:
    return subprocess.run(
        ["systemctl", *args], check=True, capture_output=True, text=True, timeout=30 * SLOWNESS
    ).stdout


def test_s1_scope_in_its_slice(bus: Bus) -> None:
    with running(bus) as one:
        assert one.path == f"/system.slice/{one.unit}"
        assert scope.state(bus, one.unit) == ("active", "running", "success")
        assert one.unit in subprocess.check_output(["systemd-cgls", "--full", "-l"], text=True)
        (listed,) = listing.list_units(bus, one.unit)
        assert listed.description == "sysbox container parked (debian:12)"
        assert listed.active_state == "active"
    assert scope.state(bus, one.unit)[0] == "inactive"
    assert listing.list_units(bus, one.unit) == []


def test_slice_of_its_own(bus: Bus) -> None:
    with running(bus, slice="sysboxtest-web.slice") as one:
        assert one.path == f"/{names.slice_path('sysboxtest-web.slice')}/{one.unit}"
    systemctl("stop", "sysboxtest-web.slice", "sysboxtest.slice")


def test_properties_are_what_was_planned(bus: Bus) -> None:
    with running(bus) as one:
        found = scope.all_properties(bus, one.unit, SCOPE)
        assert found["Delegate"] is True
        assert found["DevicePolicy"] == "strict"
        assert sorted(found["DeviceAllow"]) == sorted(DEVICES)
        assert found["TimeoutStopUSec"] == 10_000_000
        assert found["OOMPolicy"] == "kill"
        unit = scope.properties(bus, one.unit, scope.UNIT, ("Conflicts", "After", "CollectMode"))
        assert "shutdown.target" in unit["Conflicts"]
        assert {"network.target", "dbus.socket"} <= set(unit["After"])
        assert unit["CollectMode"] == "inactive-or-failed"


def test_s2_cpu_shares(bus: Bus) -> None:
    """On v2 the weights that systemd makes of the same shares; see facts of `plan_limits`."""
    file, default, half, eighth = (
        ("cpu.shares", "1024", "512", "128") if V1 else ("cpu.weight", "100", "50", "12")
    )
    name = "CPUShares" if V1 else "CPUWeight"
    with running(bus) as one:
        assert one.file("cpu", file) == default
    with running(bus, limits=Limits(cpu_shares=512)) as one:
        assert one.file("cpu", file) == half
        systemctl("set-property", "--runtime", one.unit, f"{name}={eighth}")
        assert one.file("cpu", file) == eighth
        assert one.property(name) == int(eighth)
        scope.set_properties(bus, one.unit, (Property(name=name, signature="t", value=256),))
        assert one.file("cpu", file) == "256"


def test_s3_cpuset(bus: Bus) -> None:
    online = FACTS.cpus
    with running(bus, limits=Limits(cpuset_cpus="0")) as one:
        assert one.file("cpuset", "cpuset.cpus") == "0"
        assert os.sched_getaffinity(one.process.pid) == {0}
        directory = Path(FACTS.controllers["cpuset"] + one.path)
        systemctl("daemon-reload")
        assert one.file("cpuset", "cpuset.cpus") == "0"
    assert not directory.exists()
    if online == "0-1":
        with running(bus, limits=Limits(cpuset_cpus="0,1", cpuset_mems="0")) as one:
            assert one.file("cpuset", "cpuset.cpus") == "0-1"
            assert one.file("cpuset", "cpuset.mems") == "0"


def memory(one: Running) -> tuple[str, str]:
    """The limits of memory, and of memory and swap (v1) or swap alone (v2)."""
    limit, swap = (
        ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        if V1
        else ("memory.max", "memory.swap.max")
    )
    return one.file("memory", limit), one.file("memory", swap)


def test_s4_memory(bus: Bus) -> None:
    with running(bus) as one:
        limit, _ = memory(one)
        assert limit == "max" or int(limit) > 1 << 60
    with running(bus, limits=Limits(memory=128 * MIB)) as one:
        # v1 counts memory and swap together, v2 the swap alone
        expected = ("134217728", "268435456" if V1 else "134217728")
        assert memory(one) == expected
        systemctl("daemon-reload")
        assert memory(one) == expected
    with running(bus, limits=Limits(memory=16 * MIB, memory_swap=16 * MIB)) as one:
        assert memory(one)[1] == (str(16 * MIB) if V1 else "0")
    with running(bus, limits=Limits(memory_reservation=32 * MIB)) as one:
        file = "memory.soft_limit_in_bytes" if V1 else "memory.low"
        assert one.file("memory", file) == str(32 * MIB)


def test_pids_and_quota(bus: Bus) -> None:
    with running(bus, limits=Limits(pids=7, nano_cpus=1_500_000_000)) as one:
        assert one.file("pids", "pids.max") == "7"
        assert one.property("CPUQuotaPerSecUSec") == 1_500_000
        if V1:
            assert one.file("cpu", "cpu.cfs_quota_us") == "150000"
        systemctl("daemon-reload")
        assert one.property("CPUQuotaPerSecUSec") == 1_500_000


def disk() -> tuple[str, Path] | None:
    """A directory that is stored on a disk, and that disk's node."""
    for directory in (Path(paths.STATE), Path("/var/tmp"), Path("/"), Path(__file__).parent):
        if directory.is_dir():
            found = blockdev.disk_of(str(directory)).node
            if found:
                return found, directory
    return None


@pytest.mark.parametrize("direction", ["Write", "Read"])
def test_s5_block_io_bandwidth(bus: Bus, requires: Any, direction: str) -> None:
    """The seed's own command, the throttle file, and a direct-I/O dd at that rate."""
    found = disk()
    requires(found, "a directory on a disk")
    assert found is not None
    device, directory = found
    number = os.stat(device).st_rdev
    file = directory / f"sysbox-test-{os.getpid()}"
    copy = ["dd", "if=/dev/zero", f"of={file}", "oflag=direct", "bs=64k", "count=32", "status=none"]
    subprocess.run(copy, check=True, timeout=60 * SLOWNESS)
    if direction == "Read":
        copy = ["dd", f"if={file}", "of=/dev/null", "iflag=direct", "bs=64k", "status=none"]

    def rate() -> float:
        one = Running(bus, plan(), copy)
        try:
            limited = f"BlockIO{direction}Bandwidth={device} 1M"
            systemctl("set-property", "--runtime", one.unit, limited)
            limit = f"{os.major(number)}:{os.minor(number)} "
            if V1:
                throttle = one.file("blkio", f"blkio.throttle.{direction.lower()}_bps_device")
                assert throttle == f"{limit}1000000"
            else:
                assert one.file("io", "io.max").startswith(limit)
            started = time.monotonic()
            assert one.process.wait() == 0
            return (32 << 16) / (time.monotonic() - started)
        finally:
            one.end()

    try:
        within(rate, 500_000 / SLOWNESS, 1_500_000)
    finally:
        file.unlink()


def test_device_limit_on_a_disk_that_is_none() -> None:
    for path in ("/nonexistent", "/dev/null", "sda", "/proc/self/mounts"):
        with pytest.raises(SpecError) as caught:
            plan(limits=Limits(device_read_bps=((path, MIB),)))
        assert "--device-read-bps" in caught.value.message


def test_devices_are_those_that_were_allowed(bus: Bus) -> None:
    with running(bus, ["dd", "if=/dev/full", "of=/dev/null", "count=1"]) as one:
        assert one.process.wait() == 1  # 1:7 is not among them
    if not V1:
        return  # a BPF program, which cannot be listed
    with running(bus) as one:
        listed = one.file("devices", "devices.list").splitlines()
        assert sorted(listed) == ["b *:* m", "c *:* m", "c 136:* rwm", "c 1:3 rwm", "c 1:5 rwm"]


def test_oom(bus: Bus) -> None:
    hungry = [sys.executable, "-c", "x = bytearray(1 << 28)"]
    limits = Limits(memory=32 * MIB, memory_swap=32 * MIB)
    one = Running(bus, plan(limits=limits, remove=False), hungry)
    # a second, small process keeps the cgroup, and with it the count, where OOMPolicy=kill does not reach it
    keeper = subprocess.Popen(["sleep", "60"])
    try:
        asked = (MANAGER_PATH, MANAGER, "AttachProcessesToUnit", "ssau")
        bus.call(*asked, (one.unit, "", [keeper.pid]))
        directories = tree.cgroup_dirs(cgroup.paths_of(one.process.pid), FACTS)
        (memory,) = (path for path in directories if "/memory/" in path) if V1 else directories
        oom = cgroup_watch.OutOfMemory(memory, FACTS.cgroup_mode)
        one.process.release()
        if V1:
            assert select.select([oom.event], [], [], 20 * SLOWNESS)[0], (
                "the kernel wakes us before it kills"
            )
            oom.on_event()
        assert one.process.wait() == -signal.SIGKILL
        if V1:
            assert oom.killed()
        else:
            assert until_stopped(bus, one.unit) == "failed"
            assert scope.state(bus, one.unit)[2] == "oom-kill"
    finally:
        keeper.kill()
        keeper.wait()
        one.end()


def test_stop_and_kill(bus: Bus) -> None:
    with running(bus) as one:
        scope.kill(bus, one.unit, signal.SIGUSR1)
        assert one.process.wait() == -signal.SIGUSR1
    with running(bus) as one:
        scope.stop(bus, one.unit)
        assert one.process.wait() == -signal.SIGTERM
    # gone already is success
    scope.stop(bus, one.unit)
    scope.kill(bus, one.unit, signal.SIGTERM)
    scope.reset_failed(bus, one.unit)


def test_a_stop_that_was_asked_for_before_anybody_listened(bus: Bus) -> None:
    """It is told of at once, and begun a moment later: who connects in between hears of neither."""
    for _ in range(5):
        planned = plan()
        # as in the foreground, where it is not systemd that ends it
        harmless = Property(name="KillSignal", signature="i", value=signal.SIGCONT)
        planned = planned.replace(properties=(*planned.properties, harmless))
        one = Running(bus, planned, ["sleep", "60"])
        try:
            job = bus.send(MANAGER_PATH, MANAGER, "StopUnit", "ss", (one.unit, "replace"))
            requests = stop_requests.StopRequests(Bus.connect(), one.unit)
            while not requests.asked and select.select([requests], [], [], 15 * SLOWNESS)[0]:
                requests.read()
            assert requests.asked
            requests.close()
            bus.reply(job)
        finally:
            one.end()


def test_stop_timeout_then_kill(bus: Bus) -> None:
    stubborn = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]
    reader, writer = os.pipe()
    one = Running(bus, plan(stop_timeout=1), stubborn, stdout=writer)
    os.close(writer)
    try:
        one.process.release()
        assert os.read(reader, 16) == b"ready\n"
        started = time.monotonic()
        scope.stop(bus, one.unit)
        assert 0.9 < time.monotonic() - started < 8 * SLOWNESS
        assert one.process.wait() == -signal.SIGKILL
    finally:
        os.close(reader)
        one.end()


def test_a_failed_scope_tells_why_and_frees_its_name(bus: Bus) -> None:
    identity = os.urandom(32).hex()
    # longer than it takes until it is known to run
    lasting = f"RuntimeMaxSec={round(1500 * SLOWNESS)}ms"
    planned = plan(identity, remove=False, properties=(lasting,))
    first = Running(bus, planned, ["sleep", "60"])
    try:
        first.process.release()
        assert first.process.wait() == -signal.SIGTERM
        assert until_stopped(bus, first.unit) == "failed"
        assert scope.state(bus, first.unit) == ("failed", "failed", "timeout")
        again = Running(bus, plan(identity, remove=False), ["sleep", "60"])
        assert scope.state(bus, again.unit)[0] == "active"
        again.end()
    finally:
        first.end()


def test_name_in_use_is_an_error(bus: Bus) -> None:
    with running(bus) as one:
        parked = Parked(["true"])
        try:
            with pytest.raises(SystemdError) as caught:
                scope.begin(bus, one.plan, (parked.pid,)).wait()
            assert caught.value.dbus_name == "org.freedesktop.systemd1.UnitExists"
            assert one.unit in caught.value.message
        finally:
            parked.end()
        assert scope.state(bus, one.unit)[0] == "active"


def test_a_service_that_runs_is_never_forgotten(bus: Bus) -> None:
    """It may be the caller's own, by a request whose reply was lost; without its file it stays failed."""
    unit = f"sysbox-{os.urandom(32).hex()}.service"
    command = [("/bin/sleep", ["sleep", "60"], False)]
    properties = (
        Property(name="ExecStart", signature="a(sasb)", value=command),
        Property(name="CollectMode", signature="s", value="inactive-or-failed"),
    )
    forgotten: list[str] = []
    first = scope.start_service(bus, unit, properties)
    try:
        first.wait_queued()
        second = scope.start_service(bus, unit, properties, lambda: forgotten.append(unit))
        with pytest.raises(SystemdError) as caught:
            second.wait_queued()
        assert caught.value.dbus_name == "org.freedesktop.systemd1.UnitExists"
        assert not forgotten
        assert scope.state(bus, unit)[0] == "active"
    finally:
        scope.stop(bus, unit)


def test_process_that_is_gone(bus: Bus) -> None:
    parked = Parked(["true"])
    parked.end()
    with pytest.raises(SystemdError) as caught:
        scope.begin(bus, plan(), (parked.pid,)).wait(5)
    assert "scope" in caught.value.message or "process" in caught.value.message.lower()


def test_property_that_systemd_refuses(bus: Bus) -> None:
    parked = Parked(["true"])
    planned = plan()
    bad = planned.replace(
        properties=(*planned.properties, Property(name="NoSuch", signature="s", value="x"))
    )
    try:
        with pytest.raises(SystemdError) as caught:
            scope.begin(bus, bad, (parked.pid,)).wait()
        assert "NoSuch" in caught.value.message
    finally:
        parked.end()


def test_many_at_once(bus: Bus) -> None:
    """Pipelined on one connection, awaited in the opposite order."""
    parked = [Parked(["sleep", "60"]) for _ in range(12)]
    plans = [plan() for _ in parked]
    try:
        pending = [
            scope.begin(bus, planned, (one.pid,))
            for planned, one in zip(plans, parked, strict=True)
        ]
        for one in reversed(pending):
            one.wait()
        for planned, process in zip(plans, parked, strict=True):
            assert tree.cgroup_path(process.pid, FACTS).endswith(planned.unit)
    finally:
        for planned, process in zip(plans, parked, strict=True):
            process.end()
            scope.stop(bus, planned.unit)


def test_start_over_a_daemon_reexec(bus: Bus) -> None:
    """PID 1 drops its connections when it re-executes; a start that is under way survives."""
    parked = Parked(["sleep", "60"])
    planned = plan()
    try:
        pending = scope.begin(bus, planned, (parked.pid,))
        systemctl("daemon-reexec")
        pending.wait()
        assert scope.state(bus, planned.unit)[0] == "active"
    finally:
        parked.end()
        scope.stop(bus, planned.unit)


def test_system_bus_serves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # the variable is read from the environment as it was at the start, so it goes to a new process
    code = (
        "from sysbox.units.bus import *\n"
        "bus = Bus.connect()\n"
        "assert not bus.private\n"
        "print(bus.call(MANAGER_PATH, PROPERTIES, 'Get', 'ss', (MANAGER, 'Version'))[0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "SYSBOX_BUS": "system"},
        capture_output=True,
        text=True,
        check=True,
        timeout=30 * SLOWNESS,
    )
    assert done.stdout.startswith("2")


def test_pystemd_starts_the_same_scope(bus: Bus) -> None:
    """The hot path and the package, given one plan, make two scopes with the same properties."""
    limits = Limits(cpu_shares=512, memory=64 * MIB, pids=9, cpu_quota=50_000, cpu_period=50_000)
    with running(bus, limits=limits) as one:
        other = Parked(["sleep", "60"])
        unit = names.scope_unit(os.urandom(32).hex())
        pids = Property(name="PIDs", signature="au", value=[other.pid])
        try:
            pystemd_peer.start_transient(unit, (pids, *one.plan.properties))
            eventually(lambda: scope.state(bus, unit)[0] == "active", "it is active")
            ours = scope.all_properties(bus, one.unit, SCOPE)
            theirs = scope.all_properties(bus, unit, SCOPE)
            compared = {one.name for one in one.plan.properties} & ours.keys()
            assert len(compared) > 10
            assert {name: ours[name] for name in compared} == {
                name: theirs[name] for name in compared
            }
        finally:
            other.end()
            scope.stop(bus, unit)


def test_manager_knows_the_host() -> None:
    found = manager.describe()
    assert int(found["Version"][:3]) >= 250
    assert found["SystemState"] in ("running", "degraded", "starting")


def test_exec_joins_the_same_cgroups(bus: Bus) -> None:
    with running(bus, limits=Limits(cpuset_cpus="0")) as one:
        joined = Parked(["true"])
        try:
            cgroup.join(joined.pid, tree.cgroup_dirs(cgroup.paths_of(one.process.pid), FACTS))
            assert cgroup.paths_of(joined.pid) == cgroup.paths_of(one.process.pid)
        finally:
            joined.end()


def test_write_that_this_kernel_cannot_do(bus: Bus) -> None:
    from sysbox.units.limits.properties import CgroupWrite

    for write in (
        CgroupWrite(controller="nosuch", file="x", value="1"),
        CgroupWrite(controller="memory", file="memory.nosuch", value="1"),
    ):
        parked = Parked(["true"])
        planned = plan()
        try:
            scope.begin(bus, planned, (parked.pid,)).wait()
            with pytest.raises(SysboxError):
                tree.apply_writes((write,), f"/system.slice/{planned.unit}", FACTS)
        finally:
            parked.end()
            scope.stop(bus, planned.unit)


def connect_stream(identifier: str, unit: str, priority: int) -> int:
    """A stream to journald, by which version 0.1 once sent what a container wrote: its log stays readable."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect("/run/systemd/journal/stdout")
    sock.sendall(f"{identifier}\n{unit}\n{priority}\n0\n0\n0\n0\n".encode())
    return sock.detach()


@contextlib.contextmanager
def logged(bus: Bus, script: str, *, identity: str) -> Iterator[str]:
    """The unit of a container that ran `script` to its end with the journal as its output."""
    planned = plan(identity)
    fields = journal.container_fields(identity, "parked", "debian:12")
    journal.write_fields(planned.unit, fields, Logging())
    streams = {
        target: connect_stream("parked", planned.unit, priority)
        for target, priority in (("stdout", 6), ("stderr", 3))
    }
    one = Running(bus, planned, ["sh", "-c", script], **streams)
    for fd in streams.values():
        os.close(fd)
    try:
        one.process.wait()
        yield planned.unit
    finally:
        one.end()
        journal.remove_fields(planned.unit)


def has_logged(unit: str, wanted: list[tuple[int, bytes]]) -> None:
    """Wait until the log is that. What waits for journald waits for the socket that containers write to
    today: the streams are others, and it reads them when it likes.
    """

    def told() -> list[tuple[int, bytes]]:
        """As many entries as journald makes of it, by priority."""
        lines = list(read_logs(unit))
        every = sorted({one.priority for one in lines})
        return [(p, b"".join(one.message for one in lines if one.priority == p)) for p in every]

    try:
        eventually(lambda: told() == wanted, "the log is what was written")
    except AssertionError:
        assert told() == wanted


def test_log_of_a_process_that_exits_at_once(bus: Bus) -> None:
    for _ in range(5):
        identity = os.urandom(32).hex()
        with logged(bus, "echo first; echo second >&2", identity=identity) as unit:
            has_logged(unit, [(3, b"second\n"), (6, b"first\n")])
            # as an administrator and a log collector look for them
            shown = subprocess.check_output(["journalctl", "-u", unit, "-o", "cat"], text=True)
            assert "first\n" in shown
            by_field = [
                "journalctl",
                f"CONTAINER_ID_FULL={identity}",
                "-o",
                "cat",
                "CONTAINER_NAME=parked",
            ]
            assert sorted(subprocess.check_output(by_field, text=True).split()) == [
                "first",
                "second",
            ]


def test_log_is_what_was_written(bus: Bus) -> None:
    script = r"printf 'a\000b\377c\nno end'; head -c 100000 /dev/zero | tr '\0' x"
    with logged(bus, script, identity=os.urandom(32).hex()) as unit:
        has_logged(unit, [(6, b"a\0b\xffc\nno end" + b"x" * 100_000)])
        assert len(list(read_logs(unit, lines=1))) == 1
        latest = list(read_logs(unit))[-1].timestamp
        assert list(read_logs(unit, since=latest + 1_000_000)) == []
        assert list(read_logs(unit, until=latest - 60_000_000)) == []


def test_following_a_log_ends_when_nobody_reads(bus: Bus) -> None:
    with logged(bus, "echo one; echo two", identity=os.urandom(32).hex()) as unit:
        lines = read_logs(unit, follow=lambda _: True)
        assert [next(lines).message, next(lines).message] == [b"one\n", b"two\n"]
        lines.close()


def test_copied_output_counts_as_the_payloads(bus: Bus) -> None:
    """A monitor outside the scope copies; the credentials it sends along decide where lines go."""
    with running(bus) as one:
        identity = names.container_of(one.unit)
        fields = journal.container_fields(identity, "parked", "debian:12")
        journal.write_fields(one.unit, fields, Logging())
        stream = socket.socket(fileno=connect_stream("parked", one.unit, 6))
        who = struct.pack("iII", one.process.pid, 0, 0)
        send = [(socket.SOL_SOCKET, socket.SCM_CREDENTIALS, who)]
        try:
            stream.sendmsg([b"alive\n"], send)
            os.kill(one.process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, one.process.pid, os.WEXITED | os.WNOWAIT)
            stream.sendmsg([b"a zombie\n"], send)
        finally:
            stream.close()
        has_logged(one.unit, [(6, b"alive\na zombie\n")])
        journal.remove_fields(one.unit)


@pytest.mark.guest("cgroup.subtree_control is of v2")
def test_controllers_stay_switched_on(bus: Bus) -> None:
    with running(bus) as one:
        assert one.plan.keeper is not None
        assert Path(one.plan.keeper.directory).is_dir()
    assert Path(one.plan.keeper.directory).is_dir()
    assert scope.state(bus, one.plan.keeper.unit)[0] == "active"
