"""The verbs about secrets, and their flags."""

from __future__ import annotations

from sysbox.cli.table.options import Option, Verb, many, switch, value


def secret_verbs() -> tuple[Verb, ...]:
    def verb(name: str, args: str, options: str, summary: str, *also: str) -> Verb:
        return Verb(
            name=f"secret {name}", module="secret", args=args, options=options,
            also=tuple(f"secret {one}" for one in also), summary=summary,
        )  # fmt: skip

    return (
        verb("create", "SECRET FILE", "secret create", "Keep a value for containers; - is standard input"),
        verb("ls", "", "secret ls", "List secrets", "list"),
        verb("inspect", "SECRET...", "format", "Show what is known of secrets, but for their values"),
        verb("exists", "SECRET", "", "Exit with 0 if a secret exists, else with 1"),
        verb("rm", "[SECRET...]", "secret rm", "Remove secrets", "remove"),
    )  # fmt: skip


def create_options() -> tuple[Option, ...]:
    return (
        switch("--env", "FILE is the name of an environment variable that has the value"),
        many("-l --label", "KEY[=VALUE]", "Attach a label"),
        switch("--replace", "Replace the value of the secret that has this name"),
    )


def ls_options() -> tuple[Option, ...]:
    return (
        many("-f --filter", "KEY=VALUE", "Only matching ones: id, label, name"),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("-q --quiet", "Print ids only"),
    )


def rm_options() -> tuple[Option, ...]:
    return (
        switch("-a --all", "Remove all secrets that no container has"),
        switch("-i --ignore", "Ignore missing ones"),
    )
