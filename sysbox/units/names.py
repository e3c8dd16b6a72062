"""Names of containers' units and of slices, and systemd's escaping (systemd.unit(5))."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.container.identity import is_id

_SLICE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:_.-\\@")
_OBJECT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_HEX = frozenset("0123456789abcdef")
_OTHER_UNITS = frozenset(
    "automount device mount path scope service socket swap target timer".split()
)
_NAME_MAX = 255  # UNIT_NAME_MAX counts the terminating zero; a cgroup directory has the same bound
_OBJECTS = "/org/freedesktop/systemd1/unit/"


def _check_id(container: str) -> str:
    if not is_id(container):
        raise SpecError(
            f"not a container id: {container[:80]!r} (64 lower-case hexadecimal digits)"
        )
    return container


def scope_unit(container: str) -> str:
    """The scope that is the container: `docker-<64 hex>.scope`; "*" gives the pattern of all."""
    return f"docker-{container if container == '*' else _check_id(container)}.scope"


def service_unit(container: str) -> str:
    """The service that supervises a detached container: `sysbox-<64 hex>.service`."""
    return f"sysbox-{_check_id(container)}.service"


def stopper_unit(container: str) -> str:
    """The unit that stops the service when the scope is stopped: `sysbox-stop-<64 hex>.service`."""
    return f"sysbox-stop-{_check_id(container)}.service"


def container_of(unit: str) -> str:
    """The container's id from either of its units; "" for any other unit."""
    for prefix, suffix in (("docker-", ".scope"), ("sysbox-", ".service")):
        if unit.startswith(prefix) and unit.endswith(suffix):
            middle = unit[len(prefix) : -len(suffix)]
            if is_id(middle):
                return middle
    return ""


def check_slice(name: str, flag: str = "--slice") -> str:
    """The slice's name, complete with its suffix; raises SpecError if systemd would refuse it.

    `web` is short for `web.slice`. "-" is the hierarchy's separator, so it neither begins, ends nor
    repeats (systemd.slice(5)); the root slice is `-.slice`.
    """
    full = name if name.endswith(".slice") else f"{name}.slice"
    stem = full[: -len(".slice")]
    if full == "-.slice":
        return full
    if not stem or len(full) > _NAME_MAX or not _SLICE.issuperset(stem) or "@" in stem:
        raise SpecError(
            f"{flag} {name!r} is not a slice's name (letters, digits, '_', '.', ':', '-')"
        )
    kind = stem.rpartition(".")[2] if full != name else ""
    if kind in _OTHER_UNITS:
        raise SpecError(f"{flag} {name!r} is a {kind} by its name, not a slice")
    if stem[0] in "-." or stem[-1] == "-" or "--" in stem:
        raise SpecError(
            f"{flag} {name!r}: '-' separates a slice from its parent and must stand between names"
        )
    return full


def slice_path(name: str) -> str:
    """The path of a slice in the cgroup tree: `a.slice/a-b.slice` for `a-b.slice`, "" for `-.slice`."""
    stem = check_slice(name)[: -len(".slice")]
    if stem == "-":
        return ""
    parts = stem.split("-")
    return "/".join("-".join(parts[: index + 1]) + ".slice" for index in range(len(parts)))


def in_slice(slice_: str, unit: str) -> str:
    """The cgroup of a unit in a slice: `/a.slice/a-b.slice/UNIT`."""
    path = slice_path(slice_)
    return f"/{path}/{unit}" if path else f"/{unit}"


def is_below(slice_: str, ancestor: str) -> bool:
    """Whether a slice is `ancestor` or nested in it: `web-prod.slice` is in `web.slice`."""
    inner, outer = check_slice(slice_), check_slice(ancestor)
    stem = outer.removesuffix(".slice")
    return inner == outer or stem == "-" or inner.startswith(f"{stem}-")


def object_path(unit: str) -> str:
    """The unit's D-Bus object path; any byte but a letter or a digit (and a leading digit) becomes `_NN`."""
    encoded = []
    for index, byte in enumerate(unit.encode("utf-8", "surrogateescape")):
        char = chr(byte)
        plain = char in _OBJECT and not (index == 0 and char.isdigit())
        encoded.append(char if plain else f"_{byte:02x}")
    return _OBJECTS + "".join(encoded)


def unit_of(path: str) -> str:
    """The unit of a D-Bus object: the inverse of `object_path`."""
    name = path.rpartition("/")[2]
    decoded = bytearray()
    index = 0
    while index < len(name):
        if name[index] == "_" and _HEX.issuperset(name[index + 1 : index + 3]):
            decoded.append(int(name[index + 1 : index + 3] or "5f", 16))
            index += 3
        else:
            decoded += name[index].encode()
            index += 1
    return decoded.decode("utf-8", "surrogateescape")
