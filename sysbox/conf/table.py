"""The keys of sysbox.conf. The parser, `info`, `doctor` and sysbox.conf(5) are all driven by this table."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.frozen import Frozen
from sysbox.netns import subnets, topology
from sysbox.netns.rules import FIREWALLS, PORTS
from sysbox.parse.common import bad, parse_int, parse_size
from sysbox.parse.limits import parse_pids
from sysbox.parse.network import check_link
from sysbox.parse.service import DRIVERS, parse_driver, parse_rate, parse_rate_burst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Key(Frozen):
    """One key of sysbox.conf."""

    section: str
    name: str
    field: str  # of values.Settings
    # (text, its name in errors) -> the value; raises SpecError
    parse: Callable[[str, str], Any]
    default: str  # in words, or as it would be written in the file
    help: str  # one line; `code` and man pages as in docs/man

    @property
    def title(self) -> str:
        return f"{self.section}.{self.name}"


def _subnet(text: str, flag: str) -> str:
    hint = "as in 10.90.0.0/16"
    if subnets.family_of(text) != 4:
        bad(flag, text, "not a subnet of IPv4", hint)
    try:
        base, bits = subnets.split(text)
    except SpecError as error:
        bad(flag, text, error.message.rpartition(": ")[2], hint)
    written = f"{subnets.text_of(base, 4)}/{bits}"
    if text != written:
        bad(flag, text, f"is written {written}", hint)
    if why := subnets.unusable(text):
        bad(flag, text, why, hint)
    return text


def _userns(text: str, flag: str) -> str:
    if text not in ("auto", "host"):
        bad(flag, text, "unknown mode", "auto or host")
    return text


def _firewall(text: str, flag: str) -> str:
    if text not in FIREWALLS:
        bad(flag, text, "no such packet filter", f"{', '.join(FIREWALLS[:-1])} or {FIREWALLS[-1]}")
    return text


def _ports(text: str, flag: str) -> str:
    if text not in PORTS:
        bad(flag, text, "neither of the two", " or ".join(PORTS))
    return text


def _makers(text: str, flag: str) -> str:
    if text not in ("podman", "sysbox"):
        bad(flag, text, "no such generator", "podman or sysbox")
    return text


def _files(text: str, flag: str) -> int:
    return parse_int(text, flag, 1, 1 << 40)


def _size(text: str, flag: str) -> int:
    size = parse_size(text, flag)
    if not size:
        bad(flag, text, "out of range", "1 or more bytes")
    return size


KEYS = (
    Key(
        section="Network", name="Bridge", field="bridge", parse=check_link, default="sysbox0",
        help="The bridge of the network `bridge`. It is made when the first container uses it.",
    ),
    Key(
        section="Network", name="Subnet", field="subnet", parse=_subnet,
        default=f"{topology.SUBNETS[0]} or the next free one, up to {topology.SUBNETS[-1]}",
        help="The IPv4 subnet of that bridge, which has the first address. A subnet that is set here is never"
        " replaced: where it overlaps a route of the host, no container starts on it.",
    ),
    Key(
        section="Network", name="Firewall", field="firewall", parse=_firewall, default="auto",
        help="The packet filter that gets the rules of containers' networks: nft, iptables-nft,"
        " iptables-legacy, or auto, which is the one that has rules of others already, else nft. Rules that"
        " are in place stay where they are until the next boot or `sysbox network reload`.",
    ),
    Key(
        section="Network", name="Ports", field="ports", parse=_ports, default="open",
        help="Who reaches published ports from outside: open, everybody, or ask, whom the host's firewall"
        " lets: a zone of firewalld, or a source of `ufw route allow`. It takes effect as `Firewall=` does.",
    ),
    Key(
        section="Log", name="Driver", field="log_driver", parse=parse_driver, default="journald",
        help=f"The log driver of containers without `--log-driver`: {', '.join(DRIVERS)}.",
    ),
    Key(
        section="Log", name="RateLimit", field="rate_limit", parse=parse_rate, default="2000",
        help="How many lines a second a container may log with the driver journald; 0 is no limit."
        " `--log-opt rate-limit=` overrides it.",
    ),
    Key(
        section="Log", name="RateBurst", field="rate_burst", parse=parse_rate_burst, default="250000",
        help="How many lines a container may log at once with the driver journald."
        " `--log-opt rate-burst=` overrides it.",
    ),
    Key(
        section="Container", name="PidsLimit", field="pids_limit", parse=parse_pids,
        default="DefaultTasksMax= of systemd",
        help="The greatest number of processes of a container; -1 is no limit. `--pids-limit` overrides it.",
    ),
    Key(
        section="Container", name="UserNS", field="userns", parse=_userns, default="auto",
        help="The user namespace of a container that asks for none: auto, one of its own, or host, the"
        " machine's. `--userns` overrides it.",
    ),
    Key(
        section="Build", name="ContextFiles", field="context_files", parse=_files, default="1000000",
        help="How many files one instruction of a Containerfile may copy of a build's context, and how many"
        " a git repository may have, with its submodules. What an ignore file leaves out does not count.",
    ),
    Key(
        section="Build", name="FetchSize", field="fetch_size", parse=_size, default="8g",
        help="How many bytes a build takes of one URL, of a git repository with its submodules, or of a"
        " context on standard input.",
    ),
    Key(
        section="Units", name="PodmanFiles", field="podman_files", parse=_makers, default="podman",
        help="Whose generator makes units of the files in podman's directories, such as"
        " /etc/containers/systemd, where podman's is installed: podman or sysbox. Without podman's"
        " generator sysbox's does so in any case.",
    ),
)  # fmt: skip
# section -> name -> key
BY_SECTION: dict[str, dict[str, Key]] = {
    section: {key.name: key for key in KEYS if key.section == section}
    for section in dict.fromkeys(key.section for key in KEYS)
}
