"""The flags of the verbs that talk to registries."""

from __future__ import annotations

from sysbox.cli.table.options import Option, switch, value


def authfile() -> Option:
    return value("--authfile", "FILE", "File of credentials, instead of the usual ones")


def creds() -> Option:
    return value(
        "--creds", "USER:PASSWORD", "Credentials, which other users of this host can see in ps"
    )


def cert_dir() -> Option:
    return value("--cert-dir", "DIR", "Certificates, instead of those of the host in certs.d")


def retry() -> Option:
    return value("--retry", "NUMBER", "Further attempts of a request that fails, 4 by default")


def tls_verify() -> Option:
    return switch(
        "--tls-verify", "Demand TLS and a certificate that is trusted; on by default", on=True
    )


def pull_options() -> tuple[Option, ...]:
    return (
        switch("-a --all-tags", "Pull every tag of the repository"),
        value("--arch", "ARCH", "Architecture to pull for, as in --platform"),
        authfile(),
        cert_dir(),
        creds(),
        switch("--disable-content-trust", "Accepted for docker's scripts: policy.json decides"),
        value("--os", "OS", "Operating system to pull for, as in --platform"),
        value("--platform", "OS/ARCH[/VARIANT]", "Platform to pull for, this machine's by default"),
        value(
            "--policy", "POLICY", "When to pull: always (the default), missing, newer, never",
            choices="always missing newer never",
        ),
        switch("-q --quiet", "Print the id alone"),
        retry(),
        tls_verify(),
        value("--variant", "VARIANT", "Variant of the architecture, as in --platform"),
    )  # fmt: skip


def push_options() -> tuple[Option, ...]:
    return (
        switch("-a --all-tags", "Push every tag that the repository has here"),
        authfile(),
        cert_dir(),
        creds(),
        value("--digestfile", "FILE", "Write the digest of the manifest to a file"),
        switch("--disable-content-trust", "Accepted for docker's scripts: changes nothing"),
        value(
            "-f --format",
            "FORM",
            "Fail unless the manifest is of this form: oci or v2s2",
            choices="oci v2s2",
        ),
        switch("-q --quiet", "Print the name alone"),
        retry(),
        value("--sign-by-sigstore-private-key", "FILE", "Sign with this key (PEM, PKCS #8)"),
        value("--sign-passphrase-file", "FILE", "Passphrase of that key"),
        tls_verify(),
    )


def login_options() -> tuple[Option, ...]:
    return (
        value("-u --username", "NAME", "User name"),
        value(
            "-p --password", "PASSWORD", "Password, which other users of this host can see in ps"
        ),
        switch("--password-stdin", "Read the password from standard input"),
        authfile(),
        cert_dir(),
        switch("--get-login", "Print the user name that the registry is logged in to with"),
        tls_verify(),
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
        cert_dir(),
        tls_verify(),
    )
