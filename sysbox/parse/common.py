"""Parsing of single values: sizes, ports, users, durations, modes. Storage is in `values_storage.py`.

The command line and the unit files both go through here. Each function takes the text and the flag (or
key) it was given to, returns the value in base units, and raises SpecError naming flag, value, reason
and what would be valid.
"""

from __future__ import annotations

import posix

from sysbox.base.errors import SpecError
from sysbox.spec import Port, Security, Ulimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_NAME = _ALNUM | frozenset("_.-")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
_MAX_ID = (1 << 32) - 2  # (uid_t)-1 means "no change" to the kernel
NAME_MAX = 128
_NEAR = 0.75  # of difflib's ratio: below, two words mean different things
HOSTNAME_MAX = 64  # HOST_NAME_MAX, hostname(7)


def bad(flag: str, text: str, reason: str, hint: str = "") -> NoReturn:
    """Raise the SpecError for one value."""
    raise SpecError(f"{flag} {text}: {reason}" if text else f"{flag}: {reason}", hint=hint)


def suggest(word: str, choices: Iterable[str]) -> str:
    """A hint with the nearest of the choices, or with all of them."""
    import difflib  # only on the way to an error: it is expensive

    known = sorted(choices)
    near = difflib.get_close_matches(word, known, 1, cutoff=_NEAR)
    return f"did you mean {near[0]}?" if near else f"valid: {', '.join(known)}"


def is_digits(text: str) -> bool:
    """Whether it is a plain decimal number (str.isdigit alone takes other scripts' digits too)."""
    return text.isascii() and text.isdigit()


def parse_int(text: str, flag: str, low: int, high: int) -> int:
    """A decimal integer within [low, high]."""
    if len(text) > 20 or not is_digits(text.removeprefix("-")):
        bad(flag, text, "not a whole number")
    number = int(text)
    if not low <= number <= high:
        bad(flag, text, "out of range", f"from {low} to {high}")
    return number


def _fixed_point(number: str, digits: int) -> int | None:
    """`number` times 10**digits, exactly; None if it is no such decimal."""
    whole, dot, fraction = number.partition(".")
    if not is_digits(whole or "0") or (dot and not is_digits(fraction)):
        return None
    if not (whole or fraction) or len(whole) > 15 or len(fraction.rstrip("0")) > digits:
        return None
    return int((whole or "0") + fraction.rstrip("0").ljust(digits, "0"))


def parse_size(text: str, flag: str) -> int:
    """Bytes from "128m", "1.5g", "64KiB", "4096"; units are powers of 1024, as in docker."""
    lower = text.strip().lower()
    number = lower.rstrip("abcdefghijklmnopqrstuvwxyz ")
    unit = lower[len(number) :].strip()
    if unit not in _UNITS:
        unit = unit.removesuffix("ib") if unit.endswith("ib") else unit.removesuffix("b")
    scaled = _fixed_point(number, 9)
    if unit not in _UNITS or scaled is None:
        bad(flag, text, "not a size", "a number with b, k, m, g or t: 512m, 1.5g")
    size = scaled * _UNITS[unit] // 10**9
    if size >= 1 << 63:
        bad(flag, text, "too large")
    return size


def parse_bytes_rate(text: str, flag: str) -> tuple[str, int]:
    """(device path, bytes per second) from "/dev/sda:1m"; the path may contain colons itself."""
    device, colon, rate = text.rpartition(":")
    if not colon or not device.startswith("/"):
        bad(flag, text, "not DEVICE:RATE", "as in /dev/sda:1m")
    speed = parse_size(rate, flag)
    if speed <= 0:
        bad(flag, text, "the rate must be above zero")
    return device, speed


def parse_cpus(text: str, flag: str) -> int:
    """10^-9 CPUs from "1.5"."""
    nano = _fixed_point(text, 9)
    if nano is None:
        bad(flag, text, "not a number of CPUs", "as in 0.5 or 2")
    if nano < 10**7:
        bad(flag, text, "out of range", "at least 0.01: the kernel's shortest quota is 1 ms")
    return nano


def parse_cpuset(text: str, flag: str) -> str:
    """A list of CPUs or memory nodes, "0-2,5"; its form only, the host's CPUs are the planner's."""
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers = [first, last] if dash else [first]
        if not all(is_digits(number) and len(number) < 6 for number in numbers):
            bad(flag, text, "not a list of numbers", "as in 0-2,5")
        if dash and int(first) > int(last):
            bad(flag, text, f"{part} is backwards")
    return text


def parse_ip(text: str, flag: str, whole: str = "") -> str:
    """An IPv4 or IPv6 address, as given."""
    import _socket

    family = _socket.AF_INET6 if ":" in text else _socket.AF_INET
    try:
        _socket.inet_pton(family, text)
    except (OSError, ValueError):
        bad(flag, whole or text, f"{text or 'nothing'} is not an IP address")
    return text


def _port_range(text: str, flag: str, whole: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    ends = (first, last) if dash else (first, first)
    for end in ends:
        if not is_digits(end) or len(end) > 5 or not 1 <= int(end) <= 65535:
            bad(flag, whole, f"{end or 'nothing'} is not a port", "from 1 to 65535")
    low, high = int(ends[0]), int(ends[1])
    if low > high:
        bad(flag, whole, f"{text} is backwards")
    return low, high


def parse_port(text: str, flag: str) -> tuple[Port, ...]:
    """The ports of "[HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]"; either may be a range A-B."""
    rest, slash, protocol = text.partition("/")
    if slash and protocol not in ("tcp", "udp", "sctp"):
        bad(flag, text, f"{protocol or 'nothing'} is not a protocol", "tcp, udp or sctp")
    host_ip = ""
    if rest.startswith("["):
        host_ip, bracket, rest = rest[1:].partition("]:")
        if not bracket:
            bad(flag, text, "not [IPV6]:HOST_PORT:CONTAINER_PORT")
    elif rest.count(":") == 2:
        host_ip, _, rest = rest.partition(":")
    if host_ip:
        parse_ip(host_ip, flag, text)
    host, colon, container = rest.rpartition(":")
    if ":" in host or (not colon and not container):
        bad(flag, text, "not a port", "[HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]")
    first, last = _port_range(container, flag, text)
    host_first, host_last = _port_range(host, flag, text) if host else (0, 0)
    if host and host_last - host_first != last - first:
        bad(flag, text, "the two ranges differ in length")
    return tuple(
        Port(
            container_port=first + step,
            host_port=host_first + step if host else 0,
            host_ip=host_ip,
            protocol=protocol or "tcp",
        )
        for step in range(last - first + 1)
    )


_ULIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending "
    "stack".split()
)


def parse_ulimit(text: str, flag: str) -> Ulimit:
    """`NAME=SOFT[:HARD]`, as setrlimit(2) counts; -1 or "unlimited" is no limit."""
    name, equals, limits = text.partition("=")
    if not equals:
        bad(flag, text, "not NAME=SOFT[:HARD]", "as in nofile=1024:4096")
    if name not in _ULIMITS:
        bad(flag, text, f"unknown limit {name}", suggest(name, _ULIMITS))
    soft_text, colon, hard_text = limits.partition(":")
    soft = _ulimit(soft_text, flag, text)
    hard = _ulimit(hard_text, flag, text) if colon else soft
    if hard != -1 and (soft == -1 or soft > hard):
        bad(flag, text, "the soft limit is above the hard one")
    return Ulimit(name=name, soft=soft, hard=hard)


def _ulimit(number: str, flag: str, text: str) -> int:
    if number in ("-1", "unlimited"):
        return -1
    if not is_digits(number) or len(number) > 18:  # the kernel's and Python's own are below 2^63
        bad(flag, text, f"{number or 'nothing'} is not a limit", "a whole number, or -1")
    return int(number)


def caller_env(name: str) -> str | None:
    """A variable of the caller's environment."""
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
    """The lines, of this `form`, of a small text file that are neither empty nor comments.

    Raises SpecError if it cannot be read, is over 1 MiB, or is not UTF-8 text.
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
    except ValueError:  # a NUL byte, or what no encoding has
        bad(flag, path, "not a path")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        bad(flag, path, "not UTF-8")
    if "\0" in text:
        bad(flag, path, "contains a NUL byte")
    lines = [line.lstrip().removesuffix("\r") for line in text.split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def parse_env_file(path: str, flag: str) -> tuple[str, ...]:
    """NAME=VALUE lines of a file (no quoting, as docker); a bare NAME takes the caller's value."""
    found = []
    for line in read_lines(path, flag, "NAME=VALUE"):
        name = line.partition("=")[0]
        if not name or any(character.isspace() for character in name):
            bad(flag, path, f"'{name}' is not a variable's name")
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


def parse_cap(text: str, flag: str) -> str:
    """A capability's name in upper case without CAP_ ("sys-admin" is SYS_ADMIN), or ALL."""
    name = text.upper().replace("-", "_").removeprefix("CAP_")
    if name == "ALL":
        return name
    from sysbox.linux import capability

    if name not in capability.NAMES:
        bad(flag, text, "unknown capability", suggest(name, capability.NAMES))
    return name


_SECURITY_OPTS = ("no-new-privileges", "seccomp=", "label=", "unmask=", "systempaths=", "apparmor=")


def parse_security_opts(texts: Iterable[str], flag: str) -> Security:
    """The fields of Security that `--security-opt` sets; both "key=value" and docker's old "key:value"."""
    security = Security()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            key, _, value = text.partition(":")
        if key == "no-new-privileges":
            if value not in ("", "true", "false"):
                bad(flag, text, "not true or false")
            security = security.replace(no_new_privileges=value != "false")
        elif key == "seccomp" and value:
            profile = "default" if value in ("builtin", "default") else value
            if profile not in ("default", "unconfined"):
                profile = absolute(profile)
            security = security.replace(seccomp=profile)
        elif key == "label" and value:
            security = security.replace(label=(*security.label, value))
        elif key == "unmask" and value:
            paths = ("ALL",) if value.upper() == "ALL" else tuple(value.split(":"))
            security = security.replace(unmask=security.unmask + paths)
        elif (key, value) == ("systempaths", "unconfined"):
            security = security.replace(unmask=("ALL",))
        elif (key, value) != ("apparmor", "unconfined"):  # sysbox applies no AppArmor profile
            bad(flag, text, "unknown option", suggest(text, _SECURITY_OPTS))
    return security


def absolute(path: str) -> str:
    """A path made absolute with the working directory, with "." and ".." resolved by their text."""
    return clean_path(path if path.startswith("/") else f"{posix.getcwd()}/{path}")


def clean_path(path: str) -> str:
    """An absolute path without "//", "." and ".."; lexical only, as Go's path.Clean."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def parse_mode(text: str, flag: str, allowed: tuple[str, ...]) -> str:
    """A namespace mode: one of `allowed`, "container:NAME" or "ns:PATH" (absolute)."""
    if text in allowed:
        return text
    kind, _, rest = text.partition(":")
    if kind == "container" and rest:
        return text
    if kind == "ns":
        if not rest.startswith("/"):
            bad(flag, text, "the path must be absolute")
        return text
    choices = (*allowed, "container:NAME", "ns:PATH")
    bad(flag, text, "unknown mode", f"valid: {', '.join(choices)}")


def check_name(text: str, flag: str) -> str:
    """A container's or volume's name: [a-zA-Z0-9][a-zA-Z0-9_.-]+, at most NAME_MAX characters."""
    if len(text) < 2 or text[0] not in _ALNUM or not _NAME.issuperset(text):
        bad(
            flag,
            text,
            "not a valid name",
            "letters, digits, _ . and -, at least two, not led by _ . -",
        )
    if len(text) > NAME_MAX:
        bad(flag, text[:20] + "...", f"longer than {NAME_MAX} characters")
    return text


def check_hostname(text: str, flag: str) -> str:
    """A host name that sethostname(2) and the usual tools take."""
    allowed = _ALNUM | frozenset("-._")
    if len(text) > HOSTNAME_MAX:
        bad(flag, text, f"longer than {HOSTNAME_MAX} characters")
    if not text or not allowed.issuperset(text) or text[0] in "-." or text[-1] in "-.":
        bad(flag, text, "not a host name", "letters, digits, - and .")
    return text


def parse_user(text: str, flag: str) -> str:
    """Check "name|uid[:group|gid]", either left out; names are looked up in the container's own files."""
    for part in filter(None, text.split(":", 1)) if ":" in text else (text,):
        check_account(part, flag, text)
    return text


def check_account(part: str, flag: str, text: str) -> str:
    """One user or group: a name, or a number that the kernel can hold."""
    if is_digits(part):
        if len(part) > 10 or int(part) > _MAX_ID:
            bad(flag, text, f"{part} is out of range", f"at most {_MAX_ID}")
    elif part[:1] not in _ALNUM | {"_"} or not (_NAME | {"$"}).issuperset(part):
        bad(flag, text, f"'{part}' is not a user or group", "USER[:GROUP], names or numbers")
    return part


def parse_add_host(text: str, flag: str) -> str:
    """ "name:ip" from "name:ip" or "name=ip"; the address may be IPv6 or `host-gateway`."""
    separator = "=" if "=" in text else ":"
    name, _, address = text.partition(separator)
    check_hostname(name, flag) if name and address else bad(flag, text, "not NAME:IP")
    address = address.removeprefix("[").removesuffix("]")
    if address != "host-gateway":
        parse_ip(address, flag, text)
    return f"{name}:{address}"


def parse_sysctl(text: str, flag: str) -> tuple[str, str]:
    """(name with dots, value) of "net.ipv4.ip_forward=1"; which may be set is the planner's to say."""
    name, equals, value = text.partition("=")
    if not equals or not name or not (_NAME | {"/"}).issuperset(name) or "\0" in value:
        bad(flag, text, "not KEY=VALUE")
    return (name.replace("/", ".") if "." not in name else name), value
