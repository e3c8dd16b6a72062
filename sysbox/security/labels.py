"""Decide the SELinux labels of a container: that of its processes, and that of its files. Pure.

A label is USER:ROLE:TYPE:LEVEL. The types come from a file of container-selinux, or from the policy's
lxc_contexts (selinux_lxc_contexts_path(3)). The level has two categories that no other container has: by
these alone SELinux keeps containers of one type apart.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

CATEGORIES = 1024  # c0 to c1023, as every policy with categories has them
INIT_TYPE = "container_init_t"  # of a container with systemd inside
PRIVILEGED_TYPE = "spc_t"  # which no rule confines
DISABLE, NESTED = "disable", "nested"
MOST = 255  # bytes: of a mount option's value (fsconfig(2))
# where SELinux is off, these ask for what is the case
HARMLESS = (DISABLE,)
_PARTS = ("user", "role", "type", "level")


class Contexts(Frozen):
    """What the policy's file says, or container-selinux where it says nothing."""

    process: str = "system_u:system_r:container_t:s0"
    file: str = "system_u:object_r:container_file_t:s0"
    ro_file: str = "system_u:object_r:container_ro_file_t:s0"  # of layers, on disk
    init_process: str = ""  # few policies name it


class Labels(Frozen):
    """The labels of one container; "" is none of its own."""

    process: str = ""
    mount: str = ""  # of the files on its file systems


def parse_contexts(text: str) -> Contexts:
    """Either file: lines of NAME = "LABEL". What is missing or is no label is left at its default."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        value = value.strip().strip('"')
        if equals and value.count(":") >= 3:
            found[name.strip()] = value
    names = ("process", "file", "ro_file", "init_process")
    return Contexts(**{name: found[name] for name in names if name in found})


def is_disabled(spec: ContainerSpec) -> bool:
    """Whether no rule is to confine the container: asked for, or because it shares the host's processes.

    docker's rule: a label that is asked for counts more than --privileged, and than --pid and --ipc host.
    """
    asked = spec.security.label
    if asked:
        return DISABLE in asked
    spaces = spec.namespaces
    return spec.security.privileged or "host" in (spaces.pid, spaces.ipc)


def chosen(options: tuple[str, ...]) -> dict[str, str]:
    """The options `label=KEY:VALUE`, the last of each key; without those that have no value."""
    pairs = (one.partition(":") for one in options)
    return {key: value for key, colon, value in pairs if colon}


def decide(
    spec: ContainerSpec,
    contexts: Contexts,
    level: str,
    *,
    init_type: str = "",
    other: str = "",
) -> Labels:
    """The labels of a container whose leased level is `level`, as in s0:c1,c2.

    `init_type` is the type where systemd is its first process, "" for other containers; `other` the label of
    the processes of a container whose pid or IPC namespace it shares, which it has too.
    """
    options = chosen(spec.security.label)
    if is_disabled(spec):
        process = with_parts(contexts.process, {"type": PRIVILEGED_TYPE})
        return Labels(process=process, mount=with_parts(contexts.file, {"level": level}))
    process = with_parts(contexts.process, {"level": level})
    if contexts.init_process and init_type:
        process = with_parts(contexts.init_process, {"level": level})
    elif init_type:
        process = with_parts(process, {"type": init_type})
    if other and not spec.security.label:
        process = other
        if type_of(other) != PRIVILEGED_TYPE:
            level = level_of(other)
    process = with_parts(process, {key: options[key] for key in _PARTS if key in options})
    # the policy lets processes make files of their own user, and of one level
    files = {"level": options.get("level", level).rpartition("-")[2]}
    if "user" in options:
        files["user"] = options["user"]
    if "filetype" in options:
        files["type"] = options["filetype"]
    return Labels(process=process, mount=with_parts(contexts.file, files))


def with_parts(label: str, changes: dict[str, str]) -> str:
    """The label with other parts: user, role, type, level."""
    parts = dict(zip(_PARTS, label.split(":", 3), strict=True))
    return ":".join({**parts, **changes}.values())


def type_of(label: str) -> str:
    """Its type; "" for no label."""
    return label.split(":", 3)[2] if label else ""


def level_of(label: str) -> str:
    """Its level, such as s0:c1,c2; "" for no label."""
    return label.split(":", 3)[3] if label else ""


def pair_of(level: str) -> tuple[int, int] | None:
    """The two categories of a level such as s0:c1,c2; None for any other level."""
    words = level.partition(":")[2].split(",")
    if len(words) != 2 or not all(
        one[:1] == "c" and one[1:].isascii() and one[1:].isdecimal() and len(one) < 6
        for one in words
    ):
        return None
    first, second = sorted(int(one[1:]) for one in words)
    return (first, second) if first < second < CATEGORIES else None


def level_with(base: str, pair: tuple[int, int]) -> str:
    """The level of a pair of categories, with the sensitivity of the label `base`."""
    return f"{shared_level(base)}:c{pair[0]},c{pair[1]}"


def shared_level(base: str) -> str:
    """The level without categories, which every container may read."""
    return level_of(base).partition(":")[0].partition("-")[0]
