"""Checks of the generators: who makes units of the files that declare containers."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.cli.doctor.check import Check, useful
from sysbox.lifecycle import unit_makers
from sysbox.units.quadlet import generate, sources

_AREA = "units"
_OURS = "sysbox-generator"


def generators() -> list[Check]:
    """One line for sysbox's generator, and one for podman's directories if they have files."""
    path = generate.find(_OURS)
    problem = "" if path else "no generator: files below /etc/sysbox/units become no units"
    advice = "sysbox system install-units; `sysbox unit install FILE` needs none"
    checks = [useful(_AREA, "generator", problem, path, advice)]
    if found := sources.find(sources.PODMANS):
        maker = _maker(path)
        checks.append(
            useful(
                _AREA,
                "podman's directories",
                "" if maker != "nobody" else "no generator",
                f"{maker} makes units of {len(found)} file{'s' * (len(found) != 1)}",
                advice,
            )
        )
    return checks + _twice()


def _twice() -> list[Check]:
    """A line for each unit that both generators make: systemd.generator(7) says which of them counts."""
    try:
        found = unit_makers.Makers().twice()
    except SysboxError:
        return []  # ignoring: as below
    advice = "remove one of the files, or give it a ServiceName="
    return [
        useful(_AREA, unit, f"of {ours} and of {theirs}: systemd takes the first", "", advice)
        for unit, ours, theirs in found
    ]


def _maker(ours: str) -> str:
    """Whose generator makes units of podman's files; `ours` is the path of sysbox's, or ""."""
    other = generate.podmans()
    if not other:
        return ours or "nobody"
    try:
        takes = unit_makers.takes_podmans()
    except SysboxError:
        takes = False  # ignoring: the line about sysbox.conf says what is wrong
    if not takes:
        return other
    return f"{ours}, in place of {other}," if ours else "nobody"
