"""A container that is made in a pod: what it has of the pod, and what it cannot ask for itself."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.container import pods
from sysbox.image.store import Store
from sysbox.lifecycle import pod as lifecycle
from sysbox.spec import Bandwidth, ContainerSpec, Dns, Namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.container.pods import Pod

NEW = "new:"
_PLAIN = ContainerSpec(image="")


class Joining:
    """A context for the making of a container: `spec` has what the pod gives it, and the pod stays.

    With `new:NAME` the pod is made of what the container asks for. If the block fails, the pod does not know
    the container, and a new one is gone. Raises NotFound, SpecError for what belongs to the pod, and what
    `pod.create` raises.
    """

    def __init__(self, spec: ContainerSpec, container_id: str) -> None:
        self._id = container_id
        self._new = spec.pod.startswith(NEW)
        if self._new:
            Store().resolve(
                spec.image
            )  # an image that is missing is an error before there is a pod
            self.name, spec = _new_pod(spec)
        else:
            self.name = pods.resolve(spec.pod)
        self._spec = spec

    def __enter__(self) -> Self:
        try:
            self._lock = pods.Lock(self.name)
            try:
                self.spec = joined(self._spec, pods.load(self.name))
                pods.add_member(self.name, self._id)
            except BaseException:
                self._lock.release()
                raise
        except BaseException:
            self._undo()
            raise
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is not None:
            pods.drop_member(self.name, self._id)
        self._lock.release()
        if error is not None:
            self._undo()

    def _undo(self) -> None:
        if self._new:
            lifecycle.remove(self.name, force=True, ignore=True)


def planned(spec: ContainerSpec, *, new: bool = False) -> ContainerSpec:
    """What a container would get of its pod; nothing is made.

    With `new`, of a pod that is made for it, that is only checked: the container is planned without a pod,
    with what the pod would get. Raises NotFound, SpecError, and what `pod.check` raises.
    """
    if spec.pod.startswith(NEW):
        if new:
            Store().resolve(spec.image)
            pod = lifecycle.check(_wish(spec))
            joined(_without(spec, pod.name), pod)
            return spec.replace(pod="")
        raise SpecError(
            f"--pod {spec.pod}: --dry-run makes no pod", hint="`sysbox pod create` makes it first"
        )
    return joined(spec, pods.find(spec.pod))


def joined(spec: ContainerSpec, pod: Pod) -> ContainerSpec:
    """The specification of a container in a pod. Raises SpecError for what belongs to the pod."""
    _refuse(spec, pod)
    asked, kinds = spec.namespaces, pod.kinds
    modes = {kind: f"ns:{pod.namespace(kind)}" for kind in kinds}
    if "network" in pod.share and "network" not in kinds:
        modes["network"] = "host"
    modes.setdefault("user", "host")
    chosen = {mount.target for mount in spec.mounts}
    own: dict[str, object] = {}
    if "network" not in kinds:
        # its files are not those of the pod
        own = {"add_hosts": (*pod.spec.add_hosts, *spec.add_hosts)}
        if spec.dns == Dns():
            own["dns"] = pod.spec.dns
    mounts = (one for one in pod.spec.mounts if one.target not in chosen)
    return spec.replace(
        pod=pod.name,
        slice=pod.slice,
        namespaces=asked.replace(**modes),
        mounts=(*mounts, *spec.mounts),
        **own,
    )


def _refuse(spec: ContainerSpec, pod: Pod) -> None:
    for flag, field, kind in _OF_POD:
        if (not kind or kind in pod.share) and getattr(spec, field) != getattr(_PLAIN, field):
            raise _belongs(flag, pod)
    for kind, flag in (("network", "--network"), ("ipc", "--ipc"), ("uts", "--uts")):
        if kind in pod.share and getattr(spec.namespaces, kind) != getattr(Namespaces(), kind):
            raise _belongs(flag, pod)
    if spec.namespaces.user:
        raise _belongs("--userns", pod)
    # of a declared container it is that of its service
    if spec.slice != _PLAIN.slice and not spec.unit:
        raise _belongs("--slice", pod)


def _belongs(flag: str, pod: Pod) -> SpecError:
    return SpecError(
        f"{flag} does not go with --pod {pod.name}: it belongs to the pod",
        hint=f"give it to `sysbox pod create`, or leave it out{_ALONE.get(flag, '')}",
    )


# (flag, field of the specification, the kind of namespace that it belongs to; "" in any case)
_OF_POD = (
    ("--publish", "ports", "network"),
    ("--publish-all", "publish_all", "network"),
    ("--network", "networks", "network"),
    ("--network-bandwidth", "bandwidth", "network"),
    ("--dns", "dns", "network"),
    ("--link", "links", "network"),
    ("--hostname", "hostname", "uts"),
    ("--domainname", "domainname", "uts"),
    ("--shm-size", "shm_size", "ipc"),
)
_ALONE = {
    "--ipc": "; --share says what the pod shares",
    "--uts": "; --share says what the pod shares",
}


def _new_pod(spec: ContainerSpec) -> tuple[str, ContainerSpec]:
    """(the name of the pod that `new:NAME` asks for, which is made, the specification without its part)."""
    made = lifecycle.create(_wish(spec))
    return made.name, _without(spec, made.name)


def _wish(spec: ContainerSpec) -> lifecycle.Wish:
    """The pod that `new:NAME` asks for. Raises SpecError for what no pod can have."""
    asked = spec.namespaces
    if spec.links or spec.bandwidth != Bandwidth():
        flag = "--link" if spec.links else "--network-bandwidth"
        raise SpecError(f"{flag} does not go with --pod {spec.pod}", hint=f"leave out {flag}")
    of_pod = _PLAIN.replace(
        name=spec.pod.removeprefix(NEW),
        networks=spec.networks,
        ports=spec.ports,
        dns=spec.dns,
        add_hosts=spec.add_hosts,
        hostname=spec.hostname,
        domainname=spec.domainname,
        shm_size=spec.shm_size,
        slice=spec.slice,
        bridge=spec.bridge,
        userns=spec.userns,
        namespaces=Namespaces(network=asked.network, user=asked.user),
    )
    return lifecycle.Wish(spec=of_pod)


def _without(spec: ContainerSpec, pod: str) -> ContainerSpec:
    """The specification of a container of `pod`, without what its new pod has got of it."""
    rest = {
        field: getattr(_PLAIN, field)
        for field in (
            "networks", "ports", "dns", "add_hosts", "hostname", "domainname", "shm_size", "slice", "userns",
        )
    }  # fmt: skip
    namespaces = spec.namespaces.replace(network="bridge", user="")
    return spec.replace(pod=pod, namespaces=namespaces, **rest)
