"""Make a Debian or Ubuntu image with mmdebstrap(1), from the machine's own apt sources.

The archive goes from mmdebstrap's standard output straight into the store; a failed attempt leaves nothing
behind. mmdebstrap works under /var/tmp: the root of a distribution is too large for a /tmp in memory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading

from sysbox.base.errors import SpecError, SysboxError, Unsupported, signal_status
from sysbox.image import apt, archive
from sysbox.image.catalog import Catalog
from sysbox.image.changes import DEFAULT_PATH
from sysbox.image.model import Image, ImageConfig
from sysbox.image.reference import parse
from sysbox.linux.process import find_program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import IO

DISTRIBUTIONS = ("debian", "ubuntu")
VARIANTS = (
    "extract", "custom", "essential", "apt", "buildd", "required", "minbase", "important", "standard",
)  # fmt: skip
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_QUIET = tuple(
    f"I: {text}"
    for text in (
        "chroot architecture", "done", "finding correct", "main()", "reading sources",
        "removing tempdir", "running --customize-hook", "success", "using ",
    )
)  # fmt: skip
_WORK = "/var/tmp"
_KEPT = 12  # last lines of mmdebstrap's standard error, of which an error shows some


class Request:
    """A distribution and its suite (`debian:bookworm`), and the options of the image."""

    def __init__(
        self,
        distribution: str,
        *,
        name: str = "",
        include: Sequence[str] = (),
        mirror: str = "",
        variant: str = "",
    ) -> None:
        """Raises SpecError for an invalid distribution, package, variant or mirror."""
        family, colon, suite = distribution.partition(":")
        if family not in DISTRIBUTIONS or not colon or not _is_word(suite):
            raise SpecError(
                f"bootstrap {distribution}: not a distribution and a suite",
                hint="as in debian:bookworm, debian:trixie, ubuntu:noble",
            )
        self.suite = suite
        self.name = parse(name or distribution).familiar()
        self.mirror = mirror
        self.variant = variant or "minbase"
        self.include = [one for text in include for one in text.split(",") if one]
        for package in self.include:
            if not _is_word(package):
                raise SpecError(f"bootstrap --include {package}: not the name of a package")
        if self.variant not in VARIANTS:
            raise SpecError(
                f"bootstrap --variant {self.variant}: unknown", hint=f"one of {' '.join(VARIANTS)}"
            )
        if any(ord(character) < 33 for character in mirror.replace(" ", "")) or mirror.startswith(
            "-"
        ):
            raise SpecError(f"bootstrap --mirror {mirror!r}: not a URL")


def bootstrap(store: Catalog, request: Request, say: Callable[[str], None]) -> Image:
    """Make the image; `say` is called with each step.

    Raises Unsupported, and SysboxError with mmdebstrap's own error.
    """
    program = find_program("mmdebstrap")
    if "/" not in program:
        raise Unsupported(
            "bootstrap needs mmdebstrap, which is not installed", hint="apt-get install mmdebstrap"
        )
    if os.geteuid() != 0:
        raise Unsupported("only root can make images", hint="run it with sudo")
    sources = "" if request.mirror else apt.sources_for(request.suite)
    process = _start([program, *_arguments(request, from_stdin=bool(sources))], sources)
    report = _Report(process, say)
    try:
        assert process.stdout is not None
        return archive.import_tar(
            store,
            process.stdout.fileno(),
            request.name,
            what=f"the archive of {request.suite}",
            changes=(),
            message=f"mmdebstrap --variant={request.variant} {request.suite}",
            config=ImageConfig(cmd=("/bin/bash",), env=(DEFAULT_PATH,)),
            spooled=lambda: report.check(request.suite),
        )
    except KeyboardInterrupt:
        raise _cancelled(request.suite) from None
    finally:
        _end(process)
        report.close()


def _arguments(request: Request, *, from_stdin: bool) -> list[str]:
    # the minbase set of some releases lacks apt, and an image without it is of little use
    include = ",".join(dict.fromkeys(["apt", *request.include]))
    mirrors = ["-"] if from_stdin else [request.mirror] if request.mirror else []
    return [
        "--mode=root",
        "--format=tar",
        f"--variant={request.variant}",
        f"--include={include}",
        # a failed attempt leaves no image: dpkg need not sync each file
        "--dpkgopt=force-unsafe-io",
        # mmdebstrap copies these from the machine; in a container, its own are mounted on the empty files
        '--customize-hook=for name in hostname hosts resolv.conf; do : > "$1/etc/$name"; done',
        "--",
        request.suite,
        "-",
        *mirrors,
    ]


def _start(argv: list[str], sources: str) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": _WORK,
    }
    for name in _PROXIES:
        for spelling in (name, name.upper()):
            if spelling in os.environ:
                environment[spelling] = os.environ[spelling]
    fd = os.memfd_create("sources", os.MFD_CLOEXEC)
    try:
        os.write(fd, sources.encode())
        os.lseek(fd, 0, os.SEEK_SET)
        return subprocess.Popen(
            argv, stdin=fd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd="/"
        )
    finally:
        os.close(fd)


class _Report:
    """Reads mmdebstrap's standard error: passes its steps to `say`, keeps the last lines for an error."""

    def __init__(self, process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
        self._process = process
        self._say = say
        self._last: list[str] = []
        assert process.stderr is not None
        self._thread = threading.Thread(target=self._read, args=(process.stderr,), daemon=True)
        self._thread.start()

    def check(self, suite: str) -> None:
        """Wait for mmdebstrap after the end of the archive. Raises SysboxError if it failed."""
        status = self._process.wait()
        self._thread.join()
        if status == 0:
            return
        errors = [line for line in self._last if line.startswith(("E:", "Err:"))] or self._last
        if any("received signal INT" in line for line in self._last):
            raise _cancelled(suite)
        reason = "; ".join(line.removeprefix("E: ") for line in errors[-3:])
        raise SysboxError(
            f"bootstrap {suite}: mmdebstrap failed with status {status}: {reason or 'no error message'}",
            hint="check the name of the suite, the network and the machine's apt sources, or give --mirror",
        )

    def close(self) -> None:
        """Wait up to 5 s for the end of standard error, and close the pipes."""
        self._thread.join(timeout=5)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _read(self, stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rpartition("\r")[2].strip()
            if not line:
                continue
            self._last = [*self._last[1 - _KEPT :], line]
            if line.startswith("I: ") and not line.startswith(_QUIET):
                self._say(line[3:].removesuffix("..."))


def _cancelled(suite: str) -> SysboxError:
    return SysboxError(f"bootstrap {suite}: cancelled", status=signal_status(signal.SIGINT))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()  # on SIGTERM mmdebstrap unmounts and removes its directory
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_word(text: str) -> bool:
    """Whether `text` names a suite or package (deb-control(5)), perhaps with /release, :arch or =version."""
    return (
        bool(text)
        and text[0].isalnum()
        and text.isascii()
        and all(character.isalnum() or character in "+-./:=~_" for character in text)
    )
