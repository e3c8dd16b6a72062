"""git(1) for a build: a repository with its submodules, within bounds of number, depth, files and bytes."""

from __future__ import annotations

import errno as _errno
import posix

from sysbox.base.errors import FormatError, KernelError, SysboxError, Unsupported
from sysbox.linux import mount
from sysbox.linux.process import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# not file: a repository would have the host's own repositories put into the context (CVE-2022-39253)
_OF_SUBMODULES = "https:http:ssh:git"
_SUBMODULES = 500
_DEPTH = 8
_PATIENCE = 3600  # seconds for one command
_CHUNK = 1 << 20
_SIGXFSZ = 25
_HEX = frozenset("0123456789abcdef")
# not those of the caller's ~/.gitconfig: what is checked out is looked at before
_SETTINGS = ("-c", "submodule.recurse=false", "-c", "core.hooksPath=/dev/null")


class Repository:
    """A directory that git(1) makes. All methods raise SysboxError."""

    def __init__(self, url: str, path: str, *, files: int, size: int) -> None:
        """`path` does not exist yet; `files` and bytes (`size`) count with those of all submodules."""
        self._url = url
        self._path = path
        self._most = (files, size)
        self._files = self._size = self._submodules = 0
        self._program = find_program("git")
        if "/" not in self._program:
            raise Unsupported(
                f"{url}: git(1) is not installed", hint="install it, or give a directory"
            )
        posix.mkdir(path, 0o700)

    def fetch(self, address: str, ref: str) -> str:
        """Fetch a branch, a tag or a commit, with its submodules; the commit. Raises FormatError."""
        self._run("", "init", "--quiet")
        protocols = f"{_OF_SUBMODULES}:file"
        self._run("", "fetch", "--quiet", "--depth=1", "--", address, ref, protocols=protocols)
        commit = self._run("", "rev-parse", "--verify", "FETCH_HEAD^{commit}").strip()
        if len(commit) != 40 or not _HEX.issuperset(commit):
            raise SysboxError(f"{self._url}: git does not tell the commit")
        self._check_out("", commit, 0)
        return commit

    def _check_out(self, where: str, commit: str, depth: int) -> None:
        """Put a commit into the directory of a repository, and into it what its submodules have."""
        # looked at before anything is written: a small pack may have a million files
        inner = self._submodules_of(where, commit)
        if inner and depth == _DEPTH:
            raise self._too_much(f"submodules that are more than {_DEPTH} deep")
        self._run(where, "checkout", "--quiet", commit, "--")
        if inner:
            self._fetch_submodules(where)
        for path, wanted in inner:
            below = f"{where}/{path}" if where else path
            if self._is_there(below):
                self._check_out(below, wanted, depth + 1)

    def _fetch_submodules(self, where: str) -> None:
        """Fetch those of one repository, without what is below them, and check out none."""
        self._run(where, "submodule", "--quiet", "init")
        pattern = r"^submodule\..*\.(url|update)$"
        listed = self._run(where, "config", "--local", "--null", "--get-regexp", pattern)
        found: dict[str, dict[str, str]] = {}
        for entry in listed.split("\0")[:-1]:
            key, _, value = entry.partition("\n")
            name, _, word = key.removeprefix("submodule.").rpartition(".")
            found.setdefault(name, {})[word] = value
        for name, settings in found.items():
            if settings.get("update") != "none":
                # git-submodule(1): run in place of a checkout
                self._run(where, "config", "--local", f"submodule.{name}.update", "!true")
        self._run(where, "submodule", "--quiet", "update", "--depth=1", protocols=_OF_SUBMODULES)

    def _is_there(self, path: str) -> bool:
        """Whether a submodule was fetched to this path, which leads out of the repository by no link."""
        top = posix.open(self._path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            posix.close(mount.open_beneath(top, f"{path}/.git", posix.O_PATH))
        except KernelError as error:
            if error.errno != _errno.ENOENT:
                raise
            return False
        finally:
            posix.close(top)
        return True

    def _submodules_of(self, where: str, commit: str) -> list[tuple[str, str]]:
        """(path, commit) of those that a commit names. Raises FormatError for a tree that is too large."""
        import subprocess

        most_files, most_size = self._most
        found = []
        with subprocess.Popen(
            self._words(where, "ls-tree", "-r", "-l", "-z", commit),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            **self._how(""),
        ) as listing:
            assert listing.stdout is not None
            rest = b""
            try:
                while data := posix.read(listing.stdout.fileno(), _CHUNK):
                    *lines, rest = (rest + data).split(b"\0")
                    for line in lines:
                        # MODE TYPE OBJECT SIZE<tab>PATH; a submodule has no size
                        fields, _, path = line.partition(b"\t")
                        _, kind, wanted, size = fields.split()
                        if kind == b"commit":
                            found.append(
                                (path.decode("utf-8", "surrogateescape"), wanted.decode("ascii"))
                            )
                            self._submodules += 1
                        self._size += int(size) if size.isdigit() else 0
                    self._files += len(lines)
                    if self._submodules > _SUBMODULES:
                        raise self._too_much(f"more than {_SUBMODULES} submodules")
                    if self._files > most_files or self._size > most_size:
                        raise self._too_much(
                            f"more than {most_files} files, or {most_size} bytes",
                            "ContextFiles= and FetchSize= of sysbox.conf(5) are the bounds",
                        )
            except BaseException:
                listing.kill()
                raise
        return found

    def _too_much(self, what: str, hint: str = "") -> FormatError:
        return FormatError(
            f"{self._url}: {what}", hint=hint or "clone it, and give the directory as the context"
        )

    def _run(self, where: str, *words: str, protocols: str = "") -> str:
        """What it prints, in a directory of the repository, with these transports. Raises SysboxError."""
        import subprocess  # which few builds need

        try:
            done = subprocess.run(
                self._words(where, *words),
                capture_output=True,
                text=True,
                errors="surrogateescape",
                timeout=_PATIENCE,
                check=False,
                **self._how(protocols),
            )
        except subprocess.TimeoutExpired:
            raise SysboxError(f"{self._url}: git takes longer than {_PATIENCE} s") from None
        if done.returncode:
            told: str = done.stderr.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            hint = "FetchSize= of sysbox.conf(5) is the bound"
            beyond = "signal 25" in told or done.returncode == -_SIGXFSZ
            raise SysboxError(f"{self._url}: git: {_reason(told)}", hint=hint if beyond else "")
        text: str = done.stdout
        return text

    def _words(self, where: str, *words: str) -> list[str]:
        directory = f"{self._path}/{where}" if where else self._path
        return [self._program, "-C", directory, *_SETTINGS, *words]

    def _how(self, protocols: str) -> dict[str, Any]:
        """How it is started."""
        import resource
        import subprocess

        most = self._most[1]
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
