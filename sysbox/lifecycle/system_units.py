"""`sysbox system install-units`: the generator and units of an installation by pip, where systemd looks.

A package of a distribution brings these files itself; pip may write below its own prefix only. A list says
which files were written, with a digest of each: what an administrator has changed is not removed.
"""

from __future__ import annotations

import posix

from sysbox import scope
from sysbox.base import codec, paths, program
from sysbox.base.errors import Conflict, FormatError, KernelError, NotFound, SysboxError
from sysbox.base.files import make_private, names, read_file, unlink, write_file
from sysbox.host import read_text
from sysbox.linux import lsm
from sysbox.linux.process import spawn
from sysbox.units import serviceplan
from sysbox.units.bus import MANAGER, MANAGER_PATH, Bus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TEXTS = f"{paths.PACKAGE}/systemd"  # SYSTEM, SYSTEM-GENERATORS, TMPFILES.D: copies of systemd/
LIST = f"{paths.STATE}/installed-units.json"
# in the order of preference: the first is read-only on some machines
BASES = ("/usr/local/lib", "/etc")
_PLACES = {
    "system-generators": "systemd/system-generators",
    "system": "systemd/system",
    "tmpfiles.d": "tmpfiles.d",
}
_PACKAGED = ("/usr/lib/systemd/system-generators/sysbox-generator",)
_ENABLED = ("sysbox-boot.service", "sysbox-firewall.service")
_MAY_BE_ENABLED = ("sysbox-auto-update.timer",)  # by the administrator


def texts() -> dict[str, str]:
    """Path below a base -> text, of all files; the command in them is the one that was called."""
    launcher = serviceplan.program_word(program.launcher)
    found = {}
    for kind, place in _PLACES.items():
        for name in names(f"{TEXTS}/{kind}"):
            data = read_file(f"{TEXTS}/{kind}/{name}") or b""
            text = data.decode()
            for before in ("=sysbox ", "exec sysbox "):
                text = text.replace(before, f"{before.removesuffix('sysbox ')}{launcher} ")
            found[f"{place}/{name}"] = text
    return found


def install() -> list[str]:
    """Write the files and enable the units; the paths that were written. Raises Conflict, KernelError."""
    for path in _PACKAGED:
        if read_file(path) is not None:
            raise Conflict(
                f"{path}: a package has installed these files", hint="they need nothing more"
            )
    written = _written()
    base = _base(written)
    wanted = {f"{base}/{path}": text for path, text in texts().items()}
    for path, text in wanted.items():
        there = _text(path)
        if there is not None and there != text and written.get(path) != _digest(there):
            raise Conflict(
                f"{path} is there, and `sysbox system install-units` has not written it",
                hint="remove it first; `make uninstall` removes what `make install` made",
            )
    for path in written.keys() - wanted.keys():
        unlink(path)
    make_private(paths.STATE)
    # the list comes first: what it names and is not there is no harm
    digests = {path: _digest(text) for path, text in wanted.items()}
    write_file(LIST, codec.dumps(digests), durable=True)
    for path, text in wanted.items():
        _make_directories(path.rpartition("/")[0])
        write_file(path, text.encode(), 0o755 if "-generators/" in path else 0o644, durable=True)
    _label([*wanted])
    _enable()
    return sorted(wanted)


def uninstall() -> list[str]:
    """Disable the units and remove the files; the paths that were removed. Raises NotFound, Conflict."""
    written = _written()
    if not written:
        raise NotFound(
            "nothing that `sysbox system install-units` wrote is here",
            hint="`make uninstall` removes what `make install` made",
        )
    for path, digest in written.items():
        there = _text(path)
        if there is not None and _digest(there) != digest:
            raise Conflict(f"{path} was edited", hint="remove it by hand first")
    removed = sorted(path for path in written if _text(path) is not None)
    _disable()
    for path in removed:
        unlink(path)
        _remove_empty(path)
    unlink(LIST)
    with Bus.connect() as bus:
        scope.reload(bus)
    return removed


def _label(files: list[str]) -> None:
    """Give new files the labels of their places: where SELinux denies, systemd starts no other units."""
    if lsm.has_selinux():
        try:
            spawn(["restorecon", *files])
        except KernelError:
            pass  # ignoring: without restorecon(8) the policy may still allow the access


def _written() -> dict[str, str]:
    """Path -> digest of what the last call has written. Raises FormatError."""
    data = read_file(LIST)
    found = codec.loads(data, LIST) if data is not None else {}
    if type(found) is not dict or not all(type(digest) is str for digest in found.values()):
        raise FormatError(f"{LIST}: digests must be strings by path")
    for path in found:
        if not any(path.startswith(f"{base}/") for base in BASES) or ".." in path.split("/"):
            raise FormatError(f"{LIST}: {path} is not a place of units")
    return found


def _base(written: dict[str, str]) -> str:
    """Where the last call wrote, else the first place that can be written."""
    for base in BASES:
        if any(path.startswith(f"{base}/") for path in written):
            return base
    # an embedded host has the machine's /usr/local
    embedded = read_text("/run/systemd/container").strip() == "sysbox"
    return BASES[0] if posix.access(BASES[0], posix.W_OK) and not embedded else BASES[1]


def _text(path: str) -> str | None:
    try:
        data = read_file(path)
    except SysboxError:
        return ""  # a link, as one that masks it: it is not ours
    return None if data is None else data.decode("utf-8", "surrogateescape")


def _remove_empty(path: str) -> None:
    """Remove the directories that hold nothing any more, as far as they may be of this command."""
    while (path := path.rpartition("/")[0]).startswith(f"{BASES[0]}/"):
        try:
            posix.rmdir(path)
        except OSError:
            return  # ignoring: others have files there


def _make_directories(path: str) -> None:
    for one in _above(path):
        try:
            posix.mkdir(one, 0o755)
        except FileExistsError:
            pass  # the usual case


def _above(path: str) -> Iterator[str]:
    parts = path.split("/")
    for count in range(2, len(parts) + 1):
        yield "/".join(parts[:count])


def _digest(text: str) -> str:
    from hashlib import sha256

    return sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _enable() -> None:
    """Have systemd read the files, and enable and start the units. Raises SystemdError."""
    with Bus.connect() as bus:
        scope.reload(bus)
        _call(bus, "EnableUnitFiles", "asbb", (list(_ENABLED), False, True))
        scope.reload(bus)
        for unit in _ENABLED:
            scope.request_start(bus, unit)


def _disable() -> None:
    """Stop and disable the units. Raises SystemdError."""
    with Bus.connect() as bus:
        units = (*_ENABLED, *_MAY_BE_ENABLED)
        for unit in units:
            scope.request_stop(bus, unit)
            scope.await_inactive(bus, unit)
        _call(bus, "DisableUnitFiles", "asb", (list(units), False))


def _call(bus: Bus, member: str, signature: str, args: tuple[object, ...]) -> None:
    bus.retry(lambda: bus.call(MANAGER_PATH, MANAGER, member, signature, args))
