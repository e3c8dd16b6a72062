"""RUN --mount: what is mounted for one step, and is gone after it."""

from __future__ import annotations

import posix

from sysbox.base import files
from sysbox.base.errors import Conflict, KernelError, NotFound, SpecError
from sysbox.base.files import make_private, remove_tree, write_file
from sysbox.base.flock import Lock
from sysbox.base.paths import RUN
from sysbox.build import cache, content
from sysbox.build.content import Copied, Selected, Target
from sysbox.build.content_sources import Origin
from sysbox.build.content_sources import clean as clean_source
from sysbox.build.digests import Digest, Meter
from sysbox.build.run_agent import Relay
from sysbox.container.secrets import MOST
from sysbox.fs.treecopy import Rules
from sysbox.spec import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from sysbox.build.model import RunMount

_SECRETS = "/run/secrets"
_AGENT = "/run/buildkit/ssh_agent"
_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
_COPIES = 32  # directories of one cache that is private
# what is mounted is sysbox's own, and under SELinux the step may use it: this one alone, or each
_PRIVATE, _SHARED = ("Z",), ("z",)


class Given:
    """What the caller gives the steps of a build: secrets by id, and sockets of ssh agents by id."""

    def __init__(self, secrets: dict[str, bytes], agents: dict[str, str]) -> None:
        self.secrets = secrets
        self.agents = agents


class StepMounts:
    """The mounts of one RUN; a context manager, after which they are gone.

    `origin` gives the tree that a from= names. Raises SpecError, NotFound, KernelError.
    """

    def __init__(
        self,
        asked: tuple[RunMount, ...],
        given: Given,
        origin: Callable[[str], Origin],
        meter: Callable[[str, str], Meter],
        directory: str,
        store: str,
        workdir: str,
    ) -> None:
        """`meter` as `Origins.meter`; `directory` is an empty one on disk for copies; `store` is the root of
        the image store.
        """
        self._asked = asked
        self._given = given
        self._origin = origin
        self._meter = meter
        self._directory = directory
        self._store = store
        self._workdir = workdir
        self._memory = f"{RUN}/build/{posix.getpid()}-{posix.urandom(4).hex()}"
        self._locks: list[Lock] = []
        self._relays: list[Relay] = []
        self._count = 0
        self.mounts: list[Mount] = []
        self.environment: list[str] = []
        self.secrets: list[str] = []  # variables that nobody else may see
        # of each bind mount: the digest of its copy, "" where nobody can have changed the source meanwhile
        self.digests: list[str] = []

    def __enter__(self) -> Self:
        try:
            for one in self._asked:
                getattr(self, f"_{one.kind}")(one)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for lock in self._locks:
            lock.release()
        self._locks = []
        for relay in self._relays:
            relay.stop()
        self._relays = []
        remove_tree(self._memory)

    def _target(self, one: RunMount) -> str:
        """Where it is mounted. Raises SpecError for the root: the step's layer would be below the mount."""
        target = content.normal(one.target, self._workdir)
        if target == "/":
            raise SpecError(
                f"a mount of type {one.kind} would cover the whole root",
                hint="say where it goes: --mount=...,target=DIRECTORY",
            )
        return target

    def _bind(self, one: RunMount) -> None:
        """A copy: what is written is discarded, and no other process can change it meanwhile."""
        digest = Digest(owners=False) if self._origin(one.origin).confined else None
        source = self._copied(one, None, digest)
        self.digests.append(digest.text() if digest else "")
        self.mounts.append(
            Mount(
                kind="bind",
                target=self._target(one),
                source=source,
                read_only=one.read_only,
                options=_PRIVATE,
            )
        )

    def _copied(
        self, one: RunMount, owner: tuple[int, int] | None, digest: Digest | None = None
    ) -> str:
        self._count += 1
        base = f"{self._directory}/mount-{self._count}"
        posix.mkdir(base, 0o700)
        origin = self._origin(one.origin)
        path = clean_source(one.source)
        top = origin.entry(path)
        parent = posix.open(base, _DIRECTORY)
        try:
            if origin.leaves_out(path, is_directory=top.is_directory):
                raise NotFound(f"{one.source}: the ignore file leaves it out of {origin.title}")
            everything = Target(path="/", is_directory=True, owner=owner)
            copied = Copied(meter=self._meter("copied", one.origin), digest=digest)
            copier = Selected(Rules(owner=owner), origin, path, everything, copied)
            copier.begin(top)
            if not top.is_directory:
                copier.put(top, parent, "content")
                return f"{base}/content"
            # not put: a path of the ignore file is below the source, not below "content"
            posix.mkdir("content", 0o700, dir_fd=parent)
            into = posix.open("content", _DIRECTORY, dir_fd=parent)
            try:
                copier.merge(top, into, whole=True)
            finally:
                posix.close(into)
        finally:
            posix.close(parent)
            top.close()
        return f"{base}/content"

    def _tmpfs(self, one: RunMount) -> None:
        size = (f"size={one.size}",) if one.size else ()
        self.mounts.append(Mount(kind="tmpfs", target=self._target(one), options=size))

    def _cache(self, one: RunMount) -> None:
        target = self._target(one)
        key = cache.key_of([one.id or target])[:32]
        make_private(cache.mounts(self._store))
        path = f"{cache.mounts(self._store)}/{key}"
        if one.sharing == "private":
            path = self._free(path)
        else:
            self._locks.append(Lock(f"{path}.lock", shared=one.sharing == "shared"))
        if not files.is_directory(f"{path}/content"):
            self._new_cache(one, path)
        self.mounts.append(
            Mount(
                kind="bind",
                target=target,
                source=f"{path}/content",
                read_only=one.read_only,
                options=_SHARED,
            )
        )

    def _free(self, path: str) -> str:
        """The first of a cache's directories that no step has."""
        for number in range(_COPIES):
            name = f"{path}-{number}" if number else path
            try:
                self._locks.append(Lock(f"{name}.lock", wait=False))
            except Conflict:
                continue
            return name
        raise Conflict(f"all {_COPIES} copies of a private cache are in use")

    def _new_cache(self, one: RunMount, path: str) -> None:
        make_private(path)
        draft = f"{path}/new-{posix.getpid()}"
        if one.origin or one.source:
            copied = self._copied(one, (one.uid, one.gid))
            if not files.is_directory(copied):
                raise SpecError(f"a mount of type cache: {one.source} is not a directory")
            posix.rename(copied, draft)
        else:
            posix.mkdir(draft)
        fd = posix.open(draft, _DIRECTORY)
        try:
            posix.fchown(fd, one.uid, one.gid)
            posix.fchmod(fd, 0o755 if one.mode < 0 else one.mode)
        finally:
            posix.close(fd)
        try:
            posix.rename(draft, f"{path}/content")
        except OSError:
            remove_tree(draft)  # another build was faster

    def _secret(self, one: RunMount) -> None:
        name = one.id or one.target.rpartition("/")[2] or one.env
        data = self._given.secrets.get(name)
        if data is None:
            if one.required:
                raise NotFound(
                    f"the secret {name} is not given", hint=f"give it: --secret id={name},src=FILE"
                )
            return
        if len(data) > MOST:
            raise SpecError(f"the secret {name} is larger than {MOST >> 10} KiB")
        if one.env:
            if b"\0" in data:
                raise SpecError(f"the secret {name} has a NUL, which no variable can have")
            self.secrets.append(f"{one.env}={data.decode('utf-8', 'surrogateescape')}")
        if one.env and not one.target:
            return
        make_private(self._memory)
        self._count += 1
        path = f"{self._memory}/{self._count}"
        write_file(path, data)
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            posix.fchown(fd, one.uid, one.gid)
            posix.fchmod(fd, 0o400 if one.mode < 0 else one.mode)
        finally:
            posix.close(fd)
        target = self._target(one) if one.target else f"{_SECRETS}/{name}"
        self.mounts.append(
            Mount(kind="bind", target=target, source=path, read_only=True, options=_PRIVATE)
        )

    def _ssh(self, one: RunMount) -> None:
        name = one.id or "default"
        socket = self._given.agents.get(name)
        if socket is None:
            if one.required:
                raise NotFound(f"the ssh agent {name} is not given", hint=f"give it: --ssh {name}")
            return
        try:
            posix.stat(socket)
        except OSError as error:
            raise KernelError.of("look at", socket, error) from None
        make_private(self._memory)
        path = f"{self._memory}/agent-{len(self._relays)}"
        self._relays.append(Relay(path, socket))
        fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
        try:
            posix.chown(f"/proc/self/fd/{fd}", one.uid, one.gid)
            posix.chmod(f"/proc/self/fd/{fd}", 0o600 if one.mode < 0 else one.mode)
        finally:
            posix.close(fd)
        number = sum(mount.target.startswith(_AGENT) for mount in self.mounts)
        target = self._target(one) if one.target else f"{_AGENT}.{number}"
        self.mounts.append(Mount(kind="bind", target=target, source=path, options=_PRIVATE))
        self.environment.append(f"SSH_AUTH_SOCK={target}")
