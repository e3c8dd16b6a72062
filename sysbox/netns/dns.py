"""The content of a container's /etc/hosts and /etc/resolv.conf: pure."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.netns.topology import address_number

RESOLV_CONF = "/etc/resolv.conf"
# systemd-resolved(8): the file above may name only its stub, which no other namespace reaches; this
# one names the real servers
UPLINK_RESOLV_CONF = "/run/systemd/resolve/resolv.conf"
PUBLIC_SERVERS = (
    "8.8.8.8",
    "8.8.4.4",
)  # docker's, where the host has none that a container reaches
_HEADER = "# Made by sysbox when the container was started.\n"


def hosts_file(
    hostname: str, address: str, extra: tuple[str, ...] = (), host_text: str = ""
) -> str:
    """/etc/hosts of a container.

    `address` is its own, "" where it has none of its own; `extra` are `--add-host` values "name:ip",
    where "host-gateway" must have been replaced by an address; `host_text` is the file of whose network it
    is in: the host's or another container's. Its own name is always there. Raises SpecError for an extra
    entry that is not valid.
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
        short, dot, _ = hostname.partition(".")
        names = f"{hostname} {short}" if dot else hostname
        lines.append(f"{address or '127.0.1.1'}\t{names}\n")
    return "".join(lines)


def _is_known(hostname: str, text: str) -> bool:
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return any(hostname in words[1:] for words in lines)


def resolv_conf(host_text: str, uplink_text: str = "", *, own_network: bool = True) -> str:
    """/etc/resolv.conf of a container, from the host's file and that of RESOLV_CONF's uplink.

    With a network namespace of its own (`own_network`) a server on the host's loopback is of no use: the
    servers behind systemd-resolved's stub are taken instead, then all that are not loopback, then public
    ones. resolv.conf(5): search and options stay as they are.
    """
    if not own_network:
        return host_text
    if uplink_text and _is_stub(host_text):
        host_text = uplink_text
    kept = []
    servers = 0
    for line in host_text.splitlines():
        words = line.split()
        if not words or words[0][0] in "#;":
            continue
        if words[0] == "nameserver":
            if len(words) < 2 or _is_loopback(words[1]):
                continue
            servers += 1
        kept.append(" ".join(words) + "\n")
    if not servers:
        kept += [f"nameserver {address}\n" for address in PUBLIC_SERVERS]
    return _HEADER + "".join(kept)


def _is_stub(text: str) -> bool:
    servers = [line.split()[1:2] for line in text.splitlines() if line.startswith("nameserver")]
    return bool(servers) and all(server in (["127.0.0.53"], ["127.0.0.54"]) for server in servers)


def _is_loopback(address: str) -> bool:
    # a link-local server names a link of the host's, which the container does not have
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
        address_number(address)
    except SpecError:
        return False
    return True
