"""Pods: containers that share namespaces, and with these an address, its ports and names, and a slice.

A definition is PODS/NAME/pod.json, written once; NAME/members/ has an empty file for each container of the
pod, and .ids/ a link from the pod's id to its name. RUN_PODS/NAME/ has what is there while the pod is up: the
namespaces, which the kernel keeps as long as they are mounted there, and state.json. Without `ready` there
the pod is being made or removed; if no process holds its lock, that was interrupted.
"""

from __future__ import annotations

import posix

from sysbox.base import codec, flock
from sysbox.base.errors import Conflict, FormatError, NotFound, Unsupported
from sysbox.base.files import (
    is_directory,
    make_private,
    names,
    read_file,
    remove_tree,
    sync_directory,
    unlink,
    write_file,
)
from sysbox.base.frozen import Frozen
from sysbox.base.paths import CONTAINERS, PODS, RUN_PODS
from sysbox.container import store as containers
from sysbox.container.identity import HEX, is_id
from sysbox.host import exists, read_text
from sysbox.linux import namespace
from sysbox.linux.userns import IdMap
from sysbox.netns.attachment import Attachment
from sysbox.spec import ContainerSpec, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysbox.container.store import Record

# Of pod.json; absent is 1. A file leaves out defaults: when one changes, raise this number and translate.
FORMAT = 1
SHARED = ("network", "ipc", "uts")  # the kinds of namespaces that a pod may share
IDS = f"{PODS}/.ids"
_FILE = "pod.json"
_STATE = "state.json"
_DRAFT, _OLD = ".new-", ".old-"  # before the name: a definition that is being made, or removed


class Pod(Frozen):
    """What was asked of a pod, and what that was resolved to."""

    id: str  # 64 hexadecimal digits
    name: str
    created_ns: int
    # of it what belongs to the pod: networks, ports, names, volumes, limits, slice, labels
    spec: ContainerSpec
    share: tuple[str, ...] = SHARED
    exit_policy: str = "continue"  # stop: it is taken down when its last container ends
    unit: str = ""  # the service of a unit file that declares it
    # its user namespace, as in a Record; () is the host's
    userns: str = "host"
    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()

    def wrong(self) -> str:
        if not is_id(self.id):
            return "id: must be 64 hexadecimal digits"
        if not self.name or "/" in self.name or self.name[0] == ".":
            return "name: must be that of a pod"
        if not {*self.share} <= {*SHARED}:
            return f"share: must be of {', '.join(SHARED)}"
        if self.exit_policy not in ("continue", "stop"):
            return "exit_policy: must be continue or stop"
        return "" if bool(self.uids) == bool(self.gids) else "uids, gids: must be given together"

    @property
    def slice(self) -> str:
        """The slice that its containers' scopes are in."""
        return self.spec.slice

    @property
    def kinds(self) -> tuple[str, ...]:
        """The namespaces that are the pod's own; the user namespace, which owns the others, is first."""
        own = [kind for kind in SHARED if kind in self.share]
        if self.spec.namespaces.network == "host":
            own = [kind for kind in own if kind != "network"]
        return ("user", *own) if self.uids else tuple(own)

    @property
    def hostname(self) -> str:
        """The host name; sethostname(2) takes 64 bytes."""
        return self.spec.hostname or self.name[:63]

    @property
    def directory(self) -> str:
        """What is there while the pod is up."""
        return directory_of(self.name)

    def namespace(self, kind: str) -> str:
        """The path of one of its namespaces while it is up."""
        return f"{self.directory}/{namespace.KINDS[kind][1]}"


class PodRun(Frozen):
    """A pod that is up, or that a process is making or removing."""

    id: str
    ready: bool = False
    started_ns: int = 0
    networks: tuple[Attachment, ...] = ()
    ports: tuple[Port, ...] = ()


class Lock(flock.Lock):
    """The lock on a pod: held while it is made, taken down, or gets a container.

    A container's lock is taken before, never after it. Raises KernelError, Conflict without `wait`.
    """

    def __init__(self, name: str, *, wait: bool = True) -> None:
        super().__init__(lock_file(name), wait=wait)
        self._name = name

    def release(self) -> None:
        """Release it; of a pod that is gone the file goes too, and who waits for it makes another one."""
        if not is_directory(f"{PODS}/{self._name}"):
            unlink(self.path)
        super().release()


class AllLock(flock.Lock):
    """The lock on all definitions; no other lock of pods is taken after it."""

    def __init__(self, *, wait: bool = True) -> None:
        super().__init__(f"{PODS}/.lock", wait=wait)


def directory_of(name: str) -> str:
    """What is there of a pod while it is up."""
    return f"{RUN_PODS}/{name}"


def lock_file(name: str) -> str:
    """The file of a pod's lock: no name of a pod begins with a dot."""
    return f"{RUN_PODS}/.{name}.lock"


def name_in(mode: str) -> str:
    """The pod whose namespace a mode such as ns:RUN_PODS/NAME/ipc joins; "" for any other mode."""
    path = mode.removeprefix(f"ns:{RUN_PODS}/")
    return "" if path == mode else path.partition("/")[0]


def is_there() -> bool:
    """Whether there has been a pod."""
    return exists(PODS)


def known() -> list[str]:
    """The names of all pods, sorted; also of those that cannot be read."""
    return sorted(name for name in names(PODS) if name[0] != ".")


def load(name: str) -> Pod:
    """A pod by its exact name. Raises NotFound, FormatError; Unsupported unless root."""
    path = f"{PODS}/{name}/{_FILE}"
    data = read_file(path) if name and "/" not in name and name[0] != "." else None
    if data is None:
        if posix.geteuid() != 0:
            raise Unsupported("only root can see pods", hint="run it with sudo")
        from sysbox.units import declares  # only for those who look for one that is not there

        usual = "`sysbox pod ps` lists them"
        raise NotFound(f"no such pod: {name}", hint=declares.hint(name, usual, "_pod"))
    try:
        values = codec.loads(data, path)
        codec.take_format(values, path, FORMAT)
        pod = Pod.from_data(values, path)
    except (ValueError, FormatError) as error:
        hint = f"`sysbox pod rm --force {name}` removes it"
        raise FormatError(f"{error}", hint=hint) from None
    if pod.name != name:
        raise FormatError(f"{path}.name: must be {name}")
    return pod


def resolve(word: str) -> str:
    """The name of a pod by its name, its id or the first digits of that. Raises NotFound, Conflict."""
    if word and "/" not in word and word[0] != "." and is_directory(f"{PODS}/{word}"):
        return word
    found = [one for one in names(IDS) if one.startswith(word)] if _is_short(word) else []
    if len(found) > 1:
        raise Conflict(f"'{word}' is the beginning of {len(found)} pod ids", hint="give more of it")
    return name_of(found[0]) if found else load(word).name


def _is_short(word: str) -> bool:
    return bool(word) and HEX.issuperset(word)


def find(word: str) -> Pod:
    """A pod by its name, its id or the first digits of that. Raises NotFound, Conflict, FormatError."""
    return load(resolve(word))


def name_of(pod_id: str) -> str:
    """The name of the pod with an id; "" where there is none."""
    try:
        return posix.readlink(f"{IDS}/{pod_id}")
    except OSError:
        return ""


def ids() -> list[str]:
    """The ids of all pods, and of those that are being made or removed."""
    return [one for one in names(IDS) if is_id(one)]


def all_pods(damaged: Callable[[FormatError], object] | None = None) -> list[Pod]:
    """All pods that can be read, by name; `damaged` is called with the error of each of the others."""
    found = []
    for name in known():
        try:
            found.append(load(name))
        except NotFound:
            continue
        except FormatError as error:
            if damaged:
                damaged(error)
    return found


def store(pod: Pod) -> None:
    """Write a new definition; the caller holds AllLock. Raises Conflict where the name is taken."""
    if is_directory(f"{PODS}/{pod.name}"):
        raise Conflict(
            f"the name '{pod.name}' is in use by another pod",
            hint="choose another name, or give --replace",
        )
    draft = f"{PODS}/{_DRAFT}{pod.name}"
    remove_tree(draft)
    make_private(IDS)
    make_private(f"{draft}/members")
    data = codec.dumps({"format": FORMAT, **pod.to_data()})
    write_file(f"{draft}/{_FILE}", data, durable=True)
    # the id first: whose lease of ids has no pod, that is free
    posix.symlink(pod.name, f"{IDS}/{pod.id}")
    posix.rename(draft, f"{PODS}/{pod.name}")
    sync_directory(PODS)


def forget(name: str) -> None:
    """Remove a definition, whatever it has; the caller holds AllLock. An absent one is success."""
    old = f"{PODS}/{_OLD}{name}"
    remove_tree(old)
    try:
        posix.rename(f"{PODS}/{name}", old)
    except FileNotFoundError:
        pass
    for one in names(IDS):
        if name_of(one) == name:
            unlink(f"{IDS}/{one}")
    remove_tree(old)


def tidy() -> list[str]:
    """Remove what was half made or removed; the caller holds AllLock. The names, of ids without a pod too."""
    gone = [name for name in names(PODS) if name.startswith((_DRAFT, _OLD))]
    for name in gone:
        remove_tree(f"{PODS}/{name}")
    for one in names(IDS):
        if not is_directory(f"{PODS}/{name_of(one)}"):
            unlink(f"{IDS}/{one}")
            gone.append(one[:12])
    return gone


# Containers of a pod


def add_member(name: str, container_id: str) -> None:
    """Note a container before it is made; the caller holds the pod's lock."""
    write_file(_member(name, container_id), b"")


def drop_member(name: str, container_id: str) -> None:
    """Forget a container; an unknown one is success."""
    unlink(_member(name, container_id))


def members(name: str) -> list[str]:
    """The ids of the pod's containers, also of those that are being made."""
    found = (one for one in names(f"{PODS}/{name}/members") if is_id(one))
    return [one for one in found if is_directory(f"{CONTAINERS}/{one}")]


def records_of(name: str) -> list[Record]:
    """The containers of a pod that can be read, the oldest first."""
    found = []
    for container_id in members(name):
        try:
            found.append(containers.load(container_id))
        except (FormatError, NotFound):
            continue
    return sorted(found, key=lambda one: one.created_ns)


def drop_strays(name: str) -> None:
    """Forget containers that are gone, but while one is being made."""
    try:
        with Lock(name, wait=False):
            _drop_strays(name)
    except Conflict:
        pass  # ignoring: the next time does


def _drop_strays(name: str) -> None:
    kept = members(name)
    for one in names(f"{PODS}/{name}/members"):
        if one not in kept:
            unlink(_member(name, one))


def _member(name: str, container_id: str) -> str:
    return f"{PODS}/{name}/members/{container_id}"


# What is there


def run_of(name: str) -> PodRun | None:
    """What is there of a pod; None where it is down. Raises FormatError."""
    path = f"{directory_of(name)}/{_STATE}"
    data = read_file(path)
    if data is None:
        return None
    try:
        found: PodRun = PodRun.from_data(codec.loads(data, path), path)
    except (ValueError, FormatError) as error:
        raise FormatError(f"{error}", hint=f"`sysbox pod stop {name}` takes it down") from None
    return found


def write_run(name: str, run: PodRun) -> None:
    """Write what is there; the caller holds the pod's lock."""
    make_private(directory_of(name))
    write_file(f"{directory_of(name)}/{_STATE}", codec.dumps(run.to_data()))


def hostname_of(mode: str) -> str:
    """The host name of the pod whose UTS namespace a mode joins; "" where it joins none."""
    name = name_in(mode)
    return read_text(f"{directory_of(name)}/hostname").strip() if name else ""


def is_up(pod_id: str) -> bool:
    """Whether anything is there of the pod with an id. Also True where that cannot be read."""
    name = name_of(pod_id)
    return bool(name) and exists(f"{directory_of(name)}/{_STATE}")


def ups() -> list[str]:
    """The names of pods of which something is there, defined or not."""
    return [name for name in names(RUN_PODS) if name[0] != "."]
