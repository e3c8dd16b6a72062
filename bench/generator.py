"""The systemd generator on 200 files, beside the bare interpreter and the quadlet generator of Debian 13.

`make bench-generator` runs it, in a mount namespace of its own: there /etc/containers/systemd has its files.
The generator of Debian 13 comes out of a root that mmdebstrap makes; a directory with one may be given
instead. It reads the same files. Prints Markdown.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardware import load
from report import machine_table, table

SYSBOX = Path(sys.prefix) / "bin/sysbox"
PYTHON = "/usr/bin/python3"  # the one that runs the installed command on Debian
DECLARED = Path("/etc/containers/systemd")
PODMAN = "usr/lib/systemd/system-generators/podman-system-generator"
FILES = 200
MOST = 150  # ms of the sysbox generator beyond the bare interpreter
TEXT = """\
[Unit]
Description=Number {0}

[Container]
Image=docker.io/library/nginx:1.27
ContainerName=web-{0}
PublishPort={1}:80
Environment=A=1 "B=two words"
Volume=site-{0}.volume:/usr/share/nginx/html:ro
Volume=/srv/{0}:/srv
AddCapability=NET_BIND_SERVICE
HealthCmd=curl -sf http://localhost/
Label=app=web

[Service]
Restart=on-failure
MemoryMax=256M

[Install]
WantedBy=multi-user.target
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--root", type=Path, help="a root of Debian 13 with podman")
    asked = parser.parse_args()
    before = load()
    with tempfile.TemporaryDirectory() as directory:
        root = asked.root or debian(Path(directory) / "root")
        with declared(root):
            times = measured(Path(directory), root, asked.runs)
    print(report(times, asked.runs, before))


def debian(root: Path) -> Path:
    """A root of Debian 13 with podman, unpacked and not configured."""
    command = ["mmdebstrap", "--mode=root", "--variant=extract", "--include=podman", "--quiet"]
    subprocess.run([*command, "trixie", root], check=True)
    return root


@contextmanager
def declared(root: Path) -> Iterator[None]:
    """Write the files where both look: the mount namespace is this process's own."""
    mount("-t", "tmpfs", "declared", "/etc/containers")
    DECLARED.mkdir(parents=True)
    for number in range(FILES // 2):
        (DECLARED / f"web-{number}.container").write_text(TEXT.format(number, 8000 + number))
        (DECLARED / f"site-{number}.volume").write_text(f"[Volume]\nLabel=site={number}\n")
    inside = root / "etc/containers"
    inside.mkdir(parents=True, exist_ok=True)
    mount("--bind", "/etc/containers", str(inside))
    (root / "out").mkdir(exist_ok=True)
    for name in ("lib", "lib64"):  # a package that is not unpacked makes these
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    try:
        yield
    finally:  # a mount point cannot be removed
        subprocess.run(["/usr/bin/umount", inside], check=True)


def mount(*words: str) -> None:
    subprocess.run(["/usr/bin/mount", *words], check=True)


def measured(directory: Path, root: Path, runs: int) -> dict[str, list[tuple[float, float]]]:
    """Contestant -> (time, CPU time) of each run in ms; all of a round before the next."""
    out, inside = directory / "out", root / "out"
    places = [str(out / one) for one in ("normal", "early", "late")]
    contestants = {
        "sysbox": [str(SYSBOX), "_generate", *places],
        "bare python": [PYTHON, "-I", "-S", "-c", "pass"],
        "quadlet": ["/usr/sbin/chroot", str(root), f"/{PODMAN}", "-no-kmsg-log", "/out"],
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(runs + 1):
        for name, argv in contestants.items():
            for one in (out, inside):
                shutil.rmtree(one, ignore_errors=True)
            for place in (*places, inside):
                os.makedirs(place)
            taken = once(argv)
            made = {"sysbox": Path(places[0]), "quadlet": inside}.get(name)
            if made and len(list(made.glob("*.service"))) != FILES:
                sys.exit(f"bench: {name} made {len(list(made.glob('*.service')))} units")
            if number:  # the first one warms up
                times[name].append(taken)
    return times


def once(argv: list[str]) -> tuple[float, float]:
    begin = time.monotonic()
    pid = os.posix_spawn(argv[0], argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
    _, status, usage = os.wait4(pid, 0)
    taken = time.monotonic() - begin
    if status:
        sys.exit(f"bench: {argv[0]} failed: {os.waitstatus_to_exitcode(status)}")
    return taken * 1000, (usage.ru_utime + usage.ru_stime) * 1000


def report(times: dict[str, list[tuple[float, float]]], runs: int, before: float) -> str:
    medians = {
        name: [statistics.median(one[at] for one in found) for at in (0, 1)]
        for name, found in times.items()
    }
    lowest = {name: min(one[0] for one in found) for name, found in times.items()}
    rows = [
        [name, f"{medians[name][0]:.1f}", f"{lowest[name]:.1f}", f"{medians[name][1]:.1f}"]
        for name in times
    ]
    beyond = lowest["sysbox"] - lowest["bare python"]
    ratio = lowest["sysbox"] / lowest["quadlet"]
    met = "ok" if beyond <= MOST else "NOT MET"
    lines = [
        "# The generator of declared units: 200 files",
        "",
        f"100 containers and 100 volumes; {runs} runs of each after one that warms up, interleaved. quadlet",
        "is the generator of Debian 13's podman, in a root of Debian 13. Made by `make bench-generator`.",
        "",
        machine_table(before, ()),
        "",
        table(("", "median ms", "min", "median CPU ms"), rows),
        "",
        f"* sysbox beyond the bare interpreter, shortest runs, ms: wanted ≤ {MOST}: {beyond:.1f} {met}",
        f"* sysbox's shortest run divided by quadlet's: {ratio:.2f}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
