"""Checks of sysbox.conf: its files, its keys, and whether their values work on this host."""

from __future__ import annotations

from sysbox.base.errors import SysboxError
from sysbox.cli.doctor.check import NO, Check, needed
from sysbox.cli.output import shortened
from sysbox.conf import files
from sysbox.conf.table import KEYS
from sysbox.conf.values import Settings
from sysbox.host import read_text
from sysbox.netns import subnets, topology
from sysbox.spec import Bridge

_AREA = "conf"


def configuration() -> tuple[list[Check], Settings | None]:
    """(a check of the files, and one of each key that is set; the settings, None if they are invalid)."""
    try:
        loaded = files.load()
    except SysboxError as error:
        advice = f"{error.hint}; see sysbox.conf(5)" if error.hint else "see sysbox.conf(5)"
        return [needed(_AREA, "sysbox.conf", shortened(error.message), advice=advice)], None
    read = ", ".join(loaded.files) or "none: each key has its default"
    checks = [needed(_AREA, "sysbox.conf", "", read)]
    problems = {"Network.Subnet": _subnet_problem(loaded)}
    for key in KEYS:
        if key.title not in loaded.texts:
            continue
        text, problem = loaded.texts[key.title], problems.get(key.title, "")
        checks.append(
            Check(area=_AREA, name=key.title, state=NO, detail=problem, advice="choose another one")
            if problem
            else needed(_AREA, key.title, "", text)
        )
    return checks, loaded.settings


def _subnet_problem(loaded: files.Loaded) -> str:
    """Why the subnet that is set cannot be used on this host; "" if it can."""
    chosen = loaded.settings
    if not chosen.subnet:
        return ""
    network = topology.network_of(Bridge(name=chosen.bridge, subnet=chosen.subnet), "")
    routes = subnets.routes(read_text("/proc/net/route"), "")
    taken = subnets.taken(network.subnet, routes, network.bridge)
    return f"{chosen.subnet} overlaps the route {taken}" if taken else ""
