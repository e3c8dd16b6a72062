"""From a command line to the specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base import codec, paths
from sysbox.base.errors import SpecError
from sysbox.cli.parse import hot
from sysbox.cli.request import spec as specbuild
from sysbox.cli.table.verbs import VERBS
from sysbox.conf.values import Settings
from sysbox.linux.userns import IdMap
from sysbox.spec import (
    Bridge,
    ContainerSpec,
    Endpoint,
    Limits,
    Logging,
    Mount,
    Namespaces,
    Port,
    UserNamespace,
)


def build(*words: str) -> ContainerSpec:
    values = hot.parse(VERBS["run"], [*words])
    return specbuild.build(values, detach=values.detach)


def test_nothing_asked_is_the_default() -> None:
    assert build("img") == ContainerSpec(image="img")


def test_defaults_of_sysbox_conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "CONFIGURATION", (str(tmp_path),))
    (tmp_path / "sysbox.conf").write_text(
        "[Network]\nBridge=br0\n[Log]\nDriver=json-file\nRateLimit=9\n[Container]\nPidsLimit=7\n"
    )
    spec = build("img")
    assert (spec.bridge, spec.limits) == (Bridge(name="br0"), Limits(pids=7))
    assert spec.logging == Logging(driver="json-file")
    asked = build(*"--log-driver journald --pids-limit 0 --network none img".split())
    assert (asked.bridge, asked.limits) == (Bridge(), Limits(pids=-1))
    assert asked.logging == Logging(rate_limit=9)
    assert build("--log-opt", "max-size=1m", "img").logging.max_size == 1 << 20
    with pytest.raises(SpecError, match="json-file has no such option"):
        build("--log-opt", "rate-limit=1", "img")
    assert build("--property", "TasksMax=3", "img").limits == Limits()


def test_the_clocks() -> None:
    assert (build("img").namespaces.time, build("img").time_offset) == ("auto", {})
    assert build("--timens", "container:x", "img").namespaces.time == "container:x"
    two = build("--time-offset", "boottime=1s", "--time-offset", "monotonic=2s", "img").time_offset
    assert two == {"boottime": 10**9, "monotonic": 2 * 10**9}
    with pytest.raises(SpecError, match="given twice"):
        build("--time-offset", "boottime=1s", "--time-offset", "boottime=1s", "img")
    with pytest.raises(SpecError, match="needs a time namespace of the container's own"):
        build("--timens", "host", "--time-offset", "boottime=1s", "img")
    with pytest.raises(SpecError, match="unknown mode"):
        build("--timens", "nosuch", "img")


def test_syslog_is_an_option_of_journald() -> None:
    assert build("img").logging.syslog
    assert not build("--log-opt", "syslog=false", "img").logging.syslog
    with pytest.raises(SpecError, match="not true or false"):
        build("--log-opt", "syslog=no", "img")
    with pytest.raises(SpecError, match="json-file has no such option"):
        build("--log-driver", "json-file", "--log-opt", "syslog=false", "img")


def test_a_full_line() -> None:
    spec = build(
        *"-itd --rm --name web -h box -w /srv/../x -u 1:2 --group-add 3 --init --read-only".split(),
        *"-c 512 -m 128m --memory-swap -1 --cpus 1.5 --pids-limit 0 --cpuset 0,1".split(),
        *"-v /a:/b:ro --tmpfs /t -p 8080:80 --network bridge --pid host --ipc shareable".split(),
        *"--stop-timeout 1m --stop-signal INT --shm-size 1m --slice a.slice --property TasksMax=5".split(),
        *"-l a=b -l c --add-host db=1.2.3.4 --sysctl net.ipv4.ip_forward=1 img sh -c".split(),
    )
    assert spec.name == "web"
    assert spec.workdir == "/x"
    assert spec.command == ("sh", "-c")
    assert (spec.interactive, spec.tty, spec.detach, spec.remove, spec.init) == (True,) * 5
    assert spec.limits == Limits(
        cpu_shares=512,
        memory=128 << 20,
        memory_swap=-1,
        nano_cpus=1_500_000_000,
        pids=-1,
        cpuset_cpus="0,1",
    )
    assert spec.mounts[0] == Mount(
        kind="bind", source="/a", target="/b", read_only=True, create=True
    )
    assert spec.ports == (Port(container_port=80, host_port=8080),)
    assert spec.namespaces == Namespaces(pid="host")
    assert spec.labels == {"a": "b", "c": ""}
    assert spec.stop_timeout == 60
    assert spec.add_hosts == ("db:1.2.3.4",)
    assert spec.sysctls == {"net.ipv4.ip_forward": "1"}


def test_the_record_reads_back() -> None:
    spec = build(*"-v /a:/b --device /dev/fuse --ulimit nofile=1:2 --entrypoint x img y".split())
    assert ContainerSpec.from_data(codec.loads(codec.dumps(spec.to_data()), "spec")) == spec


def test_groups_of_the_caller_and_umask_read_back() -> None:
    spec = build("--group-add", "keep-groups", "--umask", "77", "img")
    assert spec.umask == 0o77
    assert spec.kept_groups is not None
    assert ContainerSpec.from_data(codec.loads(codec.dumps(spec.to_data()), "spec")) == spec
    for field, value in (("umask", 512), ("kept_groups", [-1])):
        with pytest.raises(ValueError, match=field):
            ContainerSpec.from_data({"image": "i", field: value})


def test_entrypoint() -> None:
    assert build("img").entrypoint is None
    assert build("--entrypoint", "", "img").entrypoint == ()
    assert build("--entrypoint", "/bin/a b", "img").entrypoint == ("/bin/a b",)
    assert build("--entrypoint", '["sh", "-c"]', "img").entrypoint == ("sh", "-c")
    assert build("--entrypoint", "[x]", "img").entrypoint == ("[x]",)


def test_env_order(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("A=file\nB=file\n", encoding="ascii")
    spec = build("-e", "A=flag", "--env-file", str(file), "-e", "C=1", "-e", "C=2", "img")
    assert set(spec.env) == {"A=flag", "B=file", "C=2"}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--name", "a/b", "img"], "--name"),
        (["-m", "12x", "img"], "--memory"),
        (["-c", "many", "img"], "--cpu-shares"),
        (["-p", "x", "img"], "--publish"),
        (["-p", "80", "--network", "ns:/x", "img"], "--network ns:/x"),
        (["-u", "a b", "img"], "--user"),
        (["-w", "relative", "img"], "--workdir"),
        (["--umask", "9", "img"], "--umask 9"),
        (["--group-add", "keep-groups", "--group-add", "5", "img"], "--group-add 5"),
        (["--security-opt", "mask=/x", "--tmpfs", "/x", "img"], "mask=/x: a tmpfs"),
        (["-v", "/a:/x", "--tmpfs", "/x", "img"], "twice"),
        (["--pull", "sometimes", "img"], "--pull"),
        (["--network", "br0/x", "img"], "--network"),
        (["--userns", "own", "img"], "--userns own: unknown mode"),
        (
            ["--userns", "auto", "--uidmap", "0:1", "img"],
            "--userns and --uidmap exclude each other",
        ),
        (["--subgidname", "x", "--gidmap", "0:1", "img"], "--gidmap and --subgidname exclude"),
        (["--subuidname", "a:b", "img"], "--subuidname a:b"),
        (["--kernel-memory", "much", "img"], "--kernel-memory"),
        (["--property", "noequals", "img"], "--property"),
        (["--stop-signal", "FOO", "img"], "--stop-signal"),
        (["--shm-size", "0", "img"], "--shm-size"),
        (["--sysctl", "x", "img"], "--sysctl"),
        (["--env-file", "/does/not/exist", "img"], "--env-file"),
        ([""], "image"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refused(words: list[str], named: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(*words)
    assert named in caught.value.message
    assert caught.value.status == 125


def test_user_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = build("--userns", "host", "img")
    assert (spec.namespaces.user, spec.userns) == ("host", UserNamespace())
    spec = build("--userns", "auto:size=100", "img")
    assert (spec.namespaces.user, spec.userns.size) == ("auto", 100)
    spec = build("--uidmap", "0:7:2", "img")
    assert spec.namespaces.user == "mapped"
    assert spec.userns.uids == spec.userns.gids == (IdMap(inside=0, outside=7, count=2),)
    assert ContainerSpec.from_data(codec.loads(codec.dumps(spec.to_data()), "spec")) == spec
    # of the file only what no flag says, and only what is not the default
    monkeypatch.setattr(paths, "CONFIGURATION", (str(tmp_path),))
    other = {"auto": "host", "host": "auto"}[Settings().userns]
    (tmp_path / "sysbox.conf").write_text(f"[Container]\nUserNS={other}\n")
    assert build("img").userns.default == other
    assert build("--userns", "nomap", "img").userns == UserNamespace()


def test_flags_of_docker_without_an_effect(capfd: pytest.CaptureFixture[str]) -> None:
    assert build("--kernel-memory", "64m", "img") == build("img")
    assert capfd.readouterr().err.startswith("sysbox: --kernel-memory has no effect: ")


def test_networks() -> None:
    assert build("--network", "default", "img") == build("--net", "bridge", "img") == build("img")
    spec = build(
        "--network",
        "web:ip=10.1.2.3,alias=DB,alias=x",
        "--network",
        "name=back,mac=02-00-00-00-00-01",
        "img",
    )
    assert spec.namespaces.network == "bridge"
    assert spec.networks == (
        Endpoint(network="web", address="10.1.2.3", aliases=("db", "x")),
        Endpoint(network="back", mac="02:00:00:00:00:01"),
    )
    flags = (
        "--network web --network back --ip 10.1.2.3 --ip6 fd00::5 --network-alias db --net-alias x"
    )
    assert build(*flags.split(), "img").networks == (
        Endpoint(network="web", address="10.1.2.3", address6="fd00::5", aliases=("db", "x")),
        Endpoint(network="back"),
    )
    assert build("--ip", "10.90.0.9", "img").networks == (
        Endpoint(network="bridge", address="10.90.0.9"),
    )
    assert build("--network", "none", "img").networks == ()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("--network web --network web", "--network web is given twice"),
        ("--network none --network web", "--network none and --network web exclude each other"),
        ("--network host --network host", "exclude each other"),
        ("--network host --ip 10.1.2.3", "--ip needs a network of the container's own"),
        ("--network container:x -p 80", "--publish needs a network"),
        ("--network web:ip=10.1.2.3 --ip 10.1.2.4", "has another one"),
        ("--network web:ip=10.1.2.3,ip=10.1.2.4", "ip is given twice"),
        ("--network web:ip=10.1.2.300", "is not an IP address"),
        ("--network web:ip6=10.1.2.3", "not an IPv6 address"),
        ("--network web:ipp=10.1.2.3", "unknown option ipp"),
        ("--network web:ip", "ip is not OPTION=VALUE"),
        ("--network web,ip=10.1.2.3", "web is not OPTION=VALUE"),
        ("--network ip=10.1.2.3", "names no network"),
        ("--network web:mac=03:00:00:00:00:01", "not the address of one link"),
        ("--network web:mac=02:00", "not a MAC address"),
        ("--network web:alias=a_b!", "not a host name"),
        ("--network web:interface_name=lo", "has a meaning of its own"),
        ("--network-alias x", "nothing resolves names on the network bridge"),
        ("--network w/b", "not a valid name"),
        ("--network pasta:--map-gw", "pasta is podman's mode for users other than root"),
        ("--network slirp4netns:port_handler=x", "slirp4netns is podman's mode for users other"),
    ],
)
def test_networks_that_cannot_be(flags: str, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        build(*flags.split(), "img")
