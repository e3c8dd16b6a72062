"""The options of a volume, `volume create --opt`: another directory, a tmpfs, an owner.

They are docker's: `type`, `device` and `o`, the words of mount(8). A file beside the volume's content has
them as they were given; most volumes have none. The mount is made in each container that has the volume, and
none is in the host's table.
"""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError, Unsupported
from sysbox.base.files import read_file
from sysbox.base.frozen import Frozen
from sysbox.fs import mountoptions, volumes
from sysbox.parse.common import bad, parse_int
from sysbox.spec import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sysbox.container.records import Record

_KEYS = ("type", "device", "o", "size", "inodes", "uid", "gid", "copy", "nocopy", "noquota")
_BINDS = ("bind", "rbind")
_MAX_ID = (1 << 32) - 2
_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ceph",
    "glusterfs",
    "9p",
    "sshfs",
    "fuse.sshfs",
)


class VolumeOptions(Frozen):
    """What the options of one volume mean."""

    kind: str = ""  # "" for a directory of sysbox's, bind for `device`, tmpfs
    device: str = ""  # the directory of the host that a bind has
    words: tuple[str, ...] = ()  # further options of the mount
    uid: int = -1  # of the directory; -1 is the image's at the first mount
    gid: int = -1
    copy: bool = True  # a new volume starts with the image's content
    given: dict[str, str] = {}  # noqa: RUF012 (as asked, for `inspect`)


def parse(texts: Iterable[str]) -> VolumeOptions:
    """The options from `--opt` words KEY=VALUE. Raises SpecError, and Unsupported for what cannot be done."""
    given: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in _KEYS:
            bad("--opt", text, "not an option of a volume", f"one of {', '.join(_KEYS)}")
        given[key] = value
    return meaning(given)


def meaning(given: dict[str, str]) -> VolumeOptions:
    """What options mean. Raises SpecError, Unsupported."""
    words = [one for one in given.get("o", "").split(",") if one]
    words += [f"{key}={given[key]}" for key in ("uid", "gid", "size") if key in given]
    words += ["nr_inodes=" + given["inodes"]] if "inodes" in given else []
    copies = not ("nocopy" in given or "nocopy" in words)
    kept = [one for one in words if one not in (*_BINDS, "copy", "nocopy", "noquota", "rw")]
    kind = _kind(given, words)
    made = VolumeOptions(kind=kind, copy=copies, given=given)
    if kind == "":
        return made.replace(**_owner(kept))
    if kind == "bind":
        made = made.replace(device=_directory(given))
        owned = [one for one in kept if one.startswith(("uid=", "gid=", "size=", "nr_inodes="))]
        if owned:
            raise Unsupported(
                f"--opt {owned[0]}: {made.device} is a directory of the host's",
                hint="give it its owner and its limits there",
            )
    made = made.replace(words=tuple(kept))
    # what is wrong with a word is said now, not at the first start
    mountoptions.parse_options(_mount(made, Mount(kind="volume", target="/volume", source="v")))
    return made


def _kind(given: dict[str, str], words: list[str]) -> str:
    """bind, tmpfs or "". Raises SpecError, Unsupported."""
    kind, device = given.get("type", ""), given.get("device", "")
    if kind == "tmpfs":
        return "tmpfs"
    if kind in (*_BINDS, "none", "") and (kind in _BINDS or set(words) & set(_BINDS)):
        return "bind"
    if kind in _NETWORK:
        raise Unsupported(
            f"--opt type={kind}: volumes of network file systems are not supported",
            hint="mount it on the host with a .mount unit, and use type=none, o=bind, device=/ITS/PATH",
        )
    if kind or device:
        what = f"type={kind}" if kind else f"device={device}"
        raise Unsupported(
            f"--opt {what}: only bind and tmpfs are mounted for a volume",
            hint="mount it on the host with a .mount unit, and use type=none, o=bind, device=/ITS/PATH",
        )
    return ""


def _directory(given: dict[str, str]) -> str:
    device = given.get("device", "")
    if not device.startswith("/") or "\0" in device:
        bad("--opt device", device, "not a directory to bind", "an absolute path of the host")
    return device


def _owner(words: list[str]) -> dict[str, int]:
    """uid and gid of a plain volume. Raises SpecError, Unsupported."""
    found: dict[str, int] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name in ("size", "nr_inodes"):
            raise Unsupported(
                f"--opt {word}: a limit of a directory needs disk quotas, which are not there yet",
                hint="type=tmpfs limits memory; a file system of its own on the host limits disk",
            )
        if name not in ("uid", "gid"):
            bad(
                "--opt o",
                word,
                "not an option of a plain volume",
                "uid=, gid=, or type= and device=",
            )
        found[name] = parse_int(value, f"--opt {name}", 0, _MAX_ID)
    return found


def load(name: str) -> VolumeOptions:
    """The options of a volume. Raises FormatError for a damaged file."""
    where = volumes.options_file(name)
    data = read_file(where)
    if data is None:
        return VolumeOptions()
    found = codec.loads(data, where)
    if type(found) is not dict or not all(type(value) is str for value in found.values()):
        raise FormatError(f"{where}: options must be strings by name")
    try:
        return meaning(found)
    except (SpecError, Unsupported) as error:
        raise FormatError(f"{where}: {error.message}") from None


def place(name: str) -> str:
    """The directory with a volume's content: its own, or one that its options name. Raises FormatError."""
    return load(name).device or volumes.directory(name)


def applied(record: Record) -> Record:
    """The record with mounts in place of volumes that have options. Raises FormatError."""
    names = record.volumes
    mounts = tuple(
        _mount(load(names[one.target]), one) if one.kind == "volume" else one
        for one in record.spec.mounts
    )
    return record.replace(spec=record.spec.replace(mounts=mounts))


def _mount(options: VolumeOptions, mount: Mount) -> Mount:
    """The mount of a volume with these options."""
    read_only = mount.read_only or "ro" in options.words
    copies = mount.copy_up and options.copy
    if options.kind == "bind":
        return mount.replace(
            kind="bind",
            source=options.device,
            read_only=read_only,
            options=(*options.words, *mount.options),
            copy_up=copies,
            # mount(8): bind has one mount, rbind those below it too
            recursive="rbind" in options.given.get("o", "").split(",")
            or options.given.get("type") == "rbind",
        )
    if options.kind == "tmpfs":
        words = ("exec", "suid", "dev", *options.words, *mount.options)
        return mount.replace(kind="tmpfs", source="", read_only=read_only, options=words)
    return mount.replace(copy_up=copies)
