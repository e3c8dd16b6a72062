"""The one layer of the image `host`: a root with a generated /etc and /var and an empty /usr to bind on.

Only files that every user of the machine may read are copied, and no shadow, keys, host names, users, home
directories or configuration of the machine's own.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time

from sysbox.base import files
from sysbox.base.errors import KernelError, Unsupported
from sysbox.image import archive
from sysbox.image.catalog import Catalog
from sysbox.image.changes import DEFAULT_PATH
from sysbox.image.machine import COPIED, DIRECTORIES, LINKS
from sysbox.image.model import Image, ImageConfig
from sysbox.image.reference import HOST

_MAX_FILE = 8 << 20
_BUNDLES = ("ca-certificates.crt", "ca-bundle.crt")

# Debian's fixed ids (base-passwd); programs of other distributions need none beyond these
_PASSWD = """\
root:x:0:0:root:/root:{shell}
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
games:x:5:60:games:/usr/games:/usr/sbin/nologin
man:x:6:12:man:/var/cache/man:/usr/sbin/nologin
mail:x:8:8:mail:/var/mail:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
backup:x:34:34:backup:/var/backups:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUP = """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
disk:x:6:
mail:x:8:
man:x:12:
kmem:x:15:
dialout:x:20:
www-data:x:33:
backup:x:34:
shadow:x:42:
utmp:x:43:
video:x:44:
staff:x:50:
games:x:60:
users:x:100:
nogroup:x:65534:
"""
_NSSWITCH = """\
passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
ethers: files
rpc: files
"""
_PLAIN = 0o755
_TREE = (
    *(
        (name, _PLAIN)
        for name in ("dev", "etc", "home", "media", "mnt", "opt", "proc", "run", "srv", "sys")
    ),
    ("root", 0o700),
    ("tmp", 0o1777),
    ("usr", _PLAIN),
    *(
        (f"var/{name}".rstrip("/"), _PLAIN)
        for name in ("", "backups", "cache", "lib", "log", "opt", "spool")
    ),
    ("var/local", 0o2775),
    ("var/mail", 0o2775),
    ("var/tmp", 0o1777),
)
_LINKS = (("etc/mtab", "../proc/self/mounts"), ("var/lock", "/run/lock"), ("var/run", "/run"))
_EMPTY = ("etc/fstab", "etc/hostname", "etc/hosts", "etc/machine-id", "etc/resolv.conf")


def install(store: Catalog, mark: str) -> Image:
    """Make the image `host`; `mark` goes into the index, where `builtin` compares it. Raises Unsupported."""
    shell = "/bin/bash" if os.path.exists("/usr/bin/bash") else "/bin/sh"
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_newest()))
    fd = os.memfd_create("sysbox-host", os.MFD_CLOEXEC)
    try:
        files.write_all(fd, build(shell))
        os.lseek(fd, 0, os.SEEK_SET)
        return archive.import_tar(
            store,
            fd,
            HOST,
            what="the skeleton of the image host",
            message="the machine's own /usr under a fresh /etc and /var",
            config=ImageConfig(cmd=(shell,), env=(DEFAULT_PATH,)),
            builtin=mark,
            created=created,
        )
    finally:
        os.close(fd)


def build(shell: str) -> bytes:
    """The skeleton as a tar archive; the same machine gives the same bytes. Raises Unsupported."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        out = _Writer(tar)
        for name, mode in _TREE:
            out.directory(name, mode)
        for link in LINKS:
            _usr_link(out, link)
        for name, target in _LINKS:
            out.link(name, target)
        for name in _EMPTY:
            out.file(name, b"")
        out.file("etc/passwd", _PASSWD.format(shell=shell).encode())
        out.file("etc/group", _GROUP.encode())
        out.file("etc/nsswitch.conf", _NSSWITCH.encode())
        for path in COPIED:
            _copy(out, path)
        for path in DIRECTORIES:
            _copy_directory(out, path)
    return buffer.getvalue()


class _Writer:
    """Writes entries owned by root, with the epoch as their time; each name once, after its parents."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._seen: set[str] = set()

    def directory(self, name: str, mode: int) -> None:
        self._add(name, tarfile.DIRTYPE, mode)

    def link(self, name: str, target: str) -> None:
        self._add(name, tarfile.SYMTYPE, 0o777, target=target)

    def file(self, name: str, data: bytes) -> None:
        self._add(name, tarfile.REGTYPE, 0o644, data=data)

    def _add(
        self, name: str, kind: bytes, mode: int, *, target: str = "", data: bytes = b""
    ) -> None:
        if name in self._seen:
            return
        parent = name.rpartition("/")[0]
        if parent:
            self.directory(parent, _PLAIN)
        self._seen.add(name)
        info = tarfile.TarInfo(name)
        info.type, info.mode, info.linkname, info.size = kind, mode, target, len(data)
        self._tar.addfile(info, io.BytesIO(data))


def _usr_link(out: _Writer, name: str) -> None:
    path = f"/{name}"
    if not os.path.lexists(path):
        return
    if not os.path.islink(path):
        raise Unsupported(
            f"the image 'host' needs a machine with a merged /usr, and {path} is a directory here",
            hint="make an image instead: `sysbox bootstrap debian:bookworm`",
        )
    out.link(name, f"usr/{name}")


def _copy(out: _Writer, path: str) -> None:
    """Copy a symbolic link, or a file that every user may read; skip one that does not exist."""
    name = path.lstrip("/")
    try:
        if os.path.islink(path):
            out.link(name, os.readlink(path))
            return
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise KernelError.of("open", path, error) from None
    with os.fdopen(fd, "rb") as file:
        mode = os.fstat(fd).st_mode
        if stat.S_ISREG(mode) and mode & stat.S_IROTH:
            out.file(name, file.read(_MAX_FILE))


def _copy_directory(out: _Writer, path: str) -> None:
    if os.path.islink(path):
        out.link(path.lstrip("/"), os.readlink(path))
        return
    if not os.path.isdir(path):
        return
    for name in sorted(os.listdir(path)):
        full = f"{path}/{name}"
        # of certificates only links and the bundle: any other file could be a private key
        wanted = os.path.islink(full) or name in _BUNDLES or path == "/etc/ld.so.conf.d"
        if wanted and _leads_to_public(full):
            _copy(out, full)


def _leads_to_public(path: str) -> bool:
    """False for a link to a target outside /usr, which would be missing in the container anyway."""
    if not os.path.islink(path):
        return True
    target = os.path.realpath(path)
    return target.startswith("/usr/") or target.rpartition("/")[2] in _BUNDLES


def _newest() -> float:
    times = [0.0]
    for path in (*COPIED, *DIRECTORIES):
        try:
            times.append(os.lstat(path).st_mtime)
        except OSError:
            continue
    return max(times)
