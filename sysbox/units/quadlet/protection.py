"""The keys of [Container] about seccomp, AppArmor, labels and covered paths, as words of --security-opt."""

from __future__ import annotations

from sysbox.spec import RECORD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion

_LABELS = ("Type", "Level", "FileType")  # the rest of the key -> its value is a part of the label


def convert(made: Conversion) -> None:
    """Add the words."""
    section = made.section
    options = []
    if "NoNewPrivileges" in section:
        on = section.is_true("NoNewPrivileges")
        options.append("no-new-privileges" if on else "no-new-privileges=false")
    if section.one("SeccompProfile"):
        options.append(f"seccomp={_profile(made, section.one('SeccompProfile'))}")
    options += [f"mask={one}" for one in section.words("Mask")]
    options += [f"unmask={one}" for one in section.words("Unmask")]
    if section.one("AppArmor"):
        options.append(f"apparmor={section.one('AppArmor')}")
    made.words += [f"--security-opt={one}" for one in options]
    for name in ("Disable", "Nested"):
        if section.is_true(f"SecurityLabel{name}"):
            made.words.append(f"--security-opt=label={name.lower()}")
    for name in _LABELS:
        if value := section.one(f"SecurityLabel{name}"):
            made.words.append(f"--security-opt=label={name.lower()}:{value}")


def _profile(made: Conversion, value: str) -> str:
    """A name as it is; a file, which has a slash or follows "record:", is relative to the declaration's."""
    before = RECORD if value.startswith(RECORD) else ""
    path = value.removeprefix(before)
    is_file = "/" in path or (before and path)
    if is_file and not path.startswith(("/", "%", "$", "./", "../")):
        path = f"./{path}"
    return before + made.path(path)
