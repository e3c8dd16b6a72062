"""Single values that say how a container is looked after: its restart policy."""

from __future__ import annotations

from sysbox.spec import RestartPolicy
from sysbox.values import bad, parse_int

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
