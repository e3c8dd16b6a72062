"""The cost of sysbox beside docker, podman, systemd-nspawn, crun and runc; `bench/run.sh` runs it.

Runs as root on the embedded host of run.sh, which it does not clean up. Prints Markdown, and its progress on
standard error. Exit status 0, 1 if a measure could not be taken, 2 if none could.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence

import memory
import report
from contest import add_only, chosen, contest, say
from hardware import load
from peers import IMAGE, LAUNCHER, Engine, Peer
from timing import Command, MeasureError, interleaved, timed

BATCH = 20  # detached containers, started one after another
# skips the interpreter's shutdown, which takes time, as sysbox does
LEAVE = "import posix; posix._exit(0)"
LISTED, LISTED_QUICK = 100, 30  # running containers while `ps` and `stats` are measured
SHARES = 512  # the least value for `update`; each run sets another, or there would be nothing to do


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.sh", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, metavar="N", help="of each measure (15)")
    parser.add_argument("--quick", action="store_true", help=f"`ps` of {LISTED_QUICK} containers")
    add_only(parser)
    arguments = parser.parse_args(words)
    if arguments.runs < 1:
        parser.error("--runs: must be 1 or more")
    return arguments


class Bench:
    """The measures, in their order, and their results."""

    def __init__(self, peers: list[Peer], runs: int, listed: int) -> None:
        self.peers = peers
        self.runs = runs
        self.listed = listed
        self.results = report.Results(load_before=load())

    def fail(self, measure: str, name: str, error: MeasureError) -> None:
        self.results.failures.append(f"{measure}, {name}: {error}")
        say(self.results.failures[-1])

    def all(self) -> None:
        self.startup()
        for network in ("none", "bridge"):
            self.run(network)
        self.run_on_terminal()
        self.exec()
        self.detached()

    def startup(self) -> None:
        """The time of the interpreter's start, and of the imports of a hot verb."""
        say("starting an interpreter")
        python = os.path.realpath(LAUNCHER.parent / "python3")
        bare = [python, "-I", "-S", "-X", "utf8", "-c"]
        try:
            imports = hot_imports(python)
        except MeasureError as error:
            self.fail(report.STARTUP, "sysbox", error)
            return
        commands = {
            "/bin/true": ["/bin/true"],
            report.BARE: [*bare, LEAVE],
            report.HOT: [*bare, imports],
        }
        self.results.times[report.STARTUP] = interleaved(
            {
                name: lambda _, argv=argv: timed(Command(argv))  # type: ignore[misc]
                for name, argv in commands.items()
            },
            self.runs,
            lambda name, error: self.fail(report.STARTUP, name, error),
        )

    def take(self, measure: str, peers: Iterable[Peer], command: str, *names: str) -> None:
        """Time one command line of each peer, interleaved."""
        say(measure)
        argvs = {peer: getattr(peer, command)(*names) for peer in peers}
        self.results.times[measure] = interleaved(
            {
                peer.name: lambda _, peer=peer, argv=argv: peer.time(argv)  # type: ignore[misc]
                for peer, argv in argvs.items()
            },
            self.runs,
            lambda name, error: self.fail(measure, name, error),
        )

    def run(self, network: str) -> None:
        peers = [peer for peer in self.peers if network in peer.networks]
        self.take(report.RUN[network], peers, "run", network)

    def run_on_terminal(self) -> None:
        """With a terminal sysbox starts the container under a service; beside it, without one."""
        say(report.RUN_IT)
        engines = [peer for peer in self.peers if isinstance(peer, Engine)]
        commands = {
            peer.name: lambda _, peer=peer: peer.time(peer.run_on_terminal(), terminal=True)  # type: ignore[misc]
            for peer in engines
        }
        for peer in engines:
            if peer.name == report.MINE:
                commands[report.WITHOUT_TERMINAL] = lambda _, peer=peer: peer.time(  # type: ignore[misc]
                    peer.run("bridge")
                )
        self.results.times[report.RUN_IT] = interleaved(
            commands, self.runs, lambda name, error: self.fail(report.RUN_IT, name, error)
        )

    def exec(self) -> None:
        ready = []
        for peer in self.peers:
            if peer.has_exec:
                try:
                    peer.time(peer.start("bench-exec"))
                    ready.append(peer)
                except MeasureError as error:
                    self.fail(report.EXEC, peer.name, error)
        self.take(report.EXEC, ready, "exec", "bench-exec")
        for peer in ready:
            self.drop(peer, ["bench-exec"])

    def detached(self) -> None:
        """Start BATCH containers, measure their supervisors, start the rest; measure ps, stats, update."""
        managers = {peer.name: peer for peer in self.peers if peer.manages}
        started: dict[str, list[str]] = {name: [] for name in managers}

        def start(peer: Peer, number: int) -> float:
            took = peer.time(peer.start(f"bench-{number}"))
            started[peer.name].append(f"bench-{number}")
            return took

        say(report.START)
        self.results.times[report.START] = interleaved(
            {
                name: lambda number, peer=peer: start(peer, number)  # type: ignore[misc]
                for name, peer in managers.items()
            },
            BATCH,
            lambda name, error: self.fail(report.START, name, error),
            warm_up=False,
        )
        self.weigh(started)
        for name in self.results.times[report.START]:
            self.fill(managers[name], started[name])
        full = [peer for name, peer in managers.items() if len(started[name]) == self.listed]
        self.take(report.ps(self.listed), full, "ps")
        self.take(report.stats(self.listed), full, "stats")
        self.update({peer: started[peer.name][0] for peer in full})
        for name, names in started.items():
            self.drop(managers[name], names)

    def update(self, containers: dict[Peer, str]) -> None:
        """Change the CPU weight of one running container, to another value each time."""
        say(report.UPDATE)
        commands = {
            peer.name: lambda number, peer=peer, one=one: peer.time(  # type: ignore[misc]
                peer.update(one, SHARES + number)
            )
            for peer, one in containers.items()
        }
        for peer, one in containers.items():
            if peer.name == "sysbox":
                commands[report.SET_PROPERTY] = set_property(one)
        self.results.times[report.UPDATE] = interleaved(
            commands, self.runs, lambda name, error: self.fail(report.UPDATE, name, error)
        )

    def weigh(self, started: dict[str, list[str]]) -> None:
        """The PSS of each container's supervisor, without the payload."""
        for peer in self.peers:
            if not peer.manages or not started[peer.name]:
                continue
            count, total = memory.pss(peer.supervisors)
            if count != len(started[peer.name]):
                error = MeasureError(f"{count} supervisors of {len(started[peer.name])} containers")
                self.fail(report.MEMORY, peer.name, error)
                continue
            self.results.memory[peer.name] = total / count
            self.results.daemons[peer.name] = memory.pss(peer.daemons)[1]

    def fill(self, peer: Peer, names: list[str]) -> None:
        """Start containers until `listed` run, and measure by how much PID 1 grows for each."""
        say(f"{peer.name}: {self.listed - len(names)} more containers")
        before, first = memory.pss_of(1), len(names)
        try:
            for number in range(first + 1, self.listed + 1):
                peer.time(peer.start(f"bench-{number}"))
                names.append(f"bench-{number}")
        except MeasureError as error:
            self.fail(report.ps(self.listed), peer.name, error)
            return
        self.results.manager[peer.name] = (memory.pss_of(1) - before) / (self.listed - first)

    def drop(self, peer: Peer, names: Sequence[str]) -> None:
        try:
            peer.remove(names)
        except MeasureError as error:
            self.fail("removal", peer.name, error)


def set_property(container: str) -> Callable[[int], float]:
    """The same change of the same scope by systemctl(1): the time that systemd itself needs."""
    words = [str(LAUNCHER), "inspect", "-f", "{{.Sysbox.Scope}}", container]
    scope = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    command = ["/usr/bin/systemctl", "set-property", "--runtime", scope]
    return lambda number: timed(Command([*command, f"CPUShares={2 * SHARES + number}"]))


def hot_imports(python: str) -> str:
    """A script that imports the modules of `sysbox run`, as found in one run, in the same way."""
    mains = sorted(LAUNCHER.parents[1].glob("lib*/python3*/site-packages/sysbox/_main.py"))
    if not mains:
        raise MeasureError(f"the package is not installed beside {LAUNCHER}")
    command = [python, "-I", "-S", "-X", "utf8", "-X", "importtime", str(mains[0]), str(LAUNCHER)]
    done = subprocess.run(
        [*command, "run", "--rm", IMAGE, "true"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MeasureError(done.stderr.strip().rpartition("\n")[2])
    names = re.findall(r"^import time:.*\| *(sysbox[\w.]*)$", done.stderr, re.MULTILINE)
    return "; ".join(
        (
            "import gc, sys",
            "gc.disable()",
            f"sys.path.append({str(mains[0].parents[1])!r})",
            "from sysbox import _main",
            f"_main.use({str(mains[0].parents[1])!r})",
            f"import {', '.join(names)}",
            LEAVE,
        )
    )


def main() -> int:
    arguments = parse(sys.argv[1:])
    with contest(chosen(arguments.only)) as (ready, failures):
        bench = Bench(ready, arguments.runs, LISTED_QUICK if arguments.quick else LISTED)
        bench.results.failures += failures
        bench.all()
        print(report.markdown(bench.results, ready, arguments.runs, bench.listed))
    return 1 if bench.results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
