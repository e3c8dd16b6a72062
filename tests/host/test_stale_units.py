"""The service of a restart policy that cannot start as it is: an outdated unit, a record that is damaged.

systemd would start it again until the start limit, for nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually, systemctl
from lane import Sysbox

from sysbox.base import paths
from sysbox.units import serviceplan

HOLDER = "holds-a-service"


@pytest.fixture
def one(containers: Containers) -> Iterator[Container]:
    """A container with a policy, whose service another unit names, so that systemd keeps it loaded."""
    made = containers("--restart", "always", "--stop-timeout", "1")
    order = f"--property=After={service(made)}"
    subprocess.run(
        ["systemd-run", "-q", "--collect", f"--unit={HOLDER}", order, "sleep", "1000"], check=True
    )
    yield made
    systemctl("stop", HOLDER)


def service(of: Container) -> str:
    return f"sysbox-{of.id}.service"


def test_an_outdated_unit_is_not_started(one: Container) -> None:
    """As an older version at another place has left it: systemd reads the new file before the start."""
    one("stop")
    ours = Path(serviceplan.DIRECTORY) / service(one)
    old = Path(serviceplan.ADMINISTRATORS) / service(one)
    lines = ours.read_text(encoding="utf-8").splitlines()
    changed = ["ExecStart=/bin/false" if x.startswith("ExecStart=") else x for x in lines]
    ours.unlink()
    old.write_text("\n".join([*changed, ""]), encoding="utf-8")
    systemctl("daemon-reload")
    one("start")
    assert one.inspect("State.Running") is True
    assert not old.exists()
    assert systemctl("show", "-P", "NeedDaemonReload", service(one)) == "no"


def test_a_damaged_record_is_not_tried_all_the_time(one: Container, sysbox: Sysbox) -> None:
    pid = one.pid
    (Path(paths.CONTAINERS) / one.id / "record.json").write_text("{", encoding="ascii")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: tries(one) >= 1, "systemd has started it again")
    time.sleep(5)  # enough for several, if nothing held it up
    assert tries(one) <= 2
    began = time.monotonic()
    sysbox("rm", "-f", one.id, check=True)
    assert time.monotonic() - began < 8  # it does not wait for the next try
    assert systemctl("show", "-P", "ActiveState", service(one)) == "inactive"


def tries(of: Container) -> int:
    return int(systemctl("show", "-P", "NRestarts", service(of)))
