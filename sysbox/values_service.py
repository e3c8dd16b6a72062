"""Single values that say how a container is looked after: its restart policy, its log."""

from __future__ import annotations

from sysbox.errors import SpecError
from sysbox.spec import Health, Logging, RestartPolicy
from sysbox.values import bad, parse_int, parse_size, suggest
from sysbox.values_time import parse_duration

POLICIES = ("no", "on-failure", "always", "unless-stopped")
_MOST = 1 << 16  # systemd counts starts in 32 bits; nobody waits for more


def parse_restart(text: str, flag: str) -> RestartPolicy:
    """`no`, `always`, `unless-stopped`, `on-failure[:RETRIES]`. Raises SpecError."""
    name, colon, count = text.partition(":")
    if name not in POLICIES:
        bad(flag, text, "not a restart policy", f"one of {', '.join(POLICIES)}")
    if colon and name != "on-failure":
        bad(flag, text, "only on-failure has a number of retries", "as in on-failure:5")
    return RestartPolicy(name=name, retries=parse_int(count, flag, 0, _MOST) if colon else 0)


DRIVERS = ("journald", "json-file", "none")
_MOST_FILES = 1000


def parse_logging(driver: str, options: list[str]) -> Logging:
    """`--log-driver` and each `--log-opt`. Raises SpecError."""
    if driver not in DRIVERS:
        raise SpecError(f"--log-driver {driver}: not a log driver", hint=suggest(driver, DRIVERS))
    logging = Logging(driver=driver)
    for text in options:
        key, _, value = text.partition("=")
        flag = f"--log-opt {key}"
        if key not in ("max-size", "max-file"):
            bad("--log-opt", text, "unknown option", "max-size=SIZE or max-file=NUMBER")
        if driver != "json-file":
            bad("--log-opt", text, f"{driver} has no such option", "--log-driver json-file")
        if key == "max-size":
            logging = logging.replace(max_size=0 if value == "-1" else parse_size(value, flag))
        else:
            logging = logging.replace(max_files=parse_int(value, flag, 1, _MOST_FILES))
    return logging


ACTIONS = ("none", "kill", "restart", "stop")
_SHORTEST = 1000  # microseconds


def parse_health(texts: dict[str, str | None], *, disabled: bool) -> Health:
    """The values of `--health-NAME`, by NAME with "_" for "-"; None is not given. Raises SpecError."""
    if disabled:
        given = [name for name, text in texts.items() if text is not None]
        if given:
            flag = given[0].replace("_", "-")
            raise SpecError(f"--no-healthcheck and --health-{flag}: give one of them")
        return Health(disabled=True)
    chosen: dict[str, int] = {}
    for name in ("interval", "timeout", "start_period", "start_interval"):
        text = texts[name]
        if text is None:
            continue
        flag = f"--health-{name.replace('_', '-')}"
        chosen[name] = parse_duration(text, flag)
        if chosen[name] < _SHORTEST and name != "start_period":
            bad(flag, text, "too short", "at least 1ms")
    if texts["retries"] is not None:
        chosen["retries"] = parse_int(texts["retries"], "--health-retries", 1, _MOST)
    command, action = texts["cmd"], texts["on_failure"] or "none"
    if command == "":
        bad("--health-cmd", command, "empty", "a command, or --no-healthcheck")
    if action not in ACTIONS:
        bad("--health-on-failure", action, "not an action", f"one of {', '.join(ACTIONS)}")
    words = ("/bin/sh", "-c", command) if command else ()
    return Health(command=words, on_failure=action).replace(**chosen)
