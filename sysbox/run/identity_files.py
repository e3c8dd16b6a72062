"""The container's /etc/hosts, /etc/hostname and /etc/resolv.conf."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, NotFound
from sysbox.base.files import write_all, write_file
from sysbox.base.paths import CONTAINERS
from sysbox.container import identity, store
from sysbox.container.hostname import hostname_of
from sysbox.fs.rootfs import Bind
from sysbox.fs.sources import make_directories
from sysbox.host import read_text
from sysbox.linux import lsm
from sysbox.netns import dns
from sysbox.netns.network import BRIDGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.store import Record
    from sysbox.netns.attachment import Attachment
    from sysbox.plan import Plan
    from sysbox.spec import ContainerSpec


def full_name(hostname: str, spec: ContainerSpec) -> str:
    """A host name with the domain that was asked for."""
    return f"{hostname}.{spec.domainname}" if spec.domainname else hostname


def make(record: Record, plan: Plan) -> None:
    """Make the files, empty: the child mounts these at once. Raises KernelError."""
    for name in ("hosts", "hostname", "resolv.conf"):
        write_file(f"{record.directory}/{name}", b"", 0o644)
    if plan.root.booted:
        write_file(f"{record.directory}/boot_id", f"{identity.new_uuid()}\n".encode(), 0o444)
    if plan.root.options:
        _label(record, plan)


def _label(record: Record, plan: Plan) -> None:
    """Give what is mounted from the container's own directory its label: on disk it has that of sysbox."""
    for one in plan.root.operations:
        if isinstance(one, Bind) and one.source.startswith(f"{record.directory}/"):
            if one.create:
                make_directories(one.source)
            lsm.set_file_label(one.source, record.mount_label)


def write(record: Record, plan: Plan, address: str) -> None:
    """Fill the files; the child has mounted the empty ones by now. `address` is as in dns.hosts_file.

    Raises Conflict for a link to a container that does not run.
    """
    hostname = plan.process.hostname or _shared_name(record) or posix.uname().nodename
    network = plan.network
    # below a parent the gateway is another machine
    ours = [one.gateway for one in network.attachments if one.driver == BRIDGE]
    gateway = ours[0] if ours else "127.0.0.1"
    extra = tuple(entry.replace(":host-gateway", f":{gateway}") for entry in record.spec.add_hosts)
    if network.join.startswith("container:"):
        # the files that go with the address: those of that container
        other = f"{CONTAINERS}/{network.join.removeprefix('container:')}"
        given, resolv = (read_text(f"{other}/{name}") for name in ("hosts", "resolv.conf"))
    elif record.spec.pod and network.join:
        # likewise, of the pod: a copy, which the other containers do not change
        pod = network.join.removeprefix("ns:").rpartition("/")[0]
        given, resolv = (read_text(f"{pod}/{name}") for name in ("hosts", "resolv.conf"))
    else:
        shared = network.mode in ("host", "join")
        given = read_text("/etc/hosts") if shared else ""
        resolv = resolv_conf(record.spec, network.attachments, shared=shared)
    if record.spec.links:
        extra += _linked(record.spec, network.attachments)
    hosts = dns.hosts_file(full_name(hostname, record.spec), address, extra, given)
    texts = {"hostname": f"{hostname}\n", "hosts": hosts, "resolv.conf": resolv}
    for name, text in texts.items():
        # in place: the child has mounted this very file. `make` has made it empty: with O_TRUNC ext4 would
        # write it to the disk at once (ext4(5), auto_da_alloc), and its removal might wait for the disk
        fd = posix.open(f"{record.directory}/{name}", posix.O_WRONLY | posix.O_CLOEXEC)
        posix.write(fd, text.encode("utf-8", "surrogateescape"))
        posix.close(fd)


def _shared_name(record: Record) -> str:
    """The host name of its pod, "" without one."""
    return hostname_of(record) if record.spec.pod else ""


def resolv_conf(
    spec: ContainerSpec, attachments: tuple[Attachment, ...], *, shared: bool = False
) -> str:
    """/etc/resolv.conf: the resolvers of the container's networks, else the servers of `--dns`, else those of
    its networks, else the host's.

    `shared`: the network namespace is not the container's own.
    """
    asked = spec.dns
    given = [server for one in attachments if not one.dns for server in one.dns_servers]
    return dns.resolv_conf(
        read_text(dns.RESOLV_CONF),
        read_text(dns.UPLINK_RESOLV_CONF),
        own_network=not shared,
        resolvers=tuple(one.gateway for one in attachments if one.dns),
        servers=asked.servers or tuple(dict.fromkeys(given)),
        search=asked.search,
        options=asked.options,
    )


def renew_resolv_conf(
    record: Record, before: tuple[Attachment, ...], now: tuple[Attachment, ...]
) -> None:
    """Rewrite a running container's /etc/resolv.conf after its networks have changed, in place.

    A file that differs from what sysbox has written is the container's own, and stays.
    """
    old, new = (resolv_conf(record.spec, some) for some in (before, now))
    path = f"{record.directory}/resolv.conf"
    if old == new or read_text(path) != old:
        return
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        try:
            data = new.encode("utf-8", "surrogateescape")
            write_all(fd, data)
            posix.ftruncate(fd, len(data))
        finally:
            posix.close(fd)
    except OSError:
        pass  # ignoring: the file is the container's, which may have removed it


def _linked(spec: ContainerSpec, attachments: tuple[Attachment, ...]) -> tuple[str, ...]:
    """Lines of /etc/hosts for `--link` on networks without a resolver. Raises Conflict."""
    lines = []
    mine = {one.network for one in attachments}
    for link in spec.links:
        target, _, alias = link.partition(":")
        runtime = store.runtime(target)
        theirs = runtime.attachments() if runtime and runtime.alive() else ()
        common = [one for one in theirs if one.network in mine]
        if not common:
            raise Conflict(
                f"--link {_name(target)}: it does not run on a network of this container",
                hint="start it first, on the same network",
            )
        lines += [f"{alias}:{one.address}" for one in common[:1] if not one.dns]
    return tuple(lines)


def _name(target: str) -> str:
    try:
        return store.load(target).name
    except NotFound:
        return target[:12]
