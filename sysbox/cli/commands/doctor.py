"""`sysbox doctor`: what this host supports, what it does not, why, and what to do about it."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.base.visible import GREEN, RED, YELLOW
from sysbox.cli.doctor import conf, host, limits, networks, userns
from sysbox.cli.doctor.check import IDLE, MISSING, NO, YES, Check
from sysbox.cli.doctor.scope import SampleScope
from sysbox.cli.output import print_fitted
from sysbox.host import booted, probe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_COLUMNS = (
    ("AREA", "Area"),
    ("WHAT", "Name"),
    ("HERE", "State"),
    ("WHERE, OR WHY NOT", "Detail"),
    ("WHAT TO DO", "Advice"),
)
_COLOURS = {YES: GREEN, NO: YELLOW, IDLE: YELLOW, MISSING: RED}


def main(values: Values) -> int:
    """0 when containers can run here, 1 when something that every container needs is missing.

    Checks the host on which containers would run: this machine's systemd, or the embedded host. If neither
    is available, checks the machine itself and reports the reason.
    """
    from sysbox.cli.invoke import guarded
    from sysbox.embedded import enter

    try:
        return enter.run_on_host(lambda: guarded(lambda: _examine(values, "")))
    except SysboxError as error:
        if booted():
            raise
        return _examine(values, error.message)


def _examine(values: Values, reason: str) -> int:
    checks = collect(reason)
    rows = [
        {
            "Area": one.area,
            "Name": one.name,
            "State": one.state,
            "Detail": one.detail,
            "Advice": one.advice if one.state != "yes" else "",
        }
        for one in checks
    ]
    print_fitted(
        rows,
        _COLUMNS,
        headers={key: header for header, key in _COLUMNS},
        format=values.format,
        lead=3,
        titles=False,
        colour=lambda row, key: _COLOURS.get(row[key], "") if key == "State" else "",
    )
    return int(any(one.state == MISSING for one in checks))


def collect(reason: str = "") -> list[Check]:
    """Every check, the essential ones first; `reason` is why there is no systemd, "" if there is one."""
    from sysbox.cli.doctor import declared
    from sysbox.docker.info import systemd

    facts = probe()
    configured, settings = conf.configuration()
    with SampleScope(facts) as scope:
        sample = scope.sample
        return [
            *host.essentials(facts, sample, ", ".join(filter(None, systemd().values())), reason),
            *configured,
            *limits.controllers(facts),
            *limits.features(facts, sample),
            *limits.limits(facts, sample),
            *host.security(facts),
            *userns.user_namespaces(),
            *host.network(),
            *(host.packet_filter(settings) if settings else ()),
            *(host.bridge(settings) if settings else ()),
            *networks.defined(),
            *declared.generators(),
            *host.programs(),
        ]
