"""Checks of what a container needs from the host besides limits; each tries a little of it."""

from __future__ import annotations

import errno
import posix
import sys

from sysbox.base import paths
from sysbox.base.errors import NotFound, SysboxError, Unsupported
from sysbox.cli.doctor.apparmor import profiles
from sysbox.cli.doctor.check import MISSING, Check, needed, useful
from sysbox.cli.doctor.selinux import stored
from sysbox.host import exists, read_text
from sysbox.linux import _sys, landlock, lsm, mount, namespace, process
from sysbox.linux.child import why_not
from sysbox.netns import firewall_mark, host_firewall, port_filter, shaping
from sysbox.netns import rtnetlink as rt
from sysbox.netns.attachment import Attachment
from sysbox.netns.rules import Policy
from sysbox.netns.topology import network_of
from sysbox.security.landlock import unrestricted
from sysbox.spec import Bandwidth, Bridge, Namespaces
from sysbox.units.journal import SOCKET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.cli.doctor.scope import Sample
    from sysbox.conf.values import Settings
    from sysbox.host import HostFacts

_NEITHER = (
    "neither SELinux nor AppArmor: namespaces, users of its own, capabilities, seccomp, masks and the device"
    " filter hold a container, and nothing behind them"
)
_KERNEL = "Linux 5.12 or newer is needed"
_USED = ("mount", "pid", "network", "ipc", "uts", "cgroup")  # kinds that every container may have
# program -> what needs it
_PROGRAMS = {
    "mmdebstrap": "sysbox bootstrap",
    "journalctl": "sysbox logs",
}
_MODULES = {
    "pyroute2": "sysbox doctor, sysbox host stop",
    "iptc": "the packet filter",
    "pystemd": "sysbox info, sysbox doctor",
    "dbus_next": "sysbox events",
    "pyseccomp": "seccomp profiles",
    "backports.zstd": "layers and archives that zstd compressed",  # not since Python 3.14
}


def essentials(facts: HostFacts, sample: Sample, version: str, reason: str) -> list[Check]:
    """What every container depends on. `reason` is why there is no systemd, "" if there is one."""
    advice = "boot with systemd, or see `sysbox host start`"
    return [
        needed("host", "root", "" if facts.effective_uid == 0 else "only root runs containers"),
        needed("host", "systemd", reason or ("" if facts.systemd else "PID 1 is something else"),
               version, advice),
        needed("host", "hierarchy", _no_hierarchy(facts), _hierarchy(facts)),
        needed("host", "scope", sample.failure, "started, looked at and stopped"),
        needed("host", "journal", "" if exists(SOCKET) else f"no {SOCKET}",
               SOCKET, "systemctl start systemd-journald"),
        needed("host", "system calls", _system_calls(), posix.uname().release, _KERNEL),
        _overlay(),
        *_own_programs(),
        *_namespaces(),
    ]  # fmt: skip


def _no_hierarchy(facts: HostFacts) -> str:
    return "" if "name=systemd" in facts.controllers else "systemd's cgroup tree is not mounted"


def _hierarchy(facts: HostFacts) -> str:
    if facts.cgroup_mode == "v2":
        return "cgroup v2 (unified)"
    beside = exists("/sys/fs/cgroup/unified/cgroup.procs")
    return "cgroup v1, with a unified tree beside it (hybrid)" if beside else "cgroup v1 (legacy)"


def _system_calls() -> str:
    """Which system calls this kernel lacks; "" for none.

    Each is called with a bad argument: a call that exists fails with another error than ENOSYS.
    """
    calls: dict[str, Callable[[], object]] = {
        "open_tree": lambda: _sys.open_tree(-1, "x", 0),
        "move_mount": lambda: _sys.move_mount(-1, "x", -1, "x", 0),
        "fsopen": lambda: _sys.fsopen("", 0),
        "mount_setattr": lambda: _sys.mount_setattr(-1, "x", 0, 0, 1, 0, -1),
        "openat2": lambda: _sys.openat2(-1, "x", 0, 0, 0),
        "close_range": lambda: _sys.close_range(0xFFFFFFFF, 0xFFFFFFFF, 0),
        "pidfd_open": lambda: posix.pidfd_open(-1),
    }
    lacking = []
    for name, call in calls.items():
        try:
            call()
        except OSError as error:
            if error.errno == errno.ENOSYS:
                lacking.append(name)
    return f"this kernel lacks {', '.join(lacking)}" if lacking else ""


def _namespaces() -> list[Check]:
    checks = []
    for kind, there in namespace.probe().items():
        problem = "" if there else "not in this kernel, or its limit is 0"
        advice = f"see /proc/sys/user/max_{namespace.KINDS[kind][1]}_namespaces"
        make = needed if kind in _USED else useful
        checks.append(make("namespace", kind, problem, "", advice))
    return checks


def _overlay() -> Check:
    """Make an overlay mount below /var/lib/sysbox, without attaching it anywhere."""
    top = f"{paths.STATE}/doctor-{posix.getpid()}"
    advice = "put /var/lib/sysbox on ext4, xfs or btrfs, and see that overlay is built in"
    if posix.geteuid() != 0:
        return Check(area="host", name="overlay", state=MISSING, detail="only root can try it")
    made: list[str] = []
    try:
        for directory in (paths.STATE, top, f"{top}/lower", f"{top}/upper", f"{top}/work"):
            if not exists(directory):
                posix.mkdir(directory, 0o700)
                made.append(directory)
        options = tuple((f"{name}dir", f"{top}/{name}") for name in ("lower", "upper", "work"))
        posix.close(mount.new_filesystem("overlay", options, 0))
    except (OSError, SysboxError) as error:
        hint = error.hint if isinstance(error, SysboxError) else ""
        return needed("host", "overlay", str(error), advice=hint or advice)
    finally:
        # overlayfs made the first two below its work directory
        for directory in (f"{top}/work/work", f"{top}/work/index", *reversed(made)):
            try:
                posix.rmdir(directory)
            except OSError:
                pass  # never made; or a first container has put its files into paths.STATE meanwhile
    return needed("host", "overlay", "", paths.STATE)


def _own_programs() -> list[Check]:
    return [
        needed("host", name, "" if posix.access(f"{paths.LIBEXEC}/{name}", posix.X_OK)
               else "not installed", f"{paths.LIBEXEC}/{name}", "install sysbox anew")
        for name in ("sysbox-monitor", "sysbox-init")
    ]  # fmt: skip


def security(facts: HostFacts) -> list[Check]:
    """What confines a container besides namespaces."""
    modules = ", ".join(lsm.active())
    return [
        useful("security", "seccomp",
               "" if "Seccomp:" in read_text("/proc/self/status") else "not in this kernel"),
        useful("security", "SELinux", "" if facts.selinux else "not active",
               "enforcing" if lsm.is_enforcing() else "permissive"),
        *stored(facts),
        profiles(facts),
        useful("security", "Landlock", *_landlock()),
        useful("security", "modules", "" if modules else "securityfs is not mounted", modules),
        useful("security", "profile or label", "" if facts.selinux or facts.apparmor else _NEITHER,
               "SELinux" if facts.selinux else "AppArmor",
               "boot with security=apparmor apparmor=1, or with SELinux; --security-opt landlock=on"),
    ]  # fmt: skip


def _landlock() -> tuple[str, str, str]:
    """Why containers cannot have it; the ABI, and what that cannot keep from them; what to do."""
    if problem := landlock.lack():
        return problem, "", "--security-opt landlock=on needs it"
    version = landlock.abi()
    if version < landlock.LEAST:
        return f"ABI {version}: Linux 5.19 or newer is needed", "", ""
    lacking = unrestricted(version, Namespaces(network="host", pid="host"))
    return "", f"ABI {version}" + (f", cannot restrict {', '.join(lacking)}" if lacking else ""), ""


def network() -> list[Check]:
    """Links and the packet filter, tried in a new network namespace."""
    advice = "use --network host or none"
    found = _in_new_network(_try_links)
    return [
        useful("network", "bridge, veth", found, "", f"load the modules, or {advice}"),
        useful("network", "address filter", _in_new_network(_try_port_filter), "",
               "load the modules sch_ingress and cls_bpf: without them a container with NET_RAW can send in"
               " the name of another"),
        useful("network", "bandwidth", _in_new_network(_try_bandwidth), "",
               "load the modules ifb, sch_ingress, sch_tbf, cls_u32 and act_mirred, which --network-bandwidth"
               " needs"),
    ]  # fmt: skip


def packet_filter(chosen: Settings) -> list[Check]:
    """Which packet filter has sysbox's rules, or would get them, and why; whether they are in place."""
    try:
        mark = firewall_mark.read()
        if mark:
            problem = host_firewall.missing(mark)
            asked = f"; {mark.host} is asked about published ports" if mark.ask else ""
            detail = f"{mark.backend}: {mark.why or 'an older version has chosen it'}{asked}"
            return [useful("network", "packet filter", problem, detail, "sysbox network reload")]
        decided = host_firewall.decide(chosen)
        backend, why = decided.backend, decided.why
        problem = _in_new_network(lambda: _try_rules(backend))
        return [useful("network", "packet filter", problem, f"{backend}: {why}",
                       "load the packet filter's modules, or use --network host or none")]  # fmt: skip
    except SysboxError as error:
        return [useful("network", "packet filter", error.message, "", error.hint)]


def bridge(chosen: Settings) -> list[Check]:
    """The containers' bridge and its links, as the kernel has them; [] before the first container."""
    from sysbox.netns import bridges

    asked = Bridge(name=chosen.bridge, subnet=chosen.subnet)
    wanted = network_of(asked, read_text("/proc/net/route"))
    try:
        found = bridges.inspect(wanted.bridge)
    except NotFound:
        return []
    except SysboxError as error:
        return [useful("network", wanted.bridge, error.message, "", error.hint)]
    wrong = "; ".join(bridges.verify(found, wanted))
    detail = f"{', '.join(found.addresses)}, {len(found.ports)} links"
    advice = (
        f"stop the containers on it, and `ip link del {found.name}`: the next start makes it again"
    )
    return [useful("network", found.name, wrong, detail, advice)]


def _in_new_network(attempt: Callable[[], None]) -> str:
    """Why `attempt` fails in a child in a new network namespace; "" where it does not."""
    try:
        return why_not(attempt, namespace.CLONE_NEWNET)
    except SysboxError as error:
        return error.message


def _try_links() -> None:
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    with rt.Socket() as link:
        for name, kind in (("doctor0", "bridge"), ("doctor1", "veth")):
            body = (
                rt.ifinfo()
                + rt.text(rt.IFLA_IFNAME, name)
                + rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, kind))
            )
            link.request([rt.Message(rt.RTM_NEWLINK, flags, body, f"make a {kind}")])


def _make_link() -> None:
    flags = rt.NLM_F_CREATE | rt.NLM_F_EXCL
    kind = rt.nested(rt.IFLA_LINKINFO, rt.text(rt.IFLA_INFO_KIND, "veth"))
    body = rt.ifinfo() + rt.text(rt.IFLA_IFNAME, "doctor0") + kind
    with rt.Socket() as link:
        link.request([rt.Message(rt.RTM_NEWLINK, flags, body, "make a veth")])


def _try_bandwidth() -> None:
    """Each part that it needs, by a container's own steps; the first that is missing is named."""
    _make_link()
    both = Bandwidth(up=1 << 20, down=1 << 20)
    shaping.limit("doctor", (("doctor0", 1500),), both, Bandwidth())


def _try_port_filter() -> None:
    _make_link()
    one = Attachment(network="", host_link="doctor0", mac="02:00:00:00:00:01", address="10.0.0.2")
    if not port_filter.install([one]):
        raise Unsupported("this kernel cannot filter with BPF at a link")


def _try_rules(backend: str) -> None:
    policy = Policy(bridge="doctor0", subnet="10.0.0.0/24")
    firewall_mark.module(backend).apply((policy,), ())


def programs() -> list[Check]:
    """Programs and modules that single verbs run or import."""
    checks = []
    for name, purpose in _PROGRAMS.items():
        path = process.find_program(name)
        problem = "" if "/" in path else f"not installed: needed for {purpose}"
        checks.append(useful("program", name, problem, path, f"apt-get install {name}"))
    for name, purpose in _MODULES.items():
        if sys.version_info >= (3, 14) and name == "backports.zstd":
            continue
        problem = "" if _has_module(name) else f"not installed: needed for {purpose}"
        checks.append(useful("program", f"python: {name}", problem))
    return checks


def _has_module(name: str) -> bool:
    from importlib.util import find_spec

    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False  # the package that it is in
