"""Fetch what a URL leads to: a file of a web server, or a git repository (`git`), within bounds."""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import FormatError, KernelError, NotFound, SpecError
from sysbox.base.files import remove_tree, write_all
from sysbox.base.frozen import Frozen
from sysbox.build import addresses, git
from sysbox.embedded import caller_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_OF_REFS = _LETTERS | frozenset("._/@+-")
_CHUNK = 1 << 20
_BOUND = "FetchSize= of sysbox.conf(5) is the bound"


class Limits(Frozen):
    """How much may come."""

    size: int  # bytes
    files: int  # of a repository


class Wanted(Frozen):
    """What is to be fetched."""

    url: str
    checksum: str = ""  # "sha256:<hex>", or a commit or its beginning
    git_dir: bool = False  # keep the directory .git


class Fetched(Frozen):
    """What a URL has led to, on disk until the build ends."""

    url: str
    path: str  # of the file or the directory
    digest: str  # "sha256:<hex>", or the commit
    name: str = ""  # of the file, "" where the URL has none
    is_directory: bool = False
    mtime: int = 0  # nanoseconds

    def close(self) -> None:
        """Nothing is open: the directory that it is in goes with the build."""


def fetch(
    wanted: Wanted, directory: str, limits: Limits, tell: Callable[[int], object] = lambda _: None
) -> Fetched:
    """Fetch into an empty directory of ours; `tell` gets numbers of bytes. Raises SysboxError."""
    with caller_root.Network():
        if addresses.is_git(wanted.url):
            return clone(wanted, directory, limits)
        return _download(wanted, directory, limits.size, tell)


def _download(wanted: Wanted, directory: str, most: int, tell: Callable[[int], object]) -> Fetched:
    from email.utils import parsedate_to_datetime
    from hashlib import sha256

    from sysbox.image.web import WebFile

    url, digest = wanted.url, sha256()
    path = f"{directory}/file"
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        with WebFile(url, most=most) as found:
            try:
                moment = parsedate_to_datetime(found.modified).timestamp()
            except ValueError:
                moment = time.time()
            while data := found.read(_CHUNK):
                digest.update(data)
                write_all(fd, data)
                tell(len(data))
    except FormatError as error:
        error.hint = error.hint or (_BOUND if "bytes" in error.message else "")
        raise
    except OSError as error:
        raise KernelError.of("store", url, error) from None
    finally:
        posix.close(fd)
    own = f"sha256:{digest.hexdigest()}"
    if wanted.checksum and wanted.checksum != own:
        raise FormatError(f"{url}: its digest is {own}, --checksum says {wanted.checksum}")
    name = url.partition("#")[0].partition("?")[0].partition("://")[2].rpartition("/")[2]
    return Fetched(url=url, path=path, digest=own, name=name, mtime=int(moment) * 10**9)


def clone(wanted: Wanted, directory: str, limits: Limits) -> Fetched:
    """A git repository: URL[#[REF][:SUBDIRECTORY]]. Raises Unsupported without git(1), SysboxError."""
    url = wanted.url
    address, _, fragment = url.partition("#")
    ref, _, inner = fragment.partition(":")
    if ref and not (ref[0] in _LETTERS and _OF_REFS.issuperset(ref)):
        raise SpecError(f"{url}: '{ref}' is not a branch, a tag or a commit")
    path = f"{directory}/repository"
    repository = git.Repository(url, path, files=limits.files, size=limits.size)
    commit = repository.fetch(address, ref or "HEAD")
    if wanted.checksum and not commit.startswith(wanted.checksum):
        raise FormatError(f"{url}: is at {commit}, --checksum says {wanted.checksum}")
    if not wanted.git_dir:
        remove_tree(f"{path}/.git")
    if inner:
        path = _inside(url, path, inner)
    return Fetched(url=url, path=path, digest=commit, is_directory=True)


def _inside(url: str, path: str, inner: str) -> str:
    """A directory of the repository. Raises NotFound, SpecError for a link that leads out."""
    from sysbox.build.content_sources import Origin, clean

    fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        entry = Origin(fd, url, confined=True).entry(clean(inner))
        is_directory = entry.is_directory
        entry.close()
    finally:
        posix.close(fd)
    if not is_directory:
        raise NotFound(f"{url}: {inner} is not a directory")
    return f"{path}/{clean(inner)}"
