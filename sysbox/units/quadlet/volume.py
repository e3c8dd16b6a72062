"""What a `.volume` file says, as the words of `sysbox volume create`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion

_LOCAL = ("", "local")
# the key that is newer comes first
_OWNERS = (("uid", ("UID", "User")), ("gid", ("GID", "Group")))


def convert(made: Conversion) -> None:
    """Add the words of the options. Raises FormatError."""
    section = made.section
    driver = section.one("Driver")
    if driver not in _LOCAL:
        hint = "COPY --from=IMAGE in a .build takes files of an image" if driver == "image" else ""
        raise section.wrong("Driver", f"there is no driver {driver!r}: local is the only one", hint)
    if "Image" in section:
        raise section.wrong("Image", "it belongs to Driver=image, which is not supported")
    kind, device = section.one("Type"), section.one("Device")
    words = list(filter(None, section.one("Options").split(",")))
    for name, keys in _OWNERS:
        given = [key for key in keys if key in section]
        if given:
            words.append(f"{name}={section.one(given[0])}")
    if device and kind in ("bind", "none", ""):
        device = made.path(device)
        made.mounts(device)
    if kind:
        made.words.append(f"--opt=type={kind}")
    if device:
        made.words.append(f"--opt=device={device}")
    if words:
        made.words.append(f"--opt=o={','.join(words)}")
    if not section.is_true("Copy", default=True):
        made.words.append("--opt=nocopy")
