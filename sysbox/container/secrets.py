"""Secrets: values that containers get by name, kept on the host, and nowhere else.

A secret is a file, NAME.json below paths.SECRETS, which root alone can read: what is known of it, and its
value, encrypted by systemd-creds(1) where this host can. A file is written once, as a whole, under the lock.
Records of containers have a secret's name. The value is read at each start and, where it is a variable, for
each `exec`.
"""

from __future__ import annotations

import binascii
import posix

from sysbox.base import codec, flock
from sysbox.base.errors import (
    Conflict,
    FormatError,
    NotFound,
    SpecError,
    SysboxError,
    Unsupported,
    in_use,
)
from sysbox.base.files import make_private, names, read_file, unlink, write_file
from sysbox.base.frozen import Frozen
from sysbox.base.paths import SECRETS
from sysbox.container import events, store
from sysbox.container.identity import find_short
from sysbox.parse.secrets import check_secret
from sysbox.units import creds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.spec import SecretUse

# Of a secret's file; absent is 1. A file leaves out defaults: when one changes, raise this number, translate.
FORMAT = 1
MOST = 512 << 10  # bytes of a value; of podman's and docker's 500 KB
VARIABLE_MOST = (128 << 10) - 1  # bytes of "NAME=VALUE": MAX_ARG_STRLEN of execve(2), with its NUL
SEALED, PLAIN = "systemd-creds", "file"  # how a value is kept
_SUFFIX = ".json"
_ID_DIGITS = 25  # as podman's


class Secret(Frozen):
    """A secret as it is kept."""

    id: str
    name: str
    created_ns: int
    updated_ns: int
    labels: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    kept: str = SEALED
    data: str  # base64: of what systemd-creds has made, or of the value itself

    def wrong(self) -> str:
        return "" if self.kept in (SEALED, PLAIN) else f"kept: must be {SEALED} or {PLAIN}"


class Lock(flock.Lock):
    """The lock on all secrets; a context manager. Raises KernelError."""

    def __init__(self) -> None:
        super().__init__(f"{SECRETS}/.lock")


def path_of(name: str) -> str:
    """The file of a secret. The caller has checked the name: it has no slash."""
    return f"{SECRETS}/{name}{_SUFFIX}"


def create(
    name: str, value: bytes, labels: dict[str, str] | None = None, *, replace: bool = False
) -> tuple[Secret, str]:
    """Keep a value under a name: (the secret, why it is not encrypted or "").

    Raises SpecError for a bad name or size, Conflict where there is one, unless `replace`.
    """
    check_secret(name, "secret")
    if not value:
        raise SpecError(f"secret {name}: the value is empty")
    if len(value) > MOST:
        raise SpecError(f"secret {name}: the value is larger than {MOST >> 10} KiB")
    make_private(SECRETS)
    with Lock():
        before = _known(name)
        if before is not None and not replace:
            raise Conflict(
                f"the name '{name}' is in use by another secret",
                hint="--replace replaces its value",
            )
        now = store.now_ns()
        kept, data, reason = _seal(name, value)
        secret = Secret(
            id=posix.urandom(13).hex()[:_ID_DIGITS],
            name=name,
            created_ns=before.created_ns if before and before.created_ns else now,
            updated_ns=now,
            labels=labels or {},
            kept=kept,
            data=data,
        )
        write_file(path_of(name), codec.dumps({"format": FORMAT, **secret.to_data()}), durable=True)
    events.emit("secret", "create", secret.id, {"name": name}, name)
    return secret, reason


def _known(name: str) -> Secret | None:
    """The secret of that name; one that cannot be read has no time of its own. None where there is none."""
    try:
        return load(name)
    except NotFound:
        return None
    except FormatError:
        return Secret(id="", name=name, created_ns=0, updated_ns=0, data="")


def _seal(name: str, value: bytes) -> tuple[str, str, str]:
    """How the value is kept, as what, and why not encrypted."""
    reason = f"this host has no {creds.PROGRAM}"
    if creds.is_there():
        try:
            return SEALED, creds.encrypt(_title(name), value), ""
        except Unsupported as error:
            reason = error.message
    return PLAIN, binascii.b2a_base64(value, newline=False).decode(), reason


def _title(name: str) -> str:
    """What the encryption is bound to: a file under another secret's name is refused."""
    return f"sysbox-secret-{name}"


def load(name: str) -> Secret:
    """A secret by its exact name. Raises NotFound, SpecError, FormatError."""
    check_secret(name, "secret")
    path = path_of(name)
    hint = f"make it again: `sysbox secret create --replace {name} FILE`"
    try:
        data = read_file(path)
        if data is None:
            raise NotFound(f"no such secret: {name}", hint=_hint(name))
        values = codec.loads(data, path)
        codec.take_format(values, path, FORMAT)
        secret = Secret.from_data(values, path)
        if secret.name != name:
            raise FormatError(f"{path}.name: must be {name}")
    except ValueError as error:
        raise FormatError(f"secret {name} is damaged: {error}", hint=hint) from None
    except FormatError as error:
        raise FormatError(f"secret {name} is damaged: {error.message}", hint=hint) from None
    return secret


def _hint(name: str) -> str:
    from sysbox.base.suggest import did_you_mean

    return (
        did_you_mean(name, defined())
        or "`sysbox secret ls` lists them, `sysbox secret create` makes one"
    )


def find(word: str) -> Secret:
    """A secret by its name, its id or the first digits of that. Raises NotFound, Conflict, FormatError."""
    if word in defined():
        return load(word)
    found = find_short("secret", word, lambda: all_secrets([]))
    if found is None:
        raise NotFound(f"no such secret: {word}", hint=_hint(word))
    return found


def defined() -> list[str]:
    """The names of all secrets, sorted; also of those that cannot be read."""
    return [one.removesuffix(_SUFFIX) for one in names(SECRETS) if one.endswith(_SUFFIX)]


def all_secrets(damaged: list[FormatError]) -> list[Secret]:
    """All secrets that can be read, by name; `damaged` is given the error of each of the others."""
    found = []
    for name in defined():
        try:
            found.append(load(name))
        except FormatError as error:
            damaged.append(error)
        except NotFound:
            continue  # removed since it was listed
    return found


def remove(word: str) -> None:
    """Remove a secret, by its name or id. Raises NotFound, and Conflict where a container has it."""
    # one that is damaged can be removed by its name
    name = word if word in defined() else find(word).name
    with Lock():
        if users := users_of(name):
            raise in_use(f"secret {name}", users)
        if not unlink(path_of(name)):
            raise NotFound(f"no such secret: {name}")
    events.emit("secret", "remove", name, {"name": name}, name)


def users_of(name: str) -> list[str]:
    """The names of the containers that have a secret, running or not, without damaged ones."""
    return sorted(
        record.name
        for record in store.all_records()
        if any(one.name == name for one in record.spec.secrets)
    )


def check(uses: tuple[SecretUse, ...]) -> None:
    """Raise NotFound, FormatError for a secret that is not there."""
    for one in uses:
        load(one.name)


def value_of(name: str) -> bytes:
    """The value of a secret. Raises NotFound, FormatError; SysboxError where it cannot be decrypted."""
    secret = load(name)
    if secret.kept == SEALED:
        try:
            return creds.decrypt(_title(name), secret.data)
        except SysboxError as error:
            raise SysboxError(
                f"secret {name}: {error.message}",
                hint="it was encrypted under another key of this host, or its file was changed: "
                f"`sysbox secret create --replace {name} FILE` makes it again",
            ) from None
    try:
        return binascii.a2b_base64(secret.data, strict_mode=True)
    except binascii.Error:
        raise FormatError(f"secret {name} is damaged: its value is not base64") from None


def variables(uses: tuple[SecretUse, ...]) -> tuple[str, ...]:
    """The secrets that are environment variables, as "NAME=VALUE". Raises as `value_of`, and SpecError."""
    return tuple(_variable(one, value_of(one.name)) for one in uses if one.kind == "env")


def _variable(use: SecretUse, value: bytes) -> str:
    what = f"secret {use.name} as the variable {use.target}"
    if b"\0" in value:
        raise SpecError(f"{what}: it has a NUL byte, which no variable can have")
    text = f"{use.target}={value.decode('utf-8', 'surrogateescape')}"
    if len(use.target) + 1 + len(value) > VARIABLE_MOST:
        raise SpecError(
            f"{what}: it is larger than a variable can be, {VARIABLE_MOST >> 10} KiB",
            hint="give it as a file: type=mount",
        )
    return text
