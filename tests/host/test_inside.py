"""systemd as a container's first process (S1), and containers in a container.

In the guest: the systemd inside has a unified hierarchy, of which its part is delegated.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from containers import V1, Container, Containers, eventually, popen, systemctl
from lane import SYSBOX, Sysbox

from sysbox.base.paths import RUN_CONTAINERS
from sysbox.container import store
from sysbox.container.records import Final
from sysbox.linux import capability

SYSTEMD = "/usr/lib/systemd/systemd"
SERVICES = Path(sys.prefix) / "test-services"  # unpacked by tools/setup.sh
UNPACKED = "/opt/services"  # where a container has them


def boot(containers: Containers, *flags: str) -> Container:
    """A detached container of the image `host` whose systemd is up, with no unit that failed."""
    container = containers(*flags, image="host", command=(SYSTEMD,))
    await_boot(container)
    return container


def await_boot(container: Container) -> None:
    eventually(lambda: state_of(container) in ("running", "degraded"), "systemd is up inside")
    failed = container.exec("systemctl", "list-units", "--failed", "--no-legend", "--plain")
    assert (state_of(container), failed) == ("running", "")


def state_of(container: Container) -> str:
    words = [SYSBOX, "exec", container.id, "systemctl", "is-system-running", "--wait"]
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()


def tree(container: Container) -> set[str]:
    """The units of the container's own systemd that the host's systemd-cgls shows below its scope."""
    command = ["systemd-cgls", "--no-pager", "--full", f"/system.slice/{container.scope}"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    words = (line.strip("│├└─ ").split(" ")[0] for line in shown.splitlines())
    return {word for word in words if word.endswith((".service", ".scope", ".slice"))}


def boots(directory: Path) -> int:
    """How many boots a journal has, read on the host."""
    command = ["journalctl", "-q", "--list-boots", "-D", directory]
    return (
        len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n"))
        - 1
    )


def journal(container: Container) -> Path:
    return Path(container.inspect("Sysbox.Journal"))


@pytest.mark.guest("delegation is another on v2")
def test_unprivileged(containers: Containers) -> None:
    container = boot(containers, "--stop-timeout", "300")
    bounding = int(
        next(line for line in container.exec("cat", "/proc/1/status").splitlines() if "CapBnd" in line)
        .split()[1], 16
    )  # fmt: skip
    # all that concern its own user namespace alone
    assert {*capability.NAMES} - {*capability.names(bounding)} == {"SYS_MODULE", "SYS_RAWIO"}
    assert {"init.scope", "system.slice", "systemd-journald.service"} <= tree(container)
    # its own units it may make, the limits of the whole it may not change
    file = "memory/memory.limit_in_bytes" if V1 else "memory.max"
    assert container.sh(f"echo 64M 2>&1 >/sys/fs/cgroup/{file} || echo refused").endswith("refused")
    assert container.exec("cat", "/etc/machine-id") == container.id[:32]
    assert container.exec("systemd-detect-virt") == "container-other"
    assert boots(journal(container)) == 1
    container("stop")
    # not by SIGKILL, and not as a failure
    assert container.inspect("State.ExitCode") == 0
    ends = ("inactive", "failed")  # systemd hears of its empty cgroup by itself
    eventually(lambda: systemctl("is-failed", container.scope, check=False) in ends, "it is over")
    assert systemctl("is-failed", container.scope, check=False) == "inactive"


def test_restart_and_power_off_from_inside(containers: Containers) -> None:
    container = boot(containers)
    before = container.pid
    reboot(container)
    assert container.pid != before
    assert boots(journal(container)) == 2
    container.exec("systemctl", "poweroff")
    container.await_state("exited")
    assert container.inspect("State.ExitCode") == 0
    container("start")
    await_boot(container)


def reboot(container: Container) -> None:
    """Restart it from inside, and wait until it is up once more."""
    first = container.inspect("State.StartedAt")
    container.exec("systemctl", "reboot")
    eventually(lambda: container.inspect("State.StartedAt") > first, "it was started once more")
    container.await_state("running")
    await_boot(container)


@pytest.mark.parametrize("flags", [("--rm",), ("--restart", "on-failure")], ids=" ".join)
def test_who_restarts_it(containers: Containers, flags: tuple[str, ...]) -> None:
    """A restart is no end for --rm; a power-off is none that a policy would take for a failure."""
    container = boot(containers, *flags)
    container.exec("touch", "/root/kept")
    reboot(container)
    container.exec("test", "-e", "/root/kept")
    container.exec("systemctl", "poweroff")
    service = f"sysbox-{container.id}.service"
    eventually(lambda: systemctl("is-active", service, check=False) != "active", "it is off")
    assert systemctl("is-failed", service, check=False) != "failed"
    if "--rm" not in flags:
        assert container.inspect("State.Status") == "exited"


def test_in_the_foreground(sysbox: Sysbox) -> None:
    """The command goes on over a restart; a SIGTERM to it shuts down, as with systemd-nspawn(1)."""
    with popen("run", "--rm", "--name", "foreground", "host", SYSTEMD) as process:
        running = Container(sysbox, "foreground")
        eventually(lambda: state_of(running) == "running", "it is up")
        first = running.pid
        running.exec("systemctl", "reboot")
        eventually(
            lambda: state_of(running) == "running" and running.pid != first, "it is up again"
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr
        assert process.stderr.read() == ""


LOOP = ("sh", "-c", "echo again; reboot -f; sleep 100")  # of busybox: reboot(2) at once


def waits(container: Container) -> bool:
    """As its files say: a command that asks takes much of what is left of the wait."""
    run = store.runtime(container.id)
    return run is not None and run.restarting


def await_wait(container: Container) -> None:
    """Until a wait has just begun, the fourth one or a later one: there is time for the next command."""
    before = max(3, final_of(container).quick_ends)
    eventually(
        lambda: final_of(container).quick_ends > before and waits(container), "a wait begins"
    )


def starter(container: Container) -> str:
    return f"sysbox-start-{container.id}.service"


def test_one_that_reboots_without_end_waits(sysbox: Sysbox, containers: Containers) -> None:
    """By the back-off of restart policies: seen as a state, ended by a stop, and begun anew by a start."""
    one = containers("--systemd=always", command=LOOP)
    eventually(lambda: one.inspect("State.Restarting"), "it waits")
    await_wait(one)
    assert sysbox("rm", one.id).returncode == 1
    await_wait(one)
    assert sysbox("gc", check=True).stdout == ""
    one("stop")
    assert (one.inspect("State.Status"), one.inspect("State.ExitCode")) == ("exited", 0)
    eventually(
        lambda: systemctl("is-active", starter(one), check=False) != "active", "nobody waits"
    )
    assert final_of(one).quick_ends == 0
    before = one("logs").count("again")
    one("start")
    eventually(lambda: one("logs").count("again") > before + 1, "a second run")
    await_wait(one)
    ends = final_of(one).quick_ends
    one("start")
    eventually(lambda: 0 < final_of(one).quick_ends < ends, "a start by the user begins anew")


def final_of(container: Container) -> Final:
    return store.final(container.id) or Final(exit_code=0, started_ns=0, finished_ns=0)


def test_the_end_of_who_waits(sysbox: Sysbox, containers: Containers) -> None:
    """Killed: the container has ended, as it would have. With --rm a stop removes it."""
    one = containers("--systemd=always", command=LOOP)
    await_wait(one)
    systemctl("kill", "--signal=KILL", starter(one))
    # the end of its last run is recorded since it waits
    eventually(lambda: one.inspect("State.Status") == "exited", "it has ended")
    assert sysbox("gc", check=True).stdout == ""
    gone = containers("--systemd=always", "--rm", command=LOOP)
    await_wait(gone)
    gone("stop")
    assert sysbox("inspect", gone.id).returncode == 1


@pytest.mark.parametrize("look", [("ps", "-a"), ("gc",)], ids=["ps", "gc"])
def test_what_who_waits_has_left(
    sysbox: Sysbox, containers: Containers, look: tuple[str, ...]
) -> None:
    """It was killed: the next look takes the files of the run that was to begin, and one with --rm."""
    kept, gone = (containers("--systemd=always", *flags, command=LOOP) for flags in ((), ("--rm",)))
    for one in (kept, gone):
        await_wait(one)
        systemctl("kill", "--signal=KILL", starter(one))
        unit = starter(one)
        eventually(
            lambda unit=unit: systemctl("is-active", unit, check=False) != "active", "killed"
        )
    done = sysbox(*look, check=True)
    if look == ("gc",):
        assert done.stdout.count("gave up the restart of ") == 2
    assert not any((Path(RUN_CONTAINERS) / one.id).exists() for one in (kept, gone))
    assert sysbox("inspect", gone.id).returncode == 1
    assert (kept.inspect("State.Status"), sysbox("gc").stdout) == ("exited", "")


@pytest.mark.parametrize("flags", [(), ("--restart", "always")], ids=["no policy", "always"])
def test_rm_ends_the_wait(sysbox: Sysbox, containers: Containers, flags: tuple[str, ...]) -> None:
    one = containers("--systemd=always", *flags, command=LOOP)
    await_wait(one)
    one("rm", "-f")
    assert sysbox("inspect", one.id).returncode == 1


@pytest.mark.parametrize("rm", [(), ("--rm",)], ids=["kept", "rm"])
def test_one_that_reboots_without_end_in_the_foreground(
    sysbox: Sysbox, containers: Containers, image: str, rm: tuple[str, ...]
) -> None:
    words = ("run", *rm, "--systemd=always", "--name", "foreground", image, *LOOP)
    with popen(*words, stdout=subprocess.DEVNULL) as process:
        eventually(lambda: sysbox("inspect", "foreground").returncode == 0, "it is there")
        running = Container(sysbox, sysbox("inspect", "-f", "{{.Id}}", "foreground").stdout.strip())
        await_wait(running)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    if rm:
        assert sysbox("inspect", "foreground").returncode == 1
    else:
        assert containers.known_ended("foreground").inspect("State.Status") == "exited"


def test_attached_to(sysbox: Sysbox) -> None:
    """The same where the command has a service that it is attached to."""
    words = ("run", "--rm", "--name", "attached", "--detach-keys", "ctrl-a", "host", SYSTEMD)
    with popen(*words) as process:
        running = Container(sysbox, "attached")
        eventually(lambda: state_of(running) == "running", "it is up")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_stopped_by_the_host(containers: Containers) -> None:
    container = boot(containers, "--stop-timeout", "300")
    systemctl("stop", container.scope)
    container.await_state("exited")
    assert container.inspect("State.ExitCode") == 0


def test_privileged(containers: Containers) -> None:
    container = boot(containers, "--privileged")
    assert "systemd-journald.service" in tree(container)
    # no console of the host's is in its reach, and udev does not run
    assert container.sh("ls -d /dev/tty[0-9]* /dev/vcs* /dev/kmsg 2>/dev/null || true") == ""
    assert "systemd-udevd.service" not in tree(container)
    # what is mounted later is seen by its services
    container.sh(
        "mkdir /mnt/x; unshare -m --propagation unchanged sleep 100 >/dev/null 2>&1 & mount -t tmpfs x /mnt/x"
    )
    script = "until pid=$(pgrep -x sleep); do :; done; cat /proc/$pid/mountinfo"
    assert "/mnt/x" in container.sh(script)


def test_switched_off_and_on(sysbox: Sysbox, containers: Containers) -> None:
    def plan(*words: str) -> str:
        return sysbox("run", "--dry-run", *words, check=True).stdout

    marks = ("mount tmpfs on /run ", "bind /var/lib/sysbox", "OOMPolicy=continue", "SETPCAP")
    with_it = plan("host", SYSTEMD)
    assert all(mark in with_it for mark in marks)
    for words in (
        ("--systemd", "false", "host", SYSTEMD),
        ("host", "sleep"),
        ("--init", "host", SYSTEMD),
    ):
        without = plan(*words)
        assert "mount tmpfs on /run " not in without
        assert "SETPCAP" not in without
    assert "SETPCAP" in plan("--systemd", "always", "host", "sleep")
    host = ("--userns", "host", "--security-opt", "seccomp=unconfined")
    assert "SYS_BOOT" not in plan(*host, "host", SYSTEMD)
    done = sysbox("run", "--systemd", "always", "--pid", "host", "host", SYSTEMD)
    assert done.returncode == 125
    assert "systemd must be PID 1, and with --pid host it is not" in done.stderr
    # a command that is no systemd has the place of one, and its stop signal
    script = "trap 'exit 7' 37; echo ready; while :; do sleep 1; done"
    flags = ("--systemd", "always", "--stop-timeout", "300")
    one = containers(*flags, command=("sh", "-c", script))
    eventually(lambda: "ready" in one("logs"), "its trap is set")
    one.exec("test", "-d", "/run/lock")
    assert one.exec("sh", "-c", "echo $container") == "sysbox"
    one("stop")
    assert one.inspect("State.ExitCode") == 7


@pytest.mark.parametrize("flags", [(), ("--privileged",)], ids=["unprivileged", "privileged"])
def test_the_services_of_the_seed(
    containers: Containers, requires: Any, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    requires(SERVICES.is_dir(), "haproxy, keepalived and rsyslog, from tools/setup.sh test")
    etc = prepare_services(tmp_path)
    binds = [f"{path}:/etc/{path.name}:ro" for path in etc.iterdir()]
    container = boot(
        containers, *flags, "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW",
        "-v", f"{SERVICES}:{UNPACKED}:ro",
        *(word for bind in binds for word in ("-v", bind)),
    )  # fmt: skip
    names = ("haproxy", "keepalived", "rsyslog")
    eventually(lambda: all(active(container, name) for name in names), "the services run")
    assert {f"{name}.service" for name in (*names, "systemd-journald")} <= tree(container)
    # rsyslog has what is logged inside, the host's journal has not
    container.exec("logger", "-t", "probe", "from within")
    eventually(lambda: "from within" in container.sh("cat /var/log/all || true"), "it is logged")
    host = subprocess.run(
        ["journalctl", "-t", "probe"], capture_output=True, text=True, check=False
    )
    assert "from within" not in host.stdout


def active(container: Container, name: str) -> bool:
    return container.exec("systemctl", "show", "-P", "ActiveState", name) == "active"


def prepare_services(directory: Path) -> Path:
    """What is below /etc of a container that runs the services of SERVICES, with the packages' own units."""
    etc = directory / "etc"
    triplet = f"{os.uname().machine}-linux-gnu"
    libraries = f"{UNPACKED}/usr/lib/{triplet}:{UNPACKED}/lib/{triplet}"
    modules = f"{UNPACKED}/usr/lib/{triplet}/rsyslog"
    configuration = {
        "haproxy/haproxy.cfg": (
            "defaults\n mode tcp\n timeout connect 1s\n timeout client 1s\n timeout server 1s\n"
            "frontend all\n bind 127.0.0.1:8080\n"
        ),
        "keepalived/keepalived.conf": (
            "vrrp_instance one {\n interface eth0\n virtual_router_id 51\n"
            " virtual_ipaddress {\n 192.0.2.77\n }\n}\n"
        ),
        "rsyslog.conf": 'module(load="imuxsock")\n*.* /var/log/all\n',
    }
    for name, text in configuration.items():
        (etc / name).parent.mkdir(parents=True, exist_ok=True)
        (etc / name).write_text(text)
    units = etc / "systemd" / "system"
    wants = units / "multi-user.target.wants"
    wants.mkdir(parents=True)
    for name in ("haproxy", "keepalived", "rsyslog"):
        unit = (SERVICES / f"lib/systemd/system/{name}.service").read_text()
        (units / f"{name}.service").write_text(unit.replace("/usr/sbin/", f"{UNPACKED}/usr/sbin/"))
        (wants / f"{name}.service").symlink_to(f"/etc/systemd/system/{name}.service")
        more = units / f"{name}.service.d"
        more.mkdir()
        (more / "place.conf").write_text(
            f"[Service]\nEnvironment=LD_LIBRARY_PATH={libraries} RSYSLOG_MODDIR={modules}\n"
            # it would change what the service sees, which takes CAP_SYS_ADMIN
            "BindReadOnlyPaths=\n"
        )
    (units / "syslog.service").symlink_to("/etc/systemd/system/rsyslog.service")
    return etc


def test_a_container_in_a_container(sysbox: Sysbox, containers: Containers) -> None:
    place = ("-v", f"{sys.prefix}:{sys.prefix}:ro")
    outer = boot(containers, "--privileged", *place, "-v", "/var/lib/sysbox")
    inner = str(SYSBOX)
    assert outer.exec(inner, "run", "--rm", "host", "echo", "hello") == "hello"
    address = outer.exec(inner, "run", "--rm", "host", "hostname", "-I")
    assert address.startswith("10.91.")
    made = outer.exec(inner, "run", "-d", "-m", "64m", "host", "sleep", "1000")
    assert f"docker-{made}.scope" in tree(outer)
    assert outer.exec(inner, "inspect", "-f", "{{.HostConfig.Memory}}", made) == str(64 << 20)
    assert outer.exec(inner, "rm", "-f", made) == made


def test_a_container_in_a_container_on_an_overlay(sysbox: Sysbox, containers: Containers) -> None:
    outer = boot(containers, "--privileged", "-v", f"{sys.prefix}:{sys.prefix}:ro")
    done = sysbox("exec", outer.id, SYSBOX, "run", "--rm", "host", "true")
    assert done.returncode == 125
    assert "is on an overlay itself" in done.stderr
    assert "-v /var/lib/sysbox" in done.stderr
