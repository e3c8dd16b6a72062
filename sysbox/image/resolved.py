"""Merge a specification and its image's configuration: once, when a container is created."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.container.records import Resolved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record
    from sysbox.image.model import Image
    from sysbox.spec import ContainerSpec


def resolve(spec: ContainerSpec, image: Image) -> Resolved:
    """As `merge`. Raises SpecError where neither names a command."""
    found = merge(spec, image)
    if not any((found.entrypoint + found.command)[:1]):
        raise SpecError(
            f"image {spec.image}: no command to run",
            hint="the image names none: give one after its name",
        )
    return found


def merge(spec: ContainerSpec, image: Image) -> Resolved:
    """docker's rules: the user's values go before the image's; an entrypoint drops the image's command."""
    config = image.config
    entrypoint, command = config.entrypoint, spec.command or config.cmd
    if spec.entrypoint is not None:
        entrypoint, command = spec.entrypoint, spec.command
    return Resolved(
        env=config.env,
        user=spec.user or config.user,
        workdir=spec.workdir or config.workdir,
        stop_signal=spec.stop_signal or config.stop_signal,
        entrypoint=entrypoint,
        command=command,
        labels={**config.labels, **spec.labels},
        volumes=config.volumes,
        layers=image.layers,
        usr_bind=image.usr_bind,
    )


def resolved_of(record: Record) -> Resolved:
    """What a container was created with. An older record lacks it: then raises NotFound without its image."""
    if record.resolved is not None:
        return record.resolved
    from sysbox.image.store import Store  # for older records alone

    return resolve(record.spec, Store().resolve(record.image_id))
