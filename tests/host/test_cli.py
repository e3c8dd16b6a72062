"""The command line as a user's scripts meet it: statuses, live limits (S2 to S5), errors, formats."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane import SYSBOX, Sysbox


@pytest.fixture
def container(sysbox: Sysbox, image: str) -> Iterator[str]:
    """The id of a detached container that waits, with limits."""
    words = "-d --name subject -c 512 -m 128m --label a=b --label c".split()
    done = sysbox("run", *words, image, "sleep", "1000", check=True)
    yield done.stdout.strip()
    sysbox("rm", "-f", "subject", "renamed")


def field(sysbox: Sysbox, name: str, template: str) -> str:
    return sysbox("inspect", "-f", template, name, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -TERM $$; sleep 5"], None),
        (["no-such-command"], 127),
        (["/etc/passwd"], 126),
        (["/no/such/file"], 127),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_status_is_the_payloads_own(
    sysbox: Sysbox, image: str, command: list[str], status: int | None
) -> None:
    words = ("--init",) if status is None else ()
    done = sysbox("run", "--rm", *words, image, *command)
    assert done.returncode == (143 if status is None else status), done.stderr


def test_a_unit_has_its_name_also_at_rest(sysbox: Sysbox, container: str) -> None:
    scope = f"docker-{container}.scope"
    listing = ("ps", "-a", "--filter", "name=subject", "--format", "{{.Scope}}")
    for verb in (("inspect", "-f", "{{.Sysbox.Scope}}", "subject"), listing):
        assert sysbox(*verb, check=True).stdout == f"{scope}\n"
    sysbox("kill", "subject", check=True)
    sysbox("wait", "subject", check=True)
    assert field(sysbox, "subject", "{{.Sysbox.ControlGroup}}") == ""
    for verb in (("inspect", "-f", "{{.Sysbox.Scope}}", "subject"), listing):
        assert sysbox(*verb, check=True).stdout == f"{scope}\n"


@pytest.mark.v1_only("CPUShares, set live, loses against the CPUWeight that -c means on v2")
def test_s2_live_shares_show_in_inspect(sysbox: Sysbox, container: str) -> None:
    scope = field(sysbox, "subject", "{{.Sysbox.Scope}}")
    assert scope == f"docker-{container}.scope"
    assert field(sysbox, "subject", "{{.HostConfig.CpuShares}}") == "512"
    subprocess.run(
        ["systemctl", "set-property", "--runtime", scope, "CPUShares=128"], check=True, timeout=30
    )
    assert field(sysbox, "subject", "{{.HostConfig.CpuShares}}") == "128"
    shares = Path(f"/sys/fs/cgroup/cpu/system.slice/{scope}/cpu.shares")
    assert shares.read_text(encoding="ascii") == "128\n"


@pytest.mark.v1_only("the files are those of the v1 controllers; tests/vm has those of v2")
def test_s4_memory_and_swap(sysbox: Sysbox, container: str) -> None:
    memory = Path(f"/sys/fs/cgroup/memory/system.slice/docker-{container}.scope")
    assert (memory / "memory.limit_in_bytes").read_text(encoding="ascii") == "134217728\n"
    assert field(sysbox, "subject", "{{.HostConfig.Memory}}") == "134217728"
    swap = memory / "memory.memsw.limit_in_bytes"
    if swap.exists():
        assert swap.read_text(encoding="ascii") == "268435456\n"
        assert field(sysbox, "subject", "{{.HostConfig.MemorySwap}}") == "268435456"
        assert "memsw" in field(sysbox, "subject", "{{json .Sysbox.WrittenDirectly}}")


@pytest.mark.parametrize("flag", ["--cpuset=0", "--cpuset-cpus=0"])
def test_s3_cpuset_by_either_name(sysbox: Sysbox, image: str, flag: str) -> None:
    done = sysbox("run", "--rm", flag, image, "grep", "Cpus_allowed_list", "/proc/self/status")
    assert done.stdout.split() == ["Cpus_allowed_list:", "0"], done.stderr


def test_s5_pid_from_inspect_serves_nsenter(sysbox: Sysbox, container: str) -> None:
    pid = sysbox("inspect", "-f", "{{ .State.Pid }}", "subject", check=True).stdout.strip()
    kinds = "--mount --uts --ipc --net --pid".split()
    done = subprocess.run(
        ["nsenter", "--target", pid, *kinds, "/bin/hostname"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == container[:12]


def test_inspect_has_dockers_shape(sysbox: Sysbox, container: str) -> None:
    (found,) = json.loads(sysbox("inspect", container[:10], check=True).stdout)
    assert found["Id"] == container
    assert found["Name"] == "/subject"
    assert found["Path"] == "sleep"
    assert found["Args"] == ["1000"]
    assert found["State"]["Running"] is True
    assert found["State"]["StartedAt"].endswith("Z")
    assert found["Config"]["Labels"] == {"a": "b", "c": ""}
    assert found["Config"]["Hostname"] == container[:12]
    assert found["NetworkSettings"]["IPAddress"].startswith("10.90.")
    assert found["HostConfig"]["NetworkMode"] == "bridge"


def test_a_miss_is_an_empty_array(sysbox: Sysbox) -> None:
    done = sysbox("inspect", "nothing-of-that-name")
    assert done.returncode == 1
    assert json.loads(done.stdout) == []
    assert done.stderr == "Error: no such object: nothing-of-that-name\n"


def test_ps(sysbox: Sysbox, image: str, container: str) -> None:
    def listed(*words: str) -> str:
        return sysbox("ps", *words, check=True).stdout

    header, line = listed().splitlines()
    assert header.split() == "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES".split()
    assert line.startswith(container[:12] + "   " + image)
    assert line.endswith("subject")
    assert '"sleep 1000"' in line
    assert listed("-q") == container[:12] + "\n"
    assert listed("-q", "--no-trunc") == container + "\n"
    assert listed("--format", "{{.Names}} {{.State}}") == "subject running\n"
    assert json.loads(listed("--format", "json"))["Labels"] == "a=b,c="
    assert listed("--format", r"table {{.Names}}\t{{.Status}}").startswith(
        "NAMES     STATUS\nsubject"
    )
    assert listed("-q", "--filter", "label=a=b", "--filter", "name=subj") == container[:12] + "\n"
    assert listed("-q", "--filter", "status=exited") == ""
    sysbox("kill", "subject", check=True)
    sysbox("wait", "subject", check=True)
    assert listed("-q") == ""
    assert listed("-aq") == container[:12] + "\n"
    assert listed("--format", "{{.Status}}", "--filter", "exited=137").startswith("Exited (137)")


def test_names(sysbox: Sysbox, image: str, container: str) -> None:
    taken = sysbox("create", "--name", "subject", image, "true")
    assert taken.returncode == 125
    assert "'subject' is in use" in taken.stderr
    sysbox("rename", "subject", "renamed", check=True)
    assert field(sysbox, "renamed", "{{.Id}}") == container
    assert sysbox("inspect", "subject").returncode == 1


def test_exec(sysbox: Sysbox, container: str) -> None:
    def ran(*words: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return sysbox("exec", *words, input=input)

    assert (
        ran("-e", "A=1", "-w", "/tmp", "subject", "sh", "-c", "echo $A $PWD").stdout == "1 /tmp\n"
    )
    assert ran("-u", "user", "subject", "id", "-u").stdout == "1000\n"
    assert ran("-i", "subject", "cat", input="through").stdout == "through"
    assert ran("subject", "sh", "-c", "exit 9").returncode == 9
    assert ran("subject", "nope").returncode == 127
    assert ran("nothing", "true").returncode == 125


def test_logs_keep_the_streams_apart_and_end_with_the_container(sysbox: Sysbox, image: str) -> None:
    script = "echo out; echo err >&2; sleep 1; echo last; exit 3"
    sysbox("run", "-d", "--name", "talker", image, "sh", "-c", script, check=True)
    followed = sysbox("logs", "-f", "talker")
    assert followed.stdout == "out\nlast\n"
    assert followed.stderr == "err\n"
    assert sysbox("wait", "talker").stdout == "3\n"
    assert sysbox("logs", "--tail", "1", "talker").stdout == "last\n"
    stamped = sysbox("logs", "-t", "talker").stdout.splitlines()
    assert stamped[0].endswith("000Z out")
    assert sysbox("logs", "--since", "2000-01-01T00:00:00Z", "--until", "1h", "talker").stdout == ""
    sysbox("rm", "talker", check=True)


def test_port(sysbox: Sysbox, image: str) -> None:
    words = ("-p", "127.0.0.1:8083:80", "-p", "8084:81/udp")
    sysbox("run", "-d", "--name", "served", *words, image, "sleep", "100", check=True)
    lines = sysbox("port", "served", check=True).stdout.splitlines()
    assert sorted(lines) == ["80/tcp -> 127.0.0.1:8083", "81/udp -> 0.0.0.0:8084"]
    assert sysbox("port", "served", "80").stdout == "127.0.0.1:8083\n"
    assert sysbox("port", "served", "99").returncode == 1
    sysbox("rm", "-f", "served", check=True)


REFUSED = {
    "run --memroy 1m IMG": "did you mean --memory?",
    "rum": "unknown command",
    "run": "missing argument 'IMAGE'",
    "run -m 12x IMG": "--memory 12x: not a size",
    "run -m 1k IMG true": "at least 6m",
    "run -p 99999 IMG": "99999 is not a port",
    "run -u -1 IMG true": "--user -1",
    "run -v relative:also IMG true": "absolute path",
    "run --mount type=bind,src=/does/not/exist,dst=/x IMG true": "does not exist",
    "run no-such-image true": "no such image",
    "run --device /dev/does-not-exist IMG true": "--device /dev/does-not-exist",
    "run --device-write-bps /dev/does-not-exist:1m IMG true": "/dev/does-not-exist",
    "run --cpuset-cpus 4096 IMG true": "--cpuset-cpus 4096",
    "run --cap-add NOPE IMG true": "--cap-add NOPE",
    "run --property ExecStart=x IMG true": "not a resource property",
    "run --sysctl kernel.hostname=x IMG true": "--sysctl kernel.hostname",
    "run --network container:nothing IMG true": "no such container",
    "run --network br9 IMG true": "no such network: br9",
    "run --name a/b IMG true": "not a valid name",
    "exec nothing true": "no such container",
    "run -it --rm IMG true": "not a terminal",
}


@pytest.mark.parametrize("line", REFUSED)
def test_bad_input(sysbox: Sysbox, image: str, line: str) -> None:
    before = sysbox("ps", "-aq", check=True).stdout
    done = sysbox(*(image if word == "IMG" else word for word in line.split()))
    assert done.returncode == (125 if line.split(maxsplit=1)[0] in ("run", "exec") else 1)
    assert REFUSED[line] in done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) <= 2
    assert all(one.startswith("sysbox: ") for one in lines)
    assert sysbox("ps", "-aq", check=True).stdout == before, "something was left behind"


def test_one_of_several_fails_and_the_others_are_done(sysbox: Sysbox, image: str) -> None:
    sysbox("create", "--name", "first", image, "true", check=True)
    done = sysbox("rm", "nothing", "first")
    assert done.returncode == 1
    assert done.stdout == "first\n"
    assert "no such container: nothing" in done.stderr
    assert sysbox("rm", "-f", "nothing").returncode == 0


def test_dry_run_makes_nothing(sysbox: Sysbox, image: str) -> None:
    done = sysbox("run", "--dry-run", "-m", "64m", "--name", "dry", image, "true", check=True)
    assert ".scope in system.slice" in done.stdout
    assert "67108864" in done.stdout
    assert sysbox("inspect", "dry").returncode == 1


def test_a_terminal(image: str) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(SYSBOX, [str(SYSBOX), "run", "-it", "--rm", image, "sh"])
    output = b""

    def read_until(wanted: bytes) -> None:
        nonlocal output
        deadline = time.monotonic() + 20
        while wanted not in output and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    output += os.read(terminal, 4096)
                except OSError:
                    return

    os.write(terminal, b"tty; exit $((3+4))\n")
    read_until(b"/dev/pts/0\r\n")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert b"/dev/pts/0" in output
    assert os.waitstatus_to_exitcode(status) == 7


def test_a_reader_that_leaves_and_streams_that_are_closed(sysbox: Sysbox, container: str) -> None:
    del container
    script = '"$0" ps -a >&- 2>&-; echo $?; "$0" ps -a >/dev/full; echo $?; "$0" inspect subject | head -c1'
    done = subprocess.run(
        ["bash", "-c", script, SYSBOX], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "0\n1\n["
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "run --help", "--help", "images", "inspect subject", "exec subject echo hi",
        "run --rm IMAGE echo hi", "run --rm -d IMAGE true", "create --rm IMAGE true", "stats --no-stream",
        "run --dry-run IMAGE true",
        "export subject", "events --since 1m --until 0s",
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_one_line_and_docker_s_status(
    sysbox: Sysbox, container: str, image: str, words: str
) -> None:
    before = sysbox("ps", "-aq", "--no-trunc", check=True).stdout.split()
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [SYSBOX, *words.replace("IMAGE", image).split()],
            stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60,
            check=False,
        )  # fmt: skip
    after = sysbox("ps", "-aq", "--no-trunc", check=True).stdout.split()
    for new in set(after) - set(before):  # what was to print its id is there all the same
        sysbox("rm", "-f", new)
    assert done.stderr == "sysbox: write to standard output: No space left on device\n"
    assert done.returncode == 1
    assert container in after


def test_an_export_that_is_ended_leaves_no_file(
    sysbox: Sysbox, container: str, tmp_path: Path
) -> None:
    del container
    target = tmp_path / "subject.tar"
    for signal in ("TERM", "KILL"):
        script = (
            '"$0" exec subject dd if=/dev/zero of=/tmp/big bs=1M count=0 seek=300; '
            '"$0" export -o "$1" subject & '
            'for i in $(seq 2000); do ls -l /proc/$!/fd 2>/dev/null | grep -q "$2" && break; done; '
            f"kill -{signal} $!; wait $!; echo $?"
        )
        done = subprocess.run(
            ["bash", "-c", script, SYSBOX, str(target), str(tmp_path)],
            capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        assert done.stdout == ("143\n" if signal == "TERM" else "137\n"), done.stderr
        assert list(tmp_path.iterdir()) == []
    sysbox("export", "-o", str(target), "subject", check=True)
    assert [one.name for one in tmp_path.iterdir()] == ["subject.tar"]


def test_completion_offers_containers(container: str) -> None:
    del container
    environment = {
        **os.environ,
        "_SYSBOX_COMPLETE": "bash_complete",
        "COMP_WORDS": "sysbox rm sub",
        "COMP_CWORD": "2",
    }
    done = subprocess.run(
        [SYSBOX], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.split() == ["plain,subject"], done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_script(sysbox: Sysbox, shell: str) -> None:
    assert "_SYSBOX_COMPLETE" in sysbox("completion", shell, check=True).stdout
