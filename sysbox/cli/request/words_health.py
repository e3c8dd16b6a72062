"""From a health check to the flags of `run`: the inverse of `request/health.py`. Pure."""

from __future__ import annotations

from sysbox.base import codec
from sysbox.base.errors import FormatError
from sysbox.spec import Health

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sysbox.units.quadlet.writer import Flag

_SHELL = ("/bin/sh", "-c")


def health_flags(asked: Health, image: Health | None) -> Iterator[Flag]:
    """The flags; `image` is the check of the image, which need not be repeated."""
    from sysbox.container import health

    if asked == Health() or asked == health.merge(Health(), image):
        return
    if asked.disabled:
        yield "--no-healthcheck", None
        return
    command, own = asked.command, image.command if image else ()
    if command != own:
        yield "--health-cmd", _check_text(command)
    # what a run with the command alone would come to
    usual = health.merge(Health(command=command), image)
    for field in ("interval", "timeout", "start_period", "start_interval"):
        value = getattr(asked, field)
        if value != getattr(usual, field) and value >= 0:
            yield f"--health-{field.replace('_', '-')}", time_text(value)
    if asked.retries not in (usual.retries, -1):
        yield "--health-retries", str(asked.retries)
    if asked.on_failure != "none":
        yield "--health-on-failure", asked.on_failure
    yield from _startup(asked)


def _startup(asked: Health) -> Iterator[Flag]:
    """The start-up check, and what is kept of results."""
    command = asked.startup_command
    if command:
        yield "--health-startup-cmd", _check_text(command)
    usual = Health()
    for name, field in (("interval", "startup_interval"), ("timeout", "startup_timeout")):
        value = getattr(asked, field)
        if value != getattr(usual, field):
            yield f"--health-startup-{name}", time_text(value)
    for flag, field in (
        ("startup-retries", "startup_retries"), ("startup-success", "startup_successes"),
        ("max-log-count", "kept"), ("max-log-size", "output"),
    ):  # fmt: skip
        value = getattr(asked, field)
        if value != getattr(usual, field):
            yield f"--health-{flag}", str(value)


def _check_text(command: tuple[str, ...]) -> str:
    """A check as --health-cmd takes it: a shell command, or where that would mean another, a JSON array."""
    shell = command[2] if command[:2] == _SHELL and len(command) == 3 else ""
    if shell and not _is_array(shell) and shell.partition(" ")[0] not in ("CMD", "CMD-SHELL"):
        return shell
    words = ["CMD-SHELL", shell] if shell else ["CMD", *command]
    return codec.dumps(words).decode("utf-8", "surrogateescape").strip()


def _is_array(text: str) -> bool:
    try:
        return text.startswith("[") and type(codec.loads(text, "a health check")) is list
    except (FormatError, ValueError):
        return False


def time_text(microseconds: int) -> str:
    """A duration as flags take it, in the largest unit that it is a multiple of."""
    for unit, factor in (("s", 10**6), ("ms", 1000)):
        if microseconds % factor == 0:
            return f"{microseconds // factor}{unit}"
    return f"{microseconds}us"
