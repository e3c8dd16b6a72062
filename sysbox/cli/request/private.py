"""From `--secret` and `--credential` to the secrets and the credentials that a container gets."""

from __future__ import annotations

from sysbox.base import patterns
from sysbox.fs.private import CREDENTIALS
from sysbox.parse.common import absolute, bad
from sysbox.parse.secrets import parse_secrets
from sysbox.spec import CredentialUse
from sysbox.units import credstore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sysbox.cli.table.options import Values
    from sysbox.spec import Mount

_NAME_MAX = 255  # bytes


def build(given: Values, mounts: tuple[Mount, ...]) -> dict[str, Any]:
    """The fields of the specification. Raises SpecError."""
    return {
        "secrets": parse_secrets(given.secret, mounts, "--secret"),
        "credentials": _credentials(given.credential, mounts),
    }


def _credentials(texts: list[str], mounts: tuple[Mount, ...]) -> tuple[CredentialUse, ...]:
    """One without a file is this process's own, or looked for at each start."""
    found: dict[str, CredentialUse] = {}
    for text in texts:
        one = _parse(text)
        if one.name in found:
            bad("--credential", text, f"there is another credential {one.name}")
        if one.source:
            found[one.name] = one
            continue
        own = credstore.of_service(one.name)
        found |= {each.name: each for each in own if each.name not in found}
        if credstore.is_pattern(one.name) or not own:
            found[one.name] = one
    for mount in mounts if found else ():
        if f"{mount.target}/".startswith(f"{CREDENTIALS}/"):
            bad("--credential", texts[0], f"a {mount.kind} is mounted at {mount.target}")
    return tuple(found.values())


def _parse(text: str) -> CredentialUse:
    """One NAME[:FILE], as systemd's names are (systemd.exec(5), LoadCredential=)."""
    name, colon, path = text.partition(":")
    printable = name.isascii() and name.isprintable() and 0 < len(name) <= _NAME_MAX
    if not printable or "/" in name or name in (".", ".."):
        bad("--credential", text, "not NAME or NAME:FILE", "a name is ASCII, without / and :")
    if credstore.is_pattern(name):
        if colon:
            bad("--credential", text, "a pattern has no file")
        try:
            patterns.check(name)
        except ValueError as error:
            bad("--credential", text, f"{error}")
    if colon and (not path or "\0" in path):
        bad("--credential", text, "the file is missing")
    return CredentialUse(name=name, source=absolute(path) if colon else "")
