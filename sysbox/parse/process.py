"""Parse values about the process: environment, labels, user and group."""

from __future__ import annotations

import posix

from sysbox.parse.common import ALNUM, NAME, bad, is_digits

_MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "no change" to the kernel


def caller_env(name: str) -> str | None:
    """The value of a variable in the environment of sysbox; None where it is unset."""
    found = posix.environ.get(name.encode("utf-8", "surrogateescape"))
    return None if found is None else found.decode("utf-8", "surrogateescape")


def parse_env(text: str, flag: str) -> str | None:
    """ "NAME=VALUE"; a bare NAME takes the caller's value, None if the caller has none."""
    name, equals, _ = text.partition("=")
    if not name or "\0" in text:
        bad(flag, text, "not NAME=VALUE")
    if equals:
        return text
    value = caller_env(name)
    return None if value is None else f"{name}={value}"


def read_lines(path: str, flag: str, form: str) -> list[str]:
    """As `numbered_lines`, without the numbers."""
    return [line for _, line in numbered_lines(path, flag, form)]


def numbered_lines(path: str, flag: str, form: str) -> list[tuple[int, str]]:
    """The lines of a text file and their numbers, without empty lines and comments.

    `form` describes a line in errors.
    Raises SpecError if the file cannot be read, is over 1 MiB, or is not UTF-8.
    """
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            data = b""
            while chunk := posix.read(fd, 1 << 16):
                data += chunk
                if len(data) > 1 << 20:
                    bad(flag, path, "over 1 MiB")
        finally:
            posix.close(fd)
    except OSError as error:
        bad(flag, path, error.strerror or "cannot be read", f"a text file, one {form} a line")
    except ValueError:  # a NUL byte, or a character that cannot be encoded
        bad(flag, path, "not a path")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        bad(flag, path, "not UTF-8")
    if "\0" in text:
        bad(flag, path, "contains a NUL byte")
    lines = [line.lstrip().removesuffix("\r") for line in text.split("\n")]
    return [
        (number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")
    ]


def parse_env_file(path: str, flag: str) -> tuple[str, ...]:
    """NAME=VALUE lines of a file, without quoting, as docker; a bare NAME takes the caller's value."""
    found = []
    for number, line in numbered_lines(path, flag, "NAME=VALUE"):
        name = line.partition("=")[0]
        if not name or any(character.isspace() for character in name):
            # what it says may be a part of a password
            bad(flag, path, f"line {number} does not begin with a variable's name", "NAME=VALUE")
        value = parse_env(line, flag)
        if value is not None:
            found.append(value)
    return tuple(found)


def parse_label(text: str, flag: str) -> tuple[str, str]:
    """(key, value) of "KEY=VALUE" or "KEY"."""
    key, _, value = text.partition("=")
    if not key:
        bad(flag, text, "no key", "KEY=VALUE")
    return key, value


def parse_user(text: str, flag: str) -> str:
    """Check "[name|uid][:group|gid]"; at the start, names are looked up in the container's own files."""
    for part in filter(None, text.split(":", 1)) if ":" in text else (text,):
        check_account(part, flag, text)
    return text


def check_account(part: str, flag: str, text: str) -> str:
    """Check one user or group: a name, or a number in the kernel's range; `text` is for the error."""
    if is_digits(part):
        if len(part) > 10 or int(part) > _MAX_ID:
            bad(flag, text, f"{part} is out of range", f"at most {_MAX_ID}")
    elif part[:1] not in ALNUM | {"_"} or not (NAME | {"$"}).issuperset(part):
        bad(flag, text, f"'{part}' is not a user or group", "USER[:GROUP], names or numbers")
    return part


KEEP_GROUPS = "keep-groups"


def parse_groups(texts: list[str], flag: str) -> tuple[tuple[str, ...], tuple[int, ...] | None]:
    """(groups as given, the caller's groups where keep-groups is given, which stands alone as in podman)."""
    if KEEP_GROUPS not in texts:
        return tuple(check_account(one, flag, one) for one in texts), None
    if set(texts) != {KEEP_GROUPS}:
        other = next(one for one in texts if one != KEEP_GROUPS)
        bad(flag, other, f"{KEEP_GROUPS} excludes other groups", f"leave out one {flag}")
    return (KEEP_GROUPS,), tuple(sorted(set(posix.getgroups())))


def parse_umask(text: str, flag: str) -> int:
    """An octal umask, 0 to 0777."""
    if not 1 <= len(text) <= 4 or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        bad(flag, text, "not a mode", "octal, as in 022 or 0077")
    return int(text, 8)
