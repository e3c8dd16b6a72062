"""docker's flags that scripts give: what a container sees of them, and a line where one is missing."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from containers import Containers, eventually, popen
from lane import Sysbox


def test_a_container_with_many(containers: Containers) -> None:
    """--domainname, --expose, --annotation, --ipc none, --quiet."""
    one = containers(
        *("--hostname", "web", "--domainname", "example.org", "--ipc", "none", "-q"),
        *(
            "--tmpfs",
            "/t:noatime,huge=never",
            "--expose",
            "80",
            "--expose",
            "7000-7001/udp",
            "--annotation",
            "team=a",
        ),
    )
    assert one.sh("cat /proc/sys/kernel/domainname; hostname") == "example.org\nweb"
    assert "web.example.org web" in one.sh("cat /etc/hosts")
    assert one.sh("grep -c /dev/shm /proc/mounts || true") == "0"
    assert (
        one.namespace("ipc")
        != subprocess.check_output(["readlink", "/proc/self/ns/ipc"], text=True).strip()
    )
    assert "noatime" in one.sh("grep ' /t ' /proc/mounts")
    assert one.inspect("Config.Domainname") == "example.org"
    assert one.inspect("Config.ExposedPorts") == {"80/tcp": {}, "7000/udp": {}, "7001/udp": {}}
    assert one.inspect("HostConfig.Annotations") == {"team": "a"}
    assert one.inspect("HostConfig.IpcMode") == "none"


def test_attach_to_one_stream(sysbox: Sysbox, image: str) -> None:
    script = "echo out; echo err >&2; exit 3"
    done = sysbox("run", "--rm", "-a", "stderr", image, "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "err\n")
    done = sysbox("run", "--rm", "-a", "STDOUT", image, "sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (3, "out\n", "")
    done = sysbox("run", "-i", "--rm", "-a", "stdin", image, "sh", "-c", "cat >&2", input="x\n")
    assert (done.returncode, len(done.stdout), done.stderr) == (0, 65, "")


def test_signals_that_are_not_passed_on(containers: Containers, image: str) -> None:
    """The command ends by its signal, and the container goes on."""
    command = ("sh", "-c", "echo up; exec sleep 1000")
    process = popen("run", "--sig-proxy=false", "--name", "apart", image, *command)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert containers.known("apart").inspect("State.Running") is True


def test_start_attaches_to_one_that_is_running(containers: Containers) -> None:
    one = containers("-i", command=("sh", "-c", "read word; echo got $word; exit 5"))
    process = popen("start", "-ai", one.id, stdin=subprocess.PIPE)
    out, _ = process.communicate("this\n", timeout=60)
    assert (process.returncode, out) == (5, "got this\n")


@pytest.mark.parametrize("policy", ["no", "always"])
def test_stop_with_another_signal(containers: Containers, policy: str) -> None:
    """The signal of -s, not the container's own; a policy does not start it again."""
    script = "trap 'exit 7' USR1; trap 'exit 8' TERM; echo up; while :; do sleep 0.02; done"
    one = containers("--restart", policy, command=("sh", "-c", script))
    eventually(lambda: "up" in one("logs"), "its traps are set")
    if policy == "no":
        one("restart", "-s", "USR1")
        eventually(lambda: one("logs").count("up") == 2, "its traps are set again")
    one("stop", "-s", "SIGUSR1")
    assert one.inspect("State.ExitCode") == 7
    assert one.inspect("State.Status") == "exited"


def test_help(sysbox: Sysbox) -> None:
    assert sysbox("help", "ps", check=True).stdout == sysbox("ps", "--help", check=True).stdout
    assert sysbox("help", check=True).stdout == sysbox("--help", check=True).stdout
    assert sysbox("help", "volume", "ls", check=True).stdout.startswith("Usage: sysbox volume ls")
    assert sysbox("help", "nothing").returncode == 1


def test_what_exists(sysbox: Sysbox, containers: Containers, tmp_path: Path) -> None:
    """By the exit status alone, under each name and id that the other verbs take."""
    (tmp_path / "value").write_text("x")
    secret = sysbox("secret", "create", "there", tmp_path / "value", check=True).stdout.strip()
    sysbox("volume", "create", "there", check=True)
    one = containers("--name", "there")
    try:
        words = [("container", "there"), ("container", one.id[:12]), ("volume", "there")]
        for kind, name in [*words, ("secret", "there"), ("secret", secret)]:
            done = sysbox(kind, "exists", name)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), (kind, name)
            done = sysbox(kind, "exists", "nosuch")
            assert (done.returncode, done.stdout, done.stderr) == (1, "", ""), kind
        one("stop", "-t", "0")
        assert sysbox("container", "exists", "there").returncode == 0
    finally:
        sysbox("volume", "rm", "there", check=True)
        sysbox("secret", "rm", "there", check=True)


HARMLESS = (
    ("-H", "unix:///var/run/docker.sock"), ("--host=unix:///run/docker.sock",),
    ("--context", "default"), ("-c", "default"), ("--log-level", "warn"), ("-linfo",),
    ("--config", "/nonexistent"), ("--config=/x", "-D"),
)  # fmt: skip
LATER = {
    "search x": "search is not supported yet",
    "run --runtime runc IMG": "--runtime is not supported yet",
    "run --gpus all IMG": "--gpus is not supported yet",
    "create --volumes-from a IMG": "--volumes-from is not supported yet",
    "volume create -o size=1g x": "needs disk quotas, which are not there yet",
    "create --mount type=image,src=IMG,dst=/x IMG": "type=image is not supported yet",
    "create --mount type=volume,volume-opt=a=b,dst=/x IMG": "volume-opt is not supported yet",
    "create --mount volume-subpath=a,src=v,dst=/x IMG": "volume-subpath is not supported yet",
    "-H tcp://10.0.0.1:2375 ps": "sysbox has no daemon to connect to",
    "--context other ps": "there is only `default`",
    "--log-level loud ps": "unknown level",
    "--host": "--host needs a value",
}


SAYS = {
    "run -v /etc/hostname:/etc IMG true": "cannot mount the file /etc/hostname over the directory /etc",
    "run -v /etc:/etc/passwd IMG true": "cannot mount the directory /etc over the file /etc/passwd",
    "run --tmpfs /etc/passwd IMG true": "cannot mount a tmpfs over the file /etc/passwd",
    "run -v /etc:/etc/passwd/x IMG true": "mount target /etc/passwd/x: Not a directory",
    "run -v relative/dir:/b IMG true": "for a host path write ./relative/dir",
    "run --add-host foo IMG true": "not NAME:IP",
    "run IMG --rm true": "flags go before the image's name",
    "logs --since yesterday x": "not a time",
    "events --since yesterday": "RFC 3339, seconds since 1970, or a duration such as 10m",
    "ps --filter nowhere=x": "unknown key nowhere",
    "run --nosuch IMG": "see `sysbox run --help`",
}


@pytest.mark.parametrize("line", SAYS)
def test_what_a_mistake_is_told(sysbox: Sysbox, image: str, line: str) -> None:
    done = sysbox(*line.replace("IMG", image).split())
    assert done.returncode in (1, 125, 127)
    assert SAYS[line] in done.stderr
    assert "did you mean" not in done.stderr


def test_global_flags(sysbox: Sysbox) -> None:
    for flags in HARMLESS:
        assert sysbox(*flags, "ps", "-q").returncode == 0, flags


@pytest.mark.parametrize("line", LATER)
def test_what_is_not_there_yet(sysbox: Sysbox, image: str, line: str) -> None:
    """Never a wrong suggestion."""
    done = sysbox(*line.replace("IMG", image).split())
    assert done.returncode in (1, 125)
    assert LATER[line] in done.stderr
    assert "did you mean" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
