"""The verbs about networks."""

from __future__ import annotations

from sysbox.cli.table.options import Verb


def network_verbs() -> tuple[Verb, ...]:
    """Those of `network`, and those of published ports."""

    def verb(name: str, args: str, options: str, summary: str, *also: str) -> Verb:
        return Verb(
            name=f"network {name}", module="network", args=args, options=options,
            also=tuple(f"network {one}" for one in also), summary=summary,
        )  # fmt: skip

    return (
        *_port_verbs(),
        verb("create", "NETWORK", "network create", "Make a network"),
        verb("ls", "", "network ls", "List networks", "list"),
        verb("inspect", "NETWORK...", "format", "Show everything about networks, as JSON"),
        verb("exists", "NETWORK", "", "Exit with 0 if a network exists, else with 1"),
        verb("rm", "NETWORK...", "network rm", "Remove networks", "remove"),
        Verb(
            name="network connect", module="network_connect", args="NETWORK CONTAINER",
            options="network connect", summary="Connect a container to a network, while it runs too",
        ),
        Verb(
            name="network disconnect", module="network_connect", args="NETWORK CONTAINER",
            options="network disconnect",
            summary="Disconnect a container from a network, while it runs too",
        ),
        verb("update", "NETWORK", "network update", "Change the labels or DNS servers of a network"),
        Verb(
            name="network explain", module="network_explain", args="CONTAINER [PORT]",
            summary="Show which rules meet the packets of a container, and what becomes of them",
        ),
        verb("reload", "", "", "Make the rules of the packet filter again, whatever has become of them"),
        Verb(
            name="network prune", module="prune", args="", options="prune",
            summary="Remove networks that no container is made for",
        ),
    )  # fmt: skip


def _port_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="publish", module="publish", args="CONTAINER PORT...", hot=True,
            summary="Publish more ports of a container, running or not",
        ),
        Verb(
            name="unpublish", module="publish", args="CONTAINER PORT...", hot=True,
            summary="Withdraw published ports of a container, running or not",
        ),
    )  # fmt: skip
