"""A user namespace in which somebody is the host's root: capabilities there must not lead out of it.

In the guest: systemd inside is on cgroup v2, and the kernel is an older one.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from lane import Sysbox

from sysbox.linux import capability

KERNELS = Path("/proc/sys/kernel/core_pattern")

# what is written is what is there
WRITE = """
mkdir -p /m
umount /proc/sys
for each in proc sysfs; do
    mount -t $each none /m && echo mounted
    for file in /m/sys/kernel/core_pattern /m/kernel/mm/transparent_hugepage/enabled; do
        (exec 3>>$file) && echo "opened $file"
    done
    umount /m
done
(exec 3>>/proc/sys/kernel/core_pattern) && echo opened
grep CapPrm /proc/self/status
"""


@pytest.mark.guest("systemd inside, on cgroup v2")
@pytest.mark.parametrize(
    "flags",
    [
        ("--userns", "keep-id"),
        ("--userns", "keep-id:uid=1000,gid=1000"),
        ("--userns", "auto:uidmapping=0:0:1"),
        ("--userns", "auto:gidmapping=7:0:1"),
        ("--uidmap", "0:0:65536"),
    ],
    ids=" ".join,
)
def test_systemd_inside_cannot_write_to_the_hosts_sysctls(
    sysbox: Sysbox, image: str, flags: tuple[str, ...]
) -> None:
    """With all capabilities, as elsewhere, it would mount procfs and write as the host's root."""
    before = KERNELS.read_text(encoding="ascii")
    words = ("--rm", "--network", "none", "--systemd", "always", image, "sh", "-c", WRITE)
    done = sysbox("run", *flags, *words)
    assert done.returncode == 0, done.stderr
    assert "mounted" not in done.stdout
    assert "opened" not in done.stdout
    held = int(done.stdout.split()[-1], 16)
    assert not held & capability.mask(("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH"))
    assert held == int(sysbox("run", "--userns", "host", *words).stdout.split()[-1], 16)
    assert KERNELS.read_text(encoding="ascii") == before
