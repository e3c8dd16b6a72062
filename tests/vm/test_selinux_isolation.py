"""SELinux denies, and what sysbox keeps of a container is closed to the others, whatever they mount."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers
from denials import denials, unexpected

from sysbox.base import paths
from sysbox.linux import lsm

pytestmark = pytest.mark.enforcing(
    "a container reads what its user may read, unless a label says no"
)
ENFORCE = Path("/sys/fs/selinux/enforce")


@pytest.fixture
def enforce() -> Iterator[Path]:
    """The file that says whether SELinux denies, which it does again afterwards."""
    yield ENFORCE
    ENFORCE.write_text("1", encoding="ascii")


# what a container may read: the machine's files, sysbox's command and settings, layers, the kernel's
READ = (
    "etc_t", "usr_t", "lib_t", "bin_t", "locale_t", "cert_t", "systemd_unit_t", "proc_t", "sysfs_t",
    "sysctl_kernel_t", "container_runtime_exec_t", "container_config_t", "container_ro_file_t",
)  # fmt: skip


def test_what_is_read_is_not_written(containers: Containers) -> None:
    """With the host's ids and the host's files; by the policy's answer, and by trying."""
    for kind in READ:
        label = f"system_u:object_r:{kind}:s0"
        for permission, is_allowed in (("open", True), ("write", False), ("append", False)):
            found = lsm.allows("system_u:system_r:container_t:s0:c1,c2", label, "file", permission)
            assert found == is_allowed, (kind, permission)
    one = containers("--userns", "host", "-v", "/etc:/host", "-v", f"{paths.IMAGES}/layers:/layers")
    files = one.sh("ls /host/passwd /layers/*/etc/passwd").split()
    assert len(files) > 1
    for file in files:
        assert (
            one.sh(f"cat {file} >/dev/null; (: >>{file}) 2>/dev/null && echo written || true") == ""
        )
    unexpected()  # nor is any of it at the end of the test


def test_the_store_is_closed(containers: Containers, enforce: Path) -> None:
    """With the host's ids and every right over modes: by the type, and by the level of what that has made.

    Permissive, it reads all of them.
    """
    first = containers()
    first.sh("echo mine >/kept")
    directory = f"{paths.CONTAINERS}/{first.id}"
    flags = ("--userns", "host", "--cap-add", "DAC_READ_SEARCH", "-v", f"{paths.STATE}:/state:ro")
    second = containers(*flags, "-v", f"{directory}/upper/kept:/kept:ro")
    wanted = ["/kept", "/state/events.key"]
    wanted += [f"/state/containers/{first.id}/{name}" for name in ("record.json", "upper/kept")]
    read = [f"cat {path} >/dev/null 2>&1 && echo {path}" for path in wanted]
    script = "; ".join([*read, "true"])
    assert second.sh(script) == ""
    label = second.inspect("ProcessLabel")
    lines = [line for line in denials().values() if f"scontext={label} " in line]
    assert all("permissive=0" in line for line in lines)
    assert {"container_var_lib_t", "container_file_t"} == {
        line.partition("tcontext=")[2].split(":")[2] for line in lines
    }
    enforce.write_text("0", encoding="ascii")
    assert second.sh(script).splitlines() == wanted
    unexpected()  # nor is any of it at the end of the test
