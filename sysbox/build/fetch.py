"""Fetch what a URL leads to: a file of a web server, or a git repository with git(1)."""

from __future__ import annotations

import posix
import time

from sysbox.base.errors import FormatError, NotFound, SpecError, SysboxError, Unsupported
from sysbox.base.files import write_all
from sysbox.base.frozen import Frozen
from sysbox.embedded import caller_root
from sysbox.linux.process import find_program

_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_OF_REFS = _LETTERS | frozenset("._/@+-")
_HEX = frozenset("0123456789abcdef")
_PATIENCE = 3600  # seconds for git
# not file: a repository would have the host's own repositories put into the context (CVE-2022-39253)
_OF_SUBMODULES = "https:http:ssh:git"


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


def is_git(text: str) -> bool:
    """Whether a context or a source is a git repository."""
    if text.startswith(("git://", "git@", "ssh://")):
        return True
    scheme, separator, rest = text.partition("#")[0].partition("://")
    return bool(separator) and scheme in ("http", "https", "file") and rest.endswith(".git")


def is_remote(text: str) -> bool:
    """Whether a source of ADD is a URL."""
    return text.startswith(("http://", "https://")) or is_git(text)


def fetch(url: str, directory: str, *, checksum: str = "", git_dir: bool = False) -> Fetched:
    """Fetch into an empty directory of ours. Raises SysboxError; checksum is "sha256:<hex>" or a commit."""
    with caller_root.Network():
        if is_git(url):
            return clone(url, directory, checksum=checksum, git_dir=git_dir)
        return _download(url, directory, checksum)


def _download(url: str, directory: str, checksum: str) -> Fetched:
    from email.utils import parsedate_to_datetime
    from hashlib import sha256

    from sysbox.image.web import WebFile

    digest = sha256()
    path = f"{directory}/file"
    fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
    try:
        with WebFile(url) as found:
            try:
                moment = parsedate_to_datetime(found.modified).timestamp()
            except ValueError:
                moment = time.time()
            while data := found.read(1 << 20):
                digest.update(data)
                write_all(fd, data)
    finally:
        posix.close(fd)
    own = f"sha256:{digest.hexdigest()}"
    if checksum and checksum != own:
        raise FormatError(f"{url}: its digest is {own}, --checksum says {checksum}")
    name = url.partition("#")[0].partition("?")[0].partition("://")[2].rpartition("/")[2]
    return Fetched(url=url, path=path, digest=own, name=name, mtime=int(moment) * 10**9)


def clone(url: str, directory: str, *, checksum: str = "", git_dir: bool = False) -> Fetched:
    """A git repository: URL[#[REF][:SUBDIRECTORY]]. Raises Unsupported without git(1), SysboxError."""
    address, _, fragment = url.partition("#")
    ref, _, inner = fragment.partition(":")
    if ref and not (ref[0] in _LETTERS and _OF_REFS.issuperset(ref)):
        raise SpecError(f"{url}: '{ref}' is not a branch, a tag or a commit")
    program = find_program("git")
    if "/" not in program:
        raise Unsupported(f"{url}: git(1) is not installed", hint="install it, or give a directory")
    path = f"{directory}/repository"
    _git(program, url, "init", "--quiet", path)
    _git(program, url, "-C", path, "fetch", "--quiet", "--depth=1", "--", address, ref or "HEAD")
    _git(program, url, "-C", path, "checkout", "--quiet", "FETCH_HEAD")
    _git(
        program,
        url,
        "-C",
        path,
        "submodule",
        "--quiet",
        "update",
        "--init",
        "--recursive",
        "--depth=1",
        protocols=_OF_SUBMODULES,
    )
    commit = _git(program, url, "-C", path, "rev-parse", "HEAD").strip()
    if len(commit) != 40 or not _HEX.issuperset(commit):
        raise SysboxError(f"{url}: git does not tell the commit")
    if checksum and not commit.startswith(checksum):
        raise FormatError(f"{url}: is at {commit}, --checksum says {checksum}")
    if not git_dir:
        from sysbox.base.files import remove_tree

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


def _git(program: str, url: str, *words: str, protocols: str = f"{_OF_SUBMODULES}:file") -> str:
    import subprocess  # which few builds need

    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": "/root",
        # no question to the terminal, no file of the system's, no transport that runs a program
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_ALLOW_PROTOCOL": protocols,
    }
    try:
        done = subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SysboxError(f"{url}: git takes longer than {_PATIENCE} s") from None
    if done.returncode:
        raise SysboxError(f"{url}: git: {_reason(done.stderr)}")
    return done.stdout


def _reason(told: str) -> str:
    """The line of git's messages that says why: the first that is an error, else the last."""
    lines = [line.strip() for line in told.splitlines() if line.strip()] or ["no message"]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines[-1:])[0]
