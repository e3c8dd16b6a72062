"""Parse values about supervision: restart policy, log, health check."""

from __future__ import annotations

from sysbox.base.errors import SpecError
from sysbox.base.suggest import suggest
from sysbox.parse.common import bad, parse_int, parse_size
from sysbox.parse.time import parse_duration
from sysbox.spec import Health, Logging, RestartPolicy

POLICIES = ("no", "on-failure", "always", "unless-stopped")
_MOST = 1 << 16  # systemd counts starts in 32 bits; this is enough


def parse_restart(text: str, flag: str) -> RestartPolicy:
    """`no`, `always`, `unless-stopped`, `on-failure[:RETRIES]`. Raises SpecError."""
    name, colon, count = text.partition(":")
    if name not in POLICIES:
        bad(flag, text, "not a restart policy", f"one of {', '.join(POLICIES)}")
    if colon and name != "on-failure":
        bad(flag, text, "only on-failure has a number of retries", "as in on-failure:5")
    return RestartPolicy(name=name, retries=parse_int(count, flag, 0, _MOST) if colon else 0)


DRIVERS = ("journald", "json-file", "none")
# the options of each driver; all have docker's names except rate-limit, rate-burst and syslog
_LOG_OPTIONS = {
    "journald": ("rate-limit", "rate-burst", "syslog", "tag", "labels", "env"),
    "json-file": ("max-size", "max-file", "tag", "labels", "env"),
    "none": (),
}
_MOST_FILES = 1000
_MOST_LINES = 1_000_000_000
_IN_TAGS = ("ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName")


def parse_driver(text: str, flag: str) -> str:
    """A log driver. Raises SpecError."""
    if text not in DRIVERS:
        bad(flag, text, "not a log driver", suggest(text, DRIVERS))
    return text


def parse_rate(text: str, flag: str) -> int:
    """A rate limit in lines a second; 0 is no limit. Raises SpecError."""
    return parse_int(text, flag, 0, _MOST_LINES)


def parse_rate_burst(text: str, flag: str) -> int:
    """A burst limit: lines at once. Raises SpecError."""
    return parse_int(text, flag, 1, _MOST_LINES)


def parse_logging(driver: str, options: list[str]) -> Logging:
    """`--log-driver` and each `--log-opt`. Raises SpecError."""
    logging = Logging(driver=parse_driver(driver, "--log-driver"))
    for text in options:
        key, _, value = text.partition("=")
        _check_log_option(driver, key, text)
        logging = logging.replace(**_log_option(key, value, f"--log-opt {key}"))
    return logging


def _check_log_option(driver: str, key: str, text: str) -> None:
    having = [name for name in DRIVERS if key in _LOG_OPTIONS[name]]
    if not having:
        known = dict.fromkeys(one for name in DRIVERS for one in _LOG_OPTIONS[name])
        bad("--log-opt", text, "unknown option", f"one of {', '.join(known)}")
    if driver not in having:
        bad("--log-opt", text, f"{driver} has no such option", f"--log-driver {having[0]}")


def _log_option(key: str, value: str, flag: str) -> dict[str, int | str | tuple[str, ...]]:
    if key == "tag":
        return {"tag": _parse_tag(value, flag)}
    if key in ("labels", "env"):
        return {key: tuple(name for name in value.split(",") if name)}
    if key == "max-size":
        return {"max_size": 0 if value == "-1" else parse_size(value, flag)}
    if key == "max-file":
        return {"max_files": parse_int(value, flag, 1, _MOST_FILES)}
    if key == "syslog":
        if value not in ("true", "false"):
            bad(flag, value, "not true or false")
        return {"syslog": value == "true"}
    if key == "rate-limit":
        return {"rate_limit": parse_rate(value, flag)}
    return {"rate_burst": parse_rate_burst(value, flag)}


def _parse_tag(text: str, flag: str) -> str:
    left = text = text.replace("{{ ", "{{").replace(" }}", "}}")
    for name in _IN_TAGS:
        left = left.replace(f"{{{{.{name}}}}}", "")
    if "{{" in left or "}}" in left:
        known = ", ".join(f"{{{{.{name}}}}}" for name in _IN_TAGS)
        bad(flag, text, "not a tag", f"text with any of {known}")
    return text


ACTIONS = ("none", "kill", "restart", "stop")
# podman's names; the results of each are in the state of the run, and changes of health are events
_PLACES = ("local", "events_logger", "journald")
_SHORTEST = 1000  # microseconds


def parse_health(texts: dict[str, str | None], *, disabled: bool) -> Health:
    """A health check from `texts`: NAME of `--health-NAME`, with "_" for "-" -> value, None if not given.

    Raises SpecError.
    """
    if disabled:
        given = [name for name, text in texts.items() if text is not None]
        if given:
            flag = given[0].replace("_", "-")
            raise SpecError(f"--no-healthcheck and --health-{flag}: give one of them")
        return Health(disabled=True)
    chosen = {**_durations(texts), **_counts(texts)}
    action, place = texts.get("on_failure") or "none", texts.get("log_destination")
    if action not in ACTIONS:
        bad("--health-on-failure", action, "not an action", f"one of {', '.join(ACTIONS)}")
    if place not in (None, *_PLACES):
        bad(
            "--health-log-destination",
            place or "",
            "not supported",
            "local: `inspect` shows results",
        )
    return Health(
        command=_check_words(texts, "cmd"),
        startup_command=_check_words(texts, "startup_cmd"),
        on_failure=action,
    ).replace(**chosen)


def _durations(texts: dict[str, str | None]) -> dict[str, int]:
    """The times that are given, in microseconds. Raises SpecError."""
    found: dict[str, int] = {}
    for name in (
        "interval", "timeout", "start_period", "start_interval", "startup_interval", "startup_timeout",
    ):  # fmt: skip
        text = texts.get(name)
        if text is None:
            continue
        flag = f"--health-{name.replace('_', '-')}"
        found[name] = parse_duration(text, flag)
        if found[name] < _SHORTEST and name != "start_period":
            bad(flag, text, "too short", "at least 1ms")
    return found


# name of the flag -> (name of the setting, lowest value, highest value)
_COUNTS = {
    "retries": ("retries", 1, _MOST),
    "startup_retries": ("startup_retries", 0, _MOST),
    "startup_success": ("startup_successes", 0, _MOST),
    "max_log_count": ("kept", 0, 1000),
    "max_log_size": ("output", 0, 1 << 16),
}


def _counts(texts: dict[str, str | None]) -> dict[str, int]:
    """The numbers that are given; 0 of what is kept is the most there can be. Raises SpecError."""
    found: dict[str, int] = {}
    for name, (field, low, high) in _COUNTS.items():
        text = texts.get(name)
        if text is not None:
            number = parse_int(text, f"--health-{name.replace('_', '-')}", low, high)
            found[field] = number or high if name.startswith("max_") else number
    return found


def _check_words(texts: dict[str, str | None], name: str) -> tuple[str, ...]:
    command = texts.get(name)
    if command == "":
        bad(
            f"--health-{name.replace('_', '-')}", command, "empty", "a command, or --no-healthcheck"
        )
    return _words_of(command, f"--health-{name.replace('_', '-')}") if command else ()


def _words_of(command: str, flag: str) -> tuple[str, ...]:
    """A command for the shell, or in podman's forms `CMD WORDS`, `CMD-SHELL COMMAND`, a JSON array."""
    first, _, rest = command.partition(" ")
    if first == "CMD":
        words = tuple(rest.split())
    elif first == "CMD-SHELL":
        words = ("/bin/sh", "-c", rest.strip()) if rest.strip() else ()
    elif command.startswith("[") and command.endswith("]"):
        words = _array(command)
    else:
        words = ("/bin/sh", "-c", command)
    if not words:
        bad(flag, command, "no command")
    return words


def parse_words(text: str) -> tuple[str, ...] | None:
    """The words of a JSON array; None for any other text."""
    from sysbox.base import codec
    from sysbox.base.errors import FormatError

    try:
        found = codec.loads(text, "a command")
    except (FormatError, ValueError):
        return None
    if type(found) is not list or not all(type(one) is str for one in found):
        return None
    return tuple(found)


def _array(text: str) -> tuple[str, ...]:
    """The words of a JSON array; what is none is a command for the shell, as `[ -e /run/up ]`."""
    found = parse_words(text)
    if found is None:
        return ("/bin/sh", "-c", text)
    kind, words = found[0] if found else "", found[1:]
    if kind == "CMD-SHELL":
        return ("/bin/sh", "-c", " ".join(words)) if words else ()
    return words if kind == "CMD" else found
