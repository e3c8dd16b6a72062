"""The text of sysbox's own AppArmor profiles. Pure; the syntax is that of apparmor.d(5).

They are a second net behind capabilities, namespaces, masks and the filter: a container that was given more
of these, or has got round one, still can neither change the kernel's files, nor mount, nor reach a process
of the host.
"""

from __future__ import annotations

from sysbox.security.apparmor import DEFAULT, SYSTEMD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# descriptions of what a parser knows (abi in apparmor.d(5)), the newest that this text is written for first
ABIS = ("4.0", "3.0")
# those of security/sysctls.py, which belong to a namespace: the kernel decides who may write them
OWN_SETTINGS = (
    "fs/mqueue/*", "kernel/domainname", "kernel/hostname", "kernel/msg*", "kernel/sem*", "kernel/shm*",
    "net/*",
)  # fmt: skip
# a process's own files; settings, which have rules of their own; triggers, which belong to who makes them
_OWN_PROC = (*(f"{digit}*" for digit in "123456789"), "pressure", "sys")


def text(name: str, abi: str = "", file: str = "") -> str:
    """The profile `name`, one of apparmor.OWN. `abi` is one of ABIS; "" where the parser has none of them.

    `file` has a description to use instead of the parser's own, that of `without_sockets`.
    """
    rules = {DEFAULT: _default, SYSTEMD: _systemd}[name]
    lines = [
        *_rules(name),
        # of AppArmor 4: older parsers know no such rules, and older kernels do not ask
        *(("userns,", "mqueue,", "io_uring,") if abi == "4.0" else ()),
        *rules(),
        f"include if exists <local/{name}>",
    ]
    head = f'abi "{file}",\n' if file else f"abi <abi/{abi}>,\n" if abi else ""
    body = "".join(f"  {line}\n" for line in lines)
    return f"{head}profile {name} flags=(attach_disconnected, mediate_deleted) {{\n{body}}}\n"


def without_sockets(description: str) -> str:
    """A description (abi in apparmor.d(5)) without the kernel's rules about sockets.

    A profile that is compiled for it leaves these out, and the kernel asks it nothing about sockets. Else
    Linux before 6.2 refuses to lock one, whatever the rules say: `network,` allows no such thing, and no
    other rule does. systemd locks sockets for DynamicUser= and PrivateNetwork=.
    """
    kept, group, depth = [], "", 0
    for letter in description:  # NAME {VALUES, or more of the same}
        group += letter
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "}" and not depth:
            if not group.lstrip().startswith("network"):
                kept.append(group)
            group = ""
    return "".join((*kept, "\n"))


def about_sockets(rules: str) -> bool:
    """Whether rules of an administrator's are about sockets; also where they may be, in another file."""
    for line in rules.replace("#include", "include").split("\n"):
        words = line.partition("#")[0]
        for mark in ",(){}":
            words = words.replace(mark, " ")
        if not {"network", "unix", "all", "include"}.isdisjoint(words.split()):
            return True
    return False


def _rules(name: str) -> Iterable[str]:
    """What both have: all that is the business of capabilities, the filter and the mounts, and peers."""
    return (
        "file,",
        "network,",
        "unix,",
        "capability,",
        # who has it would change the policy that holds him (capabilities(7))
        "deny capability mac_admin,",
        # from sysbox and systemd; to and from processes of containers
        "signal (receive) peer=unconfined,",
        f"signal (send, receive) peer={name},",
        f"ptrace (read, readby, trace, tracedby) peer={name},",
        f"dbus peer=(label={name}),",
        "deny /sys/kernel/security/** rwklm,",
    )


def _default() -> Iterable[str]:
    """No rule for mount, umount, pivot_root and change_profile: these are denied, and logged."""
    yield "deny /proc/kcore rwklm,"
    for directory, kept in (
        ("/proc", _OWN_PROC), ("/proc/sys", OWN_SETTINGS), ("/sys", ("fs/cgroup/*",)),
    ):  # fmt: skip
        yield from (f"deny {pattern} wkl," for pattern in all_but(directory, kept))


def _systemd() -> Iterable[str]:
    """Who mounts can mount /proc elsewhere: rules about paths would hold nobody.

    In its user namespace the kernel itself refuses what those of `_default` deny.
    """
    return ("mount,", "remount,", "umount,", "pivot_root,", "dbus,")


def all_but(directory: str, kept: Iterable[str]) -> list[str]:
    """Patterns of all that is below `directory` but `kept`: paths from there, and what is below them.

    "name*" is all that begins so. AppArmor has no exceptions to a denial: each pattern is of the paths that
    are like the kept ones up to a certain letter, and then differ or end.
    """
    names = {name.removesuffix("*") for name in kept}
    open_ended = {name.removesuffix("*") for name in kept if name.endswith("*")}
    begins = {name[:length] for name in names for length in range(len(name))} - open_ended
    patterns = []
    for begin in sorted(begins | names - open_ended):
        nexts = {
            name[len(begin)] for name in names if len(name) > len(begin) and name.startswith(begin)
        }
        nexts |= {"/"} if begin in names else set()
        others = f"[^{''.join(sorted(nexts))}]**"
        ends = begin and begin not in names and not begin.endswith("/")
        patterns.append(f"{directory}/{begin}" + (f"{{,{others}}}" if ends else others))
    return patterns
