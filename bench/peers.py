"""The contestants: the commands of each for the same work, with the defaults that a user gets.

All state is below one directory on the real disk (an overlay cannot be the upper layer of another), all
sockets and run-time state below /run of the embedded host.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from mountview import MountView
from timing import PATH, Command, MeasureError, timed

IMAGE = "bench:1"
TRUE = ("true",)
SLEEP = ("sleep", "1000")
LAUNCHER = Path(__file__).resolve().parents[1] / ".venv/bin/sysbox"


class Peer:
    """One contestant. A measure that it does not support is empty in the tables."""

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    programs: ClassVar[tuple[str, ...]]
    networks: ClassVar[frozenset[str]] = frozenset({"none"})
    has_exec: ClassVar[bool] = False
    manages: ClassVar[bool] = False  # starts detached containers and lists them
    supervisors: ClassVar[frozenset[str]] = frozenset()  # one per container, by `comm`
    daemons: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, work: Path) -> None:
        self.work = work / self.name
        self.environment: dict[str, str] = {}

    def missing(self) -> list[str]:
        """Programs that are not installed."""
        return [program for program in self.programs if not Path(program).exists()]

    def setup(self, tree: Path, archive: Path) -> None:
        """Start the services that it needs, and import the root file system."""
        raise NotImplementedError

    def run(self, network: str) -> list[str]:
        """The command line of `run --rm IMAGE true`."""
        raise NotImplementedError

    def exec(self, name: str) -> list[str]:
        """The command line that runs `true` in a running container."""
        raise NotImplementedError

    def start(self, name: str) -> list[str]:
        """The command line of a detached `sleep`."""
        raise NotImplementedError

    def ps(self) -> list[str]:
        """The command line that lists the running containers."""
        raise NotImplementedError

    def stats(self) -> list[str]:
        """The command line that shows once the resource usage of each running container."""
        raise NotImplementedError

    def update(self, name: str, shares: int) -> list[str]:
        """The command line that gives a running container another CPU weight."""
        raise NotImplementedError

    def remove(self, names: Sequence[str]) -> None:
        """Kill and remove containers."""
        raise NotImplementedError

    def cleanup(self) -> None:
        """End what `setup` started. Files on the disk are removed with the embedded host's state."""

    @contextmanager
    def view(self) -> Iterator[None]:
        """A context manager around each of its commands."""
        yield

    def time(self, argv: list[str], *, terminal: bool = False) -> float:
        """Milliseconds that a command line takes, on a terminal or not; raises MeasureError."""
        with self.view():
            return timed(Command(argv, self.environment, terminal))

    def call(self, *argv: str) -> None:
        """Run a command that is not timed; raises MeasureError with the end of its standard error."""
        with self.view():
            done = subprocess.run(
                argv,
                env={**os.environ, "PATH": PATH, **self.environment},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
        if done.returncode:
            words = (done.stderr or done.stdout).strip()[-400:]
            raise MeasureError(f"`{' '.join(argv)[:200]}` ended with {done.returncode}: {words}")


class Engine(Peer):
    """A contestant with docker's command line."""

    networks = frozenset({"none", "bridge"})
    has_exec = manages = True
    kill_now: ClassVar[tuple[str, ...]] = ()  # so that `rm -f` does not wait for SIGTERM

    def command(self) -> list[str]:
        return [self.programs[0]]

    def run(self, network: str) -> list[str]:
        flags = [] if network == "bridge" else ["--network", network]
        return [*self.command(), "run", "--rm", *flags, IMAGE, *TRUE]

    def run_on_terminal(self) -> list[str]:
        """The command line of `run --rm -it IMAGE true`."""
        return [*self.command(), "run", "--rm", "-it", IMAGE, *TRUE]

    def exec(self, name: str) -> list[str]:
        return [*self.command(), "exec", name, *TRUE]

    def start(self, name: str) -> list[str]:
        return [*self.command(), "run", "-d", "--name", name, IMAGE, *SLEEP]

    def ps(self) -> list[str]:
        return [*self.command(), "ps"]

    def stats(self) -> list[str]:
        return [*self.command(), "stats", "--no-stream"]

    def update(self, name: str, shares: int) -> list[str]:
        return [*self.command(), "update", "--cpu-shares", str(shares), name]

    def remove(self, names: Sequence[str]) -> None:
        if names:
            self.call(*self.command(), "rm", "-f", *self.kill_now, *names)

    def setup(self, tree: Path, archive: Path) -> None:
        del tree
        self.call(*self.command(), "import", str(archive), IMAGE)


class Sysbox(Engine):
    name = "sysbox"
    programs = (str(LAUNCHER),)
    supervisors = frozenset({"sysbox-monitor"})


class Docker(Engine):
    """docker, with its daemon as a unit of the embedded host."""

    name = "docker"
    packages = ("docker.io", "containerd")
    programs = ("/usr/bin/docker", "/usr/sbin/dockerd", "/usr/bin/containerd", "/usr/sbin/runc")
    supervisors = frozenset({"containerd-shim"})
    daemons = frozenset({"dockerd", "containerd"})
    unit = "bench-docker.service"

    def setup(self, tree: Path, archive: Path) -> None:
        socket = "unix:///run/bench-docker.sock"
        self.environment = {"DOCKER_HOST": socket, "DOCKER_CONFIG": str(self.work)}
        properties = ("Type=notify", "Delegate=yes", "KillMode=mixed", "LimitNOFILE=1048576")
        self.call(
            *("systemd-run", "--quiet", "--collect", f"--unit={self.unit}"),
            *(f"--property={value}" for value in properties),
            *("--", "/usr/sbin/dockerd", "--host", socket, "--data-root", str(self.work)),
            *("--exec-root=/run/bench-docker", "--pidfile=/run/bench-docker.pid"),
            *("--exec-opt", "native.cgroupdriver=systemd"),
        )
        super().setup(tree, archive)

    def cleanup(self) -> None:
        self.call("systemctl", "stop", self.unit)


class Hybrid(Peer):
    """A contestant that uses crun, and so needs another view of the cgroups on a hybrid host."""

    def setup(self, tree: Path, archive: Path) -> None:
        self._mounts = MountView()
        super().setup(tree, archive)

    @contextmanager
    def view(self) -> Iterator[None]:
        with self._mounts.entered():
            yield

    def cleanup(self) -> None:
        self._mounts.close()


class Podman(Hybrid, Engine):
    name = "podman"
    packages = ("podman", "conmon")
    programs = ("/usr/bin/podman", "/usr/bin/conmon", "/usr/bin/crun")
    supervisors = frozenset({"conmon"})
    kill_now = ("-t", "0")

    def command(self) -> list[str]:
        directories = ["--root", str(self.work), "--runroot", "/run/bench-podman"]
        return [self.programs[0], *directories, "--cgroup-manager=systemd", "--runtime=crun"]


class Nspawn(Peer):
    """systemd-nspawn on the tree itself, without a writable layer or machined: its fastest mode."""

    name = "systemd-nspawn"
    packages = ("systemd-container",)
    programs = ("/usr/bin/systemd-nspawn",)

    def setup(self, tree: Path, archive: Path) -> None:
        del archive
        shutil.copytree(tree, self.work, symlinks=True)

    def run(self, network: str) -> list[str]:
        assert network == "none"
        flags = ["--quiet", "--register=no", "--private-network", f"--directory={self.work}"]
        return [self.programs[0], *flags, "/bin/true"]


class Runtime(Peer):
    """An OCI runtime with a bundle whose root is the tree itself, with systemd's cgroups."""

    has_exec = True

    def setup(self, tree: Path, archive: Path) -> None:
        del archive
        for kind, argv in {"true": TRUE, "sleep": SLEEP}.items():
            bundle = self.work / kind
            bundle.mkdir(parents=True)
            self.call(self.programs[0], "spec", "--bundle", str(bundle))
            path = bundle / "config.json"
            config = json.loads(path.read_text())
            config["process"] |= {"terminal": False, "args": list(argv)}
            config["root"]["path"] = str(tree)
            config["linux"]["cgroupsPath"] = f"system.slice:{self.name}:{kind}"
            path.write_text(json.dumps(config))

    def command(self) -> list[str]:
        return [self.programs[0], "--root", f"/run/bench-{self.name}", "--systemd-cgroup"]

    def run(self, network: str) -> list[str]:
        assert network == "none"
        return [*self.command(), "run", "--bundle", str(self.work / "true"), "bench-true"]

    def start(self, name: str) -> list[str]:
        return [*self.command(), "run", "--detach", "--bundle", str(self.work / "sleep"), name]

    def exec(self, name: str) -> list[str]:
        return [*self.command(), "exec", name, *TRUE]

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            self.call(*self.command(), "delete", "--force", name)


class Crun(Hybrid, Runtime):
    name = "crun"
    packages = ("crun",)
    programs = ("/usr/bin/crun",)


class Runc(Runtime):
    name = "runc"
    packages = ("runc",)
    programs = ("/usr/sbin/runc",)


PEERS: tuple[type[Peer], ...] = (Sysbox, Docker, Podman, Nspawn, Crun, Runc)
