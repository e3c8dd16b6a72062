"""What a container asks of the kernel that is the host's: its files, calls, clocks, modules and raw devices.

Each attack is made by the first process of a default container, in the host's user namespace, and by `exec`.

In the guest: another kernel has other files.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from lane import Sysbox
from ways import PYTHON, Attacker, attacker

from sysbox.linux import keyring

__all__ = ["attacker"]

# --- files of the kernel ---------------------------------------------------------------------------

WRITABLE = """
import os, stat
null = os.makedev(1, 3)
for top in ("/proc", "/sys"):
    for directory, names, files in os.walk(top):
        if directory == "/proc":
            names[:] = [one for one in names if not one.isdecimal() and one not in ("self", "thread-self")]
        for name in files:
            path = f"{directory}/{name}"
            try:
                found = os.lstat(path)
                if stat.S_ISLNK(found.st_mode) or found.st_rdev == null or not found.st_mode & 0o222:
                    continue
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
            except OSError:
                continue
            print(path)
"""
# pressure: a trigger is its opener's own, and slow ones need no capability (the kernel's psi.rst);
# mtrr: what is written there needs CAP_SYS_ADMIN (arch/x86/kernel/cpu/mtrr/if.c)
HARMLESS = ("/proc/pressure/", "/proc/mtrr")
# settings of the whole host
HOSTS = {"/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches"}
# of IPC, pid, user and network namespaces, and the links of the latter
OWN = tuple(
    """/proc/sys/kernel/msg /proc/sys/kernel/auto_msgmni /proc/sys/kernel/sem /proc/sys/kernel/shm
       /proc/sys/fs/mqueue/ /proc/sys/kernel/ns_last_pid /proc/sys/kernel/pid_max /proc/sys/user/
       /proc/sys/net/ /sys/devices/virtual/net/""".split()
)


@pytest.mark.guest("another kernel has other files: /proc/dynamic_debug")
@pytest.mark.also_enforcing("labels are another net, which must not hide that the first one holds")
def test_no_file_of_the_kernels_can_be_opened_for_writing(attacker: Attacker) -> None:
    """CVE-2023-25809, CVE-2023-6476 (cgroups), CVE-2022-0811, CVE-2022-0532 (settings of the host)."""
    assert [one for one in attacker.python(WRITABLE) if not one.startswith(HARMLESS)] == []


def test_the_search_for_them_finds_some(
    sysbox: Sysbox, requires: Callable[[object, str], None]
) -> None:
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    flags = (
        "--rm",
        "--network",
        "none",
        "--userns",
        "host",
        "--security-opt",
        "systempaths=unconfined",
    )
    done = sysbox("run", *flags, "host", PYTHON, "-I", "-c", WRITABLE, check=True)
    assert set(done.stdout.split()) >= HOSTS


def test_a_user_namespace_holds_where_no_path_is_masked(
    sysbox: Sysbox, requires: Callable[[object, str], None]
) -> None:
    """What is left are settings of its own namespaces."""
    requires(PYTHON.startswith("/usr/bin/"), "the distribution's Python")
    flags = ("--rm", "--network", "none", "--security-opt", "systempaths=unconfined")
    done = sysbox("run", *flags, "host", PYTHON, "-I", "-c", WRITABLE, check=True)
    found = set(done.stdout.split())
    assert found.isdisjoint(HOSTS)
    assert {one for one in found if not one.startswith((*HARMLESS, *OWN))} == set()


CGROUPS = r"""
find /sys/fs/cgroup -name release_agent | while read -r file; do
    (echo /x >$file) 2>&1 | grep -q 'Read-only' || echo $file
done
for directory in /sys/fs/cgroup /sys/fs/cgroup/*/; do
    ! mkdir ${directory%/}/attack 2>/dev/null || echo $directory
done
mkdir /tmp/c
for type in cgroup cgroup2 proc sysfs tmpfs debugfs securityfs bpf devpts overlay; do
    ! mount -t $type none /tmp/c 2>/dev/null || echo mounted $type
done
for path in /sys /proc/sys /sys/fs/cgroup /proc/keys /; do
    ! mount -o remount,rw $path 2>/dev/null || echo remounted $path
    ! umount $path 2>/dev/null || echo unmounted $path
done
echo tried
"""


@pytest.mark.parametrize("confined", [True, False], ids=["filtered", "unfiltered"])
def test_no_cgroup_and_no_mount_is_changed(attacker: Attacker, confined: bool) -> None:
    """CVE-2022-0492 and its kind: release_agent, cgroups of its own, and the mounts that cover the rest."""
    flags = () if confined else ("--security-opt", "seccomp=unconfined")
    done = attacker("sh", "-c", CGROUPS, flags=("--network", "none", *flags))
    assert done.stdout == "tried\n", done.stderr


# --- calls -----------------------------------------------------------------------------------------

CALL = """
import ctypes, struct
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    ctypes.set_errno(0)
    got = libc.syscall(number, *words)
    return got if got >= 0 else -ctypes.get_errno()
room = ctypes.create_string_buffer(4096)
handle = struct.pack("<Ii8s", 8, 1, b"\\2\\0\\0\\0\\0\\0\\0\\0")  # inode 2: the root of many file systems
"""
# name -> (number on x86_64, arguments): needs a capability that the container lacks, whatever its filter.
# The kernel checks that before the arguments, so these need not make sense.
BY_CAPABILITY = {
    "mount": (165, "b'none', b'/tmp', b'tmpfs', 0, None"),
    "umount2": (166, "b'/proc', 2"),
    "pivot_root": (155, "b'/', b'/'"),
    "swapon": (167, "b'/etc/passwd', 0"),
    "swapoff": (168, "b'/etc/passwd'"),
    "reboot": (169, "0xfee1dead, 672274793, 0, None"),
    "sethostname": (170, "b'x', 1"),
    "setdomainname": (171, "b'x', 1"),
    "iopl": (172, "3"),
    "ioperm": (173, "0x70, 2, 1"),
    "init_module": (175, "room, 4096, b''"),
    "delete_module": (176, "b'loop', 0"),
    "finit_module": (313, "0, b'', 0"),
    "kexec_load": (246, "0, 0, None, 0"),
    "kexec_file_load": (320, "0, 0, 0, None, 8"),
    "acct": (163, "b'/tmp/x'"),
    "settimeofday": (164, "room, None"),
    "clock_settime": (227, "0, room"),
    "adjtimex": (159, "ctypes.byref(ctypes.c_uint(2))"),
    "syslog": (103, "5, None, 0"),
    "open_by_handle_at": (304, "-100, handle, 0"),
    "bpf": (321, "5, room, 128"),
    "setns": (308, "own, 0"),
    "unshare": (272, "0x20000"),
}
# refused by the filter, and not all of them by a capability
BY_FILTER = {
    "unshare a user namespace": (272, "0x10000000"),
    "clone3": (435, "room, 64"),
    "add_key": (248, "b'user', b'x', b'x', 1, -3"),
    "request_key": (249, "b'user', b'x', None, -3"),
    "keyctl": (250, "0, -3, 0"),
    "perf_event_open": (298, "room, 0, -1, -1, 0"),
    "userfaultfd": (323, "0"),
    "io_uring_setup": (425, "1, room"),
    "fanotify_init": (300, "0, 0"),
    "open_tree": (428, "-100, b'/', 1"),
    "fsopen": (430, "b'proc', 0"),
    "mount_setattr": (442, "-100, b'/', 0, room, 32"),
    "pidfd_getfd": (438, "0, 0, 0"),
    "lookup_dcookie": (212, "0, room, 4096"),
    "vhangup": (153, ""),
}


def calling(calls: dict[str, tuple[int, str]]) -> str:
    """A script that prints what each call returns."""
    lines = (f"print({name!r}, call({number}, {words}))" if words else f"print({name!r}, call({number}))"
             for name, (number, words) in calls.items())  # fmt: skip
    return "\n".join([CALL, "import os", "own = os.open('/proc/self/ns/uts', 0)", *lines])


@pytest.fixture
def x86_64(requires: Callable[[object, str], None]) -> None:
    """The tables have the numbers of this architecture."""
    requires(os.uname().machine == "x86_64", "the system call numbers of x86_64")


@pytest.mark.usefixtures("x86_64")
@pytest.mark.parametrize("confined", [True, False], ids=["filtered", "unfiltered"])
def test_calls_that_need_a_capability_are_refused(attacker: Attacker, confined: bool) -> None:
    """Modules, clocks, swap, ports, kexec, the kernel's log, and file handles (the attack called Shocker)."""
    flags = () if confined else ("--security-opt", "seccomp=unconfined")
    lines = attacker.python(calling(BY_CAPABILITY), flags=("--network", "none", *flags))
    found = dict(line.rsplit(" ", 1) for line in lines)
    assert found.keys() == BY_CAPABILITY.keys()
    allowed = {str(-errno.EPERM), str(-errno.ENOSYS)}
    assert {name: code for name, code in found.items() if code not in allowed} == {}


@pytest.mark.usefixtures("x86_64")
def test_calls_that_the_filter_refuses(attacker: Attacker) -> None:
    found = dict(line.rsplit(" ", 1) for line in attacker.python(calling(BY_FILTER)))
    assert found.keys() == BY_FILTER.keys()
    allowed = {str(-errno.EPERM), str(-errno.ENOSYS)}
    assert {name: code for name, code in found.items() if code not in allowed} == {}


# --- devices ---------------------------------------------------------------------------------------

NODES = """
import os, stat
names = set(os.listdir("/dev"))
print(sorted(names & {"mem", "kmem", "port", "kmsg", "sda", "vda", "fuse", "kvm", "loop-control", "mapper"}))
def attempt(kind, major, minor):
    path = "/tmp/node"
    try:
        os.mknod(path, kind | 0o600, os.makedev(major, minor))
        try:
            os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
            print("opened", kind, major, minor)
        finally:
            os.unlink(path)
    except OSError:
        pass
for minor in (1, 2, 4, 11):
    attempt(stat.S_IFCHR, 1, minor)
for minor in range(256):
    attempt(stat.S_IFCHR, 10, minor)
for major in (4, 7, 29, 188, 226):
    attempt(stat.S_IFCHR, major, 0)
for line in open("/proc/partitions").readlines()[2:]:
    attempt(stat.S_IFBLK, *map(int, line.split()[:2]))
for major in (7, 8, 252, 253, 254, 259):
    attempt(stat.S_IFBLK, major, 0)
"""


def test_no_memory_no_log_and_no_disk_can_be_opened(attacker: Attacker) -> None:
    """GO-2022-0396, CVE-2025-47291: /dev/mem, ports, /dev/kmsg, every disk and every misc device."""
    assert attacker.python(NODES) == ["[]"]


# --- processes -------------------------------------------------------------------------------------


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host's with a number that no container has yet."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def test_no_process_of_the_hosts_is_seen_or_signalled(
    attacker: Attacker, bystander: subprocess.Popen[bytes]
) -> None:
    script = """
for number in $(seq 1 $0); do
    [ $number -eq 1 ] || [ $number -eq $$ ] || [ ! -e /proc/$number ] || grep -hs ^Name: /proc/$number/status
done
kill -9 $0
"""
    done = attacker("sh", "-c", script, str(bystander.pid))
    assert bystander.poll() is None
    assert "No such process" in done.stderr
    assert set(done.stdout.split()) <= {"Name:", "seq", "sleep", "grep"}


# --- capabilities in files -------------------------------------------------------------------------

FILE_CAPABILITIES = """
import os, shutil, struct
def written(permitted, inheritable):
    # struct vfs_cap_data of revision 2, without the effective bit (linux/capability.h)
    low, high = (1 << 32) - 1, 32
    words = (permitted & low, inheritable & low, permitted >> high, inheritable >> high)
    shutil.copy("/usr/bin/grep", "/tmp/grep")
    os.chmod("/tmp/grep", 0o755)
    os.setxattr("/tmp/grep", "security.capability", struct.pack("<5I", 0x02000000, *words))
every = (1 << 41) - 1
for permitted, inheritable in ((0, every), (every, every)):
    written(permitted, inheritable)
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        os.execv("/tmp/grep", ["grep", "-h", "-E", "Cap(Inh|Prm|Bnd)", "/proc/self/status"])
    os.waitpid(child, 0)
"""


def test_a_file_raises_nothing_beyond_the_bounding_set(attacker: Attacker) -> None:
    """CVE-2022-24769: the inheritable set is empty, so what is inheritable in a file gives nothing."""
    lines = [int(line.split()[1], 16) for line in attacker.python(FILE_CAPABILITIES)]
    inheritable, permitted, bounding = lines[:3]
    assert (inheritable, permitted) == (0, 0)
    assert bounding
    inheritable, permitted, _ = lines[3:]
    assert (inheritable, permitted) == (0, bounding)


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x86_64")
def test_a_key_of_the_callers_is_not_found(attacker: Attacker) -> None:
    """A session keyring of its own for each process that starts or enters: keyrings(7)."""
    flags = ("--network", "none", "--security-opt", "seccomp=unconfined")
    looking = (  # KEYCTL_SEARCH in the session keyring, request_key(2)
        "print(call(250, 10, -3, b'user', b'secret', 0), call(249, b'user', b'secret', None, 0))"
    )

    def called_with_a_key() -> tuple[int, list[str]]:
        keyring.join_session(None)
        key = ctypes.CDLL(None).syscall(248, b"user", b"secret", b"xyz", 3, -3)  # add_key(2)
        return key, attacker.python(CALL + looking, flags=flags)

    # in a thread, since the keyring is that of one thread
    with ThreadPoolExecutor(1) as threads:
        key, found = threads.submit(called_with_a_key).result()
    assert key > 0
    assert found == [f"{-errno.ENOKEY} {-errno.ENOKEY}"]
