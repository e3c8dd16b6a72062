"""The flags of `stop`, `restart`, `kill` and `rm`."""

from __future__ import annotations

from sysbox.cli.table.options import Option, many, switch, value


def _cidfile() -> Option:
    return many("--cidfile", "FILE", "A file with the id of a container, as of `run --cidfile`")


def _ignore() -> Option:
    return switch("-i --ignore", "Ignore missing containers, and missing files of --cidfile")


def stop_options() -> tuple[Option, ...]:
    """Every flag of `sysbox stop`."""
    return (
        *restart_options(),
        _cidfile(),
        _ignore(),
    )


def kill_options() -> tuple[Option, ...]:
    """Every flag of `sysbox kill`."""
    return (value("-s --signal", "SIGNAL", "Signal to send; SIGKILL by default"), _cidfile())


def restart_options() -> tuple[Option, ...]:
    """Every flag of `sysbox restart`."""
    return (
        value("-s --signal", "SIGNAL", "Signal to send; the container's --stop-signal by default"),
        value(
            "-t --time",
            "SECONDS",
            "Time to wait before SIGKILL; the container's --stop-timeout by default",
            hidden="--timeout",
        ),
    )


def rm_options() -> tuple[Option, ...]:
    """Every flag of `sysbox rm`."""
    return (
        switch("-f --force", "Kill running containers first; ignore missing ones"),
        value(
            "-t --time",
            "SECONDS",
            "With --force: stop running containers first, and kill after this time",
            hidden="--timeout",
        ),
        switch("-v --volumes", "Also remove the containers' anonymous volumes"),
        _cidfile(),
        _ignore(),
    )
