"""registries.conf and its drop-ins, read into records: containers-registries.conf(5), version 2.

The first of $CONTAINERS_REGISTRIES_CONF, ~/.config/containers/registries.conf and
/etc/containers/registries.conf is read, then the drop-ins of /etc/containers/registries.conf.d and of
~/.config/containers/registries.conf.d; with the variable set, only those of the directory FILE.d beside it.
A later file overrides a key, or a [[registry]] of the same prefix. Unknown keys are ignored.
"""

from __future__ import annotations

import os
import tomllib

from sysbox.base.errors import FormatError, NotFound
from sysbox.base.frozen import Frozen
from sysbox.image import caller_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VARIABLE = "CONTAINERS_REGISTRIES_CONF"
SYSTEM = "/etc/containers/registries.conf"
ALWAYS, BY_DIGEST, BY_TAG = "all", "digest-only", "tag-only"
ENFORCING, PERMISSIVE, DISABLED = "enforcing", "permissive", "disabled"
_MODES = (ENFORCING, PERMISSIVE, DISABLED)
_USES = (ALWAYS, BY_DIGEST, BY_TAG)


class Mirror(Frozen):
    """A place that has copies of a registry's repositories, or of some."""

    location: str
    insecure: bool = False
    use: str = ALWAYS


class Rule(Frozen):
    """One [[registry]]."""

    prefix: str  # "example.com/team", "*.example.com"
    location: str = ""  # takes the place of the prefix; "" for names that stay as they are
    insecure: bool = False
    blocked: bool = False
    mirrors: tuple[Mirror, ...] = ()
    where: str = ""  # the file, for messages


class Conf(Frozen):
    """What all files say together."""

    rules: tuple[Rule, ...] = ()
    search: tuple[str, ...] | None = None  # None: no file says it
    aliases: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    mode: str = PERMISSIVE
    where: str = ""  # the file that has set `search`


def read() -> Conf:
    """The configuration of this host and caller. Raises FormatError, NotFound, KernelError."""
    rules: dict[str, Rule] = {}
    conf = Conf()
    aliases: dict[str, str] = {}
    for path in _files():
        data = caller_files.read(path)
        if data is None:
            if path == os.environ.get(VARIABLE):
                raise NotFound(f"{path}: no such file", hint=f"${VARIABLE} names it")
            continue
        table = _parse(data, path)
        rules |= {rule.prefix: rule for rule in _rules(table, path)}
        aliases |= _aliases(table, path)
        if "unqualified-search-registries" in table:
            conf = conf.replace(
                search=_list(table, "unqualified-search-registries", path), where=path
            )
        mode = _text(table, "short-name-mode", path)
        if mode not in ("", *_MODES):
            raise FormatError(f"{path}: short-name-mode must be one of {', '.join(_MODES)}")
        conf = conf.replace(mode=mode or conf.mode)
    # an alias that is set to "" by a later file is none
    known = {name: value for name, value in aliases.items() if value}
    return conf.replace(rules=tuple(rules.values()), aliases=known)


def _files() -> list[str]:
    """The paths of the files that may be there, in the order in which they are read."""
    given = os.environ.get(VARIABLE, "")
    if given:
        return [given, *_drop_ins(f"{given}.d")]
    own = caller_files.config_directory()
    mine = f"{own}/containers/registries.conf"
    main = mine if own and caller_files.read(mine) is not None else SYSTEM
    found = [main, *_drop_ins(f"{SYSTEM}.d"), *(_drop_ins(f"{mine}.d") if own else [])]
    return [*found, _recorded_aliases()]


def _drop_ins(directory: str) -> list[str]:
    return [
        f"{directory}/{name}" for name in caller_files.names(directory) if name.endswith(".conf")
    ]


def _recorded_aliases() -> str:
    """Aliases that podman has recorded; they go before those of the files."""
    if os.getuid() == 0:
        return "/var/cache/containers/short-name-aliases.conf"
    cache = os.environ.get("XDG_CACHE_HOME") or f"{caller_files.home()}/.cache"
    return f"{cache}/containers/short-name-aliases.conf"


def _parse(data: bytes, path: str) -> dict[str, Any]:
    try:
        table = tomllib.loads(data.decode())
    except (
        ValueError,
        RecursionError,
    ) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise FormatError(f"{path}: {error}") from None
    if "registries" in table:
        raise FormatError(
            f"{path}: [registries.search], [registries.insecure] and [registries.block] are of version 1",
            hint="write unqualified-search-registries and [[registry]]: see containers-registries.conf(5)",
        )
    return table


def _rules(table: dict[str, Any], path: str) -> list[Rule]:
    found = []
    for index, item in enumerate(_tables(table, "registry", path)):
        what = f"{path}: registry[{index}]"
        location = _location(item, "location", what)
        prefix = _location(item, "prefix", what) or location
        if not prefix:
            raise FormatError(f"{what}: needs a prefix or a location")
        if not location and not prefix.startswith("*."):
            location = prefix
        found.append(
            Rule(
                prefix=prefix,
                location=location,
                insecure=_flag(item, "insecure", what),
                blocked=_flag(item, "blocked", what),
                mirrors=_mirrors(item, what),
                where=path,
            )
        )
    return found


def _mirrors(item: dict[str, Any], what: str) -> tuple[Mirror, ...]:
    by_digest = _flag(item, "mirror-by-digest-only", what)
    found = []
    for index, one in enumerate(_tables(item, "mirror", what)):
        here = f"{what}.mirror[{index}]"
        use = _text(one, "pull-from-mirror", here)
        if use not in ("", *_USES):
            raise FormatError(f"{here}: pull-from-mirror must be one of {', '.join(_USES)}")
        if use and by_digest:
            raise FormatError(
                f"{here}: pull-from-mirror is set together with mirror-by-digest-only"
            )
        location = _location(one, "location", here)
        if not location:
            raise FormatError(f"{here}: needs a location")
        found.append(
            Mirror(
                location=location,
                insecure=_flag(one, "insecure", here),
                use=use or (BY_DIGEST if by_digest else ALWAYS),
            )
        )
    return tuple(found)


def _aliases(table: dict[str, Any], path: str) -> dict[str, str]:
    found = table.get("aliases", {})
    if type(found) is not dict:
        raise FormatError(f"{path}: aliases must be a table")
    for name in found:
        _text(found, name, f"{path}: aliases")
    return found


def _location(table: dict[str, Any], key: str, what: str) -> str:
    text = _text(table, key, what).rstrip("/")
    if "://" in text:
        raise FormatError(
            f"{what}: {key} '{text}' has a scheme: write host[:port][/path], and `insecure`"
        )
    if any(character.isspace() or not character.isprintable() for character in text):
        raise FormatError(f"{what}: {key} {text!r} holds a space or a control character")
    return text


def _text(table: dict[str, Any], key: str, what: str) -> str:
    found = table.get(key, "")
    if type(found) is not str:
        raise FormatError(f"{what}: {key} must be a string")
    return found


def _flag(table: dict[str, Any], key: str, what: str) -> bool:
    found = table.get(key, False)
    if type(found) is not bool:
        raise FormatError(f"{what}: {key} must be true or false")
    return found


def _list(table: dict[str, Any], key: str, what: str) -> tuple[str, ...]:
    found = table.get(key, [])
    if type(found) is not list or not all(type(item) is str and item for item in found):
        raise FormatError(f"{what}: {key} must be a list of strings")
    return tuple(found)


def _tables(table: dict[str, Any], key: str, what: str) -> list[dict[str, Any]]:
    found = table.get(key, [])
    if type(found) is not list or not all(type(item) is dict for item in found):
        raise FormatError(f"{what}: {key} must be an array of tables, [[{key}]]")
    return found
