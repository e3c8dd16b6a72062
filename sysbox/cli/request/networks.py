"""From `--network` and the flags about addresses to the networks of a container."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.parse import common as parse
from sysbox.parse.network import (
    check_alias,
    check_hostname,
    complete,
    parse_endpoint,
    parse_ip,
)
from sysbox.spec import Dns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values
    from sysbox.spec import ContainerSpec, Endpoint

# modes without links; docker's `default` and podman's `private` are the network `bridge`
_MODES = ("none", "host")
_DEFAULT = ("bridge", "default", "private")
# flag -> field of Endpoint
_FLAGS = {"ip": "address", "ip6": "address6", "mac_address": "mac"}


def add(spec: ContainerSpec, given: Values) -> ContainerSpec:
    """The specification with its networks. Raises SpecError."""
    mode, endpoints = build(given)
    spec = spec.replace(namespaces=spec.namespaces.replace(network=mode), networks=endpoints)
    if given.pod:
        spec = spec.replace(pod=_pod(given.pod))
    if not given.network_bandwidth:
        return spec
    from sysbox.parse.bandwidth import parse_bandwidth

    bandwidth = parse_bandwidth(given.network_bandwidth, "--network-bandwidth")
    return spec.replace(bandwidth=bandwidth)


def _pod(text: str) -> str:
    name = text.removeprefix("new:")
    if not name:
        parse.bad("--pod", text, "no name of a pod", "NAME, an id, or new:NAME")
    parse.check_name(name, "--pod", shortest=1)
    return text


def build(given: Values) -> tuple[str, tuple[Endpoint, ...]]:
    """(the mode of Namespaces.network, the networks of mode bridge; () is the network `bridge` alone).

    Raises SpecError.
    """
    texts = [text for text in given.network if text]
    texts = [_DEFAULT[0] if text in _DEFAULT else text for text in texts] or [_DEFAULT[0]]
    for text in texts:
        if text in _MODES or text.startswith(("container:", "ns:")):
            return _alone(text, texts, given), ()
    if texts == [_DEFAULT[0]] and not _about_addresses(given):
        return _DEFAULT[0], ()
    found = [parse_endpoint(text, "--network") for text in texts]
    found[0] = _with_flags(found[0], given)
    names = [one.network for one in found]
    for name in names:
        if names.count(name) > 1:
            raise SpecError(f"--network {name} is given twice", hint="leave out one of them")
    for one in found:
        if one.network == _DEFAULT[0] and one.aliases:
            raise SpecError(
                f"--network-alias {one.aliases[0]}: nothing resolves names on the network bridge",
                hint="`sysbox network create` makes a network on which containers find each other",
            )
    return _DEFAULT[0], tuple(found)


def dns(given: Values, mode: str) -> Dns:
    """What `--dns`, `--dns-search` and `--dns-option` ask for. Raises SpecError."""
    asked = Dns(
        servers=tuple(parse_ip(one, "--dns") for one in given.dns),
        search=tuple(_search(one) for one in given.dns_search),
        options=tuple(_option(one) for one in given.dns_option),
    )
    if asked != Dns() and mode.startswith("container:"):
        raise SpecError(
            f"--dns, --dns-search and --dns-option do not go with --network {mode}",
            hint="the container has the /etc/resolv.conf of the other one",
        )
    return asked


def _search(text: str) -> str:
    return text if text == "." else check_hostname(text.removesuffix("."), "--dns-search")


def _option(text: str) -> str:
    allowed = parse.ALNUM | frozenset("-_:.")
    if not text or not allowed.issuperset(text):
        parse.bad("--dns-option", text, "not an option of resolv.conf(5)", "as in ndots:2")
    return text


def links(given: Values, mode: str) -> tuple[str, ...]:
    """`--link`, each as "CONTAINER:ALIAS", or "CONTAINER" for its own name. Raises SpecError."""
    for text in given.link:
        name, colon, alias = text.partition(":")
        parse.check_name(name, "--link")
        if colon:
            check_alias(alias, "--link")
    if given.link and mode != "bridge":
        raise SpecError(
            f"--link {given.link[0]} needs a network of the container's own, not --network {mode}",
            hint="leave out --link or --network",
        )
    return tuple(dict.fromkeys(given.link))


def _about_addresses(given: Values) -> str:
    """The first flag that is about the container's end of a network, or ""."""
    for name in (*_FLAGS, "network_alias"):
        if getattr(given, name):
            return "--" + name.replace("_", "-")
    return ""


def _alone(text: str, texts: list[str], given: Values) -> str:
    """A mode that goes with no other network, checked."""
    mode = parse.parse_mode(text, "--network", _MODES)
    if len(texts) > 1:
        other = next(one for one in texts if one != text) if len(set(texts)) > 1 else text
        raise SpecError(
            f"--network {text} and --network {other} exclude each other",
            hint="leave out one of them",
        )
    if flag := _about_addresses(given):
        raise SpecError(
            f"{flag} needs a network of the container's own, not --network {text}",
            hint=f"leave out {flag} or --network",
        )
    # with `host` and `none` --publish is ignored, with a note: docker's meaning
    if mode not in _MODES and given.publish:
        raise SpecError(
            f"--publish needs a network of the container's own, not --network {mode}",
            hint="leave out --publish or --network",
        )
    return mode


def _with_flags(endpoint: Endpoint, given: Values) -> Endpoint:
    """The first network, with what flags of their own ask for."""
    for name, field in _FLAGS.items():
        text, flag = getattr(given, name), "--" + name.replace("_", "-")
        if not text:
            continue
        if getattr(endpoint, field):
            raise SpecError(f"{flag} {text}: --network {endpoint.network} has another one")
        endpoint = complete(endpoint, {field: text}, flag)
    more = tuple(check_alias(one, "--network-alias") for one in given.network_alias)
    return endpoint.replace(aliases=tuple(dict.fromkeys((*endpoint.aliases, *more))))
