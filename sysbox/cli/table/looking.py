"""The flags of `ps`, `inspect`, `stats`, `logs`, `events` and `attach`."""

from __future__ import annotations

from sysbox.cli.table.options import Option, many, switch, value


def ps_options() -> tuple[Option, ...]:
    """Every flag of `sysbox ps`."""
    return (
        switch("-a --all", "Show all containers, not only running ones"),
        many(
            "-f --filter", "KEY=VALUE",
            "Only matching ones: ancestor, before, exited, expose, health, id, is-task, label, name,"
            " network, pod, publish, since, slice, status, volume",
        ),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        value("-n --last", "N", "Show the N newest containers, whatever their state"),
        switch("-l --latest", "Show the newest container, whatever its state"),
        switch("--no-trunc", "Do not truncate output"),
        switch("-p --pod", "Show the pod of each container"),
        switch("-q --quiet", "Print ids only"),
        switch("-s --size", "Show the size of each container"),
    )  # fmt: skip


def events_options() -> tuple[Option, ...]:
    """Every flag of `sysbox events`."""
    return (
        many(
            "-f --filter",
            "KEY=VALUE",
            "Only matching ones: container, event, image, label, network, scope, type, volume",
        ),
        value("--format", "TEMPLATE", "`json`, or a Go template"),
        value("--since", "TIME", "Also show events since that time (RFC 3339, or 10m ago)"),
        value("--until", "TIME", "Exit at that time"),
    )


def stats_options() -> tuple[Option, ...]:
    """Every flag of `sysbox stats`."""
    return (
        switch("-a --all", "Show all containers, not only running ones"),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        value("--interval", "SECONDS", "Time between two readings; 1 by default"),
        switch("--no-stream", "Print once and exit"),
        switch("--no-trunc", "Do not truncate output"),
        value("--slice", "SLICE", "Show a slice, and the slices and scopes below it"),
    )


def inspect_options() -> tuple[Option, ...]:
    """Every flag of `sysbox inspect`."""
    return (
        value("-f --format", "TEMPLATE", "Format of the output: `json`, or a Go template"),
        switch("-s --size", "Also show the size of a container: SizeRw and SizeRootFs"),
        value(
            "--type",
            "TYPE",
            "Look only for this: container, image, network or volume",
            choices="container image network volume",
        ),
    )


def logs_options() -> tuple[Option, ...]:
    """Every flag of `sysbox logs`."""
    return (
        switch("-f --follow", "Follow new output until the container stops"),
        value("-n --tail", "LINES", "Show only the last LINES (or `all`)"),
        value(
            "--since", "TIME", "Only lines since a time (RFC 3339, seconds since 1970, or 10m ago)"
        ),
        value("--until", "TIME", "Only lines before a time"),
        switch("-t --timestamps", "Prefix each line with its time"),
        switch("--details", "Prefix each line with the labels and variables that --log-opt chose"),
    )


def attach_options() -> tuple[Option, ...]:
    """Every flag of `sysbox attach`."""
    return (
        value(
            "--detach-keys", "KEYS", "Keys that detach from the container; ctrl-p,ctrl-q by default"
        ),
        switch("--no-stdin", "Do not attach standard input"),
        switch("--sig-proxy", "Pass signals on; on by default, `=false` turns it off", on=True),
    )
