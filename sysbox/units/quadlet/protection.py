"""The keys of [Container] about seccomp, AppArmor, labels and covered paths, as words of --security-opt."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion

_LABELS = ("Type", "Level", "FileType", "Nested")


def convert(made: Conversion) -> None:
    """Add the words. Raises FormatError for a label that sysbox does not apply."""
    section = made.section
    options = []
    if "NoNewPrivileges" in section:
        on = section.is_true("NoNewPrivileges")
        options.append("no-new-privileges" if on else "no-new-privileges=false")
    if section.one("SeccompProfile"):
        options.append(f"seccomp={made.path(section.one('SeccompProfile'))}")
    options += [f"mask={one}" for one in section.words("Mask")]
    options += [f"unmask={one}" for one in section.words("Unmask")]
    if section.one("AppArmor"):
        options.append(f"apparmor={section.one('AppArmor')}")
    made.words += [f"--security-opt={one}" for one in options]
    # SecurityLabelDisable= asks for what is the case
    section.is_true("SecurityLabelDisable")
    for name in _LABELS:
        if section.one(f"SecurityLabel{name}") not in ("", "no", "false", "0"):
            raise section.wrong(f"SecurityLabel{name}", "SELinux labels are not there yet")
