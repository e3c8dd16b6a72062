"""The same containers, made by docker or by sysbox, and what either says of them: keys, templates, filters.

`tools/docker-keys.sh` writes what docker says to tests/docker/api-1.41; test_docker_keys.py compares.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "docker" / "api-1.41"
IMAGE = "lookalike:1"
PATIENCE = 60.0  # seconds for a health check

Tree = dict[str, str]  # path -> types of JSON, sorted, with "|" between
Trees = dict[str, Tree]  # by kind
Command = Callable[..., tuple[int, str]]  # words -> (exit status, standard output)

# name -> (verb, flags, command); in this order
KINDS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "plain": ("run", ("-d",), ("sleep", "1000")),
    "rich": (
        "run",
        (
            "-d", "--init", "--hostname", "h1", "-e", "A=b", "-w", "/tmp", "-u", "0:0", "-l", "k=v",
            "--group-add", "1000", "-v", "look-volume:/data", "-v", "/usr:/host:ro", "-v", "/anonymous",
            "--mount", "type=bind,src=/usr,dst=/mounted,readonly",
            "--tmpfs", "/scratch:size=1m", "-m", "64m", "--memory-swap", "128m", "-c", "512",
            "--cpuset-cpus", "0", "--pids-limit", "50", "--cap-add", "NET_ADMIN", "--cap-drop", "MKNOD",
            "--ulimit", "nofile=100:200", "--sysctl", "net.ipv4.ip_forward=1",
            "--add-host", "foo:10.1.1.1", "--device", "/dev/null:/dev/mynull:r",
            "-p", "18080:80", "-p", "127.0.0.1:19000:90/udp",
            "--log-driver", "json-file", "--log-opt", "max-size=1m", "--log-opt", "max-file=2",
            "--restart", "on-failure:3", "--stop-signal", "SIGINT", "--stop-timeout", "3",
            "--security-opt", "no-new-privileges", "--shm-size", "32m",
            "--health-cmd", "true", "--health-interval", "1s", "--read-only",
            "--device-cgroup-rule", "c 1:3 rwm",
        ),
        ("sleep", "1000"),
    ),
    "made": ("create", (), ("true",)),
    "gone": ("run", (), ("sh", "-c", "exit 3")),
    "nonet": ("run", ("-d", "--network", "none"), ("sleep", "1000")),
    "shared": (
        "run",
        ("-d", "--network", "host", "--pid", "host", "--ipc", "host", "--uts", "host"),
        ("sleep", "1000"),
    ),
    "joined": ("run", ("-d", "--network", "container:plain"), ("sleep", "1000")),
    "term": ("run", ("-dit", "--rm", "--entrypoint", "sleep"), ("1000",)),
}  # fmt: skip
# below these a key is a name that somebody gave
MAPS = re.compile(
    r"\.(ExposedPorts|Volumes|Labels|PortBindings|Sysctls|Tmpfs|LogConfig\.Config|Ports|Networks|Runtimes"
    r"|IndexConfigs|Attributes|Options|Details)$"
)

# of the container `plain`: what scripts ask
TEMPLATES = (
    "{{if .State.Health}}some{{else}}none{{end}}", "{{json .State.Health}}", "{{.State.Health}}",
    "{{.State.Status}} {{.State.Running}}", "{{.Name}}", "{{.Config.Labels.missing}}",
    '{{index .Config.Labels "missing"}}', "{{.Config.Labels}}", "{{json .Config.Labels}}",
    "{{.HostConfig.Links}}", "{{json .HostConfig.Links}}", "{{.HostConfig.PublishAllPorts}}",
    "{{.HostConfig.Binds}}", "{{len .HostConfig.CapAdd}}", "{{range .HostConfig.Ulimits}}x{{end}}",
    "{{.HostConfig.Init}}", "{{.HostConfig.VolumesFrom}}",     "{{.HostConfig.DNS}}",
    "{{.HostConfig.CPUShares}} {{.HostConfig.NanoCPUs}}",
    "{{.HostConfig.PortBindings}}", "{{.HostConfig.RestartPolicy.Name}}", "{{.HostConfig.Sysctls}}",
    "{{.HostConfig.Tmpfs}}", "{{json .HostConfig.Devices}}", "{{.HostConfig.OomScoreAdj}}",
    "{{.HostConfig.ShmSize}}", "{{.HostConfig.ConsoleSize}}", "{{.HostConfig.Mounts}}",
    "{{len .NetworkSettings.SandboxID}}", "{{.NetworkSettings.Ports}}", "{{.NetworkSettings.HairpinMode}}",
    "{{.NetworkSettings.Networks.bridge.IPPrefixLen}}",
    "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}}{{end}}",
    "{{len .NetworkSettings.Networks.bridge.NetworkID}}", "{{.NetworkSettings.Networks.bridge.Links}}",
    "{{json .NetworkSettings.SecondaryIPAddresses}}", "{{.Config.ExposedPorts}}", "{{.Config.Healthcheck}}",
    "{{.Config.OnBuild}}", "{{.Config.Volumes}}", "{{.Config.Cmd}}", "{{.Config.Entrypoint}}",
    "{{.Config.Domainname}}", "{{.Config.Shell}}", "{{.Mounts}}", "{{json .Mounts}}", "{{.SizeRw}}",
    "{{.ExecIDs}}", "{{.RestartCount}}", "{{.Platform}}", )  # fmt: skip
# docker looks in its JSON for all of a template of which a part fails: each of these by itself
ALONE = (
    '{{index .NetworkSettings.Ports "80/tcp"}}', "{{json .HostConfig.Dns}}",
    "{{.Nope}}", "{{.State.Nope}}", "{{.State.Health.Status}}",
)  # fmt: skip
_BETWEEN = "\n=\n"

# of `ps -a`, over all kinds
FILTERS = (
    "name=^/pla", "name=^plain$", "name=^/plain$", "name=/plain", "name=lai", "name=none-such",
    "volume=look-volume", "volume=/data", "volume=look", "volume=/usr", "volume=/host",
    "network=bridge", "network=none", "network=host", "network=none-such",
    "publish=18080", "publish=80", "publish=18080/tcp", "publish=19000/udp", "publish=19000",
    "publish=18000-18090", "publish=bogus", "expose=80", "expose=90/udp", "expose=80-90", "expose=99",
    "before=nonet", "since=nonet", "before=none-such", "is-task=true", "is-task=false", "is-task=maybe",
    "status=exited", "status=bogus", "exited=3", "label=k", "label=k=v", "label=k=w",
    "ancestor=lookalike:1", "ancestor=none-such", "health=none", "health=healthy", "health=bogus",
    "id=nothing", "bogus=1",
)  # fmt: skip

# what is looked at, and is not there, or is not valid
MISSING = (
    "inspect none-such", "inspect --type volume none-such", "inspect --type image none-such",
    "inspect --type container look-volume", "inspect --type bogus plain", "volume inspect none-such",
    "image inspect none-such:1", "inspect -f {{.Id}} none-such", "inspect plain none-such",
    "inspect look-volume", "inspect --type volume look-volume", "inspect -s look-volume",
    "inspect -s lookalike:1", "inspect -s plain", "logs none-such", "port none-such",
    "top none-such", "stats --no-stream none-such", "diff none-such", "port plain 99",
    "ps --format {{.Nope}}",
    "info -f {{.OSType}}", "info -f {{.Nope}}", "version -f {{.Nope}}", "images -f bogus=1",
    "images -f since=none-such:1", "images -f dangling=maybe", "volume ls -f bogus=1",
    "volume ls -f dangling=maybe", "volume ls -f name=^look",
)  # fmt: skip


class Lookalike:
    """All kinds of containers under one command, and what it says of them."""

    def __init__(self, command: Command, archive: Path) -> None:
        self.command = command
        self._archive = archive

    def make(self) -> None:
        """An image, a volume, and the containers."""
        self.output("import", str(self._archive), IMAGE)
        self.output("volume", "create", "--label", "a=b", "look-volume")
        for name, (verb, flags, words) in KINDS.items():
            self.command(verb, "--name", name, *flags, IMAGE, *words)
        self.output("pause", "nonet")
        template = "{{.State.Health.Status}} {{len .State.Health.Log}}"
        deadline = time.monotonic() + PATIENCE
        while not re.match(r"healthy [1-9]", self.output("inspect", "-f", template, "rich")):
            assert time.monotonic() < deadline, "rich is never healthy"
            time.sleep(0.05)

    def remove(self) -> None:
        """All that `make` made, as far as it came."""
        self.command("rm", "-f", "-v", *KINDS)
        self.command("volume", "rm", "look-volume")
        self.command("rmi", "-f", IMAGE)

    def output(self, *words: str) -> str:
        """Of a command that succeeds."""
        status, text = self.command(*words)
        assert status == 0, f"{' '.join(words)}: {status}"
        return text

    def objects(self) -> dict[str, dict[str, Any]]:
        """What is shown, by verb and by kind."""
        return {
            "inspect": {kind: json.loads(self.output("inspect", kind))[0] for kind in KINDS},
            "inspect-size": {"plain": json.loads(self.output("inspect", "-s", "plain"))[0]},
            "image": {"imported": json.loads(self.output("image", "inspect", IMAGE))[0]},
            "volume": {"named": json.loads(self.output("volume", "inspect", "look-volume"))[0]},
            "info": {"host": json.loads(self.output("info", "-f", "{{json .}}"))},
            "version": {"both": json.loads(self.output("version", "-f", "{{json .}}"))},
            "ps": {one["Names"]: one for one in self._lines("ps", "-a")},
            "images": {one["Repository"]: one for one in self._lines("images", IMAGE)},
            "volumes": {
                one["Name"]: one for one in self._lines("volume", "ls", "-f", "name=look-volume")
            },
            "history": {"imported": self._lines("history", IMAGE)[0]},
            "df": {one["Type"]: one for one in self._lines("system", "df")},
            "events": self._events(),
        }

    def _lines(self, *words: str) -> list[dict[str, Any]]:
        text = self.output(*words, "--format", "{{json .}}")
        return [json.loads(line) for line in text.splitlines()]

    def _events(self) -> dict[str, Any]:
        """One of each type."""
        found = {}
        for one in self._lines("events", "--since", "0", "--until", "0s"):
            if one["Action"] in ("create", "import"):
                found[one["Type"]] = one
        return found

    def templates(self) -> dict[str, str | int]:
        """What templates print of `plain`; the exit status of those that fail."""
        text = self.output("inspect", "-f", _BETWEEN.join(TEMPLATES), "plain")
        found: dict[str, str | int] = dict(
            zip(TEMPLATES, text.rstrip("\n").split(_BETWEEN), strict=True)
        )
        for one in ALONE:
            status, text = self.command("inspect", "-f", one, "plain")
            found[one] = text.strip() if status == 0 else status
        return found

    def filters(self) -> dict[str, list[str] | int]:
        """Which containers each filter finds; the exit status where that is none."""
        found: dict[str, list[str] | int] = {}
        for one in FILTERS:
            status, text = self.command("ps", "-a", "--format", "{{.Names}}", "-f", one)
            found[one] = sorted(text.split()) if status == 0 else status
        return found

    def statuses(self) -> dict[str, int]:
        """The exit statuses of verbs that look."""
        return {one: self.command(*one.split())[0] for one in MISSING}

    def trees(self) -> dict[str, Trees]:
        """The key trees of `objects`, by verb."""
        return {
            verb: {kind: tree(value) for kind, value in sorted(kinds.items())}
            for verb, kinds in self.objects().items()
        }


def tree(value: Any) -> Tree:
    """Every path in a JSON value, and the types found there; "[]" is any element, "*" any name in a map."""
    found: dict[str, set[str]] = {}
    _walk(value, "", found)
    return {path: "|".join(sorted(types)) for path, types in sorted(found.items())}


def _walk(value: Any, path: str, found: dict[str, set[str]]) -> None:
    found.setdefault(path, set()).add(type_of(value))
    if isinstance(value, dict):
        for key, one in value.items():
            _walk(one, f"{path}.{'*' if MAPS.search(path) else key}", found)
    elif isinstance(value, list):
        for one in value:
            _walk(one, f"{path}[]", found)


def type_of(value: Any) -> str:
    """JSON's word."""
    names = {
        bool: "boolean",
        int: "number",
        float: "number",
        str: "string",
        dict: "object",
        list: "array",
    }
    return names.get(type(value), "null")


def load(name: str) -> Any:
    """What is kept of docker: templates, filters or statuses."""
    return json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))


def load_trees(verb: str) -> Trees:
    """The key trees of a verb: the first kind is kept whole, of the others what is different there."""
    kinds: dict[str, dict[str, str | None]] = load(verb)
    first = next(iter(kinds.values()))
    whole = {kind: first | tree for kind, tree in kinds.items()}
    return {
        kind: {path: types for path, types in tree.items() if types is not None}
        for kind, tree in whole.items()
    }


def keep(look: Lookalike) -> None:
    """Write what docker says to DATA."""
    DATA.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {verb: _delta(trees) for verb, trees in look.trees().items()}
    parts |= {
        "templates": look.templates(), "filters": look.filters(), "statuses": look.statuses(),
    }  # fmt: skip
    for name, part in parts.items():
        lines = (f" {json.dumps(key)}: {_flat(value)}" for key, value in part.items())
        (DATA / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def _delta(trees: Trees) -> dict[str, dict[str, str | None]]:
    """The trees as `load_trees` reads them."""
    first = next(iter(trees.values()))
    delta: dict[str, dict[str, str | None]] = {}
    for kind, tree in trees.items():
        gone = dict.fromkeys(first.keys() - tree.keys())
        changed = {path: types for path, types in tree.items() if first.get(path) != types}
        delta[kind] = dict(sorted({**gone, **changed}.items()))
    return {**delta, next(iter(trees)): dict(first)}


def _flat(value: Any) -> str:
    """A tree with a line for each path; anything else in one line."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    lines = (f"  {json.dumps(key)}: {json.dumps(one)}" for key, one in value.items())
    return "{\n" + ",\n".join(lines) + "\n }"
