"""The user namespace of a new container: look at what it joins, decide, and lease its ids."""

from __future__ import annotations

import posix

from sysbox.base.errors import KernelError, SpecError, Unsupported
from sysbox.base.paths import RUN_PODS, VOLUMES
from sysbox.conf.values import Settings
from sysbox.container import id_ranges, lease_files, store
from sysbox.fs import mappable, volumes
from sysbox.fs.mountoptions import ids_of
from sysbox.host import exists
from sysbox.image.resolved import resolved_of
from sysbox.linux import namespace, userns
from sysbox.security import idmap, subids
from sysbox.security.identity import parse_id
from sysbox.security.idmap import FLAGS, IDS, SIZE, Decision, Joined, Wish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.container.store import Record
    from sysbox.lifecycle.run import Notices
    from sysbox.linux.userns import IdMap
    from sysbox.spec import ContainerSpec, Mount, UserNamespace

_HOST = "/proc/self/ns/user"
_KINDS = ("network", "pid", "ipc", "uts", "cgroup", "time")


def decided(record: Record, notices: Notices) -> lease_files.Leased:
    """A context for the making of a container: its record has its user namespace, and its ids are leased.

    Raises as `resolve`.
    """
    return lease_files.Leased(id_ranges.DIRECTORY, lambda: resolve(record, notices, lease=True))


def resolve(record: Record, notices: Notices | None = None, *, lease: bool) -> Record:
    """The record with its user namespace and maps; with `lease`, their range is the container's from now on.

    Raises SpecError, Unsupported, Conflict, NotFound, KernelError.
    """
    spec = record.spec
    joined = _joined(spec)
    chosen = idmap.decide(spec, joined, default=Settings().userns)
    _check_mounts(spec, own_ids=chosen.mode != "host")
    if chosen.mode in idmap.OWN and (incapable := _incapable(record)):
        chosen = idmap.decide(spec, joined, incapable, Settings().userns)
        if notices:
            notices.without_user_namespace(incapable)
    record = record.replace(userns=chosen.mode, userns_reason=chosen.reason)
    if chosen.mode == "host":
        if not userns.is_initial():
            _check_ids(record, *map(idmap.same, userns.read_maps()))
        return record
    wish = wish_of(spec, chosen, joined)
    get = id_ranges.acquire if lease else id_ranges.preview
    uids, gids = get(record.id, wish)
    record = record.replace(uids=uids, gids=gids)
    try:
        _check_maps(record)
    except SpecError:
        if lease:
            id_ranges.release(record.id)
        raise
    return record


def describe(record: Record) -> str:
    """The user namespace, for `--dry-run`: its mode, why it is not the default, the maps."""
    reason = f" ({record.userns_reason})" if record.userns_reason else ""
    lines = [f"user namespace {record.userns}{reason}"]
    for name, maps in (("users", record.uids), ("groups", record.gids)):
        lines += [
            f"  {name} {userns.text((one,))}: {userns.span(one.outside, one.count)}" for one in maps
        ]
    return "\n".join(lines)


def lease_again(record: Record, others: Iterable[Record] = ()) -> bool:
    """Write the lease of a container where it was lost, as after a power cut; whether it was.

    Those of `others` that are in its user namespace may have kept their copies of it. Raises Conflict where
    another container has these ids by now, KernelError.
    """
    if record.userns.startswith(("mapped", "ns:")):
        return id_ranges.restore_given(record.id, Wish(uids=record.uids, gids=record.gids))
    if record.userns.startswith("container:"):
        # its maps are those of another, whose lease this one shares
        wish = Wish(uids=record.uids, gids=record.gids, share=record.userns[10:])
        id_ranges.acquire(record.id, wish)
    if record.userns not in ("auto", "nomap", "keep-id"):
        return False
    wish = wish_of(record.spec, Decision(mode=record.userns), ())
    sharing = {one.id for one in others if one.userns == f"container:{record.id}"}
    restored = id_ranges.restore(record.id, wish, (record.uids, record.gids), sharing)
    return id_ranges.restore_given(record.id, wish) or restored


def _incapable(record: Record) -> str:
    """Why this host cannot give the container a user namespace, in one clause; "" if it can."""
    if not userns.is_initial():
        return mappable.INSIDE
    if not namespace.is_there("user"):
        return "this kernel makes no user namespaces (see /proc/sys/user/max_user_namespaces)"
    if reason := mappable.why_not_kernel():
        return reason
    resolved = resolved_of(record)
    if reason := mappable.why_not_root(resolved.driver, resolved.layers):
        return f"the ids of images cannot be mapped here: {reason}"
    for mount in record.spec.mounts:
        if mount.kind == "tmpfs" or mount.read_only or "noidmap" in mount.options:
            continue  # what cannot be mapped is mounted as it is where nothing can be written
        if mount.kind == "bind" and not mount.create and not exists(mount.source):
            continue  # the start tells that it is missing
        path, recursive = _place(mount)
        if reason := mappable.why_not(path, recursive=recursive):
            return f"volume {mount.target}: {reason}"
    return ""


def _place(mount: Mount) -> tuple[str, bool]:
    """The source of a mount, or where it will be made; whether what is mounted below belongs to it."""
    if mount.kind == "bind":
        return mount.source, mount.recursive
    if mount.source and volumes.has_options(mount.source):
        from sysbox.fs import volume_options  # few volumes have options

        return volume_options.place(mount.source), True
    return (volumes.directory(mount.source), True) if mount.source else (VOLUMES, False)


def _check_mounts(spec: ContainerSpec, *, own_ids: bool) -> None:
    """Raise Unsupported for a mount whose ids were asked to be mapped by name, and cannot be."""
    for mount in spec.mounts:
        asked = ids_of(mount)
        if not asked or (asked == "idmap" and not own_ids):
            continue
        if mount.kind == "bind" and not mount.create and not exists(mount.source):
            continue  # the start tells that it is missing
        path, recursive = _place(mount)
        if reason := mappable.why_not(path, recursive=recursive):
            raise Unsupported(
                f"mount {mount.target}: {asked}: {reason}",
                hint=f"leave out {asked}, or mount a directory of another file system",
            )


def wish_of(spec: ContainerSpec, chosen: Decision, joined: tuple[Joined, ...]) -> Wish:
    """The maps that a container needs. Raises NotFound, Conflict for entries of /etc/subuid, KernelError."""
    asked = spec.userns
    if chosen.mode in ("auto", "nomap"):
        return Wish(size=asked.size or SIZE, uids=asked.uids, gids=asked.gids)
    if chosen.mode == "keep-id":
        return _keep_id(asked, posix.getuid(), posix.getgid())
    if chosen.mode == "mapped":
        if not asked.subuid:
            return Wish(uids=asked.uids, gids=asked.gids)
        return Wish(
            uids=idmap.in_a_row(subids.of(asked.subuid, 0)),
            gids=idmap.in_a_row(subids.of(asked.subgid, 1)),
        )
    # its own, then: of all that are joined, since these agree
    other = joined[0]
    return Wish(uids=other.uids, gids=other.gids, share=other.mode.partition("container:")[2])


def _keep_id(asked: UserNamespace, uid: int, gid: int) -> Wish:
    """The caller's ids as they are, or as what `uid=` and `gid=` say, and others around them.

    For root who asks for no other ids these are all ids, as in podman: only capabilities are the namespace's.
    """
    if uid == 0 and asked.uid < 0 and asked.gid < 0:
        if asked.size:
            raise SpecError(
                "--userns keep-id:size=: root's user namespace has all ids",
                hint="leave out size=, or give uid= too",
            )
        uids, gids = userns.read_maps()
        return Wish(uids=idmap.same(uids), gids=idmap.same(gids))
    one = userns.IdMap(inside=uid if asked.uid < 0 else asked.uid, outside=uid, count=1)
    group = userns.IdMap(inside=gid if asked.gid < 0 else asked.gid, outside=gid, count=1)
    size = asked.size or min(max(SIZE, one.inside + 1, group.inside + 1), IDS)
    return Wish(size=size, uids=(one,), gids=(group,))


def _joined(spec: ContainerSpec) -> tuple[Joined, ...]:
    """The namespaces that the container joins, its user namespace first if it is one of them."""
    found: list[Joined] = []
    for kind in ("user", *_KINDS):
        mode: str = getattr(spec.namespaces, kind)
        if spec.pod and mode.startswith(f"ns:{RUN_PODS}/"):
            found.append(_pod(spec.pod))
        elif mode.startswith("container:"):
            found.append(_container(kind, mode[10:]))
        elif mode.startswith("ns:"):
            found.append(_path(kind, mode[3:], found))
    return tuple(found)


def _container(kind: str, container_id: str) -> Joined:
    other = store.find(container_id)
    flag = f"{FLAGS[kind]} container:{other.name}"
    if other.userns in ("", "host"):
        return Joined(flag=flag)
    return Joined(
        flag=flag,
        mode=f"container:{other.id}",
        owner=_owner(other),
        uids=other.uids,
        gids=other.gids,
    )


def _pod(name: str) -> Joined:
    """A namespace of a pod, which may be down: its maps are in its definition."""
    from sysbox.container import pods  # few containers are in one
    from sysbox.run import pod_spaces

    pod = pods.load(name)
    flag = f"--pod {name}"
    if not pod.uids:
        return Joined(flag=flag)
    path = pod.namespace("user")
    try:
        owner = _identified(path) if pod_spaces.are_kept(pod.directory, ("user",)) else f"ns:{path}"
    except KernelError:
        owner = f"ns:{path}"  # it was just taken down
    return Joined(flag=flag, mode=f"ns:{path}", owner=owner, uids=pod.uids, gids=pod.gids)


def _owner(other: Record) -> str:
    """Tells the user namespace of a container apart: by the namespace itself while the container runs, so
    that it is the same by whichever path it is joined, else by who has made it.
    """
    runtime = store.runtime(other.id)
    if runtime is not None and runtime.alive():
        try:
            return _identified(f"/proc/{runtime.pid}/ns/user")
        except KernelError:
            pass  # ignoring: it has just ended
    if other.userns.startswith("ns:"):
        try:
            return _identified(other.userns[3:])
        except KernelError:
            pass  # ignoring: the start of this container tells that the path is gone
    return f"container:{other.id}" if other.userns in idmap.OWN else other.userns


def _identified(path: str) -> str:
    return f"ns:{namespace.identity(path)}"


def _path(kind: str, path: str, before: list[Joined]) -> Joined:
    """A namespace at a path, which the host's user namespace owns, one that is joined too (`before`), or that
    of the process in the path.
    """
    flag = f"{FLAGS[kind]} ns:{path}"
    try:
        owner = namespace.identity(path) if kind == "user" else namespace.owner(path)
        if owner == namespace.identity(_HOST):
            return Joined(flag=flag)
        for one in before:
            if one.owner == f"ns:{owner}":
                return one.replace(flag=flag)
        words = path.split("/")
        user = f"/proc/{words[2]}/ns/user" if words[:2] == ["", "proc"] else ""
        user = path if kind == "user" else user
        if user and namespace.identity(user) == owner:
            uids, gids = userns.read_maps_at(user)
            return Joined(flag=flag, mode=f"ns:{user}", owner=f"ns:{owner}", uids=uids, gids=gids)
    except KernelError as error:
        file = "net" if kind == "network" else kind
        hint = error.hint or f"give the file of a namespace, such as /proc/PID/ns/{file}"
        raise SpecError(f"{flag}: {error.message}", hint=hint) from None
    raise SpecError(
        f"{flag}: its user namespace is not the host's, and has no path",
        hint="--userns ns:PATH joins it; /proc/PID/ns/user is a path of it",
    )


def _check_maps(record: Record) -> None:
    """Raise SpecError for maps that no container can have, or without an id that it needs."""
    check_maps(record.spec, record.uids, record.gids)
    _check_ids(record, record.uids, record.gids)


def check_maps(spec: ContainerSpec, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Raise SpecError for maps that no user namespace can have, or that leave root out."""
    flag = idmap.flag_of(spec) if spec.namespaces.user else "the user namespace"
    for maps in (uids, gids):
        if wrong := idmap.problem(maps):
            hint = "ranges must not overlap, on neither side" if "twice" in wrong else "give fewer"
            raise SpecError(f"{flag}: {wrong}", hint=hint)
        if not any(one.inside == 0 for one in maps):
            raise SpecError(
                f"{flag}: nothing is mapped to 0, which is root in the container",
                hint="such as --uidmap 0:100000:65536",
            )


def _check_ids(record: Record, uids: tuple[IdMap, ...], gids: tuple[IdMap, ...]) -> None:
    """Raise SpecError for a number that was asked for and does not exist with these maps."""
    spec = record.spec
    user = record.resolved.user if record.resolved else spec.user
    source = f"--user {spec.user}" if spec.user else f"USER {user} of the image"
    names = user.partition(":")
    for maps, text, what in (
        (uids, names[0], source),
        (gids, names[2], source),
        *((gids, one, f"--group-add {one}") for one in spec.group_add),
    ):
        if not (text.isascii() and text.isdecimal()):
            continue
        try:
            number = parse_id(text)
        except SpecError as error:
            raise SpecError(f"{what}: {error.message}", hint=error.hint) from None
        userns.outside(maps, number, what)
