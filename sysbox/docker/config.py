"""docker's Config and Mounts of a container."""

from __future__ import annotations

import posix

from sysbox.base.errors import SysboxError
from sysbox.container import systemd_mode, systemd_plan
from sysbox.container.hostname import hostname_of
from sysbox.container.process_plan import sets_of
from sysbox.container.records import Resolved
from sysbox.docker.host_config import mount_options, propagation
from sysbox.docker.known_images import exposed_ports, resolved_by
from sysbox.docker.shapes import NULL, NullList, Strings, Struct, listed, mapped
from sysbox.linux import capability

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.container.records import Record
    from sysbox.docker.known_images import KnownImages
    from sysbox.spec import ContainerSpec, Health, Mount

_SHELL = ("/bin/sh", "-c")  # what --health-cmd and docker's CMD-SHELL mean
_MICRO = 1000  # nanoseconds in a microsecond


def config(record: Record, images: KnownImages) -> dict[str, Any]:
    """docker's Config, every key of API 1.41."""
    spec = record.spec
    resolved = resolved_by(record, images)
    attached = not spec.detach
    return Struct(
        {
            "Hostname": _hostname(record),
            "Domainname": spec.domainname,
            "User": resolved.user,
            "AttachStdin": attached
            and ("stdin" in spec.attach if spec.attach else spec.interactive),
            "AttachStdout": attached and "stdout" in (spec.attach or "stdout"),
            "AttachStderr": attached and "stderr" in (spec.attach or "stderr"),
            "ExposedPorts": mapped({name: {} for name in exposed_ports(record, images)}),
            "Tty": spec.tty,
            "OpenStdin": spec.interactive,
            "StdinOnce": spec.interactive and attached,
            "Env": listed(_environment((*spec.host_env, *resolved.env), spec.env)),
            "Cmd": listed(resolved.command),
            "Healthcheck": health_check(spec.health),
            "ArgsEscaped": False,
            "Image": spec.image,
            "Volumes": mapped({name: {} for name in _own_volumes(record, resolved)}),
            "WorkingDir": resolved.workdir,
            "Entrypoint": listed(resolved.entrypoint),
            "NetworkDisabled": False,
            "MacAddress": "",
            "OnBuild": NullList(),
            "Labels": Strings(resolved.labels),
            "StopSignal": resolved.stop_signal or systemd_mode.stop_signal(spec, record.argv),
            "StopTimeout": spec.stop_timeout,
            "Shell": NullList(),
            "Umask": f"{spec.umask:04o}",
            **({"Secrets": _secrets(spec)} if spec.secrets else {}),
            **({"Credentials": _credentials(spec)} if spec.credentials else {}),
            **_startup_check(spec.health),
        }
    )


def _credentials(spec: ContainerSpec) -> list[dict[str, Any]]:
    return [{"Name": one.name, "Source": one.source} for one in spec.credentials]


def _secrets(spec: ContainerSpec) -> list[dict[str, Any]]:
    """podman's Secrets, with where each is; of a variable too, whose value Env does not have."""
    return [
        {
            "Name": one.name,
            "Type": one.kind,
            "Target": one.target,
            "UID": one.uid,
            "GID": one.gid,
            "Mode": one.mode,
        }
        for one in spec.secrets
    ]


def capabilities_of(record: Record, images: KnownImages) -> dict[str, Any]:
    """podman's EffectiveCaps and BoundingCaps: those that the first process starts with.

    Null where `start` refuses the record. Whether it is root goes by the text of its user, as in podman.
    """
    try:
        mode = systemd_plan.decide(record)
        roots, users = sets_of(
            record.spec, mode, capability.grantable(own_namespace=bool(record.uids))
        )
    except SysboxError:
        return {"EffectiveCaps": NullList(), "BoundingCaps": NullList()}
    user = resolved_by(record, images).user.partition(":")[0]
    is_root = user in ("", "root") or (user.isdecimal() and int(user) == 0)
    effective = roots.effective if is_root else users.effective
    return {
        "EffectiveCaps": listed(f"CAP_{name}" for name in sorted(capability.names(effective))),
        "BoundingCaps": listed(f"CAP_{name}" for name in sorted(capability.names(roots.bounding))),
    }


def _startup_check(health: Health) -> dict[str, Any]:
    """podman's StartupHealthCheck, of a container that has one."""
    if not health.startup_command:
        return {}
    return {
        "StartupHealthCheck": {
            "Test": ["CMD-SHELL", health.startup_command[2]],
            "Interval": health.startup_interval * _MICRO,
            "Timeout": health.startup_timeout * _MICRO,
            "Retries": health.startup_retries,
            "Successes": health.startup_successes,
        }
    }


def health_check(health: Health | None) -> Any:
    """docker's Healthcheck: times in nanoseconds, 0 for a setting without a value; null without a check."""
    if health is None or not (health.command or health.disabled):
        return NULL
    test = ["CMD", *health.command]
    if health.command[:2] == _SHELL and len(health.command) == 3:
        test = ["CMD-SHELL", health.command[2]]
    return {
        "Test": ["NONE"] if health.disabled else test,
        "Interval": max(health.interval, 0) * _MICRO,
        "Timeout": max(health.timeout, 0) * _MICRO,
        "StartPeriod": max(health.start_period, 0) * _MICRO,
        "Retries": max(health.retries, 0),
    }


def _hostname(record: Record) -> str:
    spec = record.spec
    if spec.namespaces.uts == "host":
        return posix.uname().nodename
    return hostname_of(record)


def _environment(image: tuple[str, ...], asked: tuple[str, ...]) -> list[str]:
    found = {one.partition("=")[0]: one for one in (*image, *asked)}
    return list(found.values())


def _own_volumes(record: Record, resolved: Resolved) -> list[str]:
    """The targets of volumes without a name, the image's and the user's."""
    return list(dict.fromkeys((*resolved.volumes, *record.anonymous_volumes)))


def mounts(record: Record) -> list[dict[str, Any]]:
    """docker's Mounts: bind mounts and volumes."""
    return [_mount(record, mount) for mount in record.spec.mounts if mount.kind != "tmpfs"]


def _mount(record: Record, mount: Mount) -> dict[str, Any]:
    name, driver, source = "", "", mount.source
    if mount.kind == "volume":
        from sysbox.fs.volume_options import place

        name = mount.source or record.anonymous_volumes.get(mount.target, "")
        driver, source = "local", place(name) if name else ""
    return {
        "Type": mount.kind,
        "Name": name,
        "Source": source,
        "Destination": mount.target,
        "Driver": driver,
        "Mode": ",".join(mount_options(mount)),
        "RW": not mount.read_only,
        "Propagation": propagation(mount),
    }


def no_config() -> dict[str, Any]:
    """docker's Config without any values."""
    return {
        "Hostname": "",
        "Domainname": "",
        "User": "",
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": mapped(None),
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": NullList(),
        "Cmd": NullList(),
        "Healthcheck": NULL,
        "ArgsEscaped": False,
        "Image": "",
        "Volumes": mapped(None),
        "WorkingDir": "",
        "Entrypoint": NullList(),
        "NetworkDisabled": False,
        "MacAddress": "",
        "OnBuild": NullList(),
        "Labels": mapped(None),
        "StopSignal": "",
        "StopTimeout": NULL,
        "Shell": NullList(),
    }
