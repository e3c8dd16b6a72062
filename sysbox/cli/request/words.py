"""From a ContainerSpec to the flags of `run` that ask for it: the inverse of `request/spec.py`. Pure.

Flags whose value is the default are left out, and so is what a start by another command decides anew: whether
it is detached, and what of it the caller sees.
"""

from __future__ import annotations

from sysbox.cli.request.words_health import health_flags, time_text
from sysbox.cli.request.words_limits import limit_flags, size_text
from sysbox.cli.request.words_pod import without_pod
from sysbox.parse.bandwidth import rate_text
from sysbox.spec import Bandwidth, ContainerSpec, Health, Logging, Namespaces, SecretUse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.spec import CredentialUse, Endpoint, Mount, Port
    from sysbox.units.quadlet.writer import Flag

_DEFAULT = ContainerSpec(image="x")
_PROPAGATION_OR_FLAG = (
    "rprivate private rslave slave rshared shared nosuid suid nodev dev noexec exec z Z"
)
_OF_V = frozenset(_PROPAGATION_OR_FLAG.split())
_PROPAGATION = frozenset(_PROPAGATION_OR_FLAG.split()[:6])


def flags_of(
    spec: ContainerSpec,
    name_of: Callable[[str], str] = lambda one: one,
    image: Health | None = None,
) -> list[Flag]:
    """The flags, without the image and the command: see `command_of`.

    `name_of` returns the name of the container with an id, for the namespaces that it joins and its links.
    `image` is the health check of the spec's image, which need not be repeated.
    """
    if spec.pod and not spec.pod.startswith("new:"):
        spec = without_pod(spec)
    return [
        *_identity(spec),
        *_process(spec),
        *_supervision(spec),
        *health_flags(spec.health, image),
        *_logging(spec.logging),
        *(flag for one in spec.mounts if not one.from_image for flag in mount_flags(one)),
        *(("--secret", _secret(one)) for one in spec.secrets),
        *(("--credential", _credential(one)) for one in spec.credentials),
        *_network(spec, name_of),
        *_isolation(spec, name_of),
        *_security(spec),
        *limit_flags(spec.limits),
        *(("--property", one) for one in spec.properties),
    ]


def command_of(spec: ContainerSpec) -> tuple[str, ...]:
    """The words after the image: the flag --entrypoint has one word alone, and the rest come first here."""
    return (*(spec.entrypoint or ())[1:], *spec.command)


def _identity(spec: ContainerSpec) -> Iterator[Flag]:
    for name, value in (
        ("--name", spec.name), ("--hostname", spec.hostname), ("--domainname", spec.domainname),
        ("--cidfile", spec.cidfile), ("--pidfile", spec.pidfile), ("--pod", spec.pod),
    ):  # fmt: skip
        if value:
            yield name, value
    for name, value in spec.labels.items():
        yield "--label", f"{name}={value}"
    for name, value in spec.annotations.items():
        yield "--annotation", f"{name}={value}"


def _process(spec: ContainerSpec) -> Iterator[Flag]:
    for one in spec.env:
        yield "--env", one
    if spec.entrypoint is not None:
        yield "--entrypoint", (*spec.entrypoint, "")[0]
    for name, value in (("--user", spec.user), ("--workdir", spec.workdir)):
        if value:
            yield name, value
    if spec.host_env:
        yield "--env-host", None
    if spec.image_volumes != _DEFAULT.image_volumes:
        yield "--image-volume", spec.image_volumes
    for one in spec.group_add:
        yield "--group-add", one
    for name, on in (
        ("--init", spec.init), ("--interactive", spec.interactive), ("--tty", spec.tty),
        ("--read-only", spec.read_only), ("--assert-signed", spec.signed),
    ):  # fmt: skip
        if on:
            yield name, None
    if spec.umask != _DEFAULT.umask:
        yield "--umask", f"{spec.umask:04o}"
    if spec.systemd != _DEFAULT.systemd:
        yield "--systemd", spec.systemd
    if spec.oom_score_adj:
        yield "--oom-score-adj", str(spec.oom_score_adj)
    for limit in spec.ulimits:
        yield "--ulimit", f"{limit.name}={limit.soft}:{limit.hard}"


def _supervision(spec: ContainerSpec) -> Iterator[Flag]:
    if spec.remove:
        yield "--rm", None
    if spec.ready:
        yield "--sdnotify", spec.ready
    if spec.stop_signal:
        yield "--stop-signal", spec.stop_signal
    if spec.stop_timeout != _DEFAULT.stop_timeout:
        yield "--stop-timeout", str(spec.stop_timeout)
    if spec.restart.name != "no":
        retries = f":{spec.restart.retries}" if spec.restart.retries else ""
        yield "--restart", f"{spec.restart.name}{retries}"
    if spec.detach_keys:
        yield "--detach-keys", spec.detach_keys
    if spec.pull != _DEFAULT.pull:
        yield "--pull", spec.pull
    if spec.slice != _DEFAULT.slice:
        yield "--slice", spec.slice


def _logging(logging: Logging) -> Iterator[Flag]:
    usual = Logging(driver=logging.driver)
    if logging.driver != Logging().driver:
        yield "--log-driver", logging.driver
    if logging.max_size != usual.max_size:
        yield "--log-opt", f"max-size={size_text(logging.max_size) if logging.max_size else -1}"
    if logging.max_files != usual.max_files:
        yield "--log-opt", f"max-file={logging.max_files}"
    for name, number in (("rate-limit", logging.rate_limit), ("rate-burst", logging.rate_burst)):
        if number >= 0:
            yield "--log-opt", f"{name}={number}"
    given = {"tag": logging.tag, "labels": ",".join(logging.labels), "env": ",".join(logging.env)}
    for name, text in given.items():
        if text:
            yield "--log-opt", f"{name}={text}"
    if not logging.syslog:
        yield "--log-opt", "syslog=false"


def mount_flags(mount: Mount) -> Iterator[Flag]:
    """The flag, --volume, --mount or --tmpfs, that makes this mount."""
    if mount.kind == "tmpfs" and ":" not in mount.target:
        options = ",".join((*(("ro",) if mount.read_only else ()), *mount.options))
        yield "--tmpfs", f"{mount.target}:{options}" if options else mount.target
        return
    plain = _as_volume(mount)
    if plain:
        yield "--volume", plain
        return
    fields = [f"type={mount.kind}", f"src={mount.source}" if mount.source else ""]
    fields += [f"dst={mount.target}", "readonly" if mount.read_only else ""]
    fields.append("" if mount.recursive else "bind-nonrecursive")
    fields.append("" if mount.copy_up else "volume-nocopy")
    for option in mount.options:
        name, equals, value = option.partition("=")
        if option in _PROPAGATION:
            fields.append(f"bind-propagation={option}")
        elif option in ("z", "Z"):
            fields.append("relabel=shared" if option == "z" else "relabel=private")
        elif name in ("idmap", "noidmap", "U"):
            words = {"idmap": option if equals else "idmap", "noidmap": "idmap=false", "U": "chown"}
            fields.append(words[name])
        elif name in ("size", "mode"):
            fields.append(f"tmpfs-{name}={value}")
    yield "--mount", ",".join(_field(one) for one in fields if one)


def _as_volume(mount: Mount) -> str:
    """The mount as `-v` says it, "" where that flag cannot."""
    words = ["ro"] if mount.read_only else []
    words += ["nocopy"] if not mount.copy_up else []
    words += ["bind"] if not mount.recursive else []
    words += mount.options
    known = all(
        one in _OF_V or one.partition("=")[0] in ("idmap", "noidmap", "U") for one in mount.options
    )
    if mount.kind == "tmpfs" or ":" in mount.source + mount.target or not known:
        return ""
    if mount.kind == "bind" and not mount.create:
        return ""
    if not mount.source:
        return "" if words else mount.target
    return ":".join((mount.source, mount.target, *([",".join(words)] if words else [])))


def _secret(one: SecretUse) -> str:
    usual = SecretUse(name=one.name)
    if one.kind == "env":
        return f"{one.name},type=env,target={one.target}"
    pairs = [("uid", str(one.uid)), ("gid", str(one.gid)), ("mode", f"{one.mode:04o}")]
    own = [f"{key}={value}" for key, value in pairs if getattr(one, key) != getattr(usual, key)]
    return ",".join((one.name, f"target={one.target}", *own))


def _credential(one: CredentialUse) -> str:
    """One that a service had is gone with it: whoever starts the container again must have another."""
    is_of_service = one.source.startswith("/run/credentials/")
    return f"{one.name}:{one.source}" if one.source and not is_of_service else one.name


def _field(text: str) -> str:
    """A field of --mount: one with a comma or a quote is quoted (RFC 4180)."""
    if not set(text) & {",", '"'} and not text.startswith('"'):
        return text
    return '"' + text.replace('"', '""') + '"'


def _network(spec: ContainerSpec, name_of: Callable[[str], str]) -> Iterator[Flag]:
    mode = spec.namespaces.network
    if mode != Namespaces().network:
        yield "--network", _joined(mode, name_of)
    for endpoint in spec.networks:
        yield "--network", _endpoint(endpoint)
    for port in spec.ports:
        yield "--publish", port_text(port)
    for one in spec.exposed:
        yield "--expose", one
    if spec.publish_all:
        yield "--publish-all", None
    for name, texts in (
        ("--dns", spec.dns.servers), ("--dns-search", spec.dns.search), ("--dns-option", spec.dns.options),
        ("--add-host", spec.add_hosts),
    ):  # fmt: skip
        for text in texts:
            yield name, text
    for link in spec.links:
        other, colon, alias = link.partition(":")
        yield "--link", f"{name_of(other)}{colon}{alias}"
    if spec.bandwidth != Bandwidth():
        pairs = (("up", spec.bandwidth.up), ("down", spec.bandwidth.down))
        yield (
            "--network-bandwidth",
            ",".join(f"{way}={rate_text(rate)}" for way, rate in pairs if rate),
        )


def _endpoint(one: Endpoint) -> str:
    pairs = [("ip", one.address), ("ip6", one.address6), ("mac", one.mac)]
    pairs += [("alias", alias) for alias in one.aliases]
    pairs.append(("interface_name", one.interface))
    options = ",".join(f"{name}={value}" for name, value in pairs if value)
    return f"{one.network}:{options}" if options else one.network


def port_text(port: Port) -> str:
    """A published port as `-p` says it."""
    protocol = "" if port.protocol == "tcp" else f"/{port.protocol}"
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip
    inside = f"{port.container_port}{protocol}"
    if address:
        return f"{address}:{port.host_text}:{inside}"
    return f"{port.host_text}:{inside}" if port.host_port else inside


def _isolation(spec: ContainerSpec, name_of: Callable[[str], str]) -> Iterator[Flag]:
    usual, asked = Namespaces(), spec.namespaces
    for kind, flag in (
        ("pid", "--pid"), ("ipc", "--ipc"), ("uts", "--uts"), ("cgroup", "--cgroupns"), ("time", "--timens"),
    ):  # fmt: skip
        mode = getattr(asked, kind)
        if mode != getattr(usual, kind):
            yield flag, _joined(mode, name_of)
    yield from _user_namespace(spec, name_of)
    if spec.time_offset:
        offsets = (f"{clock}={_offset(ns)}" for clock, ns in spec.time_offset.items())
        yield "--time-offset", ",".join(offsets)
    if spec.shm_size != _DEFAULT.shm_size:
        yield "--shm-size", size_text(spec.shm_size)
    for name, value in spec.sysctls.items():
        yield "--sysctl", f"{name}={value}"
    for device in spec.devices:
        access = "" if device.access == "rwm" else f":{device.access}"
        target = f":{device.target}" if device.target != device.source else ""
        yield "--device", f"{device.source}{target}{access}"


def _offset(nanoseconds: int) -> str:
    return f"{'-' if nanoseconds < 0 else ''}{time_text(abs(nanoseconds) // 1000)}"


def _joined(mode: str, name_of: Callable[[str], str]) -> str:
    kind, colon, other = mode.partition(":")
    return f"container:{name_of(other)}" if colon and kind == "container" else mode


def _user_namespace(spec: ContainerSpec, name_of: Callable[[str], str]) -> Iterator[Flag]:
    mode, asked = spec.namespaces.user, spec.userns
    if mode == "mapped":
        for flag, name in (("--subuidname", asked.subuid), ("--subgidname", asked.subgid)):
            if name:
                yield flag, name
        for flag, maps in (("--uidmap", asked.uids), ("--gidmap", asked.gids)):
            for one in maps:
                yield flag, one.text()
    elif mode:
        pairs = [("size", str(asked.size or "")), ("uid", _id(asked.uid)), ("gid", _id(asked.gid))]
        pairs += [("uidmapping", one.text()) for one in asked.uids]
        pairs += [("gidmapping", one.text()) for one in asked.gids]
        options = ",".join(f"{name}={value}" for name, value in pairs if value)
        yield (
            "--userns",
            f"{_joined(mode, name_of)}:{options}" if options else _joined(mode, name_of),
        )


def _id(number: int) -> str:
    return str(number) if number >= 0 else ""


def _security(spec: ContainerSpec) -> Iterator[Flag]:
    security = spec.security
    if security.privileged:
        yield "--privileged", None
    for flag, caps in (
        ("--cap-add", (*security.cap_add, *security.cap_kept)), ("--cap-drop", security.cap_drop),
    ):  # fmt: skip
        for one in caps:
            yield flag, one
    options = ["no-new-privileges"] if security.no_new_privileges else []
    options += [f"seccomp={security.seccomp}"] if security.seccomp != "default" else []
    options += ["landlock=on"] if security.landlock else []
    options += [f"apparmor={security.apparmor}"] if security.apparmor else []
    options += [f"label={one}" for one in security.label]
    for name, values, between in (
        ("mask", security.mask, ":"), ("unmask", security.unmask, ":"),
        ("proc-opts", security.proc_options, ","),
    ):  # fmt: skip
        options += [f"{name}={between.join(values)}"] if values else []
    for option in options:
        yield "--security-opt", option
