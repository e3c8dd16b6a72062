"""The flags of `trust show` and `trust set`."""

from __future__ import annotations

from sysbox.cli.table.options import Option, many, switch, value


def show_options() -> tuple[Option, ...]:
    return (
        switch("--raw", "The file policy.json as it is"),
        value("-f --format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
    )


def set_options() -> tuple[Option, ...]:
    return (
        many(
            "-f --pubkeysfile", "FILE", "Public key; an image must be signed by each that is given"
        ),
        value(
            "-t --type",
            "TYPE",
            "accept, reject, signedBy (OpenPGP keys; the default) or sigstoreSigned",
            choices="accept reject signedBy sigstoreSigned",
        ),
    )
