"""`--change`: Dockerfile instructions applied to an image's configuration (docker import, docker commit).

CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL STOPSIGNAL USER VOLUME WORKDIR; a command in JSON form is taken as
it is, any other is passed to `/bin/sh -c`.
"""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError, SpecError
from sysbox.image.model import ImageConfig
from sysbox.spec import Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def apply(config: ImageConfig, changes: Iterable[str]) -> ImageConfig:
    """The configuration with each instruction applied in turn. Raises SpecError."""
    changes = tuple(changes)
    named = {change.strip().partition(" ")[0].upper() for change in changes}
    if "ENTRYPOINT" in named and "CMD" not in named:
        # a new entry point resets the earlier command
        config = config.replace(cmd=())
    for change in changes:
        if any(ord(character) < 32 and character != "\t" for character in change):
            raise SpecError(f"invalid --change {change!r}: a control character")
        name, _, rest = change.strip().partition(" ")
        instruction = _INSTRUCTIONS.get(name.upper())
        if instruction is None:
            raise SpecError(
                f"invalid --change {change!r}: {name or 'nothing'} is not an instruction",
                hint=f"one of {' '.join(_INSTRUCTIONS)}",
            )
        if not rest.strip():
            raise SpecError(f"invalid --change {change!r}: {name.upper()} needs a value")
        try:
            config = instruction(config, rest.strip())
        except (SpecError, ValueError) as error:
            raise SpecError(f"invalid --change {change!r}: {error}") from None
    return config


def _command(text: str) -> tuple[str, ...]:
    if text.startswith("["):
        try:
            value = codec.loads(text, "the list")
        except FormatError as error:
            raise ValueError(error.message) from None
        if type(value) is list and all(type(item) is str for item in value):
            return tuple(value)
        raise ValueError("the list must hold strings only")
    return ("/bin/sh", "-c", text)


def _cmd(config: ImageConfig, text: str) -> ImageConfig:
    return config.replace(cmd=_command(text))


def _entrypoint(config: ImageConfig, text: str) -> ImageConfig:
    return config.replace(entrypoint=_command(text))


def _env(config: ImageConfig, text: str) -> ImageConfig:
    new = dict(_pairs(text))
    kept = [item for item in config.env if item.partition("=")[0] not in new]
    return config.replace(env=(*kept, *(f"{key}={value}" for key, value in new.items())))


def _label(config: ImageConfig, text: str) -> ImageConfig:
    return config.replace(labels={**config.labels, **dict(_pairs(text))})


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    ports = set(config.exposed_ports)
    for word in _words(text):
        number, _, protocol = word.partition("/")
        protocol = protocol or "tcp"
        if not (number.isascii() and number.isdecimal() and 0 < int(number[:6]) < 65536):
            raise ValueError(f"'{word}' is not a port: 1 to 65535, then perhaps /tcp or /udp")
        if protocol not in ("tcp", "udp", "sctp"):
            raise ValueError(f"'{protocol}' is not a protocol: tcp, udp or sctp")
        ports.add(f"{int(number)}/{protocol}")
    return config.replace(exposed_ports=tuple(sorted(ports)))


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    volumes = _command(text) if text.startswith("[") else tuple(_words(text))
    if not all(volume.startswith("/") for volume in volumes):
        raise ValueError("a volume must be an absolute path")
    return config.replace(volumes=tuple(sorted({*config.volumes, *volumes})))


def _workdir(config: ImageConfig, text: str) -> ImageConfig:
    path = text if text.startswith("/") else f"{config.workdir or '/'}/{text}"
    return config.replace(
        workdir="/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    )


def _user(config: ImageConfig, text: str) -> ImageConfig:
    if len(text.split()) != 1:
        raise ValueError("one user: NAME or UID, then perhaps :GROUP")
    return config.replace(user=text)


def _stop_signal(config: ImageConfig, text: str) -> ImageConfig:
    from sysbox.parse.time import parse_signal

    parse_signal(text, "STOPSIGNAL")
    return config.replace(stop_signal=text)


def _health(config: ImageConfig, text: str) -> ImageConfig:
    """`NONE`, or `[--interval=D --timeout=D --start-period=D --start-interval=D --retries=N] CMD ...`."""
    from sysbox.parse.common import parse_int
    from sysbox.parse.time import parse_duration

    if text.upper() == "NONE":
        return config.replace(health=Health(disabled=True))
    chosen: dict[str, int] = {}
    while text.startswith("--"):
        flag, _, text = text.partition(" ")
        name, _, value = flag[2:].partition("=")
        field = name.replace("-", "_")
        if field == "retries":
            chosen[field] = parse_int(value, "--retries", 0, (1 << 31) - 1)
        elif field in ("interval", "timeout", "start_period", "start_interval"):
            chosen[field] = parse_duration(value, f"--{name}")
        else:
            raise ValueError(f"'{flag}' is not an option of HEALTHCHECK")
        text = text.strip()
    keyword, _, command = text.partition(" ")
    if keyword.upper() != "CMD" or not command.strip():
        raise ValueError("HEALTHCHECK [OPTIONS] CMD command, or HEALTHCHECK NONE")
    return config.replace(health=Health(command=_command(command.strip())).replace(**chosen))


def _pairs(text: str) -> list[tuple[str, str]]:
    """`KEY=VALUE KEY="VALUE"…`, or the old `KEY VALUE`."""
    words = _words(text)
    if "=" not in words[0]:
        key, _, value = text.partition(" ")
        if not value.strip():
            raise ValueError(f"'{key}' needs a value: {key}=VALUE")
        return [(key, value.strip())]
    pairs = []
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ValueError(f"'{word}' is not KEY=VALUE")
        pairs.append((key, value))
    return pairs


def _words(text: str) -> list[str]:
    import shlex

    words = shlex.split(text)  # its ValueError, "No closing quotation", is shown to the user
    if not words:
        raise ValueError("needs a value")
    return words


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _health,
    "LABEL": _label,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
