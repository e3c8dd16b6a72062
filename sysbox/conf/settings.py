"""What sysbox.conf says, or would say: all that a command needs where there is no such file.

A default holds for containers that are made from then on: `completed` writes it into what was asked, so that
no later change of the file changes a container.
"""

from __future__ import annotations

from sysbox.base import paths
from sysbox.conf.values import DROP_INS, FILE, Settings, is_there
from sysbox.spec import Bridge, ContainerSpec


def settings() -> Settings:
    """What holds here; nothing of a file that is wrong. Raises FormatError, SpecError, KernelError."""
    if not any_file():
        return Settings()
    from sysbox.conf import files  # which most hosts do without

    return files.load().settings


def any_file() -> bool:
    """Whether there is anything to read."""
    return any(
        is_there(directory)
        and (is_there(f"{directory}/{FILE}") or is_there(f"{directory}/{DROP_INS}"))
        for directory in paths.CONFIGURATION
    )


def completed(spec: ContainerSpec, chosen: Settings) -> ContainerSpec:
    """What was asked, with the defaults written out that are not sysbox's own; its log driver is chosen."""
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
    bridge = Bridge(name=chosen.bridge, subnet=chosen.subnet)
    return spec.replace(
        logging=logging,
        limits=limits,
        bridge=bridge if spec.namespaces.network == "bridge" else spec.bridge,
    )
