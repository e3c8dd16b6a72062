"""The flags of `wait`, `prune` and the verbs about images, files and volumes."""

from __future__ import annotations

from sysbox.cli.table.options import Option, many, switch, value


def cp_options() -> tuple[Option, ...]:
    return (
        switch("-a --archive", "Keep owners, set-user-ID bits and capabilities"),
        switch("-L --follow-link", "Follow a symbolic link given as the source"),
        switch("-q --quiet", "Print nothing on success"),
    )


def commit_options() -> tuple[Option, ...]:
    return (
        value("-a --author", "NAME", "Author: \"Name <mail@example.org>\""),
        many("-c --change", "INSTRUCTION", "Set image configuration: CMD, ENTRYPOINT, ENV, WORKDIR, ..."),
        value("-m --message", "TEXT", "A comment for the image's history"),
        switch("-p --pause", "Pause the container during the commit; on by default", on=True),
        switch("--no-pause", "Do not pause the container"),
    )  # fmt: skip


def export_options() -> tuple[Option, ...]:
    return (value("-o --output", "FILE", "Write to a file instead of standard output"),)


def wait_options() -> tuple[Option, ...]:
    return (
        value(
            "--condition",
            "CONDITION",
            "Condition to wait for: not-running (the default), next-exit, removed",
            choices="not-running next-exit removed",
        ),
    )


def _force() -> Option:
    return switch("-f --force", "Do not ask for confirmation")


def prune_options() -> tuple[Option, ...]:
    """Every flag of `sysbox container prune`."""
    return (_force(), _filter())


def image_prune_options() -> tuple[Option, ...]:
    return (
        switch("-a --all", "All images that no container uses, not only untagged ones"),
        *prune_options(),
    )


def volume_prune_options() -> tuple[Option, ...]:
    return (
        switch("-a --all", "Named volumes too, not only anonymous ones"),
        _force(),
        many("--filter", "KEY=VALUE", "Only matching ones: label, label!"),
    )


def system_df_options() -> tuple[Option, ...]:
    return (
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("-v --verbose", "Show each image, container and volume"),
    )


def system_prune_options() -> tuple[Option, ...]:
    return (
        switch("-a --all", "All images that no container uses, not only untagged ones"),
        switch("--volumes", "Also remove anonymous volumes that no container uses"),
        *prune_options(),
    )


def _filter() -> Option:
    return many("--filter", "KEY=VALUE", "Only matching ones: until, label, label!")


def volume_create_options() -> tuple[Option, ...]:
    return (
        value("-d --driver", "NAME", "Driver; `local` is the only one", choices="local"),
        switch("--ignore", "Succeed if it exists, whatever its options"),
        many("--label", "KEY=VALUE", "Attach a label"),
        many(
            "-o --opt",
            "KEY=VALUE",
            "Option: type=none|tmpfs, device=PATH, o=bind,ro,uid=,gid=,size=..., nocopy",
        ),
    )


def volume_ls_options() -> tuple[Option, ...]:
    return (
        many("-f --filter", "KEY=VALUE", "Only matching ones: dangling, name, label, driver"),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("-q --quiet", "Print names only"),
    )


def volume_rm_options() -> tuple[Option, ...]:
    return (switch("-f --force", "Ignore missing ones"),)


def images_options() -> tuple[Option, ...]:
    return (
        switch("-a --all", "No effect: every image is always shown"),
        switch("--digests", "Show the manifests' digests"),
        many(
            "-f --filter",
            "KEY=VALUE",
            "Only matching ones: reference, label, label!, dangling, before, since, until, id, digest, "
            "containers",
        ),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("--no-trunc", "Do not truncate output"),
        switch("-q --quiet", "Print ids only"),
    )


def save_options() -> tuple[Option, ...]:
    return (
        value(
            "--format",
            "FORMAT",
            "docker-archive (the default), oci-archive, oci-dir, docker-dir",
            choices="docker-archive oci-archive oci-dir docker-dir",
        ),
        value("-o --output", "FILE", "Write to a file or directory instead of standard output"),
        switch("-q --quiet", "Show no progress"),
    )


def load_options() -> tuple[Option, ...]:
    return (
        value("-i --input", "FILE", "Read a file or directory instead of standard input"),
        value(
            "--platform",
            "OS/ARCH[/VARIANT]",
            "Of an index, the image for this platform; this machine's by default",
        ),
        switch("-q --quiet", "Show no progress"),
    )


def history_options() -> tuple[Option, ...]:
    return (
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("-H --human", "Sizes and times in words; on by default", on=True),
        switch("--no-trunc", "Do not truncate output"),
        switch("-q --quiet", "Print ids only"),
    )


def image_tree_options() -> tuple[Option, ...]:
    return (switch("--whatrequires", "Show what is built on the image instead of its own layers"),)


def import_options() -> tuple[Option, ...]:
    return (
        many(
            "-c --change",
            "INSTRUCTION",
            "Set image configuration: CMD, ENTRYPOINT, ENV, WORKDIR, ...",
        ),
        value("-m --message", "TEXT", "A comment for the image's history"),
    )


def bootstrap_options() -> tuple[Option, ...]:
    return (
        value("--mirror", "URL", "Mirror to fetch packages from"),
        many("--include", "PACKAGE[,PACKAGE...]", "Install further packages"),
        value(
            "--variant", "VARIANT", "mmdebstrap's variant: minbase, apt, essential, important, ..."
        ),
        value(
            "-t --tag",
            "NAME",
            "Name of the image; NAME by default",
            hidden="--name",
        ),
    )
