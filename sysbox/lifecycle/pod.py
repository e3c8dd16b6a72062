"""Make pods and remove them; and what `sysbox gc` does for them."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError, Unsupported
from sysbox.base.frozen import Frozen
from sysbox.base.paths import LEVELS
from sysbox.conf.values import Settings
from sysbox.container import id_ranges, identity, lease_files, pods, store
from sysbox.container.pods import Pod
from sysbox.fs import mappable
from sysbox.host import probe
from sysbox.lifecycle import control, user_namespace
from sysbox.lifecycle.abreast import abreast
from sysbox.lifecycle.remove import Killed, discard_by_id
from sysbox.linux import namespace, userns
from sysbox.run import pod_slice, pod_spaces
from sysbox.run import pods as running
from sysbox.security import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.spec import ContainerSpec

_TRIES = 5  # how often `rm` looks again for containers that were added meanwhile


class Wish(Frozen):
    """What `pod create` asks for."""

    spec: ContainerSpec  # `slice` is the one above that of the pod
    share: tuple[str, ...] = pods.SHARED
    exit_policy: str = "continue"
    unit: str = ""
    anew: bool = False  # a pod of this name is removed first


# Make


def create(wish: Wish) -> Pod:
    """A new pod, which is down. Raises SysboxError, naming what is wrong; nothing is left then."""
    if posix.geteuid() != 0:
        raise Unsupported("only root can create pods", hint="run it with sudo")
    pod = _named(wish)
    _check(pod)
    if wish.anew:
        remove(pod.name, force=True, ignore=True)
    with id_ranges.hold():
        pod = _with_ids(pod)
        try:
            with pods.AllLock():
                pods.store(pod)
        except BaseException:
            id_ranges.release(pod.id)
            raise
    try:
        with pods.Lock(pod.name):
            pod_slice.ensure(pod)
    except BaseException:
        remove(pod.name, force=True, ignore=True)
        raise
    return pod


def check(wish: Wish) -> Pod:
    """The pod that `create` would make, but for its ids; nothing is made.

    Raises Conflict where the name is taken, SpecError, NotFound, Unsupported.
    """
    pod = _named(wish)
    if pod.name in pods.known():
        raise Conflict(
            f"the name '{pod.name}' is in use by another pod",
            hint=f"choose another name, or run it in that pod: --pod {pod.name}",
        )
    _check(pod)
    return pod


def _named(wish: Wish) -> Pod:
    """The pod with its name and slice; a name that was not given is one that no pod has."""
    taken = pods.known()
    name = wish.spec.name or identity.random_name()
    while not wish.spec.name and name in taken:
        name = identity.random_name()
    above = wish.spec.slice if wish.spec.slice != "system.slice" else pod_slice.PARENT
    spec = wish.spec.replace(image="", name=name, slice=pod_slice.unit_of(name, above))
    return Pod(
        id=identity.new_id(),
        name=name,
        created_ns=store.now_ns(),
        spec=spec,
        share=wish.share,
        exit_policy=wish.exit_policy,
        unit=wish.unit,
    )


def _check(pod: Pod) -> None:
    """Raise SpecError, NotFound or Unsupported for what the pod cannot have."""
    spec = pod.spec
    if spec.namespaces.network not in ("bridge", "none", "host"):
        raise SpecError(
            f"--network {spec.namespaces.network}: a pod has a network of its own, or the host's",
            hint="a container can join another one's network, with `run --network`",
        )
    if "network" not in pod.share and (spec.networks or spec.ports):
        raise SpecError(
            "--share without net: each container has its own network, and the pod has none",
            hint="leave out --network and --publish, or share net",
        )
    if "uts" not in pod.share and (spec.hostname or spec.domainname):
        raise SpecError(
            "--share without uts: each container has its own host name, and the pod has none",
            hint="leave out --hostname, or share uts",
        )
    running.spaces_of(pod, running.net_plan(pod))
    pod_slice.plan(spec, probe())


def _with_ids(pod: Pod) -> Pod:
    """The pod with its user namespace, with its ids leased. Raises SpecError, Unsupported, Conflict."""
    default = Settings().userns
    chosen = idmap.decide(pod.spec, (), default=default)
    if chosen.mode in idmap.OWN and (incapable := _incapable()):
        chosen = idmap.decide(pod.spec, (), incapable, default)
    if chosen.mode == "host":
        return pod
    wish = user_namespace.wish_of(pod.spec, chosen, ())
    uids, gids = id_ranges.acquire(pod.id, wish)
    found = pod.replace(userns=chosen.mode, uids=uids, gids=gids)
    try:
        user_namespace.check_maps(found.spec, uids, gids)
    except SpecError:
        id_ranges.release(pod.id)
        raise
    return found


def _incapable() -> str:
    if not userns.is_initial():
        return mappable.INSIDE
    if not namespace.is_there("user"):
        return "this kernel makes no user namespaces (see /proc/sys/user/max_user_namespaces)"
    return mappable.why_not_kernel()


# Remove


def remove(
    name: str, *, force: bool = False, ignore: bool = False, timeout: int | None = None
) -> None:
    """Remove a pod with its containers. Raises Conflict where one runs, without `force`, NotFound.

    `timeout`: with `force`, the seconds that they have to stop; None is none.
    """
    if name not in pods.known():
        if ignore:
            return
        pods.load(name)
    if not force and (left := running.running(name)):
        raise Conflict(
            f"pod {name} has {len(left)} running container{'s' * (len(left) > 1)}",
            hint=f"`sysbox pod stop {name}` first, or `sysbox pod rm --force`",
        )
    if force and timeout is not None:
        abreast(pods.records_of(name), lambda one: control.stop(one, timeout))
    for _ in range(_TRIES):
        _remove_members(name, force=force)
        with pods.Lock(name):
            if pods.members(name):
                continue  # one was added meanwhile
            _forget(name)
            return
    raise Conflict(f"pod {name}: containers are added to it", hint="try again")


def _remove_members(name: str, *, force: bool) -> None:
    records = pods.records_of(name)
    with Killed([one.id for one in records] if force else []):
        for one in records:
            control.remove(one, force=force, volumes=True)
    for container_id in pods.members(name):
        try:
            if store.load(container_id).spec.pod != name:
                pods.drop_member(name, container_id)
        except FormatError:
            if not force:
                raise
            discard_by_id(container_id)
        except NotFound:
            continue


def _forget(name: str) -> None:
    """Take a pod down and remove its definition; the caller holds its lock, and it has no containers."""
    pod_id = id_of(name)
    running.take_down(name, pod_id)
    pod_slice.stop(_slice_of(name))
    with pods.AllLock():
        pods.forget(name)
    id_ranges.release(pod_id)
    lease_files.release(LEVELS, pod_id)


def id_of(name: str) -> str:
    """The id of a pod, also of one whose definition cannot be read. Raises NotFound."""
    try:
        return pods.load(name).id
    except FormatError:
        found = [one for one in pods.ids() if pods.name_of(one) == name]
        return found[0] if found else identity.new_id()


def _slice_of(name: str) -> str:
    try:
        return pods.load(name).slice
    except FormatError:
        return pod_slice.unit_of(name)


# Clean up


def collect() -> Iterator[str]:
    """Take down what a crash has left of pods; a line for each repair. For `sysbox gc`."""
    try:
        if pods.is_there():
            with pods.AllLock(wait=False):
                gone = pods.tidy()
            for what in gone:
                yield f"removed what was left of the pod {what}"
    except Conflict:
        pass  # a pod is being made or removed
    for name in pods.known():
        pods.drop_strays(name)
    for name in pods.ups():
        try:
            with pods.Lock(name, wait=False):
                if _is_left(name):
                    running.take_down(name, _id_of_left(name))
                    yield f"took down the pod {name}"
        except Conflict:
            continue  # it is in use


def _id_of_left(name: str) -> str:
    """The id of a pod by its definition, else by its state; a new one where neither can be read."""
    try:
        return pods.load(name).id
    except (FormatError, NotFound):
        pass  # ignoring: see below
    try:
        run = pods.run_of(name)
    except FormatError:
        run = None
    return run.id if run else identity.new_id()


def _is_left(name: str) -> bool:
    """Whether a process that made it or took it down has died meanwhile, or its definition is gone."""
    if running.running(name):
        return False
    try:
        pod, run = pods.load(name), pods.run_of(name)
    except (FormatError, NotFound):
        return True
    return not (run and run.ready and pod_spaces.are_kept(pod.directory, pod.kinds))
