"""The content of a container's /etc/hosts and /etc/resolv.conf. Pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.netns.subnets import number_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

RESOLV_CONF = "/etc/resolv.conf"
# systemd-resolved(8): /etc/resolv.conf may name only its stub, which other network namespaces cannot reach;
# this file names the real servers
UPLINK_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"
# docker's choice where the host has no server that a container can reach
PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")
SERVERS_MAX = 3  # resolv.conf(5), MAXNS: the C library ignores more
_HEADER = "# Made by sysbox when the container was started.\n"


def hosts_file(
    hostname: str, address: str, extra: tuple[str, ...] = (), host_text: str = ""
) -> str:
    """/etc/hosts of a container.

    `address` is its own address, several with spaces between, "" where it has none. `extra` are `--add-host`
    values "name:ip", in which the caller has replaced "host-gateway" by an address. `host_text` is the file
    of the host or of the container whose network it shares. The container's own name is always added. Raises
    SpecError for an invalid extra entry.
    """
    lines = [_HEADER]
    if host_text:
        lines.append(host_text if host_text.endswith("\n") else host_text + "\n")
    else:
        lines.append("127.0.0.1\tlocalhost\n")
        lines.append("::1\tlocalhost ip6-localhost ip6-loopback\n")
        lines.append("ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
    for entry in extra:
        name, colon, target = entry.partition(":")
        if not colon or not _is_name(name) or not _is_address(target):
            raise SpecError(f"--add-host {entry}: must be NAME:ADDRESS")
        lines.append(f"{target}\t{name}\n")
    if hostname and not _is_known(hostname, host_text):
        names = own_names(hostname)
        lines += (f"{one}\t{names}\n" for one in (address or "127.0.1.1").split())
    return "".join(lines)


def changed_hosts(text: str, hostname: str, gone: tuple[str, ...], added: tuple[str, ...]) -> str:
    """The text of a container's /etc/hosts after its addresses have changed; other lines stay."""
    kept = [line for line in text.splitlines() if line.partition("\t")[0] not in gone]
    kept += (f"{address}\t{own_names(hostname)}" for address in added)
    return "".join(f"{line}\n" for line in kept)


def own_names(hostname: str) -> str:
    """What /etc/hosts has beside a container's own address: its name, and that without the domain."""
    short, dot, _ = hostname.partition(".")
    return f"{hostname} {short}" if dot else hostname


def _is_known(hostname: str, text: str) -> bool:
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return any(hostname in words[1:] for words in lines)


def resolv_conf(
    host_text: str,
    uplink_text: str = "",
    *,
    own_network: bool = True,
    resolvers: tuple[str, ...] = (),
    servers: tuple[str, ...] = (),
    search: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
) -> str:
    """/etc/resolv.conf of a container, from the texts of RESOLV_CONF and UPLINK_RESOLV_CONF of the host.

    `resolvers` are those of its networks, which ask the others. `servers`, `search` ("." is none) and
    `options` are those of `--dns`, `--dns-search` and `--dns-option`; each replaces the host's.

    A container with a network namespace of its own (`own_network`) cannot reach servers on the host's
    loopback. If the host's file names only systemd-resolved's stub, the uplink's servers replace it; then
    loopback servers are left out; if none remains, public servers are used. search and options are kept.
    """
    given = {"nameserver": resolvers or servers, "search": search, "options": options}
    replaced = {name for name, values in given.items() if values}
    if not own_network and not replaced:
        return host_text
    if uplink_text and _is_stub(host_text):
        host_text = uplink_text
    lines = [["nameserver", one] for one in given["nameserver"][:SERVERS_MAX]]
    lines += _kept(host_text, replaced, own_network=own_network)
    if not any(words[0] == "nameserver" for words in lines):
        lines += [["nameserver", address] for address in PUBLIC_SERVERS]
    if search and search != (".",):
        lines.append(["search", *search])
    if options:
        lines.append(["options", *options])
    if resolvers and not any(word.startswith("ndots:") for words in lines for word in words):
        # a container's name has no dot: it is asked for as it is, before it is with each search domain
        lines.append(["options", "ndots:0"])
    return _HEADER + "".join(" ".join(words) + "\n" for words in lines)


def _kept(host_text: str, replaced: set[str], *, own_network: bool) -> Iterator[list[str]]:
    """The words of the host's lines that a container has too."""
    for line in host_text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if ("search" if words[0] == "domain" else words[0]) in replaced:
            continue
        if words[0] == "nameserver" and (
            len(words) < 2 or (own_network and _is_loopback(words[1]))
        ):
            continue
        yield words


def _is_stub(text: str) -> bool:
    servers = [line.split()[1:2] for line in text.splitlines() if line.startswith("nameserver")]
    return bool(servers) and all(server in (["127.0.0.53"], ["127.0.0.54"]) for server in servers)


def _is_loopback(address: str) -> bool:
    # a link-local address (fe80:) is valid on a link of the host only, so it is left out too
    return address.startswith("127.") or address == "::1" or address.lower().startswith("fe80:")


def _is_name(name: str) -> bool:
    return (
        bool(name)
        and name.isascii()
        and name.replace("-", "").replace(".", "").replace("_", "").isalnum()
    )


def _is_address(address: str) -> bool:
    if ":" in address:
        return all(digit in "0123456789abcdefABCDEF:." for digit in address)
    try:
        number_of(address)
    except SpecError:
        return False
    return True
