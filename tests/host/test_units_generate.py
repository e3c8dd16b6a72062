"""Declarations of containers that exist: what is declared so is the same container again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from containers import Container, eventually, systemctl
from lane import Sysbox

NAMES = ("gen-web", "gen-db")
RESOURCES = ("gen-back-network", "gen-data-volume", "gen-scratch-volume", "gen-pod-pod")
# of a container's own run, and of how it is supervised
OF_A_RUN = (
    "Id", "Created", "State", "LogPath", "Name", "Path", "NetworkSettings", "GraphDriver", "HostnamePath",
    "HostsPath", "ResolvConfPath", "Sysbox",
)  # fmt: skip
OF_ITS_SERVICE = ("AutoRemove", "RestartPolicy", "IDMappings", "CgroupParent")


@pytest.fixture
def clean(sysbox: Sysbox) -> Iterator[None]:
    yield
    for unit in (*NAMES, *RESOURCES):
        sysbox("unit", "uninstall", "--force", f"{unit}.service")
        systemctl("reset-failed", f"{unit}.service", check=False)
    sysbox("rm", "-f", *NAMES)
    sysbox("pod", "rm", "-f", "--ignore", "gen-pod")
    sysbox("network", "rm", "gen-back")
    sysbox("volume", "rm", "gen-data", "gen-scratch")


def seen(one: Container) -> dict[str, Any]:
    """What makes the container what it is: its settings, and what its first process got."""
    shown = json.loads(one("inspect"))[0]
    found = {key: value for key, value in shown.items() if key not in OF_A_RUN}
    host = {key: value for key, value in found["HostConfig"].items() if key not in OF_ITS_SERVICE}
    process = Path(f"/proc/{one.pid}")
    await_command(process)
    environment = (process / "environ").read_bytes().split(b"\0")
    own = [one_ for one_ in environment if not one_.startswith((b"HOSTNAME=", b"container_uuid="))]
    networks = shown["NetworkSettings"]["Networks"]
    addresses = {name: end["IPAddress"] for name, end in networks.items()}
    config = {key: value for key, value in found["Config"].items() if key != "Hostname"}
    found |= {
        "argv": (process / "cmdline").read_bytes(),
        "environ": sorted(own),
        "addresses": addresses,
    }
    found = {key: value for key, value in found.items() if not key.endswith("Config")}
    # whose namespaces it joins has another id each time
    return {
        key: "joined" if str(value).startswith("container:") else value
        for key, value in (found | host | config).items()
    }


def await_command(process: Path) -> None:
    """Until a shell that comes first has executed what all containers of this file run."""
    command = process / "cmdline"
    eventually(lambda: command.read_bytes().startswith(b"sleep\0"), "its command is executed")


def container(sysbox: Sysbox, name: str) -> Container:
    return Container(sysbox, sysbox("inspect", "-f", "{{.ID}}", name, check=True).stdout.strip())


def test_a_set_is_made_again(sysbox: Sysbox, image: str, tmp_path: Path, clean: None) -> None:
    """Two containers, their network and their volume: removed, declared, started."""
    sysbox(
        "network", "create", "--subnet", "10.77.3.0/24", "--ip-range", "10.77.3.128/25", "-o", "mtu=1400",
        "--ipv6", "--label", "a=x y", "gen-back", check=True,
    )  # fmt: skip
    networks = sysbox("network", "inspect", "gen-back", check=True).stdout
    sysbox("volume", "create", "--label", "l=%n $x", "gen-data", check=True)
    scratch = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,mode=700")
    sysbox("volume", "create", *scratch, "gen-scratch", check=True)
    tricky = "100% $HOME ${HOME} $$ \"q\" 'a' \\n\n\ttab; é \x01"
    run = ("run", "-d", "-e", f"TRICKY={tricky}", "-l", f"l={tricky}")
    sysbox(
        *run, "--name", "gen-db", "--network", "gen-back:ip=10.77.3.130,alias=database", "-v", "gen-data:/d",
        "-v", "gen-scratch:/s",
        "--restart", "always", "--cpus", "0.5", "-m", "64m", "--ulimit", "nofile=100:200", "--read-only",
        "--tmpfs", "/t:size=1m,mode=1777", "--mount", f"type=bind,src={tmp_path},dst=/m,ro",
        "--health-cmd", 'test "$A"; exit 0', "--health-interval", "1h", "--stop-timeout", "3",
        "--stop-signal", "KILL",
        "--cap-drop", "CHOWN", "--security-opt", "no-new-privileges", "--sysctl", "net.core.somaxconn=200",
        "-u", "7:8", "--umask", "077", "-w", "/tmp", "--entrypoint", "sh", image,
        "-c", 'exec sleep "$1"', tricky, "1000", check=True,
    )  # fmt: skip
    sysbox(
        *run, "--name", "gen-web", "--network", "container:gen-db", "--log-driver", "json-file",
        "--log-opt", "max-size=1m", "--add-host", "x:10.0.0.1", "--stop-signal", "KILL",
        image, "sh", "-c", "exec sleep 1000", check=True,
    )  # fmt: skip
    before = {name: seen(container(sysbox, name)) for name in NAMES}
    out = tmp_path / "out"
    out.mkdir()
    made = sysbox("unit", "generate", "-d", out, *NAMES, check=True).stdout.splitlines()
    assert sorted(made) == sorted(str(path) for path in out.iterdir())
    assert len(made) == 5
    volume = (out / "gen-scratch.volume").read_text().splitlines()
    assert {"Type=tmpfs", "Device=tmpfs", "Options=size=1m,mode=700"} <= {*volume}
    sysbox("rm", "-f", *NAMES, check=True)
    sysbox("network", "rm", "gen-back", check=True)
    sysbox("volume", "rm", "gen-data", "gen-scratch", check=True)
    sysbox("unit", "install", *made, check=True)
    systemctl("start", "gen-web.service")
    for name in NAMES:
        now = seen(container(sysbox, name))
        assert {
            key: (before[name][key], now[key]) for key in now if now[key] != before[name][key]
        } == {}
    systemctl("stop", "gen-db.service")
    again = sysbox("network", "inspect", "gen-back", check=True).stdout
    assert differing(networks, again) <= {
        "Id",
        "Created",
        "network_interface",
        "com.docker.network.bridge.name",
    }
    labels = sysbox("volume", "inspect", "-f", "{{.Labels.l}}", "gen-data", check=True)
    assert labels.stdout == "%n $x\n"


def differing(one: str, other: str) -> set[str]:
    """The keys whose lines differ."""
    pairs = zip(one.splitlines(), other.splitlines(), strict=True)
    return {left.partition(":")[0].strip(' "') for left, right in pairs if left != right}


def test_a_pod_is_made_again(sysbox: Sysbox, image: str, tmp_path: Path, clean: None) -> None:
    """With its containers, network and volume: removed, declared, started."""
    sysbox("network", "create", "--subnet", "10.77.4.0/24", "gen-back", check=True)
    sysbox("volume", "create", "gen-data", check=True)
    sysbox(
        "pod", "create", "--network", "gen-back", "-p", "8096:80", "--hostname", "front", "-v", "gen-data:/d",
        "--memory", "64m", "--label", "a=b c", "--exit-policy", "stop", "--add-host", "x:10.0.0.1", "gen-pod",
        check=True,
    )  # fmt: skip
    for name, flags in (
        ("gen-web", ("--restart", "always")),
        ("gen-db", ("-e", "A=1", "-v", "/srv:/s")),
    ):
        run = ("run", "-d", "--pod", "gen-pod", "--name", name, "--stop-signal", "KILL", *flags)
        sysbox(*run, image, "sleep", "1000", check=True)
    before = {name: seen(container(sysbox, name)) for name in NAMES}
    pod = of_pod(sysbox)
    made = sysbox("unit", "generate", "-d", tmp_path, "gen-pod", check=True).stdout.splitlines()
    assert {Path(one).name for one in made} == {
        "gen-back.network", "gen-data.volume", "gen-db.container", "gen-pod.pod", "gen-web.container",
    }  # fmt: skip
    alone = sysbox("unit", "generate", "gen-db", check=True).stdout
    assert "# gen-pod.pod\n" in alone
    assert "gen-web.container" not in alone
    sysbox("pod", "rm", "-f", "gen-pod", check=True)
    sysbox("network", "rm", "gen-back", check=True)
    sysbox("volume", "rm", "gen-data", check=True)
    sysbox("unit", "install", tmp_path, check=True)
    assert systemctl("is-enabled", "gen-pod-pod.service", check=False) == "disabled"
    systemctl("start", "gen-web.service", "gen-db.service")
    assert of_pod(sysbox) == pod
    for name in NAMES:
        now = seen(container(sysbox, name))
        assert {
            key: (before[name][key], now[key]) for key in now if now[key] != before[name][key]
        } == {}
    systemctl("stop", "gen-pod-pod.service")


def of_pod(sysbox: Sysbox) -> dict[str, Any]:
    """What makes the pod what it is."""
    (shown,) = json.loads(sysbox("pod", "inspect", "gen-pod", check=True).stdout)
    for key in ("Id", "Created", "State", "Containers"):
        del shown[key]
    own = shown.pop("Sysbox")
    del own["UserNamespace"]  # a range of ids is leased anew
    return shown | own


@pytest.mark.parametrize("way", ["payload", "proxy", "file"])
def test_sockets_are_declared_again(
    sysbox: Sysbox, image: str, tmp_path: Path, clean: None, way: str
) -> None:
    """Of a declared container: what its declaration says of them."""
    old, new = tmp_path / "old", tmp_path / "new"
    own = {
        "payload": "ListenStream=18473\nListenStream=/run/gen.sock\n[Socket]\nFileDescriptorName=a",
        "proxy": "ListenStream=18473\nProxyPort=80\nIdleStop=600",
        "file": "",
    }[way]
    install = "[Install]\nWantedBy=sockets.target\n"
    for directory in (old, new):
        directory.mkdir()
    (old / "gen-web.container").write_text(
        f"[Container]\nImage={image}\nContainerName=gen-web\nExec=sleep 1000\nStopSignal=KILL\n{own}\n"
        + (install if own else "")
    )
    if way == "file":
        text = f"[Socket]\nListenStream=18473\nBacklog=7\n{install}"
        (old / "other.socket").write_text(
            text.replace("[Socket]", "[Socket]\nService=gen-web.container")
        )
    units = sysbox("unit", "install", old, check=True).stdout.split()
    systemctl("start", "gen-web.service")
    sysbox("unit", "generate", "-d", new, "gen-web", check=True)
    sysbox("unit", "uninstall", "gen-web", check=True)
    again = sysbox("unit", "install", new, check=True).stdout.split()
    # a file of another name is called as the container is
    assert [one.replace("other", "gen-web") for one in units] == again
    texts = [{*printed(sysbox, directory)} for directory in (old, new)]
    kept = (
        "Listen",
        "Backlog",
        "FileDescriptorName",
        "WantedBy",
        "ExecStart=",
        "ExecStopPost=",
        "Service=",
    )
    first, second = (
        sorted(one for one in text if one.startswith(kept) and "_unit" not in one) for text in texts
    )
    assert first == second
    socket = next(one for one in again if one.endswith(".socket"))
    systemctl("start", *([socket] if way == "proxy" else []), "gen-web.service")
    assert systemctl("is-active", socket) == "active"


def printed(sysbox: Sysbox, directory: Path) -> list[str]:
    return sysbox("unit", "print", directory, check=True).stdout.splitlines()


def test_what_others_have_set_on_its_scope(sysbox: Sysbox, image: str, clean: None) -> None:
    done = sysbox("run", "-d", "--name", "gen-web", "-m", "64m", image, "sleep", "1000", check=True)
    systemctl("set-property", f"docker-{done.stdout.strip()}.scope", "TasksMax=40")
    text = sysbox("unit", "generate", "gen-web", check=True).stdout
    assert "PodmanArgs=--property=TasksMax=40" in text.splitlines()
    sysbox("rm", "-f", "gen-web", check=True)


def test_a_stopped_one_and_a_declared_one(
    sysbox: Sysbox, image: str, tmp_path: Path, clean: None
) -> None:
    sysbox("create", "--name", "gen-web", "--pull", "never", image, "sleep", "1000", check=True)
    text = sysbox("unit", "generate", "gen-web", check=True).stdout
    sysbox("rm", "gen-web", check=True)
    file = tmp_path / "gen-web.container"
    file.write_text(f"{text}\n[Service]\nTasksMax=50\nSlice=gen.slice\n")
    sysbox("unit", "install", file, check=True)
    systemctl("start", "gen-web.service")
    again = sysbox("unit", "generate", "gen-web", check=True).stdout
    assert again == f"{text}\n[Service]\nTasksMax=50\nSlice=gen.slice\n"


def test_files_are_made_all_or_none(
    sysbox: Sysbox, image: str, tmp_path: Path, clean: None
) -> None:
    for name in NAMES:
        sysbox("create", "--name", name, image, "true", check=True)
    (tmp_path / "gen-db.container").write_text("mine")
    done = sysbox("unit", "generate", "-d", tmp_path, *NAMES)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{tmp_path}/gen-db.container: the file exists" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["gen-db.container"]
    sysbox("unit", "generate", "--force", "-d", tmp_path, *NAMES, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "gen-db.container", "gen-web.container",
    ]  # fmt: skip
    for words in (("-d", tmp_path / "none", "gen-db"), ("gen-none",)):
        done = sysbox("unit", "generate", *words)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr


def test_a_file_of_a_command_line(sysbox: Sysbox, image: str, tmp_path: Path, clean: None) -> None:
    file = tmp_path / "gen-web.container"
    run = ("run", "--unit-file", file, "-d", "--rm", "-e", "A=$x %n", "-m", "64m", image)
    done = sysbox(*run, "sh", "-c", "exec sleep 1000 # $0", check=True)
    assert (done.stdout, done.stderr) == ("", "")
    assert sysbox("ps", "-aq", "--filter", "name=gen", check=True).stdout == "", "nothing was run"
    before = file.read_text()
    assert "the file exists" in sysbox(*run, "true").stderr
    assert file.read_text() == before
    assert (
        sysbox(
            *("-" if one == file else one for one in run), "sh", "-c", "exec sleep 1000 # $0"
        ).stdout
        == before
    )
    sysbox("unit", "install", file, check=True)
    systemctl("start", "gen-web.service")
    one = container(sysbox, "systemd-gen-web")
    process = Path(f"/proc/{one.pid}")
    await_command(process)
    assert (process / "cmdline").read_bytes() == b"sleep\x001000\x00"
    assert b"A=$x %n" in (process / "environ").read_bytes().split(b"\0")
    assert one.inspect("HostConfig.Memory") == 64 << 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--unit-file", "web", "host"), "not the name of a declaration"),
        (("--unit-file", "/x/.container", "host"), "not the name of a declaration"),
        (("--unit-file", "/x/a b.container", "host"), "not the name of a declaration"),
        (("--unit-file", "/no/where/w.container", "host"), "No such file or directory"),
        (("--unit-file", "-", "-m", "x", "host"), "--memory x"),
        (("--unit-file", "-", "--network", "host", "--network", "none", "host"), "exclude each other"),
    ],
    ids=["suffix", "empty", "space", "directory", "flag", "flags"],
)  # fmt: skip
def test_what_is_refused(sysbox: Sysbox, words: tuple[str, ...], said: str) -> None:
    done = sysbox("run", *words)
    assert (done.returncode, done.stdout) == (125, "")
    assert said in done.stderr
