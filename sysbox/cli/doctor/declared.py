"""Checks of the generators: who makes units of the files that declare containers."""

from __future__ import annotations

from sysbox.cli.doctor.check import Check, useful
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
        maker = generate.podmans() or path or "nobody"
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
