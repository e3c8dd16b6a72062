"""What a container may not do, with the defaults and with the flags that change them (S7, S8).

In the guest: devices are refused by a program in the kernel on v2, and mounts are an older kernel's.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import eventually, popen
from lane import SYSBOX, Sysbox
from ways import Attacker, attacker, mode

from sysbox.base import paths
from sysbox.linux import capability
from sysbox.security import capabilities
from sysbox.security import paths as protected

__all__ = ["attacker", "mode"]

Mode = tuple[str, ...]
DEFAULT = capability.mask(capabilities.DEFAULT)
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def fields(text: str) -> dict[str, str]:
    """The lines of /proc/PID/status."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}


def status(sysbox: Sysbox, image: str, *flags: str) -> dict[str, str]:
    """/proc/self/status of a new container's first process."""
    done = sysbox("run", "--rm", "--network", "none", *flags, image, "cat", "/proc/self/status")
    assert done.returncode == 0, done.stderr
    return fields(done.stdout)


def sets(found: dict[str, str]) -> tuple[int, ...]:
    """Inheritable, permitted, effective, bounding, ambient."""
    return tuple(int(found[name], 16) for name in SETS)


@pytest.fixture
def container(sysbox: Sysbox, image: str, mode: Mode) -> Iterator[str]:
    """The name of a container that sleeps."""
    name = "security-test"
    flags = ("--name", name, "--network", "none", *mode)
    sysbox("run", "-d", *flags, image, "sleep", "1000", check=True)
    yield name
    sysbox("rm", "-f", name, check=True)


HELD = int(fields(Path("/proc/self/status").read_text())["CapBnd"], 16)
ALL = (1 << capability.last_cap() + 1) - 1  # in a user namespace of its own


# --- capabilities, seccomp, no_new_privs -----------------------------------------------------------


def test_s7_the_default_capabilities_of_run(sysbox: Sysbox, image: str, mode: Mode) -> None:
    found = status(sysbox, image, *mode)
    assert sets(found) == (0, DEFAULT, DEFAULT, DEFAULT, 0)
    assert found["Seccomp"] == "2"
    assert found["NoNewPrivs"] == "0"


def test_s7_the_default_capabilities_of_exec(sysbox: Sysbox, container: str, mode: Mode) -> None:
    found = fields(sysbox("exec", container, "cat", "/proc/self/status", check=True).stdout)
    assert sets(found) == (0, DEFAULT, DEFAULT, DEFAULT, 0)
    assert found["Seccomp"] == "2"
    asked = sysbox("exec", "--privileged", container, "cat", "/proc/self/status", check=True)
    most = HELD if mode else ALL
    assert sets(fields(asked.stdout)) == (0, most, most, most, 0)
    asked = sysbox("exec", "-u", "user", container, "cat", "/proc/self/status", check=True)
    assert sets(fields(asked.stdout)) == (0, 0, 0, DEFAULT, 0)


def test_s7_all_but_sys_admin(sysbox: Sysbox, image: str) -> None:
    for flags, most in (((), ALL), (("--userns", "host"), HELD)):
        mask = most & ~capability.mask(("SYS_ADMIN",))
        found = status(sysbox, image, "--cap-add", "all", "--cap-drop", "sys-admin", *flags)
        assert sets(found) == (0, mask, mask, mask, 0)


def test_none_at_all_and_one(sysbox: Sysbox, image: str, mode: Mode) -> None:
    assert sets(status(sysbox, image, "--cap-drop", "ALL", *mode)) == (0, 0, 0, 0, 0)
    only = capability.mask(("NET_ADMIN",))
    found = status(sysbox, image, "--cap-drop", "ALL", "--cap-add", "CAP_NET_ADMIN", *mode)
    assert sets(found) == (0, only, only, only, 0)


def test_a_user_other_than_root_holds_none(attacker: Attacker) -> None:
    done = attacker("cat", "/proc/self/status", flags=("-u", "1000", "--network", "none"))
    assert sets(fields(done.stdout)) == (0, 0, 0, DEFAULT, 0)


def test_privileged(sysbox: Sysbox, image: str) -> None:
    found = status(sysbox, image, "--privileged")
    assert sets(found) == (0, HELD, HELD, HELD, 0)
    assert found["Seccomp"] == "0"


def test_no_new_privileges(sysbox: Sysbox, image: str) -> None:
    found = status(sysbox, image, "--security-opt", "no-new-privileges", "-u", "1000")
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_seccomp_unconfined_and_a_profile_of_ones_own(
    sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    assert status(sysbox, image, "--security-opt", "seccomp=unconfined")["Seccomp"] == "0"
    profile = tmp_path / "profile.json"
    profile.write_text(
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":['
        '{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}]}'
    )
    flags = ("--rm", "--network", "none", "--security-opt", f"seccomp={profile}")
    done = sysbox("run", *flags, image, "mkdir", "/tmp/x")
    assert done.returncode == 1
    assert "not supported" in done.stderr
    profile.write_text('{"defaultActoin":"SCMP_ACT_ALLOW"}')
    done = sysbox("run", *flags, image, "true")
    assert done.returncode == 125
    assert "defaultActoin" in done.stderr
    assert "did you mean 'defaultAction'?" in done.stderr


def test_the_filter_is_in_force(attacker: Attacker) -> None:
    done = attacker("unshare", "-m", "true")
    assert done.returncode == 1
    assert "Operation not permitted" in done.stderr


@pytest.mark.parametrize("name", ["sys-admn", "", "0"])
def test_an_unknown_capability(sysbox: Sysbox, image: str, name: str) -> None:
    done = sysbox("run", "--rm", "--cap-add", name, image, "true")
    assert done.returncode == 125
    assert len(done.stderr.splitlines()) <= 2


# --- masked and read-only paths --------------------------------------------------------------------


def test_s8_read_only_paths(attacker: Attacker) -> None:
    seed = ("/sys", "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus")
    present = [path for path in seed if os.path.exists(path)]
    assert {"/sys", "/proc/sys"} <= set(present)
    done = attacker("cat", "/proc/self/mountinfo")
    options = {line.split()[4]: line.split()[5].split(",") for line in done.stdout.splitlines()}
    for path in present:
        assert "ro" in options[path], path
    script = "echo 1 > /proc/sys/kernel/shmmni; mkdir /sys/x; echo b > /proc/sysrq-trigger"
    done = attacker("sh", "-c", script)
    there = os.path.exists("/proc/sysrq-trigger")
    assert done.stderr.count("Read-only file system") == (3 if there else 2), done.stderr


@pytest.mark.guest("other kernels have other files")
@pytest.mark.also_enforcing("the container has a label")
def test_masked_paths_show_nothing(attacker: Attacker) -> None:
    """GO-2023-2412 (RAPL), GHSA-6fw5-f8r9-fgfm (interrupts, temperatures), CVE-2015-3630."""
    script = """for path; do if [ -d $path ]; then ls -A $path; else cat $path; fi; done"""
    thermal = (protected.THERMAL.format(cpu) for cpu in range(os.cpu_count() or 1))
    there = [path for path in (*protected.MASKED, *thermal) if os.path.exists(path)]
    assert there
    done = attacker("sh", "-c", script, "sh", *there)
    assert (done.stdout, done.stderr) == ("", "")


def test_unmask(sysbox: Sysbox, image: str) -> None:
    for flags in (
        ("--security-opt", "unmask=/proc/keys"),
        ("--security-opt", "systempaths=unconfined"),
        ("--privileged",),
    ):
        command = ("run", "--rm", "--network", "none", *flags, image, "cat", "/proc/keys")
        assert "keyring" in sysbox(*command, check=True).stdout
    command = ("cat", "/proc/self/mountinfo")
    done = sysbox("run", "--rm", "--network", "none", "--privileged", image, *command, check=True)
    assert not [line for line in done.stdout.splitlines() if " /proc/sys" in line]


# --- devices ---------------------------------------------------------------------------------------


def test_the_devices_of_a_container(sysbox: Sysbox, image: str) -> None:
    script = "cd /dev && stat -c '%n %F %t:%T %a' full null random tty urandom zero && ls"
    done = sysbox("run", "--rm", "--network", "none", image, "sh", "-c", script, check=True)
    lines = done.stdout.splitlines()
    assert lines[:6] == [
        f"{name} character special file {numbers} 666"
        for name, numbers in (
            ("full", "1:7"), ("null", "1:3"), ("random", "1:8"),
            ("tty", "5:0"), ("urandom", "1:9"), ("zero", "1:5"),
        )
    ]  # fmt: skip
    others = {"fd", "log", "mqueue", "ptmx", "pts", "shm", "stdin", "stdout", "stderr"}
    assert set(lines[6:]) == {"full", "null", "random", "tty", "urandom", "zero"} | others


def test_a_disk_can_be_named_but_not_read(sysbox: Sysbox, image: str) -> None:
    numbers = {
        (kind, *path.read_text().strip().split(":"))
        for kind, pattern in (("b", "block/*/dev"), ("c", "class/mem/[km]*/dev"))
        for path in Path("/sys").glob(pattern)
    }
    assert numbers
    loop = "while read kind major minor; do {}; rm /tmp/d; done"
    script = loop.format("mknod /tmp/d $kind $major $minor && dd if=/tmp/d of=/dev/null count=1")
    listed = "".join(f"{' '.join(one)}\n" for one in numbers | {("b", "254", "0")})
    start = ("run", "--rm", "-i", "--network", "none")
    done = sysbox(*start, "--userns", "host", image, "sh", "-c", script, input=listed)
    refusals = done.stderr.splitlines()
    assert len(refusals) == listed.count("\n"), done.stderr
    assert all("can't open '/tmp/d': Operation not permitted" in line for line in refusals)
    # in a user namespace of its own it cannot even be named
    done = sysbox(
        *start, image, "sh", "-c", loop.format("mknod /tmp/d $kind $major $minor"), input=listed
    )
    assert done.stderr.count("mknod: /tmp/d: Operation not permitted") == listed.count("\n")


def test_device(
    sysbox: Sysbox, image: str, requires: Callable[[object, str], None], tmp_path: Path
) -> None:
    known = dict(reversed(line.split()) for line in Path("/proc/misc").read_text().splitlines())
    minor = next((known[name] for name in ("tun", "fuse", "loop-control") if name in known), "")
    requires(minor, "a device that everybody may open")
    node, target = tmp_path / "node", "/dev/sub/node"
    os.mknod(node, 0o20640, os.makedev(10, int(minor)))
    os.chown(node, 0, 4)
    script = f"stat -c '%t:%T %a %u:%g' {target}; exec 3< {target} && echo read; exec 3> {target}"
    command = ("--rm", "--network", "none", "--device", f"{node}:{target}:r", image)
    done = sysbox("run", *command, "sh", "-c", script)
    assert done.stdout.splitlines() == [f"a:{int(minor):x} 640 0:4", "read"], done.stderr
    assert "Operation not permitted" in done.stderr
    # and without the flag the same numbers open nothing
    script = f"mknod /tmp/n c 10 {minor} && exec 3< /tmp/n"
    host = ("--rm", "--network", "none", "--userns", "host")
    done = sysbox("run", *host, image, "sh", "-c", script)
    assert "Operation not permitted" in done.stderr


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("/dev/nosuch", "No such file"),
        ("/etc/passwd", "not a character or block device"),
        ("/dev/null:/dev/x:rwx", "r, w"),
        ("/dev/null:x", "--device /dev/null:x"),
        ("/dev/null:/", "/dev/null"),
    ],
)
def test_what_is_no_device(sysbox: Sysbox, image: str, device: str, words: str) -> None:
    done = sysbox("run", "--rm", "--device", device, image, "true")
    assert done.returncode == 125
    assert words in done.stderr


def test_a_privileged_container_sees_the_hosts_devices(sysbox: Sysbox, image: str) -> None:
    done = sysbox(
        "run", "--rm", "--network", "none", "--privileged", image, "ls", "/dev", check=True
    )
    assert {"kmsg", "mem"} & set(os.listdir("/dev")) <= set(done.stdout.split())
    done = sysbox(
        "run", "--rm", "--network", "none", "--privileged", image, "head", "-c0", "/dev/kmsg"
    )
    assert done.returncode == 0 or not os.path.exists("/dev/kmsg")


# --- who it is -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user",
    [
        "4294967295", "4294967296", "18446744073709551616", "-1", "+0", "0x0", "1000abc", "0:-1",
        "0:4294967296", "nosuch",
    ],
)  # fmt: skip
def test_what_is_nobody(sysbox: Sysbox, image: str, container: str, user: str, mode: Mode) -> None:
    for command in (
        ("run", "--rm", "--network", "none", *mode, f"--user={user}", image),
        ("exec", f"-u{user}", container),
    ):
        done = sysbox(*command, "id")
        assert done.returncode == 125, done.stdout
        assert done.stdout == ""


def identity(done: subprocess.CompletedProcess[str]) -> tuple[str, ...]:
    """uid, gid and all groups, as the kernel has them."""
    found = fields(done.stdout)
    return found["Uid"].split()[0], found["Gid"].split()[0], found["Groups"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), ("0", "0", "0")),
        (("-u", "user"), ("1000", "1000", "1000 2000")),
        (("-u", "1000"), ("1000", "1000", "1000 2000")),
        (("-u", "user:extra"), ("1000", "2000", "2000")),
        (("-u", "31337"), ("31337", "0", "0")),
        (("-u", "31337:31338"), ("31337", "31338", "31338")),
    ],
)
def test_groups_are_exact(
    image: str, container: str, flags: tuple[str, ...], expected: tuple[str, ...], mode: Mode
) -> None:
    for command in (
        ("run", "--rm", "--network", "none", *mode, *flags, image),
        ("exec", *flags, container),
    ):
        done = subprocess.run(
            [SYSBOX, *command, "cat", "/proc/self/status"],
            capture_output=True, text=True, check=True, extra_groups=[0, 4242], timeout=60,
        )  # fmt: skip
        assert identity(done) == expected


def test_group_add(sysbox: Sysbox, image: str) -> None:
    flags = (
        "--rm",
        "--network",
        "none",
        "-u",
        "user:user",
        "--group-add",
        "extra",
        "--group-add",
        "7",
    )
    done = sysbox("run", *flags, image, "cat", "/proc/self/status", check=True)
    assert identity(done) == ("1000", "1000", "7 1000 2000")


def test_a_huge_user_database_is_refused(sysbox: Sysbox, container: str) -> None:
    sysbox("exec", container, "truncate", "-s", "1G", "/etc/group", check=True)
    done = sysbox("exec", "-u", "user", container, "true")
    assert done.returncode == 125
    assert "/etc/group is larger than 4 MiB" in done.stderr
    sysbox("exec", container, "truncate", "-s", "1G", "/etc/passwd", check=True)
    done = sysbox("exec", "-u", "nobody", container, "true")
    assert "/etc/passwd is larger than 4 MiB" in done.stderr
    # whom nobody has to look for gets in; what can be read in time counts
    assert sysbox("exec", container, "sh", "-c", "echo $HOME", check=True).stdout == "/root\n"
    done = sysbox("exec", "-u", "77", container, "cat", "/proc/self/status", check=True)
    assert identity(done)[:2] == ("77", "0")


# --- what must not leak in -------------------------------------------------------------------------


def test_the_environment_is_built_from_nothing(
    sysbox: Sysbox, image: str, container: str, mode: Mode
) -> None:
    """CVE-2020-14370, CVE-2021-3602: neither the caller's nor that of another container."""
    for command in (("run", "--rm", "--network", "none", *mode, image), ("exec", container)):
        done = sysbox(*command, "env", env={"SECRET": "1", "LD_PRELOAD_X": "1"}, check=True)
        assert {line.partition("=")[0] for line in done.stdout.splitlines()} == {
            "PATH",
            "HOSTNAME",
            "HOME",
        }


def test_no_descriptor_leaks(image: str, container: str, mode: Mode) -> None:
    """CVE-2024-21626: no descriptor of the caller's, not even as a working directory."""
    directory = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    others = [os.dup(directory) for _ in range(8)]
    try:
        for command in (("run", "--rm", "--network", "none", *mode, image), ("exec", container)):
            done = subprocess.run(
                [SYSBOX, *command, "ls", "/proc/self/fd"],
                capture_output=True, text=True, check=True, pass_fds=(directory, *others), timeout=60,
            )  # fmt: skip
            assert set(done.stdout.split()) <= {
                "0",
                "1",
                "2",
                "3",
            }  # 3 is the directory that ls reads
            for fd in range(3, 14):
                words = (
                    *command[:-1],
                    "-w",
                    f"/proc/self/fd/{fd}",
                    command[-1],
                    "cat",
                    "../../etc/shadow",
                )
                done = subprocess.run(
                    [SYSBOX, *words],
                    capture_output=True, text=True, check=False, pass_fds=(directory, *others), timeout=60,
                )  # fmt: skip
                assert done.returncode in (125, 126, 127), words
                assert "root:" not in done.stdout
    finally:
        for fd in (directory, *others):
            os.close(fd)


SYSCALL = """
import ctypes
def call(*words):
    libc = ctypes.CDLL(None, use_errno=True)
    got = libc.syscall(*words)
    return got if got >= 0 else -ctypes.get_errno()
"""
PYTHON = os.path.realpath(sys.executable)


@pytest.fixture
def python(requires: Callable[[object, str], None]) -> tuple[str, ...]:
    """The words that run a script in a container of the machine's own /usr."""
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    requires(os.uname().machine == "x86_64", "the system call numbers of x86_64")
    return ("host", PYTHON, "-I", "-c")


def test_the_filter_refuses_what_it_should(
    sysbox: Sysbox, python: tuple[str, ...], mode: Mode
) -> None:
    script = """
import fcntl, os, socket, threading
def refusal(act):
    try:
        act()
    except OSError as error:
        return error.errno
    return 0
for family in (1, 2, 10, 16, 38, 40):
    print(refusal(lambda: socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_STREAM)))
master, slave = os.openpty()
print(refusal(lambda: fcntl.ioctl(slave, 0x5412, b"x")), refusal(lambda: fcntl.ioctl(slave, 0x541C, b"x")))
print(refusal(lambda: fcntl.ioctl(slave, 0x5401, bytes(64))))
print(call(435, 0, 0), call(425, 1, 0), call(250, 0, -3, 0), call(0x40000000 + 39), call(600))
print(call(41, (1 << 32) + 38, 5, 0), call(16, slave, (1 << 32) + 0x5412, b"x"))
print(call(56, 0x20000011, 0), call(272, 0x20000))
thread = threading.Thread(target=print, args=("a thread",))
thread.start()
thread.join()
"""
    flags = ("--rm", "--network", "none", *mode)
    done = sysbox("run", *flags, *python, SYSCALL + script, check=True)
    assert done.stdout.split("\n") == [
        "0", "0", "0", "0", "1", "1", "1 1", "0", "-38 -1 -1 -38 -38", "-1 -1", "-1 -1", "a thread", "",
    ]  # fmt: skip


def test_each_container_has_a_session_keyring_of_its_own(
    sysbox: Sysbox, python: tuple[str, ...], mode: Mode
) -> None:
    script = SYSCALL + "print(call(250, 0, -3, 0))"  # KEYCTL_GET_KEYRING_ID of the session's
    flags = ("--rm", "--network", "none", "--security-opt", "seccomp=unconfined", *mode)
    seen = {sysbox("run", *flags, *python, script, check=True).stdout for _ in range(2)}
    own = subprocess.run([PYTHON, "-I", "-c", script], capture_output=True, text=True, check=True)
    seen.add(own.stdout)
    assert len(seen) == 3
    assert all(int(one) > 0 for one in seen)


@pytest.mark.parametrize(
    ("setting", "flags"),
    [
        ("kernel.core_pattern=|/x", ()),
        ("vm.swappiness=1", ()),
        ("kernel.shm_rmid_forced+x=1", ()),
        ("net.ipv4/../../kernel/core_pattern=x", ()),
        ("net.ipv4.ip_forward=1", ("--network", "host")),
        ("kernel.shmmni=1", ("--ipc", "host")),
    ],
)
def test_a_sysctl_of_the_hosts(
    sysbox: Sysbox, image: str, setting: str, flags: tuple[str, ...]
) -> None:
    before = Path("/proc/sys/kernel/core_pattern").read_text()
    assert sysbox("run", "--rm", *flags, "--sysctl", setting, image, "true").returncode == 125
    assert Path("/proc/sys/kernel/core_pattern").read_text() == before


def test_a_sysctl_of_its_own(sysbox: Sysbox, image: str) -> None:
    host = Path("/proc/sys/kernel/shmmni").read_text()
    flags = ("--sysctl", "kernel.shmmni=77", "--sysctl", "net.ipv4.ip_default_ttl=33")
    script = "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_default_ttl"
    done = sysbox("run", "--rm", "--network", "none", *flags, image, "sh", "-c", script, check=True)
    assert done.stdout.split() == ["77", "33"]
    assert Path("/proc/sys/kernel/shmmni").read_text() == host


def test_nobody_enters_it_before_it_has_its_root(
    sysbox: Sysbox, image: str, requires: Any, tmp_path: Path
) -> None:
    """Until pivot_root(2) its first process has the host's: what is executed or copied there waits for it."""
    requires.program("strace")
    late = ("-e", "trace=pivot_root", "-e", "inject=pivot_root:delay_enter=3000000")
    run = (SYSBOX, "run", "--rm", "--name", "late", "--network", "none", image, "sleep", "1000")
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", *late, *run)
    with subprocess.Popen(strace, stdin=subprocess.DEVNULL) as process:
        try:
            shown = ("inspect", "-f", "{{.State.Running}}", "late")
            eventually(lambda: sysbox(*shown).stdout == "true\n", "its process is there")
            inside = popen("exec", "late", "ls", "-d", str(SYSBOX), "/bin/busybox")
            copied = popen("cp", f"late:{SYSBOX}", str(tmp_path / "copy"))
            assert inside.communicate()[0] == "/bin/busybox\n"
            assert "no such file or directory" in copied.communicate()[1]
        finally:
            sysbox("rm", "-f", "late", check=True)
            process.wait(60)


def test_nobody_else_can_look_into_the_state(container: str) -> None:
    for top in (paths.STATE, paths.RUN):
        done = subprocess.run(
            ["ls", "-R", top], user=65534, group=65534, extra_groups=[],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        assert done.stdout.strip() in ("", f"{top}:")
        for directory, _, files in os.walk(top):
            if (
                directory.startswith((f"{paths.IMAGES}/layers/", f"{paths.VOLUMES}/"))
                or "/upper" in directory
            ):
                continue
            for name in files:
                path = os.path.join(directory, name)
                assert os.lstat(path).st_mode & 0o002 == 0 or os.path.islink(path), path
