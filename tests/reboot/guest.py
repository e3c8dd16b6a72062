"""A guest that a test tells what to do, and reboots."""

from __future__ import annotations

import tempfile

from image import INSTALL
from machine import Machine

SILENCE = 300.0  # seconds without output after which a script counts as stuck
# the journal is on the disk, so that it tells of the last boot
PREPARE = """
set -e
sed -i s/volatile/persistent/ /etc/systemd/journald.conf.d/vm.conf
systemctl restart systemd-journald
journalctl --flush
PREFIX=/opt/sysbox tools/install-system.sh links
sync
"""


class Guest:
    """A machine with sysbox installed; what its disks have outlives a boot."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self(INSTALL + PREPARE)

    def __call__(self, script: str, *, check: bool = True) -> str:
        """What a shell script writes; `check` fails the test, with that, for a status but 0."""
        with tempfile.TemporaryFile() as output:
            self._machine.request(script, {})
            try:
                status = self._machine.follow(SILENCE, output.fileno(), output.fileno())
            except TimeoutError:
                status = None
            output.seek(0)
            said = output.read().decode(errors="replace").strip()
        assert status is not None, f"{script}\nis stuck after {SILENCE:g} s of silence:\n{said}"
        assert status == 0 or not check, f"{script}\nstatus {status}:\n{said}"
        return said

    def reboot(self) -> None:
        """Shut down and boot again, until all that starts at boot has been started."""
        self._machine.reboot()
        self._await_boot()

    def cut_power(self) -> None:
        """As `reboot`, but without a shutdown."""
        self._machine.cut_power()
        self._await_boot()

    def _await_boot(self) -> None:
        # it is "degraded" where a unit has failed
        self("systemctl is-system-running --wait", check=False)
