"""Single values that say how a container is looked after: its restart policy, its log."""

from __future__ import annotations

from sysbox.errors import SpecError
from sysbox.spec import Logging, RestartPolicy
from sysbox.values import bad, parse_int, parse_size, suggest

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
