"""Read the command line that a declaration becomes as its verb does; errors name the file's line."""

from __future__ import annotations

from sysbox.base.errors import FormatError, SysboxError
from sysbox.cli import unit_protection
from sysbox.cli.commands import network as network_command
from sysbox.cli.commands import pull as pull_command
from sysbox.cli.commands import volume as volume_command
from sysbox.cli.parse import hot
from sysbox.cli.request import build, pod, spec
from sysbox.cli.table.verbs import VERBS, options_of
from sysbox.container import identity
from sysbox.image import reference
from sysbox.image.registry import platform
from sysbox.lifecycle import network, network_drivers
from sysbox.netns import networks
from sysbox.parse.time import parse_duration
from sysbox.security import idmap
from sysbox.units.quadlet import habits
from sysbox.units.quadlet.keys import SECTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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
    "--volume": "Volume", "--name": "PodName",
    # of errors that name no flag
    "subnet": "Subnet", "network": "NetworkName Network", "invalid": "Image ImageTag",
    "platform": "Arch OS Variant", "--retry-delay": "RetryDelay",
}  # fmt: skip
_OPTIONS = {"type": "Type", "device": "Device", "o": "Options"}
_LATER = "--env-file="  # it may be made before the service starts
_PROFILE = "--security-opt=seccomp="  # its file is looked for: the one of a specifier is not known


def check(service: Service) -> None:
    """Raises FormatError for words that their verb does not accept."""
    verb = VERBS[service.verb]
    words = [_expanded(word, service.unit) for word in service.words if not _is_known_later(word)]
    try:
        values = hot.parse(verb, words)
        if read := _READERS.get(verb.name):
            read(service, values)
    except hot.Fallback:
        known = [name for option in options_of(verb) for name in option.names + option.hidden]
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        unknown = [flag for flag in flags if flag not in known]
        what = f"has no flag {unknown[0]}" if unknown else "does not accept its flags"
        hint = habits.flag_hint(unknown[0], known) if unknown else ""
        raise FormatError(
            f"{_argument(service, (*unknown, '')[0])}: `sysbox {verb.name}` {what}", hint=hint
        ) from None
    except SysboxError as error:
        key, flag = unit_protection.key_of(error.message)
        text = error.message.removeprefix(flag)
        if place := _place_of(service, text, {key}, word=text.partition(": ")[0]):
            hint = error.hint.replace(flag, f"{key}=")
            raise FormatError(place + text, hint=hint) from None
        place = _place(service, error.message)
        raise FormatError(f"{place}{error.message}", hint=error.hint) from None


def _argument(service: Service, flag: str) -> str:
    """The place of the PodmanArgs= that has a flag, else the file."""
    for one in service.source.assignments:
        if flag and one.key == "PodmanArgs" and flag in one.value:
            return f"{one.file}:{one.line}: PodmanArgs="
    return service.source.path


def _run(service: Service, values: Values) -> None:
    _check_image(service, values)
    made = spec.build(values, detach=True)
    unit_protection.check(values.security_opt, made.security)
    idmap.decide(made)  # as far as it is known now: not with the namespaces that it will join


def _pod(_service: Service, values: Values) -> None:
    pod.build(values)


def _network(_service: Service, values: Values) -> None:
    wish = network_command.wish_of(values)
    networks.check(wish.name)
    wish = wish.replace(driver=network_drivers.driver_of(wish.driver))
    # which subnets and links are free is known at its start
    network.plan(wish, identity.new_id(), [], 0)


def _volume(_service: Service, values: Values) -> None:
    volume_command.asked(values)


def _pull(service: Service, values: Values) -> None:
    options, _ = pull_command.asked(values)
    if options.platform:
        platform.parse(options.platform)
    _check_delay(service)
    for name in values.image:
        reference.parse(name.removeprefix("docker://"))


def _build(service: Service, values: Values) -> None:
    """All but its files, which it looks for when it runs."""
    asked = build.asked(values, image=True)
    for text in values.secret:
        build.secret_source(text)
    for one in asked.options.template.networks:
        networks.check(one.network)
    _check_delay(service)


def _check_delay(service: Service) -> None:
    """Raises SpecError for a RetryDelay= that is none; it changes nothing in an image or a build."""
    for one in service.source.assignments:
        if one.key == "RetryDelay" and one.value and "%" not in one.value:
            parse_duration(one.value, "--retry-delay")


# verb -> what reads its flags
_READERS: dict[str, Callable[[Service, Values], None]] = {
    "run": _run,
    "pod create": _pod,
    "network create": _network,
    "volume create": _volume,
    "pull": _pull,
    "build": _build,
}


def _check_image(service: Service, values: Values) -> None:
    """Raises FormatError where PodmanArgs= has more than flags: its first word would be the image."""
    if values.dry_run or values.unit_file is not None:
        raise FormatError(f"{service.source.path}: --dry-run and --unit-file start no container")
    if values.image != _expanded(service.image, service.unit):
        where = _argument(service, values.image) if values.image else service.source.path
        raise FormatError(
            f"{where}: {values.image!r} would be the image",
            hint="only flags, with their values, may be there",
        )


def _is_known_later(word: str) -> bool:
    """Whether a flag's value depends on a file or variable that need not be there yet."""
    if word.startswith(_PROFILE) and "%" in word.replace("%%", ""):
        return True
    return word.startswith(_LATER) or (word.startswith("--") and "$" in word.replace("$$", ""))


def _expanded(word: str, unit: str) -> str:
    """A word with something in place of each specifier; of a template the instance is "1"."""
    stem = unit.removesuffix(".service")
    stem += "1" if stem.endswith("@") else ""
    prefix, _, instance = stem.partition("@")
    known = {**_SPECIFIERS, "n": f"{stem}.service", "N": stem, "p": prefix, "i": instance}
    first, *others = word.split("%")
    made, at = [first], 0
    while at < len(others):
        if others[at]:
            made.append(known.get(others[at][0], "1") + others[at][1:])
        elif at + 1 < len(others):  # "%%"
            at += 1
            made.append("%" + others[at])
        at += 1
    return "".join(made)


def _place(service: Service, message: str) -> str:
    """The place of the assignment that an error of a flag is about: "FILE:LINE: KEY=: ", or else "FILE: "."""
    flag = message.partition(" ")[0].rstrip(":")
    title = service.source.kind.capitalize()
    names = {key.name for key in SECTIONS[title] if key.flag == flag}
    names.update(_KEYS.get(flag, "").split())
    if flag == "--opt":
        names.add(_OPTIONS.get(message.split()[1].partition("=")[0], "Options"))
    return _place_of(service, message, names) or f"{service.source.path}: "


def _place_of(service: Service, message: str, names: set[str], word: str = "") -> str:
    """The place of the assignment of one of these keys, "" if there is none; of several the one of `word`."""
    title = service.source.kind.capitalize()
    found = [one for one in service.source.assignments if one.section == title and one.key in names]
    # of several values the one that the message quotes
    quoted = [one for one in found if (word in one.value.split() if word else one.value in message)]
    for one in quoted or found[-1:]:
        return f"{one.file}:{one.line}: {one.key}=: "
    return ""
