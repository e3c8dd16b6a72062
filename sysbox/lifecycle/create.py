"""Create a container from a specification: find its image, write its record, take its name."""

from __future__ import annotations

import posix

from sysbox.base import paths
from sysbox.base.errors import Conflict, SpecError, Unsupported
from sysbox.conf.values import Settings, is_there
from sysbox.container import events, identity, records, store
from sysbox.fs import volumes
from sysbox.fs.drivers.driver import driver_of
from sysbox.host import landlock_abi, probe
from sysbox.image.resolved import resolve
from sysbox.image.store import Store
from sysbox.parse.common import clean_path
from sysbox.parse.network import parse_port
from sysbox.run import planning
from sysbox.spec import ContainerSpec, Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.container.store import Record
    from sysbox.image.model import Image
    from sysbox.lifecycle.run import Notices
    from sysbox.plan import Plan
    from sysbox.spec import Endpoint, Logging, Port


def create(
    spec: ContainerSpec, before: Callable[[], None], notices: Notices, container_id: str = ""
) -> tuple[Record, Plan]:
    """(the new container, the plan of a start that this process supervises).

    `before` is called before anything is made but a lease of ids; `container_id` is a new one by default.
    Raises SysboxError, which names what is wrong; nothing is left then.
    """
    if not spec.pod:
        return _create(spec, before, notices, container_id)
    from sysbox.lifecycle import pod_members  # few containers are in one

    container_id = container_id or identity.new_id()
    with pod_members.Joining(spec, container_id) as joining:
        return _create(joining.spec, before, notices, container_id)


def _create(
    spec: ContainerSpec, before: Callable[[], None], notices: Notices, container_id: str
) -> tuple[Record, Plan]:
    with Store().hold():
        # until the record is written, the image could be removed: from then on it is in use
        image, spec = prepare(spec)
        return from_draft(_draft(spec, image, container_id), before, notices)


def from_draft(record: Record, before: Callable[[], None], notices: Notices) -> tuple[Record, Plan]:
    """As `of_draft`, of a record without labels: on a host with SELinux it gets them."""
    if not probe().selinux and not record.spec.security.label:
        return of_draft(record, before, notices)
    from sysbox.run import labels  # few hosts have SELinux

    if not probe().selinux:
        labels.check_without(record.spec.security)
        return of_draft(record, before, notices)
    with labels.leased(record) as labelled:
        return of_draft(labelled, before, notices)


def of_draft(record: Record, before: Callable[[], None], notices: Notices) -> tuple[Record, Plan]:
    """As `create`, of the record of a container that does not exist yet and whose layers are held."""
    if not _has_choice(record.spec):
        return _make(record, before, notices)
    from sysbox.lifecycle import user_namespace

    with user_namespace.decided(record, notices) as decided:
        return _make(decided, before, notices)


def _make(record: Record, before: Callable[[], None], notices: Notices) -> tuple[Record, Plan]:
    records.to_checked_file(record)
    plan = planning.plan_of(record, probe())  # raises for what cannot be started
    if plan.process.landlock:
        _tell_landlock(record.spec, notices)
    before()
    if not record.spec.cidfile:
        made = _claim(record)
    else:
        from sysbox.lifecycle import cidfile  # rarely given

        with cidfile.Written(record.spec.cidfile, record.id):
            made = _claim(record)
    return made, plan.with_name(made.name, record.spec.image)


def _tell_landlock(spec: ContainerSpec, notices: Notices) -> None:
    from sysbox.security import landlock  # few containers need it

    reach = landlock.unrestricted(landlock_abi(), spec.namespaces, newest=False)
    if reach:
        notices.with_less_landlock(reach)


def _has_choice(spec: ContainerSpec) -> bool:
    """Whether it may be in another user namespace than the host's."""
    asked = spec.namespaces
    default = spec.userns.default or Settings().userns
    joins = (asked.network, asked.pid, asked.ipc, asked.uts, asked.cgroup)
    return (asked.user or default) != "host" or any(
        mode.startswith(("container:", "ns:")) for mode in joins
    )


def describe(spec: ContainerSpec) -> str:
    """What `run` would do (`--dry-run`), a line each; nothing is made."""
    from sysbox.lifecycle import user_namespace

    record, plan = _planned(spec)
    return f"{plan.describe()}\n{user_namespace.describe(record)}\n{_log(spec.logging)}"


def check(spec: ContainerSpec, replaced: str) -> Record:
    """The record that `create` would make, but for its name and a new pod; nothing is made.

    `replaced` is the id of the container that will be gone by then. Raises what `create` raises.
    """
    if spec.cidfile:
        from sysbox.lifecycle import cidfile  # rarely given

        cidfile.check(spec.cidfile, replaced)
    return _planned(spec, new_pod=True)[0]


def _planned(spec: ContainerSpec, *, new_pod: bool = False) -> tuple[Record, Plan]:
    """The record and the plan of a container that is not made; with `new_pod` its pod may not be there."""
    from sysbox.lifecycle import user_namespace

    if spec.pod:
        from sysbox.lifecycle import pod_members

        spec = pod_members.planned(spec, new=new_pod)
    image, spec = prepare(spec)
    record = user_namespace.resolve(_draft(spec, image), lease=False)
    if probe().selinux or spec.security.label:
        from sysbox.run import labels  # few hosts have SELinux

        record = labels.decided(record, lease=False)
    return record, planning.plan_of(record, probe())


def _log(logging: Logging) -> str:
    if logging.driver != "journald":
        return f"log {logging.driver}"
    from sysbox.units import journal

    rate, burst = journal.limits(logging)
    return f"log journald, {rate} lines a second, {burst} at once" if rate else "log journald"


def prepare(spec: ContainerSpec) -> tuple[Image, ContainerSpec]:
    """Find the image, and complete the specification with what it and other containers decide.

    Raises NotFound, Unsupported, TrustError.
    """
    if posix.geteuid() != 0:
        raise Unsupported("only root can create containers", hint="run it with sudo")
    image = Store().resolve(spec.image)
    check_trust(image, spec.image, signed=spec.signed)
    if spec.secrets or spec.credentials:
        _check_private(spec)
    asked = spec.namespaces
    changes = {
        kind: f"container:{store.resolve(mode[10:])}"
        for kind in ("network", "pid", "ipc", "uts", "cgroup", "time", "user")
        if (mode := getattr(asked, kind)).startswith("container:")
    }
    chosen = {mount.target for mount in spec.mounts}
    extra = tuple(
        _volume_of(path, spec.image_volumes)
        for path in image.config.volumes
        if clean_path(path) not in chosen and spec.image_volumes != "ignore"
    )
    checks = spec.health
    if checks.command or checks.startup_command or image.config.health:
        from sysbox.container import health  # few containers need it

        checks = health.merge(checks, image.config.health)
    return image, spec.replace(
        namespaces=asked.replace(**changes),
        mounts=spec.mounts + extra,
        health=checks,
        networks=_by_name(spec.networks),
        links=_links(spec.links),
        ports=(*spec.ports, *_all_ports(spec, image)) if spec.publish_all else spec.ports,
    )


def _check_private(spec: ContainerSpec) -> None:
    """Raise NotFound, SpecError, FormatError for a secret or a credential that is not there."""
    from sysbox.container import secrets  # few containers need it
    from sysbox.units import credstore

    secrets.check(spec.secrets)
    credstore.check(spec.credentials)


def _by_name(asked: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """The networks, where an id was given under their names. Raises NotFound, SpecError."""
    if not asked:
        return ()
    from sysbox.netns import networks  # only these containers need it

    named = (
        one.network if one.network == "bridge" else networks.find(one.network).name for one in asked
    )
    found = tuple(one.replace(network=name) for one, name in zip(asked, named, strict=True))
    if len({one.network for one in found}) < len(found):
        raise SpecError("--network names one network twice", hint="leave out one of them")
    return found


def _links(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The links, with ids; an alias that was not given is the container's name. Raises NotFound."""
    found = []
    for link in asked:
        word, _, alias = link.partition(":")
        other = store.find(word)
        found.append(f"{other.id}:{alias or other.name}")
    return tuple(found)


def _all_ports(spec: ContainerSpec, image: Image) -> Iterator[Port]:
    """The declared ports that are not published by themselves (-P), each on a free port of the host."""
    published = {(port.container_port, port.protocol) for port in spec.ports}
    for text in dict.fromkeys((*image.config.exposed_ports, *spec.exposed)):
        # the text of an image: it is parsed like one of a user's
        for port in parse_port(text.replace(":", "?"), "EXPOSE"):
            if (port.container_port, port.protocol) not in published:
                yield port


def _volume_of(path: str, kind: str) -> Mount:
    """The volume, or the tmpfs, that an image asks for. Raises SpecError for a path at which none may be."""
    target = clean_path(path)
    if not path.startswith("/") or not volumes.may_be_of_image(target):
        raise SpecError(
            f"the image's VOLUME {path[:200]!r} is not a place for a volume",
            hint="an image cannot mount over / or at and below /proc, /sys and /dev; -v can",
        )
    return Mount(kind=kind, target=target, from_image=True)


def check_trust(image: Image, name: str, *, signed: bool = False) -> None:
    """Raise TrustError for an image that policy.json does not accept; without the file all are.

    With `signed` none is but by a signature.
    """
    if signed or is_there(paths.POLICY):
        from sysbox.image.trust import gate

        admit = gate.admit_signed if signed else gate.admit
        admit(Store(), image, name)


def _draft(spec: ContainerSpec, image: Image, container_id: str = "") -> Record:
    """The record of a container that does not exist yet."""
    anonymous = {
        mount.target: volumes.new_name()
        for mount in spec.mounts
        if mount.kind == "volume" and not mount.source
    }
    found = resolve(spec, image)
    return store.Record(
        id=container_id or identity.new_id(),
        name=spec.name,
        created_ns=store.now_ns(),
        spec=spec,
        image_id=image.id,
        image_name=spec.image,
        argv=found.entrypoint + found.command,
        anonymous_volumes=anonymous,
        exposed=image.config.exposed_ports,
        resolved=found,
    )


def _claim(record: Record) -> Record:
    try:
        return _claimed(record)
    except Conflict:
        from sysbox.lifecycle import control

        if not record.name or not control.frees(record.name):
            raise
    return _claimed(record)


def _claimed(record: Record) -> Record:
    def fill(made: Record) -> None:
        driver_of(made).prepare(made.directory)
        for name in made.volumes.values():
            volumes.ensure(name)

    try:
        record, lock = store.claim(record, fill)
    except BaseException:
        for name in record.anonymous_volumes.values():
            volumes.remove(name)
        raise
    lock.release()
    events.container("create", record)
    return record
