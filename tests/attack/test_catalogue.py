"""Rows of the catalogue of container CVEs about what sysbox itself reads, trusts and leaves open."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Containers, eventually, popen, systemctl
from lane import SYSBOX, TIMEOUT, Sysbox
from test_hostile_images import Entries, hostile
from ways import Attacker, attacker, mode

from sysbox.base import paths
from sysbox.host import probe
from sysbox.linux import cgroup

__all__ = ["attacker", "hostile", "mode"]

Image = Callable[..., str]

# --- what an image says ----------------------------------------------------------------------------

WRITTEN = f"/tmp/{uuid.uuid4()}"
# that other engines act on: they select capabilities, devices, hooks, loggers, properties of units
LABELS = (
    "io.containers.capabilities=SYS_ADMIN",
    "io.podman.annotations.privileged=TRUE",
    "io.podman.annotations.autoremove=TRUE",
    "io.kubernetes.cri-o.Devices=/dev/mem:/dev/mem:rwm",
    "io.kubernetes.cri-o.userns-mode=host",
    "org.systemd.property.DevicePolicy='auto'",
    "org.systemd.property.TimeoutStopUSec=uint64:1",
    "run.oci.keep_original_groups=1",
    f"run.oci.hooks.stdout={WRITTEN}",
    "run.oci.seccomp_fail_unknown_syscall=0",
    f"com.docker.logging.driver=file://{WRITTEN}",
    f"containerd.io/restart.loguri=file://{WRITTEN}",
    "devices.sysbox=/dev/mem",
)


def labelled() -> list[str]:
    """The instructions that give an image these labels."""
    pairs = (label.split("=", 1) for label in LABELS)
    return [f'LABEL "{name}"="{value}"' for name, value in pairs]


FILES = {
    "etc/sysbox.conf": "[Container]\nPrivileged=yes\nCapAdd=ALL\n",
    "etc/sysbox/sysbox.conf": "[Container]\nPrivileged=yes\n",
    "sysbox.conf": "[Container]\nPrivileged=yes\n",
    "config.json": '{"process":{"capabilities":{"bounding":["CAP_SYS_ADMIN"]}}}',
    "image.nspawn": "[Exec]\nPrivateUsers=no\nPivotRoot=/etc\n[Files]\nBind=/\n",
    ".nspawn": "[Exec]\nCapability=all\n[Files]\nBind=/\n",
    "etc/subuid": "root:0:4294967295\n",
    "etc/subgid": "root:0:4294967295\n",
    "etc/containers/containers.conf": '[containers]\nprivileged=true\ndevices=["/dev/mem"]\n',
}
LOOK = """
grep -E '^(Cap|Seccomp:|NoNewPrivs|Groups)' /proc/self/status
awk '{ print $1, $2 != 0, $3 }' /proc/self/uid_map; ls /dev; cut -d' ' -f5,6 /proc/self/mountinfo; env | sort
"""


def test_nothing_that_an_image_says_gives_it_more(attacker: Attacker, hostile: Image) -> None:
    """CVE-2026-53488, CVE-2026-40226, CVE-2024-3154: labels, and files beside or inside of its root."""
    flags = ("--network", "none", "--hostname", "same")
    plain = attacker("sh", "-c", LOOK, flags=flags)
    entries: Entries = {"etc/sysbox": ("dir", ""), "etc/containers": ("dir", "")}
    entries |= {name: ("file", text) for name, text in FILES.items()}
    image = hostile(entries, *labelled())
    found = attacker("sh", "-c", LOOK, flags=flags, image=image)
    assert found.returncode == plain.returncode == 0, found.stderr
    # but each has ids of its own
    ids = re.compile(r"(?m)^ +0 +[0-9]+ +65536$")
    assert ids.sub("", found.stdout) == ids.sub("", plain.stdout)
    assert not Path(WRITTEN).exists()


def test_no_property_of_its_unit_either(hostile: Image, containers: Containers) -> None:
    image = hostile({}, *labelled())
    words = [word for label in LABELS for word in ("--annotation", label)]
    one, other = containers(image=image), containers(*words)
    shown = ("DevicePolicy", "DeviceAllow", "TimeoutStopUSec", "KillSignal", "TasksMax", "Delegate")
    flags = [f"--property={name}" for name in shown]
    wanted = systemctl("show", *flags, containers().scope)
    assert "DevicePolicy=strict" in wanted
    for named in (one, other):
        assert systemctl("show", *flags, named.scope) == wanted
        assert named.inspect("HostConfig.LogConfig.Type") == "journald"
        named("rm", "-f")


# --- programs of the image -------------------------------------------------------------------------

PROGRAMS = (
    "ps", "top", "nsenter", "tar", "gzip", "xz", "unpigz", "mount", "umount", "ldconfig", "getent", "id",
    "cp", "mkdir", "chown", "true", "test", "kill", "cat", "ls", "sysbox", "python3", "systemctl",
)  # fmt: skip


def test_no_verb_runs_a_program_of_the_image(
    hostile: Image, containers: Containers, sysbox: Sysbox, tmp_path: Path
) -> None:
    """CVE-2022-1227, CVE-2015-1334, CVE-2019-14271: what reads a container runs none of its programs."""
    flag = tmp_path / "flag"
    flag.mkdir()
    script = "#!/bin/busybox sh\necho $0 $* >/flag/$$\n"
    entries: Entries = {"sbin": ("dir", ""), "usr/bin": ("dir", ""), "usr/sbin": ("dir", "")}
    for name in PROGRAMS:
        for directory in ("bin", "sbin", "usr/bin", "usr/sbin"):
            entries[f"{directory}/{name}"] = ("program", script)
    image = hostile(entries)
    one = containers("-v", f"{flag}:/flag", image=image, command=("/bin/busybox", "sleep", "1000"))
    file = tmp_path / "file"
    file.write_text("x")
    sysbox("cp", file, f"{one.id}:/copied", check=True)
    sysbox("cp", f"{one.id}:/etc", tmp_path / "out", check=True)
    for words in (
        ("top", one.id), ("top", one.id, "-o", "pid,user"), ("ps", "-s"), ("stats", "--no-stream", one.id),
        ("diff", one.id), ("export", "-o", str(tmp_path / "export.tar"), one.id), ("inspect", "-s", one.id),
        ("port", one.id), ("logs", one.id), ("pause", one.id), ("unpause", one.id),
        ("commit", one.id, "committed:test"), ("rmi", "committed:test"), ("restart", "-t", "0", one.id),
        ("exec", one.id, "/bin/busybox", "true"), ("update", "-m", "64m", one.id), ("kill", one.id),
    ):  # fmt: skip
        sysbox(*words, check=True)
    assert [path.read_text() for path in flag.iterdir()] == []


# --- what the caller has around it -----------------------------------------------------------------

PLANTED = "import posix; posix.close(posix.open({flag!r}, posix.O_CREAT | posix.O_WRONLY))\n"


@pytest.mark.parametrize("where", ["environment", "directory"])
def test_no_code_beside_the_caller_is_loaded(
    containers: Containers, image: str, tmp_path: Path, where: str
) -> None:
    """Python would take modules from PYTHONPATH and from the working directory, and a start-up file."""
    flag, place = tmp_path / "flag", tmp_path / "place"
    (place / "sysbox/cli").mkdir(parents=True)
    (place / "encodings").mkdir()
    code = PLANTED.format(flag=str(flag))
    for name in (
        "os", "site", "sitecustomize", "usercustomize", "errno", "time", "json", "click",
        "encodings/__init__", "sysbox/__init__", "sysbox/_main", "sysbox/cli/__init__", "sysbox/cli/dispatch",
    ):  # fmt: skip
        (place / f"{name}.py").write_text(code)
    env = dict(os.environ)
    if where == "environment":
        env |= {
            "PYTHONPATH": str(place),
            "PYTHONHOME": str(place), "PYTHONSTARTUP": str(place / "os.py"),
            "PYTHONINSPECT": "1", "PYTHONPLATLIBDIR": str(place), "PYTHONUSERBASE": str(place),
            "PYTHONBREAKPOINT": "os.system", "PYTHONWARNINGS": "error", "PYTHONPYCACHEPREFIX": str(place),
        }  # fmt: skip
    box = containers()
    for words in (
        ("run", "--rm", image, "echo", "ran"),
        ("exec", box.id, "echo", "ran"),
        ("run", "-d", "--rm", "--name", "planted", image, "sleep", "1000"),
        ("rm", "-f", "planted"),
        ("info",),
    ):
        done = subprocess.run(
            [SYSBOX, *words],
            cwd=place,
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        assert done.returncode == 0, done.stderr
        assert not flag.exists(), words


# --- state on the host -----------------------------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with any container."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


@pytest.mark.parametrize(
    "verb", [("kill",), ("stop", "-t", "0"), ("pause",), ("restart", "-t", "0"), ("rm", "-f")]
)
def test_a_number_that_another_process_has_by_now(
    containers: Containers, sysbox: Sysbox, stranger: subprocess.Popen[bytes], verb: tuple[str, ...]
) -> None:
    """The state of a run that nobody cleaned up: a pid counts only with the start time of its process."""
    one = containers()
    run = Path(paths.RUN_CONTAINERS) / one.id
    state = json.loads((run / "state.json").read_bytes())
    one("kill")
    one.await_state("exited")
    # what comes after its supervisor would take the state away that is written here
    service = ("is-active", f"sysbox-{one.id}.service")
    eventually(lambda: systemctl(*service, check=False) == "inactive", "its service is over")
    state["pid"] = state["supervisor"] = stranger.pid
    run.mkdir(exist_ok=True)
    (run / "state.json").write_bytes(json.dumps(state).encode())
    sysbox(*verb, one.id)
    sysbox("rm", "-f", one.id, check=True)
    assert not run.exists()
    assert stranger.poll() is None
    # neither stopped nor frozen
    assert Path(f"/proc/{stranger.pid}/stat").read_text(encoding="ascii").split()[2] == "S"


def names_of_sockets(text: str) -> set[str]:
    return {line.split()[7] for line in text.splitlines() if len(line.split()) > 7}


def test_no_socket_of_sysbox_is_abstract(
    sysbox: Sysbox, containers: Containers, image: str
) -> None:
    """CVE-2020-15257: one can be connected to from every container that shares the host's network."""
    before = names_of_sockets(Path("/proc/net/unix").read_text(encoding="utf-8"))
    one = containers("--health-cmd", "true", "--health-interval", "1s", "-i", "--restart", "always")
    containers("--log-driver", "json-file", "-p", "127.0.0.1::80")
    attached = popen("attach", one.id, stdin=subprocess.PIPE)
    waiting = popen("wait", one.id)
    try:
        eventually(lambda: any(one.id in name for name in sockets_of_sysbox()), "it is attached to")
        done = sysbox(
            "run", "--rm", "--network", "host", image, "cat", "/proc/net/unix", check=True
        )
    finally:
        for process in (attached, waiting):
            process.kill()
            process.communicate()
    new = names_of_sockets(done.stdout) - before
    assert [name for name in new if name.startswith("@") and "sysbox" in name] == []
    for path in sockets_of_sysbox():
        status = os.stat(path)
        # connect(2) needs the right to write
        assert (status.st_uid, status.st_mode & 0o022) == (0, 0), path


def sockets_of_sysbox() -> list[str]:
    """The paths of sockets in its directories."""
    return [
        str(path)
        for top in (paths.RUN, paths.STATE)
        for path in Path(top).rglob("*")
        if path.is_socket() and "upper" not in path.parts and "layers" not in path.parts
    ]


def test_no_program_of_sysbox_runs_as_its_owner() -> None:
    """CVE-2017-5985, CVE-2018-6556: no helper with a set-user-ID bit, no lock where others may write."""
    prefix = Path(SYSBOX).resolve().parents[1]
    marked = [
        path
        for path in (*prefix.rglob("*sysbox*"), *prefix.rglob("sysbox/**/*"))
        if not path.is_symlink() and path.is_file() and path.stat().st_mode & 0o6000
    ]
    assert marked == []
    for top in (paths.RUN, paths.STATE):
        status = os.stat(top)
        assert (status.st_uid, status.st_mode & 0o022) == (0, 0), top


# --- where its processes are -----------------------------------------------------------------------


def test_every_process_is_within_the_limits(containers: Containers, mode: tuple[str, ...]) -> None:
    """CVE-2025-47291: the first one, its child, that of `exec` and its child are in the scope, everywhere."""
    one = containers(*mode, command=("sh", "-c", "sleep 4321 & exec sleep 4321"))
    eventually(lambda: len(one("top").splitlines()) == 3, "its child runs")
    entered = popen("exec", one.id, "sh", "-c", "sleep 4321 & exec sleep 4321")
    try:
        namespace = os.readlink(f"/proc/{one.pid}/ns/pid")
        eventually(lambda: len(members(namespace)) == 4, "those of exec run")
        everyone = members(namespace)
        directory = f"{probe().controllers['name=systemd']}/system.slice/{one.scope}"
        # the process by which sysbox makes that of exec is there for a moment
        eventually(lambda: sorted(cgroup.processes(directory)) == everyone, "they are in the scope")
        first = cgroup.paths_of(one.pid)
        limiting = ("devices", "memory", "pids", "cpu", "blkio", "name=systemd", "freezer")
        for name in first.keys() & {*limiting, cgroup.UNIFIED}:
            assert first[name].endswith(one.scope), (name, first[name])
        assert all(cgroup.paths_of(pid) == first for pid in everyone)
    finally:
        # at once: its grandchild has the pipe too
        one("rm", "-f")
        entered.kill()
        entered.communicate()


def members(namespace: str) -> list[int]:
    """The processes of a pid namespace, sorted."""
    return sorted(
        int(path.name)
        for path in Path("/proc").iterdir()
        if path.name.isdecimal() and pid_namespace(path) == namespace
    )


def pid_namespace(process: Path) -> str:
    try:
        return os.readlink(process / "ns/pid")
    except OSError:
        return ""  # it has ended


def test_what_a_neighbour_was_given_stays_its_own(
    attacker: Attacker, containers: Containers
) -> None:
    """CVE-2020-14370: variables of one container, or of its caller, are not in the next one."""
    containers("-e", "SECRET=of-a-neighbour")
    done = attacker("sh", "-c", "cat /proc/[0-9]*/environ")
    assert done.returncode == 0, done.stderr
    assert "SECRET" not in done.stdout
    assert "SYSBOX_HOST" not in done.stdout


def test_more_ranges_of_ids_than_the_kernel_takes(sysbox: Sysbox, image: str) -> None:
    """CVE-2021-43784: an overlong message to the kernel was read as another one."""
    words = [word for n in range(341) for word in ("--uidmap", f"{n}:{200_000 + 2 * n}:1")]
    done = sysbox("run", "--rm", *words, image, "true")
    assert done.returncode == 125
    assert "341 ranges, the kernel takes 340" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


# --- settings of the kernel ------------------------------------------------------------------------


def test_a_setting_is_written_to_the_kernel_and_nowhere_else(
    containers: Containers, requires: Callable[..., None], tmp_path: Path
) -> None:
    """CVE-2025-52881, CVE-2019-16884: a mount over /proc/sys does not take what sysbox writes there."""
    requires.program("nsenter")  # type: ignore[attr-defined]
    one = containers(
        "--network", "none", "-v", f"{tmp_path}:/proc/sys", "--sysctl", "kernel.shmmni=77", "--domainname",
        "away", "--oom-score-adj", "300",
    )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
    command = [
        "nsenter",
        "-t",
        str(one.pid),
        "-i",
        "-u",
        "cat",
        "/proc/sys/kernel/shmmni",
        "/proc/sys/kernel/domainname",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["77", "away"]
    assert Path(f"/proc/{one.pid}/oom_score_adj").read_text(encoding="ascii") == "300\n"
    one.exec("true")
    assert list(tmp_path.iterdir()) == []


# --- races -----------------------------------------------------------------------------------------

SWAP = """
import ctypes, os
libc = ctypes.CDLL(None)
os.makedirs("/shared/place", exist_ok=True)
os.path.islink("/shared/link") or os.symlink("/../../../../../../..{decoy}", "/shared/link")
open("/shared/ready", "w").close()
while True:
    libc.renameat2(-100, b"/shared/place", -100, b"/shared/link", 2)
"""


def test_a_mount_target_that_a_neighbour_swaps(
    containers: Containers, sysbox: Sysbox, image: str, tmp_path: Path
) -> None:
    """CVE-2021-30465: a container that shares the volume makes the target a link and back, without end."""
    shared, decoy, source = tmp_path / "shared", tmp_path / "decoy", tmp_path / "source"
    for directory in (shared, decoy, source):
        directory.mkdir()
    (source / "mark").write_text("x")
    script = SWAP.format(decoy=decoy)
    containers("-v", f"{shared}:/shared", image="host", command=("python3", "-c", script))
    eventually((shared / "ready").exists, "it swaps")
    mounts = [word for number in range(8) for word in ("-v", f"{source}:/shared/place/{number}")]
    inside = 0
    for _ in range(20):
        words = (
            "run",
            "--rm",
            "--network",
            "none",
            "-v",
            f"{shared}:/shared",
            *mounts,
            image,
            "true",
        )
        done = sysbox(*words)
        assert done.returncode in (0, 125), done.stderr
        inside += done.returncode == 0
        assert list(decoy.iterdir()) == [], "it has made its targets on the host"
    assert str(decoy) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")


EXCHANGE = """
mkdir -p /s/dir/tmp; echo inside >/s/dir/tmp/exported-canary; touch /ready
while :; do
    mv /s/dir /s/aside; ln -s / /s/dir; rm /s/dir; mv /s/aside /s/dir
done
"""


def test_an_archive_of_one_that_swaps_names(
    containers: Containers, sysbox: Sysbox, tmp_path: Path, mode: tuple[str, ...]
) -> None:
    """CVE-2023-0778: between its look at a directory and its opening a link to / takes its place."""
    canary = Path("/tmp/exported-canary")
    assert not canary.exists()
    canary.write_text("secret of the host")
    one = containers(*mode, command=("sh", "-c", EXCHANGE))
    try:
        eventually(
            lambda: sysbox("exec", one.id, "test", "-e", "/ready").returncode == 0, "it swaps"
        )
        for turn in range(6):
            out = tmp_path / f"{turn}.tar"
            done = sysbox("export", "-o", str(out), one.id)
            assert done.returncode in (0, 1, 125), done.stderr
            assert not out.exists() or b"secret of the host" not in out.read_bytes()
            done = sysbox("commit", one.id, "swapped:test")
            if done.returncode == 0:
                look = ("swapped:test", "sh", "-c", "cat /s/*/tmp/exported-canary")
                saved = sysbox("run", "--rm", "--network", "none", *look)
                assert "secret" not in saved.stdout
    finally:
        canary.unlink()
        sysbox("rmi", "-f", "swapped:test")


# --- memory ----------------------------------------------------------------------------------------


def test_output_that_nobody_reads_takes_no_memory(containers: Containers) -> None:
    """GO-2022-0482's kind: what `exec` and `run` are told is not collected."""
    one = containers()
    process = popen("exec", one.id, "cat", "/dev/zero")
    try:
        time.sleep(1.5)
        found = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        peak = next(int(line.split()[1]) for line in found.splitlines() if line.startswith("VmHWM"))
        assert peak < 100 << 10  # KiB
    finally:
        process.kill()
        process.communicate()
