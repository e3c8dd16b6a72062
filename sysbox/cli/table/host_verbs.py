"""The verbs about the embedded host; their flags are in verbs.py."""

from __future__ import annotations

from sysbox.cli.table.options import Verb


def host_verbs() -> tuple[Verb, ...]:
    """Those of `host`."""

    def verb(name: str, summary: str, args: str = "") -> Verb:
        return Verb(
            name=f"host {name}", module="host", args=args, options=f"host {name}", hot=True,
            interspersed=False, local=True, passes_status=name in ("exec", "shell"), summary=summary,
        )  # fmt: skip

    return (
        verb("start", "Boot the embedded systemd host"),
        verb("ls", "List the embedded hosts"),
        verb("status", "Show whether the embedded host is up"),
        verb("exec", "Run a command on the embedded host", "COMMAND..."),
        verb("shell", "Open a shell on the embedded host"),
        verb("stop", "Stop the embedded host and its containers"),
    )
