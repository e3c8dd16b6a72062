"""Who makes units of the files in podman's directories: podman's generator or sysbox's.

Both write into one directory of systemd's, and must not write one unit. So sysbox leaves the files to
podman's generator where that is installed. With PodmanFiles=sysbox in sysbox.conf its units are in the
directory that systemd reads first, and those of podman's generator do not count.
"""

from __future__ import annotations

from sysbox.units.quadlet import generate


def takes_podmans() -> bool:
    """Whether sysbox's units come before those of podman's generator, which is installed.

    Raises FormatError, SpecError, KernelError where sysbox.conf is invalid.
    """
    if not generate.podmans():
        return False
    from sysbox.conf.settings import (
        settings,  # the generator runs at each boot, mostly without podman's
    )

    return settings().podman_files == "sysbox"


def note_of(path: str) -> str:
    """What to say of a declaration that podman's generator reads too; "" for any other.

    Raises as `takes_podmans`.
    """
    other = generate.podmans() if generate.is_podmans(path) else ""
    if not other:
        return ""
    if takes_podmans():
        return (
            f"sysbox makes a unit of it, in place of that of {other} (PodmanFiles= of sysbox.conf)"
        )
    return f"{other} makes a unit of it, and sysbox does not (PodmanFiles= of sysbox.conf)"
