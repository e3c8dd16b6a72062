"""SELinux denies, and what sysbox keeps of a container is closed to the others, whatever they mount."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Containers
from denials import denials, unexpected

from sysbox.base import paths

pytestmark = pytest.mark.enforcing(
    "a container reads what its user may read, unless a label says no"
)
ENFORCE = Path("/sys/fs/selinux/enforce")


@pytest.fixture
def enforce() -> Iterator[Path]:
    """The file that says whether SELinux denies, which it does again afterwards."""
    yield ENFORCE
    ENFORCE.write_text("1", encoding="ascii")


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
