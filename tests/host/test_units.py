"""Declared containers: the service is the supervisor, the scope the container, and each stops the other."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, eventually, systemctl
from lane import IMAGE, Sysbox, run_sysbox

from sysbox import scope

NAME = "units-test"
SERVICE = f"{NAME}.service"


@pytest.fixture
def declare(sysbox: Sysbox, tmp_path: Path, image: str) -> Iterator[Declare]:
    one = Declare(sysbox, tmp_path, image)
    yield one
    one.remove()


class Declare:
    """Writes a declaration, installs it and starts its service."""

    def __init__(self, sysbox: Sysbox, directory: Path, image: str) -> None:
        self._sysbox = sysbox
        self._directory = directory
        self._image = image

    def file(
        self,
        container: str = "Exec=sleep 1000\nStopSignal=KILL",
        service: str = "",
        name: str = NAME,
    ) -> Path:
        path = self._directory / f"{name}.container"
        path.write_text(
            f"[Container]\nImage={self._image}\n{container}\n[Service]\n{service}\n"
            "[Install]\nWantedBy=multi-user.target\n"
        )
        return path

    def __call__(
        self, container: str = "Exec=sleep 1000\nStopSignal=KILL", service: str = ""
    ) -> Container:
        self.run(container, service)
        return self.container()

    def run(self, container: str, service: str = "") -> None:
        """Of a container that ends by itself, and may be gone when anybody looks."""
        self._sysbox("unit", "install", self.file(container, service), check=True)
        systemctl("start", SERVICE)

    def begin(self, container: str, service: str = "") -> Container:
        """Its container, while the start of the service waits for its word (Notify=yes)."""
        file = self.file(f"Notify=yes\nStopSignal=KILL\n{container}", service)
        self._sysbox("unit", "install", file, check=True)
        systemctl("start", "--no-block", SERVICE)
        eventually(self.is_there, "the container is made")
        one = self.container()
        one.await_state("running")
        return one

    def container(self) -> Container:
        found = self._sysbox("inspect", "-f", "{{.ID}}", f"systemd-{NAME}", check=True)
        return Container(self._sysbox, found.stdout.strip())

    def is_there(self) -> bool:
        return self._sysbox("inspect", f"systemd-{NAME}").returncode == 0

    def remove(self) -> None:
        installed = self._sysbox("unit", "list", "--format", "{{.Unit}}").stdout.splitlines()
        own = [line for line in installed if line.startswith(NAME)]
        if own:
            self._sysbox("unit", "uninstall", "--force", *own, check=True)
        systemctl("reset-failed", SERVICE, check=False)


def state() -> str:
    return systemctl("show", "-P", "ActiveState", SERVICE)


def test_limits_of_the_service_are_those_of_the_scope(declare: Declare, sysbox: Sysbox) -> None:
    one = declare(service="MemoryMax=64M\nTasksMax=40")
    assert one.limit("pids", "pids.max") == "40"
    limit = (
        "memory.max" if (one.cgroup("memory") / "memory.max").exists() else "memory.limit_in_bytes"
    )
    assert one.limit("memory", limit) == str(64 << 20)
    for flags, tasks in (((), "30"), (("--runtime",), "35")):
        # a change of the service acts on the scope at once, and at the next start
        systemctl("set-property", *flags, SERVICE, f"TasksMax={tasks}")
        eventually(lambda tasks=tasks: one.limit("pids", "pids.max") == tasks, f"{tasks} tasks")
    assert one.limit("memory", limit) == str(64 << 20)
    systemctl("restart", SERVICE)
    assert declare.container().limit("pids", "pids.max") == "35"
    assert declare.container().id == one.id, "the scope has the same name at each start"
    systemctl("revert", SERVICE)
    systemctl("stop", SERVICE)
    for above in ("/etc", "/run"):
        assert not Path(f"{above}/systemd/system.control/{SERVICE}.d").exists()
    # `revert` reloads systemd, which may forget the cgroups of a scope that ends meanwhile
    sysbox("gc", check=True)


def test_where_a_limit_comes_from_is_told(declare: Declare, sysbox: Sysbox) -> None:
    """The file of the service, a drop-in of set-property on it, or one on the scope."""
    one = declare("Exec=sleep 1000\nStopSignal=KILL\nPidsLimit=90", "MemoryMax=64M\nCPUQuota=50%")
    systemctl("set-property", SERVICE, "CPUQuota=70%")
    eventually(lambda: "70000" in told("cpus", "Now"), "the quota is that of the change")
    drop_in = f"/etc/systemd/system.control/{SERVICE}.d/50-CPUQuota.conf"
    assert told("memory") == SERVICE
    assert told("cpus") == f"{SERVICE}, systemctl set-property, {drop_in}"
    assert told("pids-limit") == "run"
    assert one.inspect("Sysbox.OfService") == {"MemoryMax": SERVICE, "CPUQuota": drop_in}
    assert one.inspect("Sysbox.Tuned") == {}
    systemctl("set-property", one.scope, "MemoryMax=50M")
    assert told("memory").startswith("systemctl set-property, ")
    assert one.inspect("Sysbox.OfService") == {"CPUQuota": drop_in}
    # on v1 the helper first gives the limit its other name
    eventually(
        lambda: list(one.inspect("Sysbox.Tuned").values()) == [str(50 << 20)], "it is the one limit"
    )
    systemctl("restart", SERVICE)
    assert told("memory") == SERVICE
    # the limit is no longer the service's, though the service still has one
    sysbox("update", "--cpus", "0.3", "-m", "40m", f"systemd-{NAME}", check=True)
    assert told("memory").startswith("update, ")
    assert told("cpus").startswith("update, ")
    assert declare.container().inspect("Sysbox.OfService") == {}
    systemctl("set-property", SERVICE, "CPUQuota=60%")
    eventually(lambda: "60000" in told("cpus", "Now"), "the quota is that of the service again")
    assert told("cpus") == f"{SERVICE}, systemctl set-property, {drop_in}"
    systemctl("revert", SERVICE)
    sysbox("gc", check=True)


def told(limit: str, field: str = "SetBy") -> str:
    """What `explain` says of a limit."""
    words = ("explain", f"systemd-{NAME}", limit, "--format", f"{{{{.{field}}}}}")
    return run_sysbox(*words, check=True).stdout.strip()


def test_its_status_names_the_container(declare: Declare) -> None:
    one = declare()
    assert f'Status: "in docker-{one.id}.scope"' in systemctl("status", "--no-pager", SERVICE)
    monitor = f"sysbox-monitor systemd-{NAME} --pid "
    # it says that it is ready, and becomes that next
    eventually(lambda: monitor in systemctl("status", "--no-pager", SERVICE), "the monitor")


def test_what_is_set_on_the_scope_ends_with_the_run(declare: Declare) -> None:
    one = declare(service="TasksMax=40")
    systemctl("set-property", one.scope, "TasksMax=20")
    assert one.limit("pids", "pids.max") == "20"
    systemctl("restart", SERVICE)
    assert one.limit("pids", "pids.max") == "40"


@pytest.mark.parametrize("who", ["service", "scope", "sysbox stop", "sysbox rm -f"])
def test_a_stop_of_either_stops_both(declare: Declare, sysbox: Sysbox, who: str) -> None:
    trap = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    one = declare(f'Exec=sh -c "{trap}"', "Restart=always")
    eventually(lambda: "ready" in one("logs"), "the payload is ready")
    if who == "service":
        systemctl("stop", SERVICE)
    elif who == "scope":
        systemctl("stop", one.scope)
    else:
        sysbox(*who.split()[1:], f"systemd-{NAME}", check=True)
    eventually(lambda: state() == "inactive", "the service has stopped, and does not start again")
    assert not declare.is_there()


@pytest.mark.parametrize("victim", ["payload", "monitor"])
def test_it_restarts_as_its_file_says(declare: Declare, victim: str) -> None:
    one = declare(service="Restart=on-failure\nRestartSec=100ms")
    pid = one.pid
    main = int(systemctl("show", "-P", "MainPID", SERVICE))
    os.kill(pid if victim == "payload" else main, signal.SIGKILL)
    eventually(lambda: systemctl("show", "-P", "NRestarts", SERVICE) == "1", "systemd restarts it")
    eventually(lambda: declare.is_there() and state() == "active", "it runs again")
    assert declare.container().pid != pid


def test_the_status_of_the_payload_is_that_of_the_service(declare: Declare) -> None:
    declare.run('Exec=sh -c "sleep 0.3; exit 7"')
    eventually(lambda: state() == "failed", "it ends")
    assert systemctl("show", "-P", "ExecMainStatus", SERVICE) == "7"
    assert not declare.is_there()


def test_a_service_that_is_started_once_it_is_healthy(declare: Declare, sysbox: Sysbox) -> None:
    health = "Notify=healthy\nHealthCmd=test -e /tmp/good\nHealthInterval=100ms\nHealthRetries=1000"
    sysbox(
        "unit", "install", declare.file(f"Exec=sleep 1000\nStopSignal=KILL\n{health}"), check=True
    )
    systemctl("start", "--no-block", SERVICE)
    eventually(declare.is_there, "the container is made")
    one = declare.container()
    # null until it runs
    eventually(lambda: (one.inspect("State.Health") or {}).get("Log"), "it was checked")
    assert state() == "activating"
    one.exec("touch", "/tmp/good")
    eventually(lambda: state() == "active", "it is healthy")
    systemctl("stop", SERVICE)
    sysbox(
        "unit",
        "install",
        declare.file("Exec=sleep 1000\nStopSignal=KILL\nNotify=healthy"),
        check=True,
    )
    systemctl("start", SERVICE, check=False)
    assert "Notify=healthy: the container has no health check" in journal(SERVICE)
    assert not declare.is_there()


def test_a_container_of_a_declared_build(
    declare: Declare, sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    (tmp_path / "Containerfile").write_text(f"FROM {image}\nRUN echo built >/mark\n")
    build = tmp_path / f"{NAME}.build"
    build.write_text("[Build]\nImageTag=localhost/units-test\nSetWorkingDirectory=unit\n")
    container = declare.file()
    container.write_text(container.read_text().replace(f"Image={image}", f"Image={build.name}"))
    try:
        sysbox("unit", "install", container, build, check=True)
        systemctl("start", SERVICE)
        assert declare.container().exec("cat", "/mark") == "built"
    finally:
        declare.remove()
        sysbox("rmi", "-f", "localhost/units-test", check=True)
        sysbox("builder", "prune", "-f", "-a", check=True)


def test_what_its_failure_starts(declare: Declare, tmp_path: Path) -> None:
    other, mark = Path("/run/systemd/system/units-test-failed.service"), tmp_path / "mark"
    other.write_text(f"[Service]\nType=oneshot\nExecStart=touch {mark}\n")
    try:
        declare.run("Exec=false", f"[Unit]\nOnFailure={other.name}")
        eventually(mark.exists, "the unit of OnFailure= is started")
    finally:
        other.unlink()
        systemctl("daemon-reload")


def test_uninstall_waits_for_a_stop_that_takes_its_time(declare: Declare, sysbox: Sysbox) -> None:
    """Else systemd would forget the service's ExecStopPost= with its file, and the container would stay."""
    seconds = int(scope.TIMEOUT) + 2
    declare(f"Exec=sleep 1000\nStopTimeout={seconds}")  # as PID 1 it heeds no SIGTERM
    sysbox("unit", "uninstall", SERVICE, check=True)
    assert not declare.is_there()


def test_services_stop_in_the_reverse_of_their_order(
    declare: Declare, sysbox: Sysbox, tmp_path: Path
) -> None:
    """One that takes its time holds up the one that it was started after, as at a shutdown."""
    trap = "trap 'sleep 0.3; exit 0' TERM; echo ready; while :; do sleep 0.02; done"
    second, mark = f"{NAME}-2.service", tmp_path / "mark"
    first = declare.file("Exec=sleep 1000\nStopSignal=KILL")
    end = f"ExecStopPost=sh -c 'systemctl is-active {SERVICE} >{mark}'"
    settings = f"{end}\n[Unit]\nAfter={first.name}\nRequires={first.name}"
    after = declare.file(f'Exec=sh -c "{trap}"', settings, name=f"{NAME}-2")
    sysbox("unit", "install", first, after, check=True)
    systemctl("start", SERVICE, second)
    eventually(lambda: "ready" in sysbox("logs", f"systemd-{NAME}-2").stdout, "it heeds signals")
    # not both by name: systemctl asks for one after the other, and the first may have stopped by then
    systemctl("stop", SERVICE)
    assert mark.read_text() == "active\n"


def test_systemctl_enables_and_disables_it(declare: Declare, sysbox: Sysbox) -> None:
    sysbox("unit", "install", declare.file(), check=True)
    assert systemctl("is-enabled", SERVICE, check=False) == "disabled"
    systemctl("enable", SERVICE)
    assert systemctl("is-enabled", SERVICE) == "enabled"
    sysbox("unit", "uninstall", SERVICE, check=True)
    assert systemctl("is-enabled", SERVICE, check=False) in ("", "not-found")
    assert not list(Path("/etc/systemd/system").rglob(SERVICE))


def test_an_edited_file_is_not_overwritten(declare: Declare, sysbox: Sysbox) -> None:
    sysbox("unit", "install", declare.file(), check=True)
    file = Path("/etc/systemd/system") / SERVICE
    file.write_text(file.read_text().replace("KillMode=mixed", "KillMode=control-group"))
    for verb in (("install", str(declare.file())), ("uninstall", SERVICE)):
        done = sysbox("unit", *verb)
        assert (done.returncode != 0, "was edited" in done.stderr) == (True, True), done.stderr
    sysbox("unit", "install", "--force", declare.file(), check=True)
    assert "KillMode=mixed" in file.read_text()


def test_a_failed_start_leaves_nothing(declare: Declare, sysbox: Sysbox) -> None:
    sysbox("unit", "install", declare.file("Exec=/no/such/program"), check=True)
    systemctl("start", SERVICE, check=False)
    assert state() == "failed"
    assert not declare.is_there()


def test_a_start_that_is_killed_leaves_nothing(declare: Declare, sysbox: Sysbox) -> None:
    """At any moment: what was made is removed after the service's end."""
    sysbox("unit", "install", declare.file(service="Restart=no"), check=True)
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        systemctl("start", "--no-block", SERVICE)
        time.sleep(delay)
        systemctl("kill", "--signal=KILL", "--kill-whom=main", SERVICE, check=False)
        systemctl("stop", SERVICE)
        systemctl("reset-failed", SERVICE, check=False)
        assert not declare.is_there(), delay
    # of a file that was being written when the writer was killed
    sysbox("gc", check=True)


def test_its_restart_policy_is_the_files(declare: Declare, sysbox: Sysbox) -> None:
    declare()
    done = sysbox("update", "--restart", "always", f"systemd-{NAME}")
    assert f"is declared by {SERVICE}" in done.stderr
    systemctl("stop", SERVICE)
    sysbox("unit", "install", declare.file("PodmanArgs=--restart=always"), check=True)
    systemctl("start", SERVICE, check=False)
    assert "--restart: Restart= of [Service] in" in journal(SERVICE)


def test_a_name_that_is_taken(declare: Declare, sysbox: Sysbox, image: str) -> None:
    sysbox("create", "--name", f"systemd-{NAME}", image, "true", check=True)
    try:
        sysbox("unit", "install", declare.file(), check=True)
        systemctl("start", SERVICE, check=False)
        assert state() == "failed"
        assert declare.is_there(), "the other container stays"
        assert f"the name 'systemd-{NAME}' is in use by container" in journal(SERVICE)
    finally:
        sysbox("rm", f"systemd-{NAME}", check=True)
    systemctl("start", SERVICE)
    done = sysbox("create", "--name", f"systemd-{NAME}", image, "true")
    assert f"is in use by the container of {SERVICE}" in done.stderr
    assert f"`systemctl stop {SERVICE}` frees it" in done.stderr


def test_the_generator_makes_units_and_their_links(
    declare: Declare, sysbox: Sysbox, image: str
) -> None:
    directory = Path("/run/sysbox/units")
    directory.mkdir()
    try:
        good, wrong = directory / f"{NAME}.container", directory / f"{NAME}-2.container"
        good.write_text(declare.file().read_text())
        wrong.write_text("[Container]\nImag=x\n")
        systemctl("daemon-reload")
        assert systemctl("show", "-P", "UnitFileState", SERVICE) == "generated"
        wanted = "/run/systemd/generator/multi-user.target.wants"
        assert (Path(wanted) / SERVICE).is_symlink()
        systemctl("start", SERVICE)
        pid = declare.container().pid
        systemctl("daemon-reload")
        assert declare.container().pid == pid
        systemctl("start", f"{NAME}-2.service", check=False)
        assert systemctl("show", "-P", "ActiveState", f"{NAME}-2.service") == "failed"
        said = journal(f"{NAME}-2.service")
        assert f"{wrong}:2: [Container] has no key Imag: did you mean Image?" in said
        other = declare.file(name=f"{NAME}@")  # of another name
        done = sysbox("unit", "install", good, other, check=True)
        assert f"{SERVICE} runs as it was" in done.stderr
        assert f"{NAME}@" not in done.stderr
        systemctl("stop", SERVICE)
    finally:
        shutil.rmtree(directory)
        systemctl("reset-failed", f"{NAME}-2.service", check=False)
        systemctl("daemon-reload")


def test_a_job_is_started_once_it_has_ended(declare: Declare, sysbox: Sysbox) -> None:
    job = "Type=oneshot\nRemainAfterExit=yes"
    sysbox("unit", "install", declare.file("Exec=sleep 1000\nStopSignal=KILL", job), check=True)
    systemctl("start", "--no-block", SERVICE)
    eventually(declare.is_there, "its container is made")
    one = declare.container()
    one.await_state("running")
    assert state() == "activating"
    os.kill(one.pid, signal.SIGKILL)
    eventually(lambda: state() == "failed", "its end is the service's")
    assert systemctl("show", "-P", "ExecMainStatus", SERVICE) == "137"
    sysbox("unit", "install", declare.file('Exec=sh -c "sleep 0.3"', job), check=True)
    systemctl("start", SERVICE)
    assert state() == "active"
    assert not declare.is_there(), "it is removed at its end, not with the service's stop"
    systemctl("stop", SERVICE)
    assert state() == "inactive"
    sysbox("unit", "install", declare.file("Exec=sleep 1000\nStopSignal=KILL", job), check=True)
    systemctl("start", "--no-block", SERVICE)
    eventually(declare.is_there, "it runs")
    systemctl("stop", SERVICE)
    assert (state(), declare.is_there()) == ("inactive", False)


def test_limits_and_the_environment_of_the_service(declare: Declare, sysbox: Sysbox) -> None:
    """Limits may be beside the image's name; EnvironmentHost= is under what the image and the file say."""
    container = (
        "Exec=sleep 1000\nStopSignal=KILL\nTasksMax=33\nEnvironmentHost=yes\nEnvironment=B=file"
    )
    one = declare(container, "Environment=A=service B=service")
    assert one.limit("pids", "pids.max") == "33"
    found = dict(line.split("=", 1) for line in one.exec("env").splitlines() if "=" in line)
    assert (found["A"], found["B"]) == ("service", "file")
    assert not {"NOTIFY_SOCKET", "INVOCATION_ID"} & found.keys()
    assert found["PATH"].startswith("/usr/local/sbin")
    systemctl("set-property", "--runtime", SERVICE, "TasksMax=44")
    eventually(lambda: one.limit("pids", "pids.max") == "44", "the later change counts")
    systemctl("revert", SERVICE)
    systemctl("stop", SERVICE)
    wrong = declare.file(
        "MemoryMax=lots", "ProtectSystem=strict\nPrivateNetwork=no\nRestart=unless-stopped"
    )
    done = sysbox("unit", "check", wrong, check=True)
    assert "not on the container: --property MemoryMax lots: not a size" in done.stderr
    assert "ProtectSystem= of [Service] is not of the container" in done.stderr
    assert "PrivateNetwork" not in done.stderr
    assert (
        "Restart=unless-stopped is not one of systemd's, which ignores it: always is" in done.stderr
    )


def test_a_restart_for_bad_health_is_that_of_the_file(declare: Declare, sysbox: Sysbox) -> None:
    health = (
        "HealthCmd=test ! -e /ill\nHealthInterval=100ms\nHealthRetries=1\nHealthOnFailure=restart"
    )
    one = declare(
        f"Exec=sleep 1000\nStopSignal=KILL\n{health}", "Restart=on-failure\nRestartSec=100ms"
    )
    sysbox("exec", one.id, "touch", "/ill")  # which may be killed by the end that it brings
    eventually(lambda: systemctl("show", "-P", "NRestarts", SERVICE) == "1", "systemd restarts it")


def journal(unit: str, since: float = 0.0) -> str:
    """What a unit has said so far; `since` in seconds of the epoch: tests of other files use its name too."""
    command = ["journalctl", "-u", unit, "-o", "cat", "--no-pager", f"--since=@{since:.6f}"]
    subprocess.run(["journalctl", "--sync"], check=True)
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_check_says_what_is_wrong(declare: Declare, sysbox: Sysbox) -> None:
    good = declare.file()
    wrong = declare.file("PodmanArgs=--no-such-flag", name=f"{NAME}-2")
    done = sysbox("unit", "check", good, wrong)
    assert done.returncode == 1
    assert done.stdout == f"{good}: {SERVICE}\n"
    assert "`sysbox run` has no flag --no-such-flag" in done.stderr
    assert IMAGE in sysbox("unit", "print", good, check=True).stdout
