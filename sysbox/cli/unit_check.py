"""Check a declaration, and say what in it is odd."""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError
from sysbox.base.suggest import did_you_mean
from sysbox.cli import unit_words
from sysbox.cli.output import emit
from sysbox.lifecycle import unit
from sysbox.units.quadlet.values import is_resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sysbox.units.quadlet.units import Service


def checked(service: Service) -> Service:
    """The service. Raises FormatError for one that is wrong, or whose words `run` does not accept."""
    unit.checked(service)
    if service.verb:
        unit_words.check(service)
    if service.verb in ("run", "pod create"):
        _note_limits(service)
        _note_hindered(service)
    _note_private(service)
    return service


# settings of systemd.exec(5) that keep a service from making a container: mounts, namespaces, devices, files
_HINDERING = frozenset(
    """CapabilityBoundingSet DevicePolicy LockPersonality MemoryDenyWriteExecute NoNewPrivileges
    PrivateDevices PrivateMounts PrivateNetwork PrivateUsers ProtectControlGroups ProtectKernelModules
    ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyPaths RestrictAddressFamilies
    RestrictNamespaces RestrictSUIDSGID RootDirectory RootImage SystemCallFilter""".split()
)


_MEMORY = 32 << 20  # bytes: what a start takes at most
# Restart= of systemd.service(5): systemd only logs another word, and restarts nothing
_RESTARTS = (
    "",
    "no",
    "on-success",
    "on-failure",
    "on-abnormal",
    "on-watchdog",
    "on-abort",
    "always",
)


def _note_private(service: Service) -> None:
    """Say that a file which others cannot read becomes a unit that they can (systemd.exec(5))."""
    try:
        mode = posix.stat(service.source.path).st_mode
    except OSError:
        return
    if not mode & 0o004:
        what = "all users can read the unit: Secret= and EnvironmentFile= keep values"
        emit(f"sysbox: {service.source.path}: {what}\n", 2)


def _note_hindered(service: Service) -> None:
    """Say which settings are of the command that makes the container, and may keep it from that."""
    for key, value in service.service_keys:
        if key == "Restart" and value not in _RESTARTS:
            hint = did_you_mean(value, _RESTARTS) or "always is what starts it again after any end"
            where = f"{service.source.path}: Restart={value}"
            emit(f"sysbox: {where} is not one of systemd's, which ignores it: {hint}\n", 2)
        if key == "WatchdogSec" and value not in ("", "0", "infinity") and not _feeds(service):
            where = f"{service.source.path}: WatchdogSec= of [Service]"
            emit(
                f"sysbox: {where} ends the container each time: Notify=yes lets it say WATCHDOG=1\n",
                2,
            )
        if key in _HINDERING and value not in ("", "no", "false", "off", "0"):
            where = f"{service.source.path}: {key}= of [Service]"
            emit(f"sysbox: {where} is not of the container, and may keep it from being made\n", 2)


def _feeds(service: Service) -> bool:
    """Whether the container can tell systemd that it is alive."""
    return any(
        key == "ExecStart" and " --notify=container " in text for key, text in service.service_keys
    )


def _is_too_little(memory: str) -> bool:
    """Whether the service, which has the limits of its container too, is short of memory with this one."""
    from sysbox.parse.common import parse_size

    try:
        return parse_size(memory, "") < _MEMORY
    except SysboxError:
        return False  # a share of the whole, or it is said to be wrong


def _note_limits(service: Service) -> None:
    """Say which resource settings the container will not have: systemd only logs a wrong one."""
    from sysbox.host import probe
    from sysbox.units.limits import allowlist

    for key, value in service.service_keys:
        if not is_resource(key) or not value or "%" in value:
            continue
        if key in ("MemoryMax", "MemoryLimit") and _is_too_little(value):
            what = "the command that starts the container may need more, and be killed for it"
            emit(f"sysbox: {service.source.path}: {key}={value}: {what}\n", 2)
        try:
            allowlist.parse_property(f"{key}={value}", probe())
        except SysboxError as error:
            emit(f"sysbox: {service.source.path}: not on the container: {error.message}\n", 2)


def clashes(services: Iterable[Service]) -> Iterator[str]:
    """What several declarations, or a declaration and another unit, cannot have at once: a line for each."""
    named: dict[str, Service] = {}
    for one in services:
        if path := unit.rival(one):
            both = f"{path} is there too, and one of the two counts"
            yield f"{one.source.path}: {both}: ServiceName= gives another name"
        name = _name_of(one)
        if name in named:
            both = f"its container is called {name}, as that of {named[name].source.path}"
            yield f"{one.source.path}: {both}: one of them can run at a time"
        elif name:
            named[name] = one


def _name_of(service: Service) -> str:
    """The name of its container; "" where it has none, or one that specifiers make."""
    if service.verb != "run" or service.error:
        return ""
    names = [word.removeprefix("--name=") for word in service.words if word.startswith("--name=")]
    return "" if not names or "%" in names[-1] else names[-1]
