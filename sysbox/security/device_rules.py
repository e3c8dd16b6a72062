"""`--device-cgroup-rule`: translate docker's rules to DeviceAllow=, so that a daemon-reload keeps them."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.host import read_text

_FLAG = "--device-cgroup-rule"
_KIND = {"c": "char", "b": "block"}
_SECTIONS = {"Character devices:": "char", "Block devices:": "block"}


def rules(texts: tuple[str, ...], drivers: str | None = None) -> tuple[tuple[str, str], ...]:
    """(path below /dev or group, access) for DeviceAllow=, from rules normalised by `parse_device_rule`.

    `drivers` is the text of /proc/devices, by default the host's; a group must be in it. Raises SpecError.
    """
    found: list[tuple[str, str]] = []
    for text in texts:
        words = text.split()
        access = words[-1]
        if len(words) == 2:
            found.append((_group(words[0], text, drivers), access))
            continue
        kind, (major, _, minor) = words[0], words[1].partition(":")
        for name in ("char", "block") if kind == "a" else (_KIND[kind],):
            if minor != "*" and major == "*":
                raise SpecError(
                    f"{_FLAG} '{text}': systemd cannot allow one minor of every major",
                    hint="name the major, or allow all minors: *:*",
                )
            # systemd takes the numbers from these names; neither the file nor the driver need exist
            what = f"{name}-{major}" if minor == "*" else f"/dev/{name}/{int(major)}:{int(minor)}"
            found.append((what, access))
    return tuple(found)


def _group(name: str, text: str, drivers: str | None) -> str:
    kind, _, group = name.partition("-")
    known = _groups(read_text("/proc/devices") if drivers is None else drivers)[kind]
    if group not in known and group != "*":
        raise SpecError(
            f"{_FLAG} '{text}': no driver has this name now",
            hint=f"/proc/devices has {', '.join(known)}; or give the major: '{kind[0]} MAJOR:* rwm'",
        )
    return name


def _groups(drivers: str) -> dict[str, list[str]]:
    """Kind -> the names in /proc/devices."""
    found: dict[str, list[str]] = {"char": [], "block": []}
    names: list[str] = []
    for line in drivers.splitlines():
        names = found.get(_SECTIONS.get(line.strip(), ""), names)
        major, _, name = line.strip().partition(" ")
        if major.isdigit() and name not in names:
            names.append(name)
    return found
