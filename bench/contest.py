"""Choose the contestants, set them up, and clean up after them."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import rootfs
from peers import PEERS, Peer, Sysbox
from timing import MeasureError, alarms

WORK = Path("/var/lib/sysbox/bench")  # on the real disk; removed with the embedded host's state


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def add_only(parser: argparse.ArgumentParser) -> None:
    """The flag that chooses contestants."""

    def names(text: str) -> set[str]:
        found, known = set(filter(None, text.split(","))), [peer.name for peer in PEERS]
        if unknown := found.difference(known):
            words = f"unknown {', '.join(sorted(unknown))}; there are {', '.join(known)}"
            raise argparse.ArgumentTypeError(words)
        return found

    parser.add_argument(
        "--only", type=names, default=set(), metavar="PEER,...", help="these beside sysbox"
    )


def chosen(only: set[str]) -> list[type[Peer]]:
    """The contestants: all, or sysbox and those in `only`."""
    return [kind for kind in PEERS if not only or kind is Sysbox or kind.name in only]


def prepare(peer: Peer, tree: Path, archive: Path, stack: ExitStack) -> str:
    """Set a peer up, and add its cleanup to the stack; returns why it cannot take part, "" if it can."""
    if missing := peer.missing():
        return f"not installed: {', '.join(missing)}"
    stack.callback(clean, peer)
    try:
        peer.setup(tree, archive)
        for network in sorted(peer.networks):
            peer.time(peer.run(network))
    except (MeasureError, OSError) as error:
        return str(error)
    return ""


def clean(peer: Peer) -> None:
    try:
        peer.cleanup()
    except MeasureError as error:
        say(f"ignoring: {error}")


@contextmanager
def contest(kinds: Iterable[type[Peer]]) -> Iterator[tuple[list[Peer], list[str]]]:
    """(the contestants that are ready, why the others are not); cleans up afterwards.

    Raises SystemExit if nothing can be measured.
    """
    if os.geteuid() or not Path("/run/systemd/system").exists():
        say("needs root on a booted systemd: use bench/run.sh")
        sys.exit(2)
    with ExitStack() as stack:
        WORK.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, WORK, ignore_errors=True)
        tree, archive = WORK / "rootfs", WORK / "rootfs.tar"
        rootfs.make(tree, archive)
        stack.enter_context(alarms())
        ready, failures = [], []
        for kind in kinds:
            peer = kind(WORK)
            say(f"{peer.name}: setting up")
            if reason := prepare(peer, tree, archive, stack):
                failures.append(f"{peer.name}: {reason}")
                say(f"{peer.name} is left out: {reason}")
            else:
                ready.append(peer)
        yield ready, failures
