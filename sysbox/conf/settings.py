"""The settings of sysbox.conf, without importing the parser where no such file exists.

A default applies to containers that are made after it was set: `with_defaults` writes it into the
specification, so that a later change of the file does not change a container.
"""

from __future__ import annotations

from sysbox.base import paths
from sysbox.conf.values import DROP_INS, FILE, Settings, is_there
from sysbox.spec import Bridge, ContainerSpec


def settings() -> Settings:
    """The settings of this host. Raises FormatError, SpecError, KernelError where any file is invalid."""
    if not any_file():
        return Settings()
    from sysbox.conf import files  # most hosts have no file and do not need it

    return files.load().settings


def any_file() -> bool:
    """Whether sysbox.conf or sysbox.conf.d exists in any directory. Raises KernelError."""
    return any(
        is_there(directory)
        and (is_there(f"{directory}/{FILE}") or is_there(f"{directory}/{DROP_INS}"))
        for directory in paths.CONFIGURATION
    )


def with_defaults(spec: ContainerSpec, chosen: Settings) -> ContainerSpec:
    """The specification with the settings that differ from sysbox's defaults filled in.

    Its log driver is already chosen.
    """
    if chosen == Settings():
        return spec
    logging, limits = spec.logging, spec.limits
    if logging.driver == "journald":
        logging = logging.replace(
            rate_limit=chosen.rate_limit if logging.rate_limit < 0 else logging.rate_limit,
            rate_burst=chosen.rate_burst if logging.rate_burst < 0 else logging.rate_burst,
        )
    if limits.pids is None and not any(one.startswith("TasksMax=") for one in spec.properties):
        limits = limits.replace(pids=chosen.pids_limit)
    userns = spec.userns
    if chosen.userns != Settings().userns and not spec.namespaces.user:
        userns = userns.replace(default=chosen.userns)
    bridge = Bridge(name=chosen.bridge, subnet=chosen.subnet)
    return spec.replace(
        logging=logging,
        limits=limits,
        userns=userns,
        bridge=bridge if spec.namespaces.network == "bridge" else spec.bridge,
    )
