"""From the flags of `run` and `create` to a ContainerSpec: parses every text, reports every conflict."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.cli.output import emit
from sysbox.cli.request import env, health, limits, networks
from sysbox.conf import settings
from sysbox.parse import common as parse
from sysbox.parse.network import check_hostname, parse_add_host, parse_port
from sysbox.parse.process import parse_groups, parse_label, parse_umask, parse_user, read_lines
from sysbox.parse.security import parse_cap, parse_security_opts, parse_sysctl, parse_ulimit
from sysbox.spec import ContainerSpec, Logging, Namespaces, RestartPolicy, Security
from sysbox.units import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.spec import Device, Mount, Port, Ulimit


def build(given: Values, *, detach: bool = False) -> ContainerSpec:
    """The specification that a command line asks for.

    Reads the files that flags name, sysbox.conf and the caller's environment. Raises SpecError, FormatError.
    """
    chosen = settings.settings()
    spec = ContainerSpec(
        image=_image(given.image),
        name=parse.check_name(given.name, "--name") if given.name is not None else "",
        command=tuple(given.command),
        entrypoint=_entrypoint(given.entrypoint),
        env=env.build(given.env_file, given.env),
        workdir=_workdir(given.workdir),
        user=parse_user(given.user, "--user") if given.user else "",
        hostname=check_hostname(given.hostname, "--hostname") if given.hostname else "",
        interactive=given.interactive,
        tty=given.tty,
        init=given.init,
        systemd=_systemd(given.systemd),
        mounts=_mounts(given),
        shm_size=_shm_size(given.shm_size),
        read_only=given.read_only,
        labels=_labels(given),
        devices=_devices(given.device),
        ulimits=_ulimits(given.ulimit),
        sysctls=dict(parse_sysctl(one, "--sysctl") for one in given.sysctl),
        add_hosts=tuple(parse_add_host(one, "--add-host") for one in given.add_host),
        ports=_ports(given.publish),
        namespaces=_namespaces(given),
        security=_security(given),
        limits=limits.build(given),
        oom_score_adj=parse.parse_int(given.oom_score_adj or "0", "--oom-score-adj", -1000, 1000),
        slice=_slice(given.slice, given.cgroup_parent),
        properties=_properties(given.property),
    )
    spec = networks.add(spec, given)
    _check(spec)
    spec = _with_user_namespace(_with_identity(spec, given), given)
    spec = _with_supervision(spec, given, detach=detach)
    return settings.with_defaults(spec.replace(logging=_logging(given, chosen.log_driver)), chosen)


def _with_identity(spec: ContainerSpec, given: Values) -> ContainerSpec:
    """Add what it is called and knows, its groups, secrets and annotations, exposed ports, the clocks."""
    domain = given.domainname
    groups, kept = parse_groups(given.group_add, "--group-add")
    return spec.replace(
        host_env=env.of_caller() if given.env_host else (),
        image_volumes=env.image_volumes(given.image_volume or "anonymous"),
        group_add=groups,
        kept_groups=kept,
        dns=networks.dns(given, spec.namespaces.network),
        links=networks.links(given, spec.namespaces.network),
        umask=parse_umask(given.umask, "--umask") if given.umask else 0o022,
        domainname=check_hostname(domain, "--domainname") if domain else "",
        annotations=dict(parse_label(text, "--annotation") for text in given.annotation),
        exposed=_exposed(given.expose),
        publish_all=given.publish_all,
        time_offset=_time_offset(given),
        **_private(given, spec.mounts),
    )


def _check(spec: ContainerSpec) -> None:
    """Raises SpecError for a mount that would be masked; notes what has no effect."""
    for mount in spec.mounts:
        if mount.target in spec.security.mask:
            raise SpecError(
                f"--security-opt mask={mount.target}: a {mount.kind} is mounted there",
                hint="leave out the mount or mask=",
            )
    if spec.ports and spec.namespaces.network in ("host", "none"):
        emit(
            f"sysbox: --network {spec.namespaces.network}: nothing is published, -p is ignored\n", 2
        )
    _note_way_around(spec)


def _note_way_around(spec: ContainerSpec) -> None:
    if not (spec.limits.ip_deny or spec.limits.ip_allow):
        return
    added = {"NET_ADMIN", "ALL"} & {*spec.security.cap_add}
    if spec.namespaces.network not in ("bridge", "none"):
        # the links are another's, and so are not filtered
        added |= {"NET_RAW"} & {*spec.security.cap_add}
    if added or spec.security.privileged:
        by = f"--cap-add {min(added)}" if added else "--privileged"
        what = "frames" if "NET_RAW" in added else "tunnels"
        emit(f"sysbox: {by}: it can make {what} whose packets --ip-deny does not see\n", 2)


def _with_supervision(spec: ContainerSpec, given: Values, *, detach: bool) -> ContainerSpec:
    """Add how the container starts and ends, and how it is supervised."""
    return spec.replace(
        detach=detach,
        attach=_attach(given, detach=detach),
        sig_proxy=given.sig_proxy,
        remove=given.rm,
        cidfile=parse.absolute(given.cidfile) if given.cidfile else "",
        pidfile=parse.absolute(given.pidfile) if given.pidfile else "",
        stop_signal=_stop_signal(given.stop_signal),
        stop_timeout=_stop_timeout(given.stop_timeout),
        restart=_restart(given),
        health=health.build(given),
        detach_keys=_detach_keys(given.detach_keys),
        pull=_pull(given.pull),
        signed=given.assert_signed,
    )


def _image(name: str) -> str:
    if not name:
        raise SpecError("the image's name is empty")
    return name.removeprefix("docker://")  # podman's name of the transport


def _entrypoint(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    if text.startswith("["):  # podman's form
        from sysbox.parse.service import parse_words

        if words := parse_words(text):
            return words
    return (text,) if text else ()


def _workdir(text: str | None) -> str:
    if not text:
        return ""
    if not text.startswith("/"):
        parse.bad("--workdir", text, "must be an absolute path in the container")
    return parse.clean_path(text)


def _mounts(given: Values) -> tuple[Mount, ...]:
    if not (given.volume or given.mount or given.tmpfs):
        return ()
    from sysbox.parse import storage

    found: dict[str, Mount] = {}
    for flag, texts, parser in (
        ("--volume", given.volume, storage.parse_mount_v),
        ("--mount", given.mount, storage.parse_mount),
        ("--tmpfs", given.tmpfs, storage.parse_tmpfs),
    ):
        for text in texts:
            mount = parser(text, flag)
            if mount.target in found:
                parse.bad(flag, text, f"{mount.target} is mounted over twice")
            found[mount.target] = mount
    return tuple(found.values())


def _private(given: Values, mounts: tuple[Mount, ...]) -> dict[str, Any]:
    if not given.secret and not given.credential:
        return {}
    from sysbox.cli.request import private

    return private.build(given, mounts)


def _shm_size(text: str | None) -> int:
    if text is None:
        return 64 << 20
    size = parse.parse_size(text, "--shm-size")
    if size <= 0:
        parse.bad("--shm-size", text, "must be above zero")
    return size


def _labels(given: Values) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in given.label_file:
        found.update(
            parse_label(line, "--label-file")
            for line in read_lines(path, "--label-file", "KEY=VALUE")
        )
    found.update(parse_label(text, "--label") for text in given.label)
    return found


def _stop_signal(text: str | None) -> str:
    if not text:
        return ""
    from sysbox.parse.time import parse_signal

    parse_signal(text, "--stop-signal")
    return text


def _slice(text: str | None, parent: str | None) -> str:
    """The slice of --slice, or of docker's --cgroup-parent, which takes a full name."""
    if not parent:
        return names.check_slice(text or "system.slice")
    if not parent.endswith(".slice"):
        parse.bad("--cgroup-parent", parent, "not a slice", "a name such as web.slice")
    if text and names.check_slice(text) != parent:
        raise SpecError(f"--slice {text} and --cgroup-parent {parent}: give one of them")
    return names.check_slice(parent, "--cgroup-parent")


def _stop_timeout(text: str | None) -> int:
    if text is None:
        return 10
    from sysbox.parse.time import parse_seconds

    return parse_seconds(text, "--stop-timeout")


def _systemd(text: str | None) -> str:
    # podman's `true` means auto
    if text in (None, "", "true", "auto"):
        return "auto"
    from sysbox.container import systemd_mode

    mode = text or ""
    if mode not in systemd_mode.MODES:
        parse.bad("--systemd", mode, "unknown mode", "auto, always or false")
    return mode


def _pull(text: str | None) -> str:
    if text not in (None, "missing", "always", "newer", "never"):
        parse.bad("--pull", text, "unknown policy", "missing, always, newer or never")
    return text or "missing"


def _logging(given: Values, driver: str) -> Logging:
    if not (given.log_driver or given.log_opt):
        return Logging(driver=driver)
    from sysbox.parse.service import parse_logging

    return parse_logging(given.log_driver or driver, given.log_opt)


def _detach_keys(text: str | None) -> str:
    if text:
        from sysbox.run import detach_keys

        detach_keys.parse(text, "--detach-keys")
    return text or ""


def _restart(given: Values) -> RestartPolicy:
    if given.restart is None:
        return RestartPolicy()
    from sysbox.parse.service import parse_restart

    policy = parse_restart(given.restart, "--restart")
    if policy.name != "no" and given.rm:
        raise SpecError(
            f"--restart {given.restart}: a container with --rm is gone when it stops",
            hint="leave out --rm or --restart",
        )
    return policy


def _devices(texts: list[str]) -> tuple[Device, ...]:
    if not texts:
        return ()
    from sysbox.parse.storage import parse_device

    return tuple(parse_device(text, "--device") for text in texts)


def _ulimits(texts: list[str]) -> tuple[Ulimit, ...]:
    found = {}
    for text in texts:
        one = parse_ulimit(text, "--ulimit")
        found[one.name] = one
    return tuple(found.values())


def _ports(texts: list[str]) -> tuple[Port, ...]:
    return tuple(dict.fromkeys(port for text in texts for port in parse_port(text, "--publish")))


def _exposed(texts: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for text in texts:
        if ":" in text:
            parse.bad("--expose", text, "not PORT[/PROTOCOL]", "--publish is for ports on the host")
        ports = parse_port(text, "--expose")
        found += (f"{port.container_port}/{port.protocol}" for port in ports)
    return tuple(dict.fromkeys(found))


_STREAMS = ("stdin", "stdout", "stderr")


def _attach(given: Values, *, detach: bool) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.lower() for text in given.attach))
    for name in names:
        if name not in _STREAMS:
            parse.bad("--attach", name, "not a stream", "stdin, stdout or stderr")
    if names and detach:
        raise SpecError(
            "--attach and --detach exclude each other", hint="leave out --attach or --detach"
        )
    return names


def _properties(texts: list[str]) -> tuple[str, ...]:
    for text in texts:
        name, equals, _ = text.partition("=")
        if not equals or not name.isalnum():
            parse.bad("--property", text, "not KEY=VALUE")
    return tuple(texts)


def _namespaces(given: Values) -> Namespaces:
    """Those of its processes; the network's is that of `networks.add`."""

    def mode(text: str | None, flag: str, default: str, allowed: tuple[str, ...]) -> str:
        if not text:
            return default
        return parse.parse_mode(text, flag, allowed)

    own = ("private", "host")
    ipc = mode(given.ipc, "--ipc", "private", (*own, "shareable", "none"))
    return Namespaces(
        pid=mode(given.pid, "--pid", "private", own),
        ipc="private" if ipc == "shareable" else ipc,
        uts=mode(given.uts, "--uts", "private", own),
        cgroup=mode(given.cgroupns, "--cgroupns", "private", own),
        time=mode(given.timens, "--timens", "auto", own),
    )


def _with_user_namespace(spec: ContainerSpec, given: Values) -> ContainerSpec:
    """Add the user namespace, if any flag is about it."""
    if not (given.userns or given.uidmap or given.gidmap or given.subuidname or given.subgidname):
        return spec
    from sysbox.parse import userns

    mode, asked = userns.parse(
        given.userns or "",
        given.uidmap,
        given.gidmap,
        given.subuidname or "",
        given.subgidname or "",
    )
    return spec.replace(namespaces=spec.namespaces.replace(user=mode), userns=asked)


def _time_offset(given: Values) -> dict[str, int]:
    found: dict[str, int] = {}
    if not given.time_offset:
        return found
    from sysbox.parse.time import parse_time_offset

    if given.timens not in (None, "", "private"):
        raise SpecError(
            f"--time-offset needs a time namespace of the container's own, not --timens {given.timens}",
            hint="leave out --timens or --time-offset",
        )
    for text in given.time_offset:
        one = parse_time_offset(text, "--time-offset")
        if twice := found.keys() & one.keys():
            parse.bad("--time-offset", text, f"{min(twice)} is given twice")
        found.update(one)
    return found


def _security(given: Values) -> Security:
    security = parse_security_opts(given.security_opt, "--security-opt")
    return security.replace(
        privileged=given.privileged,
        cap_add=tuple(parse_cap(one, "--cap-add") for one in given.cap_add),
        cap_drop=tuple(parse_cap(one, "--cap-drop") for one in given.cap_drop),
    )
