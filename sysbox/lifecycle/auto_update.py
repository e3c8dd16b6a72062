"""Newer images for declared containers: pull, restart their services, and go back where one does not start.

A container takes part by its label io.containers.autoupdate (AutoUpdate= of [Container]): `registry` asks the
registry what its image's name means now, `local` looks only at what is here. All services of one image go
forward together, one after the other, or back.
"""

from __future__ import annotations

import time

from sysbox import scope
from sysbox.base import paths
from sysbox.base.errors import Conflict, NotFound, SpecError, SysboxError, SystemdError
from sysbox.base.files import make_private, unlink, write_file
from sysbox.base.flock import Lock
from sysbox.base.frozen import Frozen
from sysbox.container import health, store
from sysbox.container.status import read_status
from sysbox.image import reference as references
from sysbox.image.registry import platform
from sysbox.image.registry.pull import Options, Report
from sysbox.image.store import Store
from sysbox.lifecycle import declared, images, unit_jobs, way_back
from sysbox.units.bus import Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sysbox.container.store import Record
    from sysbox.image.reference import Reference
    from sysbox.spec import Health

LABEL = "io.containers.autoupdate"
REGISTRY, LOCAL = POLICIES = ("registry", "local")
_STEP = 0.1  # seconds between two looks at a service
_SETTLED = 3.0  # seconds that a service without a health check must live
_MARGIN = 10.0  # seconds beyond the time that its checks may take
# seconds for one service: the image says how long its checks may take, and its payload may ask for more time
# to start, and the other services wait meanwhile
_LONGEST = 1800.0


class Outcome(Frozen):
    """What was done for one container."""

    unit: str
    container: str
    name: str
    image: str
    policy: str
    # true, false (its image is current), pending (--dry-run), rolled back, failed
    updated: str
    error: SysboxError | None = None


class Chosen(Frozen):
    """A container that takes part."""

    record: Record
    policy: str

    def outcome(self, updated: str, error: SysboxError | None = None) -> Outcome:
        """What to tell of it."""
        record = self.record
        return Outcome(
            unit=record.spec.unit,
            container=record.id,
            name=record.name,
            image=record.spec.image,
            policy=self.policy,
            updated=updated,
            error=error,
        )


def update(
    options: Options, *, dry_run: bool = False, rollback: bool = True,
    damaged: Callable[[SysboxError], object] = lambda _: None,
) -> Iterator[Outcome]:  # fmt: skip
    """Update all; an outcome for each container that takes part, as it is known.

    `damaged` is told of records that cannot be read. Raises Conflict while another command does the same.
    """
    try:
        lock = Lock(f"{paths.RUN}/auto-update.lock", wait=False)
    except Conflict:
        raise Conflict("another auto-update is going on", hint="wait for its end") from None
    with lock:
        groups: dict[tuple[str, str], list[Chosen]] = {}
        for one in _chosen(damaged):
            try:
                groups.setdefault((_name_of(one), one.policy), []).append(one)
            except SysboxError as error:
                yield one.outcome("failed", error)
        for (name, policy), group in groups.items():
            yield from _Image(name, policy, options, group).update(
                dry_run=dry_run, rollback=rollback
            )


def _chosen(damaged: Callable[[SysboxError], object]) -> Iterator[Chosen]:
    """The running containers with the label: the administrator's, not the image's."""
    for record in store.all_records(damaged):
        policy = record.spec.labels.get(LABEL, "")
        if policy and read_status(record).state in ("running", "paused"):
            # podman's other name of it
            yield Chosen(record=record, policy=REGISTRY if policy == "image" else policy)


def _name_of(one: Chosen) -> str:
    """The full name of its image. Raises SpecError, NotFound for what cannot be updated."""
    record, where = one.record, f"container {one.record.name}"
    if one.policy not in POLICIES:
        raise SpecError(
            f"{where}: {LABEL}={one.policy}: unknown policy", hint=f"valid: {', '.join(POLICIES)}"
        )
    if not record.spec.unit:
        raise SpecError(
            f"{where}: it has no service of a unit file, and is not updated",
            hint=f"`sysbox unit generate {record.name}` declares it",
        )
    name = Store().find(record.spec.image)[0]
    if not name:
        raise SpecError(
            f"{where}: its image is given by its id, which never means another one",
            hint="Image= must be a name",
        )
    return name


class _Image:
    """The update of one image, and of the services of its containers."""

    def __init__(self, name: str, policy: str, options: Options, group: list[Chosen]) -> None:
        self._name = name
        self._policy = policy
        self._options = options
        self._group = group
        self._store = Store()

    def update(self, *, dry_run: bool, rollback: bool) -> Iterator[Outcome]:
        try:
            before = self._store.find(self._name)[1].id
            is_newer = self._policy == REGISTRY and self._is_newer()
            if dry_run:
                yield from self._pending(before, is_newer=is_newer)
                return
            if is_newer:
                self._pull()
            now = self._store.find(self._name)[1].id
        except SysboxError as error:
            yield from (one.outcome("failed", error) for one in self._group)
            return
        behind = [one for one in self._group if one.record.image_id != now]
        yield from (one.outcome("false") for one in self._group if one not in behind)
        if behind:
            # where another command has moved the name since they started, back to what they run
            old = before if before != now else behind[0].record.image_id
            with way_back.Kept(old, [one.record.name for one in behind]):
                yield from self._restart(behind, old, rollback=rollback)

    def _pending(self, now: str, *, is_newer: bool) -> Iterator[Outcome]:
        for one in self._group:
            yield one.outcome("pending" if is_newer or one.record.image_id != now else "false")

    def _reference(self) -> Reference:
        return references.parse(self._name)

    def _is_newer(self) -> bool:
        """Whether the registry has another image under the name. Raises SysboxError."""
        reference = self._reference()
        if reference.digest:
            return False
        known = {
            digest
            for entry in self._store.entries()
            if entry.name == self._name
            for digest in (entry.digest, entry.index)
        }
        return images.current_digest(reference, self._options) not in known

    def _pull(self) -> None:
        config = self._store.find(self._name)[1].config
        own = str(platform.own())
        wanted = "" if platform.fits(config, own) else f"{config.os}/{config.architecture}"
        images.pull(
            self._store, self._reference(), self._options.replace(platform=wanted), Report()
        )

    def _restart(self, behind: list[Chosen], old: str, *, rollback: bool) -> Iterator[Outcome]:
        """Restart the services one by one; at the first that does not start, all of them go back."""
        done: list[Chosen] = []
        for index, one in enumerate(behind):
            try:
                _release(one.record)
                _restart(one.record)
                done.append(one)
                if not rollback:
                    yield one.outcome("true")
            except SysboxError as error:
                if not rollback:
                    yield one.outcome("failed", error)
                    continue
                yield from self._back([*done, one], old, error)
                yield from (rest.outcome("false") for rest in behind[index + 1 :])
                return
        if rollback:
            yield from (one.outcome("true") for one in done)

    def _back(self, restarted: list[Chosen], old: str, error: SysboxError) -> Iterator[Outcome]:
        try:
            self._store.tag(old, self._name)
        except SysboxError as failure:
            reason = SysboxError(f"{error.message}; no way back: {failure.message}")
            yield from (one.outcome("failed", reason) for one in restarted)
            return
        for one in reversed(restarted):
            try:
                _hold(one.record)
                _restart(one.record)
                yield one.outcome("rolled back", error if one is restarted[-1] else None)
            except SysboxError as failure:
                reason = SysboxError(f"{error.message}; with the old image: {failure.message}")
                yield one.outcome("failed", reason)


def _hold(record: Record) -> None:
    """Have the starts of its service keep the image that is here, whatever its Pull= says."""
    path = declared.held(record.spec.unit)
    make_private(path.rpartition("/")[0])
    write_file(path, b"")


def _release(record: Record) -> None:
    unlink(declared.held(record.spec.unit))


def _restart(record: Record) -> None:
    """Restart its service; returns once that is up, and healthy. Raises SysboxError where it is not."""
    unit = record.spec.unit
    with Bus.connect() as bus:
        try:
            # StartLimitBurst= is about a service that fails: a way back is not to be refused for that
            scope.reset_failed(bus, unit)
            unit_jobs.restart(bus, unit, _LONGEST)
            _await_health(bus, unit, store.load(record.id))
        except (SystemdError, NotFound) as error:
            raise SysboxError(
                f"{unit} does not start with the image {record.spec.image}: {error.message}",
                hint=f"`journalctl -u {unit}` says more",
            ) from None


def _await_health(bus: Bus, unit: str, made: Record) -> None:
    """Wait until a service that has started is healthy, or has lived for a moment. Raises SystemdError."""
    began, checks = _invocation(bus, unit), made.spec.health
    until = time.monotonic() + (patience(checks) if checks.command else _SETTLED)
    while time.monotonic() < until:
        if not began or _invocation(bus, unit) != began:
            raise SystemdError("it ended soon after its start", unit=unit)
        state = health.status(made)
        if state and state.status == "healthy":
            return
        if state and state.status == "unhealthy":
            raise SystemdError("it is unhealthy", unit=unit)
        time.sleep(_STEP)
    if checks.command:
        raise SystemdError("it does not become healthy", unit=unit)


def patience(checks: Health) -> float:
    """Seconds after which the checks of a container have decided, or it is no longer waited for. Pure."""
    micros = checks.start_period + (checks.interval + checks.timeout) * (checks.retries + 1)
    if checks.startup_command:
        tries = max(checks.startup_retries, checks.startup_successes)
        micros += (checks.startup_interval + checks.startup_timeout) * tries
    return min(micros / 1_000_000 + _MARGIN, _LONGEST)


def _invocation(bus: Bus, unit: str) -> bytes:
    """What identifies this run of an active service; b"" once it is over."""
    found = scope.properties(bus, unit, scope.UNIT, ("ActiveState", "InvocationID"))
    return bytes(found["InvocationID"]) if found["ActiveState"] in ("active", "reloading") else b""
