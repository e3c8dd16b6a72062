"""Decide by registries.conf where an image is: short names, mirrors, other locations, blocked registries."""

from __future__ import annotations

from sysbox.base.errors import AccessDenied, SpecError
from sysbox.image.reference import Reference, is_short, parse
from sysbox.image.registry import conf_files
from sysbox.image.registry.conf_files import BY_DIGEST, BY_TAG, ENFORCING, Conf, Mirror, Rule
from sysbox.image.registry.endpoint import Endpoint, of_location

_WILDCARD = "*."


def candidates(name: str, conf: Conf | None = None) -> tuple[Reference, ...]:
    """What a name may stand for, in the order in which it is to be tried.

    A name with a registry stands for itself. A short one is what its alias says, else it is looked for in the
    unqualified-search-registries, else, where no file names any, on docker.io.

    Raises SpecError for a malformed name, for one that registries.conf leaves no meaning, and in the mode
    `enforcing` for one that has several; FormatError for a malformed file.
    """
    plain = parse(name)
    if not is_short(name):
        return (plain,)
    conf = conf or conf_files.read()
    short = _without_suffix(name)
    if short in conf.aliases:
        target = parse(conf.aliases[short])
        return (target.replace(tag=plain.tag, digest=plain.digest),)
    if conf.search is None:
        return (plain,)
    if not conf.search:
        raise SpecError(
            f"image {name}: {conf.where} has no unqualified-search-registries",
            hint=f"give the registry too, as in docker.io/{name}",
        )
    found = tuple(parse(f"{registry}/{name}") for registry in conf.search)
    if conf.mode == ENFORCING and len(found) > 1:
        raise SpecError(
            f"image {name}: may be on any of {', '.join(conf.search)} ({conf.where})",
            hint=f"give the registry too, as in {conf.search[0]}/{name}, or add an alias there",
        )
    return found


def endpoints(reference: Reference, conf: Conf | None = None) -> tuple[Endpoint, ...]:
    """Where to read an image from, in order: the mirrors that have it, then the registry itself.

    Raises AccessDenied for a blocked registry, SpecError and FormatError for a malformed file.
    """
    conf = conf or conf_files.read()
    rule, length = choose(reference, conf)
    if rule is None:
        return (_endpoint(reference.repository(), ""),)
    _refuse_blocked(reference, rule)
    found = [
        _endpoint(
            _moved(reference, length, mirror.location),
            rule.where,
            insecure=mirror.insecure,
            is_mirror=True,
        )
        for mirror in rule.mirrors
        if _serves(mirror, reference)
    ]
    location = _moved(reference, length, rule.location) if rule.location else reference.repository()
    return (*found, _endpoint(location, rule.where, insecure=rule.insecure))


def push_endpoint(reference: Reference) -> Endpoint:
    """Where to write an image to: mirrors and other locations are for reading alone.

    Raises AccessDenied for a blocked registry, FormatError for a malformed file.
    """
    rule, _ = choose(reference, conf_files.read())
    if rule is None:
        return _endpoint(reference.repository(), "")
    _refuse_blocked(reference, rule)
    return _endpoint(reference.repository(), rule.where, insecure=rule.insecure)


def registry(name: str, conf: Conf | None = None) -> Endpoint:
    """The endpoint of a registry as such (`host[:port]`), for `login`.

    Raises SpecError for a malformed name, FormatError for a malformed file.
    """
    conf = conf or conf_files.read()
    insecure = any(
        rule.insecure for rule in conf.rules if _matched(name, rule.prefix) == len(name) > 0
    )
    return of_location(name, "registry", insecure=insecure)


def choose(reference: Reference, conf: Conf) -> tuple[Rule | None, int]:
    """The rule with the longest prefix that a reference has, and how many characters of it that is."""
    name = reference.full()
    best: Rule | None = None
    for rule in conf.rules:
        if _matched(name, rule.prefix) and (best is None or len(rule.prefix) > len(best.prefix)):
            best = rule
    return best, _matched(name, best.prefix) if best else 0


def _matched(name: str, prefix: str) -> int:
    """How many characters of the name a prefix stands for; 0 where it is not one."""
    if prefix.startswith(_WILDCARD):
        host = name.partition("/")[0]
        at = host.find(prefix[1:])
        if at <= 0:
            return 0
        end = at + len(prefix) - 1
    else:
        if not name.startswith(prefix):
            return 0
        end = len(prefix)
    return end if name[end : end + 1] in ("", "/", ":", "@") else 0


def _moved(reference: Reference, length: int, location: str) -> str:
    """The repository with the matched part of the name replaced."""
    # of a prefix with a tag or a digest nothing is left: the location then is the repository
    return location + reference.repository()[length:]


def _serves(mirror: Mirror, reference: Reference) -> bool:
    if mirror.use == BY_DIGEST:
        return bool(reference.digest)
    return mirror.use != BY_TAG or not reference.digest


def _refuse_blocked(reference: Reference, rule: Rule) -> None:
    if rule.blocked:
        raise AccessDenied(
            f"image {reference.familiar()}: '{rule.prefix}' is blocked by {rule.where}",
            hint="the administrator of this host decides that",
        )


def _endpoint(
    location: str, where: str, *, insecure: bool = False, is_mirror: bool = False
) -> Endpoint:
    return of_location(location, where or "image", insecure=insecure, is_mirror=is_mirror)


def _without_suffix(name: str) -> str:
    """The name without its tag and digest."""
    head, slash, last = name.partition("@")[0].rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"
