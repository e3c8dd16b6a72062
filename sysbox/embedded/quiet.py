"""Keep the embedded systemd from starting what the machine has enabled, except for systemd's own core.

The machine's units stay usable (`systemctl start` works); only the links that would start them at boot are
masked: a dependency symlink that points to /dev/null in a directory of higher priority counts as absent
(systemd.unit(5)). All masks are written below the host's own /run before systemd is executed.
"""

from __future__ import annotations

import os
import shlex

from sysbox.base import program
from sysbox.lifecycle import system_units
from sysbox.units import ownslice, syntax
from sysbox.units.serviceplan import program_word

GENERATOR = "systemd/system-generators/sysbox-generator"  # below /run
_UPDATES = "/sysbox-auto-update."
BOOT = "sysbox-boot.service"  # `boot` starts it once the host is up
UNIT_DIRECTORIES = (
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)
GENERATOR_DIRECTORIES = (
    "/etc/systemd/system-generators",
    "/usr/local/lib/systemd/system-generators",
    "/usr/lib/systemd/system-generators",
    "/lib/systemd/system-generators",
)
TARGETS = tuple(
    f"{name}.target"
    for name in (
        "basic cryptsetup default graphical integritysetup local-fs local-fs-pre multi-user network"
        " network-online network-pre paths remote-fs slices sockets swap sysinit timers veritysetup"
    ).split()
)
KEPT = frozenset(
    (
        "basic.target dbus-broker.service dbus.service dbus.socket dev-mqueue.mount local-fs.target"
        " multi-user.target paths.target slices.target sockets.target sysinit.target swap.target"
        " systemd-journal-flush.service systemd-journald-dev-log.socket systemd-journald.service"
        " systemd-journald.socket systemd-tmpfiles-setup.service timers.target"
    ).split()
)
# masked altogether: they would act on the machine itself, or wait for its hardware
MASKED = (
    "autovt@.service",
    "console-getty.service",
    "container-getty@.service",
    "getty@.service",
    "serial-getty@.service",
    # its stop job, after that of tmp.mount, has been seen to be forgotten: the host then did not end
    "swap.target",
    "systemd-binfmt.service",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-journald-audit.socket",
    "systemd-modules-load.service",
    "systemd-networkd.service",
    "systemd-networkd.socket",
    "systemd-random-seed.service",
    "systemd-resolved.service",
    "systemd-rfkill.service",
    "systemd-rfkill.socket",
    "systemd-sysctl.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-udev-settle.service",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-vconsole-setup.service",
)
DROP_INS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    # the rest of tmpfiles.d would create files in the machine's real /home and /root, and clear /tmp
    "systemd/system/systemd-tmpfiles-setup.service.d/50-sysbox.conf": {
        "Service": (
            ("ExecStart", ""),
            (
                "ExecStart",
                "systemd-tmpfiles --create --boot --prefix=/run --prefix=/var/log",
            ),
        )
    },
    "systemd/system.conf.d/50-sysbox.conf": {
        "Manager": (
            ("LogTarget", "journal"),
            ("ShowStatus", "no"),
            ("DefaultTimeoutStopSec", "15s"),
            ("DefaultTimeoutStartSec", "60s"),
        )
    },
    "systemd/journald.conf.d/50-sysbox.conf": {
        "Journal": (
            ("Storage", "persistent"),
            ("ReadKMsg", "no"),
            ("Audit", "no"),
            ("ForwardToSyslog", "no"),
            ("ForwardToWall", "no"),
            ("SystemMaxUse", "256M"),
        )
    },
}


def write(run: str, root: str) -> None:
    """Write masks and drop-ins into `run`, the host's /run, for the units enabled below `root`, its root."""
    control = f"{run}/systemd/system.control"
    os.makedirs(control, exist_ok=True)
    for unit in MASKED:
        _mask(f"{control}/{unit}")
    for directory in UNIT_DIRECTORIES:
        for target in TARGETS:
            for kind in ("wants", "requires", "upholds"):
                for unit in _list(f"{root}{directory}/{target}.{kind}"):
                    if unit not in KEPT and not unit.startswith("sysbox"):
                        _mask(f"{control}/{target}.{kind}/{unit}")
    for directory in GENERATOR_DIRECTORIES:
        for generator in _list(f"{root}{directory}"):
            if not generator.startswith("sysbox"):
                _mask(f"{run}/systemd/system-generators/{generator}")
    texts = {path: syntax.dump(sections.items()) for path, sections in DROP_INS.items()}
    texts[f"systemd/system/{ownslice.NAME}"] = ownslice.TEXT
    texts[f"systemd/system/{BOOT}"] = _boot_unit()
    # what is installed elsewhere, and can be enabled here as there
    texts |= {path: text for path, text in system_units.texts().items() if _UPDATES in path}
    texts[GENERATOR] = f'#!/bin/sh\nexec {shlex.quote(program.launcher)} _generate "$@"\n'
    for path, text in texts.items():
        os.makedirs(f"{run}/{path.rpartition('/')[0]}", exist_ok=True)
        with open(f"{run}/{path}", "w", encoding="utf-8") as file:
            file.write(text)
    os.chmod(f"{run}/{GENERATOR}", 0o755)


def _boot_unit() -> str:
    """The text of systemd/system/sysbox-boot.service with the path of the running program."""
    launcher = program_word(program.launcher)
    service = (
        ("Type", "oneshot"),
        ("RemainAfterExit", "yes"),
        ("Slice", "sysbox.slice"),
        ("ExecStart", f"{launcher} _boot"),
        ("ExecStop", f"{launcher} _halt"),
    )
    unit = (("Description", "Clean up and start sysbox containers at boot"),)
    return syntax.dump((("Unit", unit), ("Service", service)))


def _list(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _mask(path: str) -> None:
    os.makedirs(path.rpartition("/")[0], exist_ok=True)
    try:
        os.symlink("/dev/null", path)
    except FileExistsError:
        pass
