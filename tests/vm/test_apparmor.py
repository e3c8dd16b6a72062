"""AppArmor: the profile of a container is in force, denies what it says, and is loaded when it is needed.

What it denies is tried with everything else taken away, and as a control without it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually
from lane import SYSBOX, Sysbox
from test_inside import boot
from test_nested import INNER, PLACE, STORE

from sysbox.cli.doctor.host import security
from sysbox.docker.info import _security
from sysbox.host import probe

pytestmark = pytest.mark.apparmor("only there a profile is in force")

IN_FORCE = "sysbox-default (enforce)"
# what `doctor` says
EXAMINE = """
from sysbox.cli.doctor.host import security
from sysbox.docker.info import _security
from sysbox.host import probe
print(*(one.detail for one in security(probe()) if one.name == "AppArmor"))
print(*_security(probe(), ""))
"""
CURRENT = ("cat", "/proc/self/attr/current")
NAMED = "test-named"
NAMED_TEXT = f"""
profile {NAMED} flags=(attach_disconnected, mediate_deleted) {{
  file, network, capability, signal,
  ptrace peer={NAMED},
  deny /etc/passwd r,
}}
"""
# nothing but the profile in the way: capabilities and masks are the host's, so is the user
BARE = (
    "--userns", "host", "--pid", "host", "--cap-add", "ALL", "--security-opt", "seccomp=unconfined",
    "--security-opt", "unmask=ALL",
)  # fmt: skip
# each writes "NAME yes" or "NAME no"; opening for writing is enough, and changes nothing
ATTEMPTS = """
try() { name=$1; shift; if "$@" 2>/dev/null >&2; then echo $name yes; else echo $name no; fi; }
opens() { sh -c ': >>"$1"' sh "$1"; }
for file in /proc/sysrq-trigger /proc/sys/vm/swappiness /proc/sys/kernel/core_pattern \
    /proc/sys/kernel/modprobe /sys/kernel/mm/transparent_hugepage/enabled /sys/module/printk/parameters/time \
    /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax /proc/self/oom_score_adj; do
    try $file opens $file
done
try mount mount -t tmpfs none /tmp
try umount umount /dev/shm
try signal kill -CONT $1
try ptrace ls /proc/$1/root/
try memory head -c 1 /proc/kcore
"""
NEVER = {"/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/shmmax", "/proc/self/oom_score_adj"}


# a /proc that is mounted nowhere, so that its files have no path that a rule is about
DETACHED = """
import ctypes, os
call = ctypes.CDLL(None).syscall
context = call(430, b"proc", 0)
call(431, context, 6, None, None, 0)
proc = call(432, context, 0, 0)
assert proc >= 0
os.open("sysrq-trigger", os.O_WRONLY, dir_fd=proc)
"""
# what was refused where the kernel was asked about sockets, and what only a rule refuses
SOCKETS = """
import fcntl, socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for lock in (fcntl.flock, fcntl.lockf):
        lock(socket.socketpair(socket.AF_UNIX, kind)[0], fcntl.LOCK_EX)
print("locked", end=" ")
socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print("udp")
"""
LOCAL = Path("/etc/apparmor.d/local/sysbox-default")
CALLER = "test-caller"
CALLER_TEXT = f"""
profile {CALLER} flags=(attach_disconnected) {{
  file, network, capability, signal, ptrace, unix, mount, remount, umount, pivot_root,
}}
"""


def tool(text: str, *flags: str) -> None:
    """Give a profile to apparmor_parser."""
    subprocess.run(["apparmor_parser", *flags], input=text, text=True, check=True)


def forget(name: str) -> None:
    """Take a profile out of the kernel."""
    Path("/sys/kernel/security/apparmor/.remove").write_text(name, encoding="ascii")


def loaded() -> set[str]:
    """The names of the profiles in the kernel."""
    text = Path("/sys/kernel/security/apparmor/profiles").read_text(encoding="utf-8")
    return {line.rpartition(" (")[0] for line in text.splitlines()}


@pytest.fixture(scope="module")
def named() -> Iterator[str]:
    """A profile of the administrator's."""
    tool(NAMED_TEXT, "--replace")
    yield NAMED
    tool(NAMED_TEXT, "--remove")


def test_it_is_in_force(sysbox: Sysbox, containers: Containers) -> None:
    """For the first process, `exec`, health checks and set-user-ID programs; loaded by the first start."""
    if "sysbox-default" in loaded():
        forget("sysbox-default")
    one = containers("--health-cmd", "cat /proc/self/attr/current", "--health-interval", "1s")
    assert "sysbox-default" in loaded()
    assert label_of(one.pid) == one.exec(*CURRENT) == IN_FORCE
    assert one.inspect("AppArmorProfile") == "sysbox-default"
    set_user_id(one)
    eventually(lambda: one.inspect("State.Health.Log"), "a check was made")
    assert one.inspect("State.Health.Log")[0]["Output"].strip() == IN_FORCE
    assert one.exec(*CURRENT, flags=("--privileged",)) == "unconfined"
    dry = sysbox("run", "--dry-run", "host", "true", check=True).stdout
    assert ", AppArmor sysbox-default\n" in dry
    assert said_by_doctor() == "sysbox-default is loaded"
    assert _security(probe(), "")[0] == "name=apparmor"


def said_by_doctor() -> str:
    (detail,) = (one.detail for one in security(probe()) if one.name == "AppArmor")
    return detail


def label_of(pid: int) -> str:
    """The profile of a process, and its mode, as the host sees it."""
    return Path(f"/proc/{pid}/attr/apparmor/current").read_text(encoding="ascii").strip()


def set_user_id(one: Container) -> None:
    """A set-user-ID program of root's, executed by another user, has the profile too."""
    one.sh("cp /bin/busybox /tmp/cat; chmod 4755 /tmp/cat")
    assert one.exec("/tmp/cat", *CURRENT[1:], flags=("-u", "1000")) == IN_FORCE


def test_with_no_new_privileges(containers: Containers) -> None:
    """Which the process has when it takes the profile."""
    one = containers("--security-opt", "no-new-privileges")
    assert one.exec("grep", "NoNewPrivs", "/proc/1/status").split()[1] == "1"
    assert label_of(one.pid) == IN_FORCE
    set_user_id(one)


def test_what_it_denies(sysbox: Sysbox, image: str) -> None:
    """Each attempt succeeds without it, and fails with it; but for those that are a container's own."""
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        try:
            found = {
                profile: outcomes(sysbox, image, stranger.pid, *flags)
                for profile, flags in (
                    ("own", ()), ("none", ("--security-opt", "apparmor=unconfined")),
                )
            }  # fmt: skip
        finally:
            stranger.kill()
    assert set(found["none"].values()) == {"yes"}, found["none"]
    assert {name for name, outcome in found["own"].items() if outcome == "yes"} == NEVER
    assert {"mount", "umount", "signal", "ptrace", "memory", "/proc/sysrq-trigger"} <= set(
        found["own"]
    )


def outcomes(sysbox: Sysbox, image: str, pid: int, *flags: str) -> dict[str, str]:
    done = sysbox(
        "run", "--rm", *BARE, *flags, image, "sh", "-c", ATTEMPTS, "sh", str(pid), check=True
    )
    return dict(line.split() for line in done.stdout.splitlines())


def test_a_mount_without_a_path(sysbox: Sysbox) -> None:
    """Its files are those of /proc, and no rule about /proc is about them: the filter refuses to make it."""
    asked = ("run", "--rm", "--userns", "host", "--cap-add", "SYS_ADMIN")
    words = ("host", "python3", "-c", DETACHED)
    assert sysbox(*asked, "--security-opt", "apparmor=unconfined", *words).returncode == 0
    assert "AssertionError" in sysbox(*asked, *words).stderr


def test_a_caller_with_a_profile_of_its_own(image: str) -> None:
    """Which lets it take no other: the error says so, and `unconfined` is the caller's."""
    tool(CALLER_TEXT, "--replace")
    words = ["aa-exec", "-p", CALLER, "--", SYSBOX, "run", "--rm"]
    try:
        for flags in ((), ("--security-opt", "apparmor=unconfined")):
            done = subprocess.run(
                [*words, *flags, image, *CURRENT], capture_output=True, text=True, check=False
            )
            if flags:
                assert done.stdout.strip() == f"{CALLER} (enforce)"
            else:
                first, hint = done.stderr.splitlines()
                assert "take the AppArmor profile sysbox-default: Permission denied" in first
                assert "which must allow it by change_profile" in hint
    finally:
        forget(CALLER)


def test_systemd_inside(containers: Containers) -> None:
    """It mounts, and its services do; what is in it has its profile, containers too."""
    outer = boot(containers, *PLACE, *STORE)
    assert outer.inspect("AppArmorProfile") == "sysbox-systemd"
    assert outer.exec(*CURRENT) == "sysbox-systemd (enforce)"
    outer.sh("mkdir -p /tmp/a; mount -t tmpfs none /tmp/a; umount /tmp/a")
    outer.sh("systemd-run --wait -p PrivateTmp=yes -p ProtectSystem=strict true")
    # for each of these systemd locks a socket
    private = "-p PrivateNetwork=yes -p PrivateUsers=yes -p PrivateIPC=yes"
    outer.sh(f"systemd-run --wait -p DynamicUser=yes {private} true")
    assert outer.sh(f"python3 -c '{SOCKETS}'") == "locked udp"
    assert outer.exec(INNER, "run", "--rm", "host", *CURRENT) == "sysbox-systemd (enforce)"


def test_sockets(sysbox: Sysbox) -> None:
    """They can be locked; a rule of the administrator's about them holds, and then the kernel is asked."""
    words = ("run", "--rm", "host", "python3", "-c", SOCKETS)
    LOCAL.parent.mkdir(exist_ok=True)
    try:
        for rule, said in (
            ("deny /srv/** w,", "locked udp"),
            ("deny network inet dgram,", "PermissionError"),
        ):
            LOCAL.write_text(f"{rule}\n", encoding="ascii")
            if "sysbox-default" in loaded():
                forget("sysbox-default")
            done = sysbox(*words)
            assert said in done.stdout + done.stderr
        plain = "import socket; socket.socket(socket.AF_INET, socket.SOCK_{})"
        for kind, allowed in (("STREAM", True), ("DGRAM", False)):
            done = sysbox("run", "--rm", "host", "python3", "-c", plain.format(kind))
            assert (done.returncode == 0) is allowed, done.stderr
    finally:
        LOCAL.unlink()
        forget("sysbox-default")


def test_privileged(sysbox: Sysbox, image: str, named: str) -> None:
    """docker's rule: no profile, but one that is named."""
    for flags, label in (
        ((), "unconfined"),
        (("--security-opt", f"apparmor={named}"), f"{named} (enforce)"),
    ):
        done = sysbox("run", "--rm", "--privileged", *flags, image, *CURRENT, check=True)
        assert done.stdout.strip() == label


def test_a_named_profile(containers: Containers, named: str) -> None:
    one = containers("--security-opt", f"apparmor={named}")
    assert one.inspect("AppArmorProfile") == named
    assert one.inspect("HostConfig.SecurityOpt") == [f"apparmor={named}"]
    assert one.exec(*CURRENT) == f"{named} (enforce)"
    assert (
        one.sh("cat /etc/passwd 2>&1 || true") == "cat: can't open '/etc/passwd': Permission denied"
    )


def test_an_unknown_profile(sysbox: Sysbox, image: str, named: str) -> None:
    """One line before anything is made, and the next step."""
    for name, hint in (
        ("test-name", f"did you mean '{named}'?"),
        ("other", "`apparmor_parser -r FILE`"),
    ):
        for verb in ("run", "create"):
            done = sysbox(
                verb, "--name", "never", "--security-opt", f"apparmor={name}", image, "true"
            )
            assert done.returncode == 125 if verb == "run" else done.returncode != 0
            first, second = done.stderr.splitlines()
            assert first.endswith(f"--security-opt apparmor={name}: the kernel has no such profile")
            assert hint in second
    assert sysbox("ps", "-aq", "--filter", "name=never", check=True).stdout == ""


def test_a_profile_that_has_gone(sysbox: Sysbox, containers: Containers) -> None:
    """It is missed by `exec` and by `start`."""
    tool(NAMED_TEXT.replace(NAMED, "test-gone"), "--replace")
    one = containers("--security-opt", "apparmor=test-gone")
    forget("test-gone")
    assert one.inspect("AppArmorProfile") == "unconfined"
    assert said_by_doctor() == f"running without their profile: {one.inspect('Name').strip('/')}"
    done = sysbox("exec", one.id, "true")
    assert done.returncode != 0
    assert "take the AppArmor profile test-gone: No such file or directory" in done.stderr
    one("kill")
    done = sysbox("start", one.id)
    assert done.returncode != 0
    assert "--security-opt apparmor=test-gone: the kernel has no such profile" in done.stderr
    assert one.inspect("State.Status") == "exited"


def test_a_profile_that_only_logs() -> None:
    """`doctor` tells it from one that denies."""
    tool("profile sysbox-default flags=(complain) { file, }", "--replace")
    try:
        assert said_by_doctor() == "sysbox-default is in mode complain: it denies nothing"
    finally:
        forget("sysbox-default")


def test_without_the_parser(image: str) -> None:
    """As with podman: without a profile, which `doctor` says; one that was asked for is missed."""
    if "sysbox-default" in loaded():
        forget("sysbox-default")
    run = f"{SYSBOX} run --rm {{}} {image} {' '.join(CURRENT)}"
    script = f"""
        mount --bind /dev/null /usr/sbin/apparmor_parser
        {run.format("")}
        {run.format("--security-opt apparmor=sysbox-default")} 2>&1 || echo $?
        {sys.executable} -c '{EXAMINE}'
    """
    words = ["unshare", "-m", "sh", "-ec", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    label, refusal, hint, status, doctor, info = done.stdout.splitlines()
    assert (label, status) == ("unconfined", "125")
    assert refusal.endswith("apparmor=sysbox-default: apparmor_parser is not installed")
    assert "apt-get install apparmor" in hint
    assert doctor == "apparmor_parser is not installed: containers run without a profile"
    assert info.startswith("name=seccomp")
