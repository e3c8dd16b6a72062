"""The flags of the verbs that talk to registries."""

from __future__ import annotations

from sysbox.cli.table.options import Option, switch, value


def authfile() -> Option:
    return value("--authfile", "FILE", "File of credentials, instead of the usual ones")


def login_options() -> tuple[Option, ...]:
    return (
        value("-u --username", "NAME", "User name"),
        value(
            "-p --password", "PASSWORD", "Password, which other users of this host can see in ps"
        ),
        switch("--password-stdin", "Read the password from standard input"),
        authfile(),
        switch("--get-login", "Print the user name that the registry is logged in to with"),
        switch(
            "--tls-verify", "Demand TLS and a certificate that is trusted; on by default", on=True
        ),
    )


def logout_options() -> tuple[Option, ...]:
    return (
        switch("-a --all", "Remove the credentials of all registries"),
        authfile(),
    )


def manifest_inspect_options() -> tuple[Option, ...]:
    return (
        switch("--insecure", "Accept plain HTTP and certificates that are not trusted"),
        authfile(),
    )
