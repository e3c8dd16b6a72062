"""The flags of `build` and `builder prune`."""

from __future__ import annotations

from sysbox.cli.table import registries
from sysbox.cli.table.container import limit_options
from sysbox.cli.table.options import Option, many, switch, value


def build_options() -> tuple[Option, ...]:
    return (*_file(), *_steps(), *_result(), *_registry(), *limit_options())


def _file() -> tuple[Option, ...]:
    return (
        many("--build-arg", "NAME[=VALUE]", "Value of an ARG; NAME alone takes the caller's variable"),
        many(
            "--build-context", "NAME=CONTEXT|NAME=docker-image://IMAGE",
            "A further context, or another image, for FROM, --from= and from=",
        ),
        value("-f --file", "FILE", "The Containerfile; - is standard input"),
        value("--ignorefile", "FILE", "The ignore file, instead of that of the context"),
        value("--platform", "OS/ARCH[/VARIANT]", "Platform to build for, this machine's by default"),
        value("--target", "STAGE", "Build this stage, by name or number; the last one by default"),
    )  # fmt: skip


def _steps() -> tuple[Option, ...]:
    return (
        many("--add-host", "NAME:IP", "Add a line to /etc/hosts of each RUN"),
        many(
            "--allow", "RIGHT", "Allow RUN to ask for it: network.host, security.insecure",
            choices="network.host security.insecure",
        ),
        many("--cap-add", "CAPABILITY", "Add a capability to each RUN, or ALL"),
        many("--cap-drop", "CAPABILITY", "Drop a capability, or ALL"),
        many("--dns", "ADDRESS", "DNS server, instead of those of the host"),
        many("--dns-option", "OPTION", "Option of /etc/resolv.conf in each RUN"),
        many("--dns-search", "DOMAIN", "Domain that names are looked up in, in each RUN"),
        many("--env", "NAME=VALUE", "As ENV at the beginning of each stage: the image has it too"),
        switch("--force-rm", "Accepted for docker's scripts: no container of a step stays"),
        many("--group-add", "GROUP", "Further group of each RUN"),
        switch("--keep-failed", "Leave the container of a step that fails, to look into it"),
        switch("--layers", "Accepted for podman's scripts: each step has a layer", on=True),
        value("--network", "NETWORK", "Network of each RUN: default, none, host, or a name"),
        switch("--no-cache", "Take no step from the cache"),
        many("--secret", "id=NAME[,src=FILE|,env=VARIABLE]", "A secret for RUN --mount=type=secret"),
        many("--security-opt", "OPTION", "Security option of each RUN, as that of `run`"),
        value("--shm-size", "SIZE", "Size of /dev/shm in each RUN; 64m by default"),
        many("--ssh", "default|NAME[=SOCKET]", "An ssh agent for RUN --mount=type=ssh"),
        many("-v --volume", "HOST:PATH[:OPTIONS]", "Mount a directory of the host in each RUN"),
        value("--userns", "MODE", "User namespace of each RUN: auto, host", choices="auto host"),
    )  # fmt: skip


def _result() -> tuple[Option, ...]:
    return (
        many("--annotation", "KEY=VALUE", "Annotation of the image's manifest"),
        value("--builder", "NAME", "Accepted for docker's scripts: there is one"),
        many("--cache-from", "CACHE", "Ignored, with a line: the cache is this host's own"),
        switch("--compress", "Accepted for docker's scripts: a context is not sent anywhere"),
        value("--format", "FORM", "Form of the manifest: oci (the default), docker", choices="oci docker"),
        value("--iidfile", "FILE", "Write the image's id to a file"),
        many("--label", "KEY=VALUE", "Label of the image"),
        switch("--load", "The image is kept here, whatever --output says"),
        value("--metadata-file", "FILE", "Write the image's id, digest and names to a file, as JSON"),
        many(
            "-o --output", "DEST|type=TYPE,dest=PATH",
            "What is made: type=image (the default), registry, local, tar, oci, docker, cacheonly",
        ),
        value(
            "--progress", "KIND", "How it is shown: auto, tty, plain, quiet",
            choices="auto tty plain quiet",
        ),
        value("--provenance", "false", "Accepted as false: no attestations are made", bare="true"),
        switch("--push", "Push the image under each of its names"),
        switch("-q --quiet", "Print the image's id alone"),
        switch("--rm", "Accepted for docker's scripts: no container of a step stays", on=True),
        value("--sbom", "false", "Accepted as false: no attestations are made", bare="true"),
        switch("--squash", "Make one layer of those of the build"),
        many("-t --tag", "NAME[:TAG]", "Name of the image"),
    )  # fmt: skip


def _registry() -> tuple[Option, ...]:
    return (
        registries.authfile(),
        registries.cert_dir(),
        registries.creds(),
        value(
            "--pull", "POLICY",
            "When to pull images: missing (the default), always (that of a bare --pull), newer, never",
            choices="missing always newer never", bare="always",
        ),
        registries.retry(),
        registries.tls_verify(),
    )  # fmt: skip


def prune_options() -> tuple[Option, ...]:
    """Every flag of `sysbox builder prune`."""
    return (
        switch("-a --all", "Remove all of it, not only what no image has"),
        many("--filter", "until=TIME", "Remove only what was not used since then"),
        switch("-f --force", "Do not ask"),
        value("--keep-storage", "SIZE", "Leave so much, of what was used last"),
    )
