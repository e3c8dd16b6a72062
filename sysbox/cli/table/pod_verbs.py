"""The verbs about pods, and their flags, with podman's meaning."""

from __future__ import annotations

from sysbox.cli.table.options import Option, Verb, many, switch, value

HAVE_OPTIONS = (
    "create", "start", "stop", "kill", "rm", "ps", "stats", "pause", "unpause", "restart", "logs", "prune",
)  # fmt: skip
# what `create` has for a container and a pod has too; limits that are no property of a slice are not there
_OF_CONTAINER = frozenset(
    """--add-host --blkio-weight --blkio-weight-device --cgroup-parent --cpu-period --cpu-quota --cpu-shares
       --cpus --cpuset-cpus --cpuset-mems --device-read-bps --device-read-iops --device-write-bps
       --device-write-iops --dns --dns-option --dns-search --domainname --gidmap --hostname --ip --ip6 --label
       --label-file --mac-address --memory --memory-high --memory-min --memory-reservation --memory-swap
       --mount --name --network --network-alias --pids-limit --property --publish --shm-size --slice
       --subgidname --subuidname --sysctl --tmpfs --uidmap --userns --volume""".split()
)
_HELP = {
    "--cgroup-parent": "docker's name for --slice; takes the full name of a slice",
    "--hostname": "Host name; the pod's name by default",
    "--label": "Attach a label to the pod",
    "--name": "Name of the pod",
    "--property": "Set a property of the pod's slice (systemd.resource-control(5))",
    "--slice": "Put the pod's slice below this slice; sysbox.slice by default",
    "--mount": "Mount a file system in each container",
    "--tmpfs": "Mount a tmpfs in each container",
    "--volume": "Bind mount a path, or mount a volume, in each container",
}


def pod_verbs() -> tuple[Verb, ...]:
    """Those of `pod`."""

    def verb(name: str, args: str, options: str, summary: str, *also: str) -> Verb:
        return Verb(
            name=f"pod {name}", module="pod", args=args, options=options, hot=True,
            also=tuple(f"pod {one}" for one in also), summary=summary,
        )  # fmt: skip

    return (
        verb(
            "create",
            "[POD_NAME]",
            "pod create",
            "Make a pod: containers with one network and limits",
        ),
        verb("start", "[POD...]", "pod start", "Bring pods up, and start their containers"),
        verb("stop", "[POD...]", "pod stop", "Stop the containers of pods, and take the pods down"),
        verb("kill", "[POD...]", "pod kill", "Send a signal to the containers of pods"),
        verb("rm", "[POD...]", "pod rm", "Remove pods with their containers", "remove"),
        verb("pause", "[POD...]", "pod pause", "Freeze the containers of pods"),
        verb("unpause", "[POD...]", "pod unpause", "Thaw the containers of pods"),
        verb(
            "restart", "[POD...]", "pod restart", "Stop the containers of pods and start them again"
        ),
        verb("exists", "POD", "", "Exit with 0 if a pod exists, else with 1"),
        *_looking(),
    )


def _looking() -> tuple[Verb, ...]:
    return (
        Verb(
            name="pod logs", module="pod_logs", args="POD", options="pod logs",
            summary="Show the output of the containers of a pod",
        ),
        Verb(
            name="pod prune", module="pod_prune", args="", options="pod prune",
            summary="Remove pods that are down and in which a container has run",
        ),
        Verb(
            name="pod ps", module="pod_look", args="", options="pod ps", hot=True,
            also=("pod ls", "pod list"), summary="List pods",
        ),
        Verb(
            name="pod inspect", module="pod_look", args="POD...", options="format", hot=True,
            summary="Show everything about pods, as JSON",
        ),
        Verb(
            name="pod stats", module="stats", args="[POD...]", options="pod stats", hot=True,
            summary="Show the resource usage of pods and their containers, live",
        ),
        Verb(
            name="pod top", module="top", args="POD [PS_OPTION...]", hot=True,
            interspersed=False, summary="Show the processes of a pod",
        ),
    )  # fmt: skip


def create_options() -> tuple[Option, ...]:
    """Those of `pod create`."""
    from sysbox.cli.table import container  # this module is loaded with every verb

    known = {one.names[-1]: one for one in container.create_options()}
    taken = [
        one.replace(help=_HELP.get(name, one.help))
        for name, one in known.items()
        if name in _OF_CONTAINER
    ]
    return (
        *taken,
        value(
            "--exit-policy", "POLICY", "When its last container ends: continue (the default), or stop",
            choices="continue stop",
        ),
        switch("--infra", "Accepted for podman's scripts: no pod needs a process", on=True),
        value("--pod-id-file", "FILE", "Write the pod's id to a file"),
        switch("--replace", "Remove a pod of this name first, with its containers"),
        value(
            "--share", "KINDS", "Namespaces that its containers share: net,ipc,uts (the default), or none",
            choices="net ipc uts none",
        ),
    )  # fmt: skip


def _all(what: str) -> Option:
    return switch("-a --all", f"{what} all pods")


def start_options() -> tuple[Option, ...]:
    return (_all("Start"),)


def stop_options() -> tuple[Option, ...]:
    return (
        _all("Stop"),
        switch("-i --ignore", "Ignore pods that do not exist"),
        value("-t --time", "SECONDS", "Time to wait before SIGKILL; that of each container by default"),
    )  # fmt: skip


def kill_options() -> tuple[Option, ...]:
    return (_all("Signal"), value("-s --signal", "SIGNAL", "Signal to send; SIGKILL by default"))


def pause_options() -> tuple[Option, ...]:
    return (_all("Freeze"),)


def unpause_options() -> tuple[Option, ...]:
    return (_all("Thaw"),)


def restart_options() -> tuple[Option, ...]:
    return (_all("Restart"),)


def logs_options() -> tuple[Option, ...]:
    from sysbox.cli.table import looking  # this module is loaded with every verb

    return (
        value("-c --container", "CONTAINER", "Only the output of this container"),
        switch("--names", "Begin each line with the container's name, not its id"),
        *(one for one in looking.logs_options() if one.names[-1] != "--details"),
    )


def prune_options() -> tuple[Option, ...]:
    return (switch("-f --force", "Do not ask for confirmation"),)


def rm_options() -> tuple[Option, ...]:
    return (
        _all("Remove"),
        switch("-f --force", "Remove running containers too"),
        switch("-i --ignore", "Ignore pods that do not exist"),
        value("-t --time", "SECONDS", "With --force: time to stop before SIGKILL; 0 by default"),
    )


def ps_options() -> tuple[Option, ...]:
    return (
        many("-f --filter", "KEY=VALUE", "Only matching ones: id, label, name, network, status"),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        switch("--no-trunc", "Do not truncate ids"),
        switch("-q --quiet", "Print ids only"),
    )


def stats_options() -> tuple[Option, ...]:
    return (
        _all("Show"),
        value("--format", "TEMPLATE", "`json`, `table TEMPLATE`, or a Go template"),
        value("--interval", "SECONDS", "Time between two readings; 1 by default"),
        switch("--no-stream", "Print once and exit"),
        switch("--no-trunc", "Do not truncate output"),
    )
