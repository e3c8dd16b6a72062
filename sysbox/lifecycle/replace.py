"""`run --replace` and `create --replace`: who has the name of the new container is removed first."""

from __future__ import annotations

from sysbox.base.errors import Conflict, FormatError, NotFound, SpecError
from sysbox.container import store
from sysbox.container.names import owner_of
from sysbox.lifecycle import control, create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import ContainerSpec

_FLAG = "--replace"


def make_way(spec: ContainerSpec) -> None:
    """Remove the container that has the name of `spec`, as `rm -f` does; none is success.

    What cannot be made replaces nothing: it is planned before. Raises SpecError without a name, Conflict
    for a container that is declared or that the new one needs, and what `create.check` and `rm -f` raise.
    """
    owner = replaced(spec)
    if not owner:
        return
    if planned := create.check(spec):
        _refuse_joined(planned.spec, owner)
    try:
        control.remove(store.load(owner), force=True, volumes=False)
    except NotFound:
        pass  # it is just being removed
    except FormatError:
        from sysbox.lifecycle.remove import remove_damaged  # rarely needed

        remove_damaged(owner, with_volumes=False)


def replaced(spec: ContainerSpec) -> str:
    """The id of the container that `make_way` would remove, or "". Raises SpecError, Conflict."""
    if not spec.name:
        raise SpecError(f"{_FLAG}: which container is replaced?", hint="--name says so")
    owner = owner_of(spec.name)
    if owner is None:
        return ""
    try:
        declared = store.load(owner).spec.unit
    except (FormatError, NotFound):
        declared = ""  # ignoring: damaged, or on its way out
    if declared:
        # its service would start it again, and then find its name taken
        raise store.taken(spec.name)
    return owner


def _refuse_joined(spec: ContainerSpec, owner: str) -> None:
    """Raise Conflict where a prepared specification needs the container that it is to replace."""
    asked = spec.namespaces
    joined = f"container:{owner}"
    for kind in ("network", "pid", "ipc", "uts", "cgroup", "time", "user"):
        if getattr(asked, kind) == joined:
            raise _needed(spec, f"--{kind} container:{spec.name}")
    for link in spec.links:
        if link.startswith(f"{owner}:"):
            raise _needed(spec, f"--link {spec.name}")


def _needed(spec: ContainerSpec, by: str) -> Conflict:
    return Conflict(
        f"{_FLAG}: {by} needs the container {spec.name} itself",
        hint="give the new container another name",
    )
