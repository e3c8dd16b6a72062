"""The option table: every verb, every flag, once.

The hot argv parser, click's commands, the help, the completion and the man pages are all made from this
module and those beside it.
"""

from __future__ import annotations

from sysbox.cli.table import pod_verbs
from sysbox.cli.table.host_verbs import host_verbs
from sysbox.cli.table.image_verbs import image_verbs
from sysbox.cli.table.network_verbs import network_verbs
from sysbox.cli.table.options import Option, Verb, switch, value
from sysbox.cli.table.secret_verbs import secret_verbs
from sysbox.cli.table.unit_verbs import system_unit_verbs, unit_verbs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


def _container_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="run", module="run", args="IMAGE [COMMAND...]", options="run", hot=True,
            interspersed=False, passes_status=True, starts=True,
            summary="Create a container and run a command in it",
        ),
        Verb(
            name="create", module="create", args="IMAGE [COMMAND...]", options="create", hot=True,
            interspersed=False, passes_status=True, summary="Create a container without starting it",
        ),
        Verb(
            name="start", module="start", args="CONTAINER...", options="start", hot=True, starts=True,
            summary="Start created or stopped containers",
        ),
        Verb(
            name="stop", module="stop", args="[CONTAINER...]", options="stop", hot=True,
            summary="Stop running containers gracefully",
        ),
        Verb(
            name="kill", module="kill", args="[CONTAINER...]", options="kill", hot=True,
            summary="Send a signal to a container's first process",
        ),
        Verb(
            name="restart", module="restart", args="CONTAINER...", options="restart", hot=True,
            summary="Stop containers and start them again",
        ),
        Verb(
            name="update", module="update", args="CONTAINER...", options="update", hot=True,
            summary="Change the limits or the restart policy of containers, running or not",
        ),
        Verb(
            name="rm", module="rm", args="[CONTAINER...]", options="rm", hot=True,
            also=("container remove",), summary="Remove containers",
        ),
    )  # fmt: skip


def _freezer_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="pause", module="pause", args="CONTAINER...", hot=True,
            summary="Freeze all processes of containers",
        ),
        Verb(
            name="unpause", module="unpause", args="CONTAINER...", hot=True,
            summary="Thaw paused containers",
        ),
    )  # fmt: skip


def _looking_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="ps", module="ps", args="", options="ps", hot=True,
            also=("container ls", "container list"), summary="List containers",
        ),
        Verb(
            name="inspect", module="inspect", args="NAME...", options="inspect", hot=True,
            summary="Show everything about containers, images, networks or volumes, as JSON",
        ),
        Verb(
            name="explain", module="explain", args="CONTAINER [LIMIT]", options="format",
            summary="Show, for each limit, what was requested and what the kernel enforces",
        ),
        Verb(
            name="exec", module="exec", args="CONTAINER COMMAND...", options="exec", hot=True,
            interspersed=False, passes_status=True, summary="Run a command in a running container",
        ),
        Verb(
            name="attach", module="attach", args="CONTAINER", options="attach", hot=True,
            summary="Attach this terminal to a running container",
        ),
        Verb(
            name="logs", module="logs", args="CONTAINER", options="logs", hot=True,
            summary="Show the output of a container",
        ),
        Verb(
            name="wait", module="wait", args="CONTAINER...", options="wait", hot=True,
            summary="Wait until containers stop, then print their exit statuses",
        ),
        Verb(
            name="port", module="port", args="CONTAINER [PORT]", hot=True,
            summary="List the published ports of a container",
        ),
        Verb(
            name="rename", module="rename", args="CONTAINER NAME", hot=True,
            summary="Rename a container",
        ),
    )  # fmt: skip


def _usage_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="stats", module="stats", args="[CONTAINER...]", options="stats", hot=True,
            summary="Show the resource usage of containers, live",
        ),
        Verb(
            name="top", module="top", args="CONTAINER [PS_OPTION...]", hot=True,
            interspersed=False, summary="Show the processes of a container",
        ),
    )  # fmt: skip


def _file_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="cp", module="cp", args="SOURCE DESTINATION", options="cp",
            summary="Copy files into, out of and between containers (CONTAINER:PATH; - is a tar stream)",
        ),
        Verb(
            name="diff", module="diff", args="CONTAINER",
            summary="List the files that a container added, changed and deleted",
        ),
        Verb(
            name="commit", module="commit", args="CONTAINER [NAME]", options="commit",
            summary="Make an image from the changes of a container",
        ),
        Verb(
            name="export", module="export", args="CONTAINER", options="export",
            summary="Write a container's root file system as a tar archive",
        ),
        Verb(
            name="container exists", module="container_exists", args="CONTAINER",
            summary="Exit with 0 if a container exists, else with 1",
        ),
        Verb(
            name="container prune", module="prune", args="", options="prune",
            summary="Remove all containers that are not running",
        ),
    )  # fmt: skip


def _volume_verbs() -> tuple[Verb, ...]:
    def verb(name: str, args: str, options: str, summary: str, *also: str) -> Verb:
        return Verb(
            name=f"volume {name}", module="volume", args=args, options=options,
            also=tuple(f"volume {one}" for one in also), summary=summary,
        )  # fmt: skip

    return (
        verb("create", "[VOLUME]", "volume create", "Make a volume"),
        verb("ls", "", "volume ls", "List volumes", "list"),
        verb("inspect", "VOLUME...", "format", "Show everything about volumes, as JSON"),
        verb("exists", "VOLUME", "", "Exit with 0 if a volume exists, else with 1"),
        verb("rm", "VOLUME...", "volume rm", "Remove volumes", "remove"),
        Verb(
            name="volume prune", module="prune", args="", options="volume prune",
            summary="Remove volumes that no container uses",
        ),
    )  # fmt: skip


def _system_verbs() -> tuple[Verb, ...]:
    return (
        Verb(
            name="gc", module="gc", args="", also=("system gc",), hot=True,
            summary="Clean up after a crash",
        ),
        Verb(
            name="system df", module="system_df", args="", options="system df",
            summary="Show what images, containers and volumes take on disk",
        ),
        Verb(
            name="system prune", module="prune", args="", options="system prune",
            summary="Remove what nothing uses: ended containers, images, networks, cached steps of builds",
        ),
        Verb(
            name="events", module="events", args="", options="events", also=("system events",),
            summary="Show events of containers, images, networks and the like as they happen",
        ),
        Verb(
            name="info", module="info", args="", options="format", also=("system info",),
            summary="Show information about this host and sysbox",
        ),
        Verb(
            name="doctor", module="doctor", args="", options="format", also=("system doctor",),
            local=True, summary="Show what this host supports, what it does not, and why",
        ),
        Verb(
            name="version", module="version", args="", options="format", local=True, hot=True,
            summary="Show the version",
        ),
        Verb(
            name="help", module="help_", args="[WORD...]", local=True, interspersed=False,
            summary="Show how a verb is used",
        ),
        Verb(
            name="completion", module="completion", args="SHELL", local=True,
            summary="Print the completion script for bash, zsh or fish",
        ),
    )  # fmt: skip


GROUPS = {
    "container": "Manage containers",
    "image": "Manage images",
    "builder": "Build images, and manage the build cache",
    "manifest": "Look at manifests in registries",
    "image trust": "Manage which images this machine accepts",
    "trust": "Manage which images this machine accepts",
    "volume": "Manage volumes",
    "network": "Manage networks",
    "secret": "Manage secrets",
    "pod": "Manage pods: containers that share a network and limits",
    "unit": "Manage containers that unit files declare",
    "host": "Manage the embedded host, for machines whose PID 1 is not systemd",
    "system": "Manage sysbox itself",
}


def _index(verbs: tuple[Verb, ...], group: str) -> dict[str, Verb]:
    table = {}
    for verb in verbs:
        table[verb.name] = verb
        for spelling in verb.also:
            table[spelling] = verb
        if group and " " not in verb.name:
            table[f"{group} {verb.name}"] = verb
    return table


# every accepted spelling -> its verb
VERBS: dict[str, Verb] = {
    **_index(_container_verbs(), "container"),
    **_index(_freezer_verbs(), "container"),
    **_index(_looking_verbs(), "container"),
    **_index(_usage_verbs(), "container"),
    **_index(_file_verbs(), "container"),
    **_index(image_verbs(), ""),
    **_index(_volume_verbs(), ""),
    **_index(network_verbs(), ""),
    **_index(secret_verbs(), ""),
    **_index(pod_verbs.pod_verbs(), ""),
    **_index(unit_verbs(), ""),
    **_index(system_unit_verbs(), ""),
    **_index(_system_verbs(), ""),
    **_index(host_verbs(), ""),
}


def _format(what: str) -> Option:
    return value("-f --format", "TEMPLATE", f"{what}: `json`, or a Go template")


def _start() -> tuple[Option, ...]:
    return (
        switch("-a --attach", "Attach to the container's output and forward signals"),
        switch("-i --interactive", "Attach standard input"),
    )


def _rmi() -> tuple[Option, ...]:
    return (
        switch(
            "-f --force", "Remove images that are used or have other names; ignore missing ones"
        ),
    )


def _host(*more: Option) -> tuple[Option, ...]:
    text = "Name of the embedded host; by default the one in SYSBOX_HOST, else `default`"
    return (value("--name", "NAME", text), *more)


def _host_stop() -> tuple[Option, ...]:
    return _host(
        value("--timeout", "SECONDS", "Time for the host's units to stop; 60 by default"),
        switch("--purge", "Also remove the host's state"),
    )


def _lazily(module: str, verb: str) -> Callable[[], tuple[Option, ...]]:
    """A function that imports `cli/table/MODULE.py` and calls its `VERB_options`."""

    def options() -> tuple[Option, ...]:
        table = __import__(f"sysbox.cli.table.{module}", None, None, ["*"])
        found: tuple[Option, ...] = getattr(table, f"{verb}_options")()
        return found

    return options


OPTIONS: dict[str, Callable[[], tuple[Option, ...]]] = {
    "": tuple,
    "run": _lazily("container", "run"),
    "create": _lazily("container", "create"),
    "exec": _lazily("container", "exec"),
    "update": _lazily("container", "update"),
    "start": _start,
    "stop": _lazily("stopping", "stop"),
    "kill": _lazily("stopping", "kill"),
    "restart": _lazily("stopping", "restart"),
    "rm": _lazily("stopping", "rm"),
    "ps": _lazily("looking", "ps"),
    "attach": _lazily("looking", "attach"),
    "events": _lazily("looking", "events"),
    "stats": _lazily("looking", "stats"),
    "inspect": _lazily("looking", "inspect"),
    "logs": _lazily("looking", "logs"),
    "images": _lazily("files", "images"),
    "build": _lazily("build", "build"),
    "builder prune": _lazily("build", "prune"),
    "rmi": _rmi,
    "save": _lazily("files", "save"),
    "load": _lazily("files", "load"),
    "history": _lazily("files", "history"),
    "image tree": _lazily("files", "image_tree"),
    "import": _lazily("files", "import"),
    "bootstrap": _lazily("files", "bootstrap"),
    "login": _lazily("registries", "login"),
    "pull": _lazily("registries", "pull"),
    "push": _lazily("registries", "push"),
    "logout": _lazily("registries", "logout"),
    "manifest inspect": _lazily("registries", "manifest_inspect"),
    "host start": lambda: _host(
        switch("--private-network", "Give it its own network instead of the machine's")
    ),
    "host ls": lambda: (),
    "host status": _host,
    "host exec": _host,
    "host shell": _host,
    "host stop": _host_stop,
    "format": lambda: (_format("Format of the output"),),
    "cp": _lazily("files", "cp"),
    "commit": _lazily("files", "commit"),
    "export": _lazily("files", "export"),
    "wait": _lazily("files", "wait"),
    "prune": _lazily("files", "prune"),
    "image prune": _lazily("files", "image_prune"),
    "volume prune": _lazily("files", "volume_prune"),
    "system df": _lazily("files", "system_df"),
    "system prune": _lazily("files", "system_prune"),
    "trust show": _lazily("trust", "show"),
    "trust set": _lazily("trust", "set"),
    "network connect": _lazily("networks", "connect"),
    "network disconnect": _lazily("networks", "disconnect"),
    "network update": _lazily("networks", "update"),
    **{f"secret {one}": _lazily("secret_verbs", one) for one in ("create", "ls", "rm")},
    "unit install": _lazily("unit_verbs", "install"),
    "unit generate": _lazily("unit_verbs", "generate"),
    "auto-update": _lazily("unit_verbs", "auto_update"),
    **{f"pod {one}": _lazily("pod_verbs", one) for one in pod_verbs.HAVE_OPTIONS},
    "system units": _lazily("unit_verbs", "system"),
    "network create": _lazily("networks", "create"),
    "network ls": _lazily("networks", "ls"),
    "network rm": _lazily("networks", "rm"),
    **{f"volume {one}": _lazily("files", f"volume_{one}") for one in ("create", "ls", "rm")},
}


def options_of(verb: Verb) -> tuple[Option, ...]:
    """The flags of a verb, in the order of its help."""
    return OPTIONS[verb.options]()
