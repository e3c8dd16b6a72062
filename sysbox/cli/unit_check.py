"""Check the command line that a declaration becomes as `sysbox run` does; errors name the file's line."""

from __future__ import annotations

import posix

from sysbox.base.errors import FormatError, SysboxError
from sysbox.base.suggest import did_you_mean
from sysbox.cli.output import emit
from sysbox.cli.parse import hot
from sysbox.cli.request import pod
from sysbox.cli.request.spec import build
from sysbox.cli.table.verbs import VERBS, options_of
from sysbox.lifecycle import unit
from sysbox.units.quadlet.keys import SECTIONS
from sysbox.units.quadlet.values import is_resource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.units.quadlet.units import Service

# what specifiers stand for here, systemd.unit(5): a path, a name, or else a digit, which fits into names,
# ports and addresses
_SPECIFIERS = {
    "%": "%", "C": "/var/cache", "E": "/etc", "L": "/var/log", "S": "/var/lib", "T": "/tmp", "V": "/var/tmp",
    "d": "/run/credentials", "g": "root", "h": "/root", "s": "/bin/sh", "t": "/run", "u": "root",
}  # fmt: skip
# flags of several keys, or of a part of a value, for which the table of keys has none
_KEYS = {
    "--device": "AddDevice", "--mount": "Mount", "--network": "Network", "--user": "User",
    "--volume": "Volume",
}  # fmt: skip
_LATER = "--env-file="  # it may be made before the service starts


def checked(service: Service) -> Service:
    """The service. Raises FormatError for one that is wrong, or whose words `run` does not accept."""
    unit.checked(service)
    if service.words:
        _check_words(service)
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
        if key in _HINDERING and value not in ("", "no", "false", "off", "0"):
            where = f"{service.source.path}: {key}= of [Service]"
            emit(f"sysbox: {where} is not of the container, and may keep it from being made\n", 2)


def _note_limits(service: Service) -> None:
    """Say which resource settings the container will not have: systemd only logs a wrong one."""
    from sysbox.host import probe
    from sysbox.units.limits import allowlist

    for key, value in service.service_keys:
        if not is_resource(key) or not value or "%" in value:
            continue
        try:
            allowlist.parse_property(f"{key}={value}", probe())
        except SysboxError as error:
            emit(f"sysbox: {service.source.path}: not on the container: {error.message}\n", 2)


def _check_words(service: Service) -> None:
    verb = VERBS["pod create" if service.source.kind == "pod" else "run"]
    words = [_expanded(word) for word in service.words if not _is_known_later(word)]
    try:
        values = hot.parse(verb, words)
        if verb.name == "run":
            _check_image(service, values)
            build(values, detach=True)
        else:
            pod.build(values)
    except hot.Fallback:
        known = [name for option in options_of(verb) for name in option.names + option.hidden]
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        unknown = [flag for flag in flags if flag not in known]
        what = f"has no flag {unknown[0]}" if unknown else "does not accept its flags"
        hint = did_you_mean(unknown[0], known) if unknown else ""
        raise FormatError(
            f"{_argument(service, (*unknown, '')[0])}: `sysbox {verb.name}` {what}", hint=hint
        ) from None
    except SysboxError as error:
        raise FormatError(
            f"{_place(service, error.message)}{error.message}", hint=error.hint
        ) from None


def _argument(service: Service, flag: str) -> str:
    """The place of the PodmanArgs= that has a flag, else the file."""
    for one in service.source.assignments:
        if flag and one.key == "PodmanArgs" and flag in one.value:
            return f"{one.file}:{one.line}: PodmanArgs="
    return service.source.path


def _check_image(service: Service, values: Values) -> None:
    """Raises FormatError where PodmanArgs= has more than flags: its first word would be the image."""
    if values.dry_run or values.unit_file is not None:
        raise FormatError(f"{service.source.path}: --dry-run and --unit-file start no container")
    if values.image != _expanded(service.image):
        where = _argument(service, values.image) if values.image else service.source.path
        raise FormatError(
            f"{where}: {values.image!r} would be the image",
            hint="only flags, with their values, may be there",
        )


def _is_known_later(word: str) -> bool:
    """Whether a flag's value depends on a file or variable that need not be there yet."""
    return word.startswith(_LATER) or (word.startswith("--") and "$" in word.replace("$$", ""))


def _expanded(word: str) -> str:
    """A word with something in place of each specifier."""
    first, *others = word.split("%")
    made, at = [first], 0
    while at < len(others):
        if others[at]:
            made.append(_SPECIFIERS.get(others[at][0], "1") + others[at][1:])
        elif at + 1 < len(others):  # "%%"
            at += 1
            made.append("%" + others[at])
        at += 1
    return "".join(made)


def _place(service: Service, message: str) -> str:
    """The place of the assignment that an error of a flag is about: "FILE:LINE: KEY=: ", or else "FILE: "."""
    flag = message.partition(" ")[0].rstrip(":")
    title = service.source.kind.capitalize()
    names = {key.name for key in SECTIONS[title] if key.flag == flag} | {_KEYS.get(flag, "")}
    found = [one for one in service.source.assignments if one.section == title and one.key in names]
    # of several values the one that the message quotes
    for one in [one for one in found if one.value in message] or found[-1:]:
        return f"{one.file}:{one.line}: {one.key}=: "
    return f"{service.source.path}: "
