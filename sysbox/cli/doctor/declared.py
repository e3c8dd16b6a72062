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
    found = [one for one in sources.find() if generate.is_podmans(one.path)]
    if found:
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
    return checks


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
