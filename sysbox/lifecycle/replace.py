"""`run --replace` and `create --replace`: who has the name of the new container is removed first."""

from __future__ import annotations

import posix

from sysbox.base.errors import Conflict, FormatError, NotFound, Outrun, SpecError, SysboxError
from sysbox.base.paths import CONTAINERS
from sysbox.container import store
from sysbox.container.names import owner_of
from sysbox.host import exists
from sysbox.lifecycle import control, create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.container.store import Record
    from sysbox.lifecycle.run import Notices
    from sysbox.spec import ContainerSpec

_FLAG = "--replace"
# the kinds of namespaces, and the flags whose values say which container's is joined
_FLAGS = {
    "network": "--network",
    "pid": "--pid",
    "ipc": "--ipc",
    "uts": "--uts",
    "cgroup": "--cgroupns",
    "time": "--timens",
    "user": "--userns",
}


class Replacement:
    """A context for the making of a container: who has its name is removed before, as `rm -f` does.

    `starts`: it is not only made, but is to run now. `__enter__` raises what `checked` and `rm -f` raise.
    Of a block that fails `notices` tell that the other container is gone; where another command has taken
    the name meanwhile, Conflict says that instead.
    """

    def __init__(self, spec: ContainerSpec, notices: Notices, *, starts: bool) -> None:
        self._starts = starts
        self._name = spec.name
        self._spec = spec
        self._notices = notices
        self._owner = ""

    def __enter__(self) -> Self:
        self._owner = checked(self._spec, starts=self._starts)
        if self._owner:
            try:
                _remove(self._owner)
            except BaseException:
                self._tell()
                raise
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if error is None:
            return
        taken = isinstance(error, SysboxError) and owner_of(self._name)
        # who has taken it may itself be removed by now
        if taken or isinstance(error, Outrun):
            raise Conflict(
                f"{_FLAG}: another command has taken the name '{self._name}' meanwhile",
                hint=f"`sysbox inspect {self._name}` shows its container",
            ) from None
        self._tell()

    def _tell(self) -> None:
        if self._owner and not exists(f"{CONTAINERS}/{self._owner}"):
            self._notices.replaced_by_none(self._name)


def checked(spec: ContainerSpec, *, starts: bool) -> str:
    """The id of the container that would be removed, or "": what cannot be made replaces nothing.

    Raises SpecError without a name, Conflict for a container that is declared or that the new one needs,
    FormatError for one whose record cannot be read, and what `create.check` raises.
    """
    if not spec.name:
        raise SpecError(f"{_FLAG}: which container is replaced?", hint="--name says so")
    owner = owner_of(spec.name)
    if owner is None:
        return ""
    try:
        declared = store.load(owner).spec.unit  # a damaged record does not tell: it stays
    except NotFound:
        declared = ""  # ignoring: it is just being removed, or a power cut has left an empty one
    if declared:
        # its service would start it again, and then find its name taken
        raise store.taken(spec.name)
    record = create.check(spec, owner)
    _refuse_joined(record.spec, owner)
    if spec.cidfile:
        _check_cidfile(spec.cidfile)
    if starts:
        _check_start(record, spec, owner)
    return owner


def _check_start(record: Record, spec: ContainerSpec, owner: str) -> None:
    """Raise what the start of the new container would raise, as far as that is known before.

    What is asked of a new pod is in `spec` only.
    """
    for one in record.spec.mounts:
        if one.kind == "bind" and not one.create and not exists(one.source):
            raise SpecError(
                f"bind mount {one.target}: the source {one.source} does not exist",
                hint="make it first, or use -v, which makes a missing directory",
            )
    if spec.namespaces.network == "bridge" and (spec.ports or spec.networks):
        from sysbox.netns import taken  # few containers need it

        taken.check(spec, owner)


def _remove(owner: str) -> None:
    try:
        control.remove(store.load(owner), force=True, volumes=False)
    except (FormatError, NotFound):
        if not exists(f"{CONTAINERS}/{owner}"):
            return  # another command was faster
        from sysbox.lifecycle.remove import remove_damaged  # rarely needed

        # its run cannot be read, it is being removed, or a power cut has left nothing of a --rm record
        remove_damaged(owner, with_volumes=False)


def _refuse_joined(spec: ContainerSpec, owner: str) -> None:
    """Raise Conflict where a prepared specification needs the container that it is to replace."""
    for kind, flag in _FLAGS.items():
        if getattr(spec.namespaces, kind) == f"container:{owner}":
            raise _needed(spec, f"{flag} container:{spec.name}")
    for link in spec.links:
        if link.startswith(f"{owner}:"):
            raise _needed(spec, f"--link {spec.name}")


def _needed(spec: ContainerSpec, by: str) -> Conflict:
    return Conflict(
        f"{_FLAG}: {by} needs the container {spec.name} itself",
        hint="give the new container another name",
    )


def _check_cidfile(path: str) -> None:
    above = path.rpartition("/")[0] or ("/" if path[:1] == "/" else ".")
    # the access of the effective user: a file system that is mounted read-only has none
    if not posix.access(f"{above}/.", posix.W_OK | posix.X_OK):
        raise SpecError(
            f"--cidfile {path}: no file can be made in {above}",
            hint="name one in a directory that is there and can be written to",
        )
