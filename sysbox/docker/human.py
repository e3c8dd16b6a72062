"""Durations and sizes in docker's words."""

from __future__ import annotations

_STEPS = (  # below this many seconds: unit, seconds of it (docker's units.HumanDuration)
    (60, "second", 1),
    (3600, "minute", 60),
    (172800, "hour", 3600),
    (1209600, "day", 86400),
    (5184000, "week", 604800),
    (63072000, "month", 2592000),
)


def human_duration(seconds: float) -> str:
    """ "5 minutes", "About an hour", "3 weeks"."""
    whole = int(max(seconds, 0))
    if whole < 1:
        return "Less than a second"
    if 60 <= whole < 120:
        return "About a minute"
    if 3600 <= whole < 5400:
        return "About an hour"
    for below, unit, size in _STEPS:
        if whole < below:
            count = whole // size
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{whole // 31536000} years"


def human_size(size: float) -> str:
    """ "12.3MB": decimal units, three significant figures, as docker's listings."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.3g}{unit}"
