"""Change a file of credentials: other entries and unknown keys stay.

A crash leaves the old file or the new one. The format is that of docker's config.json and of
containers-auth.json(5).
"""

from __future__ import annotations

import binascii
import json
import os

from sysbox.base import files
from sysbox.base.errors import KernelError
from sysbox.base.flock import Held
from sysbox.image.caller_files import LIMIT
from sysbox.image.registry import credentials, helpers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from sysbox.image.registry.credentials import Credential

_MODE = 0o600


def place(authfile: str = "") -> str:
    """The file that `login` and `logout` change: the first that is looked at."""
    return authfile or credentials.paths()[0]


def save(path: str, key: str, credential: Credential) -> str:
    """Keep the credentials of a registry, or of `registry/namespace`.

    Returns the helper that has them now, "" where the file itself has. Raises FormatError, KernelError,
    SysboxError.
    """
    helper = ""

    def change(document: dict[str, Any]) -> None:
        nonlocal helper
        helper = credentials.helper_of(document, key, path)
        entries = _entries(document, path)
        _drop(entries, key)
        name = credentials.server_key(key)
        if helper:
            helpers.store(helper, name, credential.username, credential.password)
            entries[name] = {}  # as docker has it: the file says which registries there are
            return
        text = f"{credential.username}:{credential.password}".encode("utf-8", "surrogateescape")
        entries[name] = {"auth": binascii.b2a_base64(text, newline=False).decode("ascii")}

    _edit(path, change)
    return helper


def remove(path: str, key: str) -> bool:
    """Forget one; False where there was none. Raises FormatError, KernelError, SysboxError."""
    found = False

    def change(document: dict[str, Any]) -> None:
        nonlocal found
        helper = credentials.helper_of(document, key, path)
        if helper:
            found = helpers.erase(helper, credentials.server_key(key))
        found = _drop(_entries(document, path), key) or found

    if credentials.load(path):
        _edit(path, change)
    return found


def remove_all(path: str) -> int:
    """Forget all; returns how many there were. Raises FormatError, KernelError, SysboxError."""
    document = credentials.load(path)
    known = {credentials.normal(key) for key in credentials.auths(document, path)}
    known |= {credentials.normal(key) for key in document.get("credHelpers") or {}}
    return sum(remove(path, key) for key in sorted(known))


def _entries(document: dict[str, Any], path: str) -> dict[str, Any]:
    """The entries of the document, to be changed in place."""
    credentials.auths(document, path)
    if document.get("auths") is None:
        document["auths"] = {}
    entries: dict[str, Any] = document["auths"]
    return entries


def _drop(entries: dict[str, Any], key: str) -> bool:
    """Remove each spelling of a key."""
    spellings = [one for one in entries if credentials.normal(one) == key]
    for one in spellings:
        del entries[one]
    return bool(spellings)


def _edit(path: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Replace the file by what `change` makes of it; one writer at a time."""
    # first: open(2) follows no link that another user has laid into /tmp (protected_symlinks, proc_sys_fs(5))
    credentials.load(path)
    real = os.path.realpath(path)  # a link stays a link, as with docker
    directory = os.path.dirname(real)
    files.make_private(directory)
    try:
        lock = Held(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise KernelError.of("lock", directory, error) from None
    with lock:
        document = credentials.load(path)
        legacy = path.endswith("/.dockercfg")
        change(document)
        kept = document["auths"] if legacy else document
        data = json.dumps(kept, indent="\t", ensure_ascii=False).encode("utf-8", "surrogateescape")
        files.write_file(real, data + b"\n", _MODE, limit=LIMIT, durable=True)
