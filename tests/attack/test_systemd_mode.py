"""A container with systemd: with all capabilities in its user namespace it may take every cover away.

What shows then is what each user of the host may see, and nothing of the host's can be written. Each attack
is made by the first process, by `exec`, and in the host's user namespace, where it has no such capability.

In the guest: another kernel has other files, and its cgroups, which are those of v2, are delegated.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from test_kernel import BY_CAPABILITY, NODES, calling
from ways import Attacker, attacker

__all__ = ["attacker"]

FLAGS = ("--network", "none", "--systemd=always")

each_way = pytest.mark.parametrize(
    "attacker",
    [pytest.param("default", marks=pytest.mark.guest("v2 delegates")), "userns-host", "exec"],
    indirect=True,
)

# takes away what covers a part of procfs and sysfs, and mounts both anew
UNCOVER = """
import ctypes, os, stat
libc = ctypes.CDLL(None, use_errno=True)
for line in reversed(open("/proc/self/mountinfo").readlines()):
    target = line.split()[4]
    if target.startswith(("/proc/", "/sys/")) and not target.startswith("/sys/fs/cgroup"):
        libc.umount2(target.encode(), 2)
for target in ("/proc", "/sys"):
    libc.mount(b"none", target.encode(), None, 32 | 4096, None)  # MS_REMOUNT | MS_BIND
tops = ["/proc", "/sys"]
for kind in ("proc", "sysfs"):
    os.makedirs(f"/mnt/{kind}", exist_ok=True)
    if libc.mount(kind.encode(), f"/mnt/{kind}".encode(), kind.encode(), 0, None) == 0:
        tops.append(f"/mnt/{kind}")
"""
WRITABLE = """
for top in tops:
    for directory, names, files in os.walk(top):
        if directory == top:
            names[:] = [one for one in names if not one.isdecimal() and one not in ("self", "thread-self")]
        if directory == f"{top}/fs/cgroup":
            names[:], files = [], []
        for name in files:
            path = f"{directory}/{name}"
            try:
                if os.lstat(path).st_mode & 0o222 and stat.S_ISREG(os.lstat(path).st_mode):
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    print(path.replace("/mnt/proc", "/proc").replace("/mnt/sysfs", "/sys"))
            except OSError:
                pass
print("tried", len(tops))
"""
# settings of its own namespaces, by the kernel's lists of them, and what needs a capability of the host's
OWN = (
    "/proc/sys/net/", "/proc/sys/user/", "/proc/sys/fs/mqueue/", "/proc/sys/kernel/msg",
    "/proc/sys/kernel/shm", "/proc/sys/kernel/sem", "/proc/sys/kernel/hostname",
    "/proc/sys/kernel/domainname", "/proc/sys/kernel/auto_msgmni", "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/kernel/pid_max", "/proc/pressure/", "/proc/mtrr", "/sys/devices/virtual/net/",
)  # fmt: skip


@each_way
def test_without_covers_nothing_of_the_hosts_can_be_written(attacker: Attacker) -> None:
    *found, last = attacker.python(UNCOVER + WRITABLE, flags=FLAGS)
    assert last in ("tried 2", "tried 4")
    assert sorted({one for one in found if not one.startswith(OWN)}) == []


READABLE = """
def attempt(path):
    try:
        with open(path, "rb") as file:
            return file.read(64)
    except OSError:
        return b""
names = ["kcore", "kmsg", "timer_list", "sysrq-trigger"]
if open("/proc/self/uid_map").read().split()[1] != "0":
    # what is for the host's root without any capability
    names += ["kpagecount", "kpageflags", "slabinfo", "vmallocinfo", "iomem", "ioports"]
for top in tops:
    for name in names:
        content = attempt(f"{top}/{name}")
        if name.startswith("io"):
            # all addresses are shown as zero
            content = b"".join(content.split()[:1]).strip(b"0-: ")
        if content:
            print(top, name, content)
    addresses = {line.split()[0] for line in attempt(f"{top}/kallsyms").splitlines()[:-1]}
    if any(one.strip(b"0") for one in addresses):
        print("kallsyms", addresses)
for top in tops:
    for directory, _, files in os.walk(f"{top}/devices/virtual/powercap"):
        print(*(name for name in files if name == "energy_uj" and attempt(f"{directory}/{name}")), end="")
print("tried")
"""


@each_way
def test_without_covers_no_memory_and_no_address_can_be_read(attacker: Attacker) -> None:
    """What a mask hides, and every user of the host may read: interrupts, temperatures, keys that are its."""
    assert attacker.python(UNCOVER + READABLE, flags=FLAGS) == ["tried"]


MOUNTS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs("/mnt/x", exist_ok=True)
for kind in ("debugfs", "tracefs", "securityfs", "configfs", "pstore", "efivarfs", "selinuxfs", "devtmpfs",
             "hugetlbfs", "ext4", "xfs", "vfat", "nfs", "9p", "virtiofs", "nsfs"):
    for source in (b"none", b"/dev/vda", b"/dev/sda", b"/dev/loop0"):
        if libc.mount(source, b"/mnt/x", kind.encode(), 0, None) == 0:
            print("mounted", kind)
            libc.umount2(b"/mnt/x", 2)
for directory, _, files in os.walk("/sys/fs/cgroup"):
    for name in files:
        if name in ("release_agent", "devices.allow", "memory.limit_in_bytes", "memory.max", "pids.max"):
            below = directory.count("/") > 4  # a cgroup of its own, within those above it
            try:
                with open(f"{directory}/{name}", "r+") as file:
                    file.write(file.read() or "x")  # that it can be opened says nothing on v2
                if name == "release_agent" or not below:
                    print("opened", directory, name)
            except OSError:
                pass
print("tried")
"""


@each_way
def test_no_file_system_of_the_hosts_and_no_limit(attacker: Attacker) -> None:
    """CVE-2022-0492: release_agent; and the limits of its own scope."""
    assert attacker.python(MOUNTS, flags=FLAGS) == ["tried"]


@each_way
def test_no_device(attacker: Attacker) -> None:
    assert attacker.python(NODES, flags=FLAGS) == ["[]"]


# what it may do to itself
ITS_OWN = {"mount", "umount2", "pivot_root", "sethostname", "setdomainname", "setns", "unshare", "reboot",
           "open_by_handle_at"}  # fmt: skip
CALLS = {name: words for name, words in BY_CAPABILITY.items() if name not in ITS_OWN}


@each_way
def test_calls_that_are_the_hosts(
    attacker: Attacker, requires: Callable[[object, str], None]
) -> None:
    """Modules, clocks, swap, ports, kexec, the kernel's log: its capabilities do not count there."""
    requires(os.uname().machine == "x86_64", "the system call numbers of x86_64")
    lines = attacker.python(calling(CALLS), flags=FLAGS)
    found = dict(line.rsplit(" ", 1) for line in lines)
    assert found.keys() == CALLS.keys()
    allowed = {str(-errno.EPERM), str(-errno.ENOSYS)}
    assert {name: code for name, code in found.items() if code not in allowed} == {}
