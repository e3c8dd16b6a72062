"""Containers that are declared: each start of the service makes the container anew, and supervises it.

The container's id is made from the service's name, so the scope, the addresses and the range of ids are the
same at each start. What is set on the service, in its file, a drop-in or with `systemctl set-property`, holds
for the scope.
"""

from __future__ import annotations

from sysbox.base.errors import ImageNotFound, NotFound, SpecError
from sysbox.base.paths import RUN
from sysbox.container import store
from sysbox.container.identity import of_unit
from sysbox.container.locks import Lock
from sysbox.lifecycle import create, pod, pod_run
from sysbox.run import cleanup, early_stop, service, service_settings
from sysbox.run.exit import kill_now, settle
from sysbox.run.teardown import discard
from sysbox.units import credstore
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.container.records import Record
    from sysbox.lifecycle.pod import Wish
    from sysbox.lifecycle.run import Notices
    from sysbox.spec import ContainerSpec, CredentialUse


def held(unit: str) -> str:
    """The file that has the starts of a service keep the image that is here, whatever its Pull= says.

    `auto-update` makes it when it goes back to an older image; it is gone after a boot.
    """
    return f"{RUN}/held/{of_unit(unit)}"


def start(unit: str, spec: ContainerSpec, notices: Notices) -> int:
    """Make the container of the service `unit`, in place of that of its last run, and supervise it.

    Raises SysboxError, and KeyboardInterrupt for a stop of the service meanwhile; nothing is left then.
    """
    if spec.restart.name != "no":
        raise SpecError(f"--restart: Restart= of [Service] in {unit} decides", hint="leave it out")
    container_id = of_unit(unit)
    _remove_last(container_id)
    with Bus.connect() as bus:
        properties = service_settings.read(bus, unit)
        own_slice = service_settings.slice_of(bus, unit)
    made = spec.replace(
        unit=unit,
        detach=True,
        remove=True,
        slice=spec.slice if spec.slice != "system.slice" else own_slice,
        # what was asked for on the command line comes last: it is the more specific one
        properties=(*properties, *spec.properties),
        unit_settings=properties,
        credentials=_credentials(spec),
    )
    early_stop.heed()
    try:
        # held while it is made: what undoes that has no record of it before
        record, _ = create.create(made, early_stop.hold, notices, container_id)
        return _supervise(record)
    except ImageNotFound:
        early_stop.forget()  # it is pulled next, and nothing is made meanwhile
        raise
    except Exception:
        early_stop.hold()  # the error is what ends the start, also where undoing it has asked for a stop
        raise


def _supervise(record: Record) -> int:
    try:
        if record.spec.ready == "healthy" and not record.spec.health.command:
            raise SpecError(
                "Notify=healthy: the container has no health check", hint="HealthCmd= is one"
            )
        return service.supervise(record.id)
    except BaseException:
        _remove_last(record.id)
        raise


def _credentials(spec: ContainerSpec) -> tuple[CredentialUse, ...]:
    """Those that systemd has given the service (LoadCredential= and the like), and those of the words."""
    own = credstore.of_service()
    names = {one.name for one in own}
    return (*own, *(one for one in spec.credentials if one.name not in names))


def start_pod(unit: str, wish: Wish) -> None:
    """Make the pod of the service `unit`, in place of an older one, and bring it up.

    The resource settings of the service hold for the pod's slice. Raises SysboxError; nothing is left then.
    """
    with Bus.connect() as bus:
        properties = service_settings.read(bus, unit)
        own_slice = service_settings.slice_of(bus, unit)
    spec = wish.spec.replace(
        slice=wish.spec.slice if wish.spec.slice != "system.slice" else own_slice,
        properties=(*properties, *wish.spec.properties),
    )
    made = pod.create(wish.replace(spec=spec, unit=unit, anew=True))
    try:
        pod_run.up(made.name)
    except BaseException:
        pod.remove(made.name, force=True, ignore=True)
        raise


def end(unit: str) -> int:
    """What the service does after its end: record that of the container, and remove it."""
    container_id = of_unit(unit)
    status = cleanup.cleanup(container_id)
    # one that was made, and whose start was killed
    _remove_last(container_id)
    return status


def _remove_last(container_id: str) -> None:
    """Remove what a run has left whose end nothing could record: a kill of everything, a power cut."""
    try:
        record = store.load(container_id)
        runtime = store.runtime(container_id)
        if runtime is not None:
            if runtime.alive():
                kill_now(record, runtime)
            settle(container_id, force=True)
        with Lock(container_id):
            discard(store.load(container_id))
    except NotFound:
        pass
