"""The verbs about unit files that declare containers, and their flags."""

from __future__ import annotations

from sysbox.cli.table.options import Option, Verb, switch, value


def unit_verbs() -> tuple[Verb, ...]:
    def verb(
        name: str, args: str, options: str, summary: str, module: str = "unit", also: str = ""
    ) -> Verb:
        return Verb(
            name=f"unit {name}", module=module, args=args, options=options, summary=summary,
            also=tuple(f"unit {one}" for one in also.split()),
        )  # fmt: skip

    return (
        verb(
            "check",
            "[FILE...]",
            "",
            "Say what is wrong with declarations, and which units they become",
        ),
        verb("print", "FILE...", "", "Print the unit files that declarations become"),
        verb("install", "FILE...", "unit install", "Write unit files that systemctl can enable"),
        verb(
            "uninstall",
            "UNIT...",
            "unit install",
            "Stop units, and remove their files",
            also="rm remove",
        ),
        verb("list", "", "format", "List the installed units", also="ls"),
        verb("cat", "UNIT...", "", "Print installed unit files"),
        verb(
            "generate",
            "CONTAINER...",
            "unit generate",
            "Print declarations that make containers again",
            "unit_generate",
        ),
    )


def system_unit_verbs() -> tuple[Verb, ...]:
    def verb(name: str, summary: str) -> Verb:
        return Verb(
            name=f"system {name}", module="system_units", args="", options="system units", local=True,
            summary=summary,
        )  # fmt: skip

    return (
        verb("install-units", "Put generator and units where systemd looks, after `pip install`"),
        verb("uninstall-units", "Remove what `system install-units` has written"),
        Verb(
            name="auto-update",
            module="auto_update",
            args="",
            options="auto-update",
            summary="Get newer images for declared containers, and go back where one does not start",
        ),
    )


def install_options() -> tuple[Option, ...]:
    return (switch("--force", "Replace or remove a file that was edited"),)


def generate_options() -> tuple[Option, ...]:
    return (
        value("-d --directory", "DIRECTORY", "Write the files into it, instead of standard output"),
        switch("--force", "Replace files that exist"),
    )


def system_options() -> tuple[Option, ...]:
    return (switch("--user", "For the containers of ordinary users: not there yet"),)


def auto_update_options() -> tuple[Option, ...]:
    from sysbox.cli.table.registries import authfile, tls_verify

    return (
        authfile(),
        switch("--dry-run", "Say what would be updated, and change nothing"),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("--rollback", "Go back to the old image where a new one does not start", on=True),
        tls_verify(),
    )
