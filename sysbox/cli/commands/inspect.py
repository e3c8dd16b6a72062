"""`sysbox inspect`: everything about containers, images, networks or volumes, in docker's shape."""

from __future__ import annotations

from sysbox.base.errors import FormatError, NotFound, SpecError, SysboxError, UsageError
from sysbox.base.suggest import suggest
from sysbox.cli.output import PROGRAM, emit, print_inspect, report
from sysbox.container import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.cli.table.options import Values

    Description = dict[str, Any]

_FAILED = 1  # docker's status


def main(values: Values) -> int:
    """0; 1 if one does not exist or is damaged: the others are printed even then, `[]` if there are none."""
    if values.type not in (None, *_KINDS):
        hint = suggest(values.type, _KINDS)
        raise UsageError(f"--type {values.type}: unknown type", hint=hint, status=_FAILED)
    found: list[Description] = []
    failed: list[SysboxError] = []
    for name in values.name:
        try:
            found.append(_object(name, values.type, size=values.size))
        except (FormatError, NotFound) as error:
            failed.append(error)
    if found or not values.format:
        print_inspect(found, values.format)
    for one in failed:
        report(one, "" if isinstance(one, NotFound) else PROGRAM)
    return _FAILED if failed else 0


def _object(name: str, kind: str | None, *, size: bool) -> Description:
    """The container, image, network or volume of that name, in docker's order. Raises NotFound."""
    for each in (kind,) if kind else _KINDS:
        try:
            return _KINDS[each](name, size)
        except NotFound:
            continue
        except SpecError:  # not a valid name for this kind
            if kind:
                raise
    raise NotFound(f"Error: no such {kind or 'object'}: {name}")  # docker's words


def _container(name: str, size: bool) -> Description:  # noqa: FBT001 (one signature for all kinds)
    record = store.find(name)
    from sysbox.docker import inspect
    from sysbox.lifecycle.repair import repaired

    return inspect.container(record, repaired(record), size=size)


def _image(name: str, size: bool) -> Description:  # noqa: FBT001
    from sysbox.cli.commands.image_inspect import describe

    return _sizeless("image", describe(name), size)


def _network(name: str, size: bool) -> Description:  # noqa: FBT001
    from sysbox.docker.network import describe
    from sysbox.lifecycle import network_look

    found = network_look.find(name)
    return _sizeless(
        "network", describe(network_look.builtin(found) if isinstance(found, str) else found), size
    )


def _volume(name: str, size: bool) -> Description:  # noqa: FBT001
    from sysbox.docker.volume import describe

    return _sizeless("volume", describe(name), size)


def _sizeless(kind: str, found: Description, size: bool) -> Description:  # noqa: FBT001
    if size:
        emit(f"WARNING: --size ignored for {kind}\n", 2)
    return found


_KINDS: dict[str, Callable[[str, bool], Description]] = {
    "container": _container,
    "image": _image,
    "network": _network,
    "volume": _volume,
}
