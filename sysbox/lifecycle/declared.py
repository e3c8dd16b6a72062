"""Containers that are declared: each start of the service makes the container anew, and supervises it.

The container's id is made from the service's name, so the scope, the addresses and the range of ids are the
same at each start. What is set on the service, in its file, a drop-in or with `systemctl set-property`, holds
for the scope.
"""

from __future__ import annotations

from sysbox import scope
from sysbox.base.errors import NotFound, SpecError
from sysbox.base.files import read_file
from sysbox.container import store
from sysbox.container.locks import Lock
from sysbox.host import probe
from sysbox.lifecycle import create
from sysbox.lifecycle.run import SILENT
from sysbox.run import service
from sysbox.run.exit import kill_now, settle
from sysbox.run.teardown import discard
from sysbox.units import syntax
from sysbox.units.bus import Bus
from sysbox.units.limits import allowlist

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.spec import ContainerSpec

# of the service itself, not of what it limits
_OWN = frozenset(("CollectMode", "OOMPolicy", "RuntimeMaxSec", "TimeoutStopSec"))


def id_of(unit: str) -> str:
    """The id of the container that the service `unit` declares: 64 hexadecimal digits."""
    from hashlib import sha256  # only these containers need it

    return sha256(f"sysbox container of {unit}".encode("utf-8", "surrogateescape")).hexdigest()


def start(unit: str, spec: ContainerSpec) -> int:
    """Make the container of the service `unit`, in place of that of its last run, and supervise it.

    Raises SysboxError; nothing is left then.
    """
    container_id = id_of(unit)
    _remove_last(container_id)
    slice_, properties = _settings(unit)
    made = spec.replace(
        unit=unit,
        detach=True,
        remove=True,
        slice=spec.slice if spec.slice != "system.slice" else slice_,
        # what was asked for on the command line comes last: it is the more specific one
        properties=(*properties, *spec.properties),
    )
    create.create(made, lambda: None, SILENT, container_id)
    try:
        return service.supervise(container_id)
    except BaseException:
        _remove_last(container_id)
        raise


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


def _settings(unit: str) -> tuple[str, tuple[str, ...]]:
    """The slice of a service, and its resource settings as KEY=VALUE. Raises SystemdError."""
    with Bus.connect() as bus:
        found = scope.properties(bus, unit, scope.UNIT, ("FragmentPath", "DropInPaths"))
        slice_ = scope.properties(bus, unit, scope.INTERFACES[".service"], ("Slice",))["Slice"]
    facts, settings = probe(), []
    for key, value in _assigned((found["FragmentPath"], *found["DropInPaths"])):
        try:
            allowlist.parse_property(f"{key}={value}", facts)
        except SpecError:
            continue  # ignoring: systemd applies it to the service, as far as this host can
        settings.append(f"{key}={value}")
    return slice_, tuple(settings)


def _assigned(paths: Iterable[str]) -> list[tuple[str, str]]:
    """The resource settings in a service's files, in the order in which systemd reads them."""
    found: list[tuple[str, str]] = []
    for path in paths:
        text = read_file(path) if path else None
        for one in syntax.entries(syntax.decode(text or b"")):
            if one.section != "Service" or one.key not in allowlist.KEYS or one.key in _OWN:
                continue
            if one.value:
                found.append((one.key, syntax.unescape_specifiers(one.value)))
            else:
                # an empty assignment resets the key
                found = [pair for pair in found if pair[0] != one.key]
    return found
