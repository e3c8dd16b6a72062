"""A file of `--cidfile`: the id of the container that it was written for."""

from __future__ import annotations

from sysbox.base.errors import NotFound, SpecError
from sysbox.base.files import read_file
from sysbox.container.identity import is_id

_MOST = 1024  # bytes; an id has 64


def read(path: str, *, ignore: bool) -> str:
    """The id in a file; "" where there is no file and `ignore` is set.

    Raises SpecError for anything but an id, NotFound, and FormatError for what cannot be read.
    """
    data = read_file(path, _MOST, is_ours=False)
    if data is None:
        if ignore:
            return ""
        raise NotFound(f"--cidfile {path}: no such file")
    text = data.decode(errors="replace").strip()
    if not is_id(text):
        raise SpecError(
            f"--cidfile {path}: has no container's id", hint="`sysbox run --cidfile` writes one"
        )
    return text
