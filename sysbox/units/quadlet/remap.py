"""RemapUsers=, RemapUid=, RemapGid= and RemapUidSize=, an older way to write UserNS=, UIDMap= and GIDMap=."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.units.quadlet.conversion import Conversion

_KEYS = ("RemapUid", "RemapGid", "RemapUidSize")


def convert(made: Conversion) -> None:
    """Add the words of the user namespace. Raises FormatError."""
    section = made.section
    kind = section.one("RemapUsers")
    if not kind:
        for key in _KEYS:
            if key in section:
                raise section.wrong(key, "it needs RemapUsers=")
        return
    for key in ("UserNS", "UIDMap", "GIDMap", "SubUIDMap", "SubGIDMap"):
        if key in section:
            raise section.wrong("RemapUsers", f"cannot be set together with {key}=")
    uids, gids, size = section.all("RemapUid"), section.all("RemapGid"), section.one("RemapUidSize")
    if kind == "manual":
        if not uids and not gids:
            raise section.wrong("RemapUsers", "manual needs RemapUid= and RemapGid=")
        made.words += [f"--uidmap={one}" for one in uids]
        made.words += [f"--gidmap={one}" for one in gids]
    elif kind == "auto":
        options = [f"uidmapping={one}" for one in uids] + [f"gidmapping={one}" for one in gids]
        made.words.append(_mode("auto", options, size))
    elif kind == "keep-id":
        if len(uids) > 1 or len(gids) > 1:
            key = "RemapUid" if len(uids) > 1 else "RemapGid"
            raise section.wrong(key, "keep-id takes one")
        options = [f"uid={one}" for one in uids] + [f"gid={one}" for one in gids]
        made.words.append(_mode("keep-id", options, size))
    else:
        raise section.wrong("RemapUsers", f"{kind!r} is unknown", "manual, auto or keep-id")


def _mode(kind: str, options: list[str], size: str) -> str:
    words = [*options, f"size={size}"] if size else options
    return f"--userns={kind}{':' if words else ''}{','.join(words)}"
