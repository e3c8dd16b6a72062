"""One COPY or ADD: what it copies, the key of that, and the copying."""

from __future__ import annotations

import posix
import time

from sysbox.base import tree
from sysbox.base.errors import FormatError, KernelError, SpecError
from sysbox.build import addresses, content, content_sources, fetch, model, modes, root
from sysbox.build.content import Copied, Target
from sysbox.build.content_sources import Origin, Rule
from sysbox.build.digests import Digest
from sysbox.fs import treecopy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

    from sysbox.build.fetch import Fetched
    from sysbox.build.layers import Workshop
    from sysbox.build.origins import Origins


class Copying:
    """One COPY or ADD with its variables replaced; a context manager. Raises SysboxError."""

    def __init__(
        self,
        one: model.Copy,
        origins: Origins,
        workdir: str,
        shop: Workshop,
        limits: fetch.Limits,
    ) -> None:
        self._one = one
        self._origins = origins
        self._workdir = workdir
        self._shop = shop
        self._local = [text for text in one.sources if not self._is_remote(text)]
        self._remote = [text for text in one.sources if self._is_remote(text)]
        self._fetched: list[Fetched] = []
        self._limits = limits
        self._known = ""  # the digest of the local sources, as the key has it
        self._mode = modes.parse(one.chmod) if one.chmod else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._fetched:
            one.close()

    def _is_remote(self, text: str) -> bool:
        return isinstance(self._one, model.Add) and addresses.is_remote(text)

    def key(self) -> list[str]:
        """What its result depends on, besides the layers below."""
        one = self._one
        parts = [
            one.destination, self._workdir, one.chown, one.chmod, str(one.parents), *one.exclude, "",
            type(one).__name__, *one.sources, "",
        ]  # fmt: skip
        if isinstance(one, model.Add):
            parts += [one.checksum, str(one.keep_git_dir), str(one.unpack)]
        parts += [f"{document.name}={document.content}" for document in one.heredocs]
        if self._local:
            self._known = self._local_digest()
            parts.append(self._known)
        if self._remote and not (isinstance(one, model.Add) and one.checksum):
            parts += [self._fetch(text).digest for text in self._remote]
        return parts

    def _local_digest(self) -> str:
        one = self._one
        if not one.exclude:
            return self._origins.digest(one.origin, *self._local)
        origin = self._origins.open(one.origin)
        owners = not self._origins.is_context(one.origin)
        digest = Digest(owners=owners, meter=self._origins.meter("read", one.origin))
        for pattern in self._local:
            for path in content_sources.expand(origin, pattern):
                less = self._less(origin, path)
                if not less.leaves_out(path, is_directory=False):
                    digest.add(less, path)
        return digest.text()

    def _less(self, origin: Origin, path: str) -> Origin:
        """The tree without what --exclude names, by its path in the tree or in the source `path`."""
        one = self._one
        if not one.exclude:
            return origin
        from sysbox.build import ignore  # which few instructions need

        patterns = ignore.exclude(one.exclude, one.file, one.line)
        return origin.without(Rule(patterns), Rule(patterns, path))

    def _fetch(self, text: str) -> Fetched:
        one = self._one
        if not isinstance(one, model.Add):
            raise SpecError(f"{text}: only ADD copies from a URL")
        for known in self._fetched:
            if known.url == text:
                return known
        wanted = fetch.Wanted(url=text, checksum=one.checksum, git_dir=one.keep_git_dir)
        meter = self._origins.meter("fetched")
        found = fetch.fetch(wanted, self._shop.directory("fetched"), self._limits, meter.data)
        self._fetched.append(found)
        return found

    def put(self, stage: int) -> bool:
        """Copy all of it into the root `stage`; whether that is what the key says."""
        one = self._one
        is_context = self._origins.is_context(one.origin)
        copied = Copied(
            meter=self._origins.meter("copied", one.origin),
            digest=Digest(owners=False) if is_context else None,
        )
        owner: tuple[int, int] | None = (0, 0)
        if one.chown:
            owner = root.owner_of(stage, one.chown)
        elif not is_context:
            owner = None
        origin = self._origins.open(one.origin) if self._local else None
        paths = [
            (pattern, path)
            for pattern in self._local
            for path in (content_sources.expand(origin, pattern) if origin else ())
        ]
        count = len(paths) + len(self._remote) + len(one.heredocs)
        demands = content.demands_directory(one.destination)
        if count > 1 and not demands:
            self._check_directory(stage, count)
        target = Target(
            path=content.normal(one.destination, self._workdir),
            is_directory=demands or count > 1,
            owner=owner,
            mode=self._mode,
        )
        for pattern, path in paths:
            if origin is not None:
                self._put_local(stage, origin, pattern, path, target, copied)
        for text in self._remote:
            self._put_remote(stage, self._fetch(text), target, copied.replace(digest=None))
        for document in one.heredocs:
            data = document.stripped().encode("utf-8", "surrogateescape")
            content.write(stage, document.name, data, target, mode=0o644, mtime=time.time_ns())
        return not (paths and copied.digest) or copied.digest.text() == self._known

    def _check_directory(self, stage: int, count: int) -> None:
        """docker's rule: several sources need a destination that ends with a slash."""
        path = content.normal(self._one.destination, self._workdir)
        if not content.is_directory(stage, path):
            raise SpecError(
                f"{self._one.destination}: is no directory, and there are {count} sources",
                hint="end the destination with a slash",
            )

    def _put_local(
        self,
        stage: int,
        origin: Origin,
        pattern: str,
        path: str,
        target: Target,
        copied: Copied,
    ) -> None:
        one = self._one
        origin = self._less(origin, path)
        if origin.leaves_out(path, is_directory=False):
            return
        if isinstance(one, model.Add) and one.unpack is not False:
            fd = content.archive_of(origin, path)
            if fd >= 0:
                fd = self._kept(origin, path, fd, copied)
                content.unpack(stage, fd, path, target)
                return
        if one.parents:
            target = _with_parents(target, pattern, path, origin)
        content.copy(stage, origin, path, target, copied)

    def _kept(self, origin: Origin, path: str, fd: int, copied: Copied) -> int:
        """An open archive of a context as a file that nobody else can change; `fd` is closed then."""
        if copied.digest is None:
            return fd
        name = f"{self._shop.directory('archive')}/file"
        own = posix.open(name, posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
        try:
            treecopy.copy_content(own, fd, copied.meter.data)
            found = origin.entry(path)
            try:
                copied.digest.begin(path)
                copied.digest.file("", found, tree.attributes(fd), own)
            finally:
                found.close()
        except OSError as error:
            posix.close(own)
            raise KernelError.of("copy", path, error) from None
        except BaseException:
            posix.close(own)
            raise
        finally:
            posix.close(fd)
        posix.unlink(name)
        posix.lseek(own, 0, 0)
        return own

    def _put_remote(self, stage: int, fetched: Fetched, target: Target, copied: Copied) -> None:
        one = self._one
        fd = posix.open(fetched.path, posix.O_RDONLY | posix.O_CLOEXEC)
        if fetched.is_directory:
            try:
                fetched_tree = Origin(fd, fetched.url, confined=True)
                content.copy(stage, fetched_tree, "", target, copied)
            finally:
                posix.close(fd)
            return
        if isinstance(one, model.Add) and one.unpack and content.is_archive(fd):
            content.unpack(stage, fd, fetched.url, target)
            return
        try:
            if not fetched.name:
                raise FormatError(
                    f"{fetched.url}: has no name for a file", hint="name it in the destination"
                )
            content.store(stage, fetched.name, fd, target, mode=0o600, mtime=fetched.mtime)
        finally:
            posix.close(fd)


def _with_parents(target: Target, pattern: str, path: str, origin: Origin) -> Target:
    """--parents: below the destination, in the directories that the source has from its pivot on."""
    before = pattern.partition("/./")[0] if "/./" in pattern else ""
    skipped = len([part for part in before.split("/") if part])
    parts = path.split("/")[skipped:]
    entry = origin.entry(path)
    is_directory = entry.is_directory
    entry.close()
    if not is_directory:
        parts = parts[:-1]
    return target.replace(path="/".join((target.path.rstrip("/"), *parts)), is_directory=True)
