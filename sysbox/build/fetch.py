"""Fetch what a URL leads to: a file of a web server, or a git repository with git(1).

What comes is bounded: the bytes of a file of a server or of git's, the files of a repository and their bytes.
"""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import (
    FormatError,
    KernelError,
    NotFound,
    SpecError,
    SysboxError,
    Unsupported,
)
from sysbox.base.files import remove_tree, write_all
from sysbox.base.frozen import Frozen
from sysbox.build import addresses
from sysbox.embedded import caller_root
from sysbox.linux.process import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_OF_REFS = _LETTERS | frozenset("._/@+-")
_HEX = frozenset("0123456789abcdef")
_PATIENCE = 3600  # seconds for git
# not file: a repository would have the host's own repositories put into the context (CVE-2022-39253)
_OF_SUBMODULES = "https:http:ssh:git"
_CHUNK = 1 << 20
_SIGXFSZ = 25
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
    program = find_program("git")
    if "/" not in program:
        raise Unsupported(f"{url}: git(1) is not installed", hint="install it, or give a directory")
    path = f"{directory}/repository"
    git = _Git(program, url, path, limits)
    git.run("init", "--quiet")
    git.run("fetch", "--quiet", "--depth=1", "--", address, ref or "HEAD")
    git.check_tree("FETCH_HEAD")
    git.run("checkout", "--quiet", "FETCH_HEAD")
    submodules = ("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    git.run(*submodules, protocols=_OF_SUBMODULES)
    commit = git.run("rev-parse", "HEAD").strip()
    if len(commit) != 40 or not _HEX.issuperset(commit):
        raise SysboxError(f"{url}: git does not tell the commit")
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


class _Git:
    """git(1) in one directory."""

    def __init__(self, program: str, url: str, path: str, limits: Limits) -> None:
        self._program = program
        self._url = url
        self._path = path
        self._limits = limits
        posix.mkdir(path, 0o700)

    def run(self, *words: str, protocols: str = f"{_OF_SUBMODULES}:file") -> str:
        """What it prints. Raises SysboxError."""
        import subprocess  # which few builds need

        try:
            done = subprocess.run(
                [self._program, "-C", self._path, *words],
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_PATIENCE,
                check=False,
                **self._how(protocols),
            )
        except subprocess.TimeoutExpired:
            raise SysboxError(f"{self._url}: git takes longer than {_PATIENCE} s") from None
        if done.returncode:
            hint = _BOUND if "signal 25" in done.stderr or done.returncode == -_SIGXFSZ else ""
            raise SysboxError(f"{self._url}: git: {_reason(done.stderr)}", hint=hint)
        text: str = done.stdout
        return text

    def check_tree(self, commit: str) -> None:
        """Raise FormatError for a tree of too many files or bytes, which a small pack may have."""
        import subprocess

        files = size = 0
        with subprocess.Popen(
            [self._program, "-C", self._path, "ls-tree", "-r", "-l", "-z", commit],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **self._how(""),
        ) as listing:
            assert listing.stdout is not None
            rest = b""
            while data := posix.read(listing.stdout.fileno(), _CHUNK):
                *lines, rest = (rest + data).split(b"\0")
                files += len(lines)
                # MODE TYPE OBJECT SIZE<tab>PATH; a submodule has no size
                size += sum(int(one) for line in lines if (one := line.split()[3]).isdigit())
                if files > self._limits.files or size > self._limits.size:
                    listing.kill()
                    raise FormatError(
                        f"{self._url}: more than {self._limits.files} files, or {self._limits.size} bytes",
                        hint="ContextFiles= and FetchSize= of sysbox.conf(5) are the bounds",
                    )

    def _how(self, protocols: str) -> dict[str, Any]:
        """How it is started."""
        import resource
        import subprocess

        most = self._limits.size
        return {
            "stdin": subprocess.DEVNULL,
            "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
            "env": {
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": "/root",
                # no question to the terminal, no file of the system's, no transport that runs a program
                "GIT_TERMINAL_PROMPT": "0",
                "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_ALLOW_PROTOCOL": protocols,
            },
        }


def _reason(told: str) -> str:
    """The line of git's messages that says why: the first that is an error, else the last."""
    lines = [line.strip() for line in told.splitlines() if line.strip()] or ["no message"]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines[-1:])[0]
