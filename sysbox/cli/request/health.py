"""The health check that the flags of `run` and `create` ask for."""

from __future__ import annotations

from sysbox.spec import Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysbox.cli.table.options import Values

_NAMES = (
    "cmd", "interval", "timeout", "start_period", "start_interval", "retries", "on_failure",
    "startup_cmd", "startup_interval", "startup_timeout", "startup_retries", "startup_success",
    "log_destination", "max_log_count", "max_log_size",
)  # fmt: skip


def build(given: Values) -> Health:
    """What all flags together ask for. Raises SpecError."""
    texts = {name: getattr(given, f"health_{name}") for name in _NAMES}
    if not given.no_healthcheck and all(text is None for text in texts.values()):
        return Health()
    from sysbox.parse.service import parse_health  # few containers need it

    return parse_health(texts, disabled=given.no_healthcheck)
