"""A sample scope: made like a container's, around a sleeping process, and removed afterwards."""

from __future__ import annotations

import posix

from sysbox import scope
from sysbox.base.errors import SysboxError
from sysbox.base.frozen import Frozen
from sysbox.base.numbers import bitmask, parse_list
from sysbox.host import exists
from sysbox.linux import cgroup
from sysbox.spec import ContainerSpec
from sysbox.units.bus import Bus
from sysbox.units.limits.properties import Property
from sysbox.units.scopeplan import plan_scope

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.host import HostFacts

_NOBODY = "0" * 64  # an id that no container has
_SIGKILL = 9


class Sample(Frozen):
    """What was found in the sample scope."""

    properties: frozenset[str] = frozenset()  # names on the bus that this systemd knows for scopes
    directories: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    failure: str = ""  # why there was no scope

    def has(self, controller: str, file: str) -> bool:
        """Whether a container's cgroup of this controller has the file."""
        directory = self.directories.get(controller)
        return directory is not None and exists(f"{directory}/{file}")


class SampleScope:
    """Keeps the sample scope for the length of a `with` block; `sample` is what was found."""

    def __init__(self, facts: HostFacts) -> None:
        self.sample = Sample(failure="systemd is not running")
        self._facts = facts
        self._unit = f"sysbox-doctor-{posix.getpid()}.scope"
        self._child = 0
        self._made: list[str] = []
        self._bus: Bus | None = None

    def __enter__(self) -> SampleScope:
        if self._facts.effective_uid != 0:
            self.sample = Sample(failure="only root can start one")
        elif self._facts.systemd:
            try:
                self.sample = self._look()
            except (SysboxError, KeyError) as error:
                self.sample = Sample(failure=str(error))
        return self

    def __exit__(self, *_: object) -> None:
        if self._child:
            posix.kill(self._child, _SIGKILL)
            posix.waitpid(self._child, 0)
        for directory in self._made:
            try:
                posix.rmdir(directory)
            except OSError:
                pass  # ignoring: another process is in it now, or it is gone
        if self._bus is not None:
            try:
                scope.stop(self._bus, self._unit)
            except SysboxError:
                pass  # ignoring: systemd removes the scope after its last process anyway
            self._bus.close()

    def _look(self) -> Sample:
        self._child = _sleeper()
        self._bus = Bus.connect()
        plan = plan_scope(
            _NOBODY,
            ContainerSpec(image="doctor", name="doctor", remove=True),
            properties=(*self._controllers(), *self._filters()),
            writes=(),
            devices=(("/dev/null", "rwm"),),
            facts=self._facts,
            disks={},
        ).replace(unit=self._unit, description="sysbox doctor", keeper=None)
        scope.begin(self._bus, plan, (self._child,)).wait()
        known = scope.all_properties(self._bus, self._unit, scope.INTERFACES[".scope"])
        return Sample(properties=frozenset(known), directories=self._directories())

    def _controllers(self) -> tuple[Property, ...]:
        """Properties that make systemd enable all of its controllers: default weights are enough."""
        if self._facts.cgroup_mode == "v1":
            return (
                Property(name="CPUShares", signature="t", value=1024),
                Property(name="BlockIOWeight", signature="t", value=500),
            )
        cpus = bitmask(parse_list("the host's CPUs", self._facts.cpus))
        return (
            Property(name="CPUWeight", signature="t", value=100),
            Property(name="IOWeight", signature="t", value=100),
            Property(name="AllowedCPUs", signature="ay", value=cpus),
        )

    def _filters(self) -> tuple[Property, ...]:
        """A property for which systemd attaches BPF programs, if it can."""
        return (Property(name="IPAccounting", signature="b", value=True),)

    def _directories(self) -> dict[str, str]:
        """Controller -> the cgroup directory, as a container has it.

        In a v1 hierarchy where systemd makes none, one is made here, as sysbox does for containers.
        """
        found = {}
        paths = cgroup.paths_of(self._child)
        for controller in self._facts.controllers:
            path = paths.get(controller, "/")
            if self._facts.cgroup_mode == "v2":
                path = paths[cgroup.UNIFIED]
            directory = cgroup.directory(self._facts, controller, path)
            if path == "/":
                directory = f"{directory}/sysbox-doctor-{posix.getpid()}"
                try:
                    posix.mkdir(directory, 0o755)
                except FileExistsError:
                    pass  # two controllers in one hierarchy
                except OSError:
                    continue  # it may not be changed: the controller counts as absent
                else:
                    self._made.append(directory)
            found[controller] = directory
        unified = paths.get(cgroup.UNIFIED, "/")
        if self._facts.cgroup_mode == "v1" and unified != "/":
            found["unified"] = f"/sys/fs/cgroup/unified{unified}"
        return found


def _sleeper() -> int:
    """Fork a process that does nothing until it is killed, or until this process ends; its pid."""
    reader, writer = posix.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.close(writer)
            posix.read(reader, 1)
        finally:
            posix._exit(0)
    posix.close(reader)
    return child
