"""`sysbox image exists`: whether an image is here, as `podman image exists` has it."""

from __future__ import annotations

from sysbox.base.errors import ImageNotFound
from sysbox.image.reference import is_host
from sysbox.image.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_MISSING = 1


def main(values: Values) -> int:
    """0 where the store has the image, 1 where it has not. Raises SpecError, FormatError."""
    if is_host(values.image):
        return 0  # it is made when it is first used
    try:
        Store().find(values.image)
    except ImageNotFound:
        return _MISSING
    return 0
