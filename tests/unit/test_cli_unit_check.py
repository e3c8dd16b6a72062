"""`sysbox unit check`: what the flags of a declaration are worth, and the line that an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import FormatError
from sysbox.cli.unit_check import checked, clashes
from sysbox.lifecycle import unit_files


def said(path: Path, text: str) -> str:
    path.write_text(f"[Container]\nImage=x\n{text}\n")
    with pytest.raises(FormatError) as error:
        checked(unit_files.made([str(path)])[0])
    return error.value.message.removeprefix(f"{path}:")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "PublishPort=80:80\nPublishPort=99999:1\nPublishPort=81:81",
            "4: PublishPort=: --publish 99999:1: ",
        ),
        ("User=a b", "3: User=: --user a b: "),
        ("Memory=lots", "3: Memory=: --memory lots: "),
        ("Memory=1g\nMemory=much", "4: Memory=: --memory much: "),
        ("Volume=/a:/b:rw,nope", "3: Volume=: --volume /a:/b:rw,nope: "),
        ("Network=a/b", "3: Network=: --network a/b: "),
        ("HealthCmd=x\nHealthInterval=soon", "4: HealthInterval=: --health-interval soon: "),
        ("ContainerName=web%i/x", "3: ContainerName=: --name web/x: "),
        ("Sysctl=a=1 b", "3: Sysctl=: --sysctl b: "),
        ("UserNS=keep-id\nNetwork=host", "3: UserNS=: --userns keep-id and --network host exclude"),
        ("PodmanArgs=--no-such-flag", "3: PodmanArgs=: `sysbox run` has no flag --no-such-flag"),
    ],
    ids=lambda one: one.partition("=")[0] if one[0].isupper() else "",
)
def test_the_line_of_a_value_that_run_refuses(tmp_path: Path, text: str, expected: str) -> None:
    assert said(tmp_path / "web.container", text).startswith(expected)


def test_specifiers_and_variables_stand_for_something(tmp_path: Path) -> None:
    path = tmp_path / "web@.container"
    path.write_text(
        "[Container]\nImage=x:%i\nPublishPort=80%i:80\nVolume=%h/site:/srv\nVolume=%S/a:/a\nUser=%U\n"
        "Environment=A=100%% B=%\nMemory=${SIZE}\nEnvironmentFile=/nowhere\nExec=echo 100%%\n"
    )
    assert checked(unit_files.made([str(path)])[0]).unit == "web@.service"


def test_two_files_that_make_one_service(tmp_path: Path) -> None:
    paths = [tmp_path / "site.volume", tmp_path / "site-volume.container"]
    paths[0].write_text("[Volume]\n")
    paths[1].write_text("[Container]\nImage=x\n")
    (service,) = unit_files.made([str(path) for path in paths])
    with pytest.raises(FormatError, match=r"make one service, site-volume\.service: give one"):
        checked(service)


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("network", "[Network]\nSubnet=10.88.0.0/33", "2: Subnet=: subnet '10.88.0.0/33': the mask"),
        ("network", "[Network]\nSubnet=10.8.0.0/24\nGateway=10.9.0.1", "3: Gateway=: --gateway 10.9.0.1: "),
        ("network", "[Network]\nNetworkName=a/b", "2: NetworkName=: network a/b: not a valid"),
        ("network", "[Network]\nPodmanArgs=--nope", "2: PodmanArgs=: `sysbox network create` has no"),
        ("volume", "[Volume]\nOptions=size=much", "2: Options=: --opt size=much: "),
        ("image", "[Image]\nImage=Not/Valid", "2: Image=: invalid image reference"),
        ("build", "[Build]\nImageTag=x\nSetWorkingDirectory=unit\nPodmanArgs=--nope", "4: PodmanArgs=: "),
        ("pod", "[Pod]\nPodName=x y", "2: PodName=: --name x y: not a valid name"),
    ],
    ids=["subnet", "gateway", "name", "flag", "size", "image", "build", "pod"],
)  # fmt: skip
def test_values_of_other_kinds(tmp_path: Path, kind: str, text: str, expected: str) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_text(f"{text}\n")
    with pytest.raises(FormatError) as error:
        checked(unit_files.made([str(path)])[0])
    assert error.value.message.removeprefix(f"{path}:").startswith(expected), error.value.message


def test_good_ones_of_other_kinds(tmp_path: Path) -> None:
    for name, text in {
        "a.network": "[Network]\nSubnet=10.88.0.0/24\nGateway=10.88.0.9\nIPv6=yes\nLabel=a=b",
        "b.volume": "[Volume]\nType=tmpfs\nDevice=tmpfs\nOptions=size=1m",
        "c.image": "[Image]\nImage=quay.io/a/b:%m",
        "d.build": "[Build]\nImageTag=x\nSetWorkingDirectory=unit\nFile=./Containerfile",
        "e.pod": "[Pod]\nNetwork=a.network\nPublishPort=80:80",
    }.items():
        (tmp_path / name).write_text(f"{text}\n")
    made = unit_files.made([str(tmp_path)])
    assert [checked(one).unit for one in made] == [
        "a-network.service", "b-volume.service", "c-image.service", "d-build.service", "e-pod.service",
    ]  # fmt: skip


def test_what_two_declarations_or_a_package_have_too(tmp_path: Path) -> None:
    texts = {
        "a": "ContainerName=same",
        "b": "ContainerName=same",
        "c": "PodmanArgs=--name=same",
        "d@": "ContainerName=same-%i",
        "e@": "ContainerName=same-%i",
        "systemd-journald": "",
    }
    for name, text in texts.items():
        (tmp_path / f"{name}.container").write_text(f"[Container]\nImage=x\n{text}\n")
    lines = list(clashes(unit_files.made([str(tmp_path)])))
    called = "its container is called same, as that of"
    assert [line for line in lines if "called" in line] == [
        f"{tmp_path}/{name}.container: {called} {tmp_path}/a.container: one of them can run at a time"
        for name in ("b", "c")
    ]
    (replaced,) = [line for line in lines if "called" not in line]
    assert replaced.startswith(f"{tmp_path}/systemd-journald.container: /")
    assert "/systemd-journald.service is there too, and one of the two counts: Ser" in replaced


def test_a_watchdog_that_nobody_feeds(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "web.container"
    for notify, said in (("no", True), ("healthy\nHealthCmd=true", True), ("yes", False)):
        path.write_text(f"[Container]\nImage=x\nNotify={notify}\n[Service]\nWatchdogSec=30\n")
        checked(unit_files.made([str(path)])[0])
        assert ("Notify=yes lets it say WATCHDOG=1" in capfd.readouterr().err) == said


@pytest.mark.parametrize(
    "name", ["a:b", "a@b@c", r"foo\x2dbar", "a" * 230], ids="colon at escaped long".split()
)
def test_a_service_whose_name_is_none_of_a_container(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.container"
    path.write_text("[Container]\nImage=x\n")
    with pytest.raises(FormatError, match=r"--name systemd-(a|foo)"):
        checked(unit_files.made([str(path)])[0])


def test_the_hosts_time_zone_is_asked_for_twice(tmp_path: Path) -> None:
    path = tmp_path / "web.container"
    for volume in ("/etc/localtime:/etc/localtime:ro", "/usr/share/zoneinfo/UTC:/etc/localtime"):
        path.write_text(f"[Container]\nImage=x\nTimezone=local\nVolume={volume}\n")
        (service,) = unit_files.made([str(path)])
        mounts = [word for word in checked(service).words if word.startswith("--volume=")]
        assert mounts == [f"--volume={volume}"]


def test_flags_of_podman_have_a_hint(tmp_path: Path) -> None:
    path = tmp_path / "web.container"
    path.write_text("[Container]\nImage=x\nPodmanArgs=--tz=local\n")
    with pytest.raises(FormatError) as error:
        checked(unit_files.made([str(path)])[0])
    assert error.value.hint == "write Timezone="
    path.write_text("[Container]\nImage=x\nPodmanArgs=--replace --cgroups=split --init\n")
    (service,) = unit_files.made([str(path)])
    assert "--init" in checked(service).words
    assert not {"--replace", "--cgroups=split"} & {*service.words}


@pytest.mark.parametrize(
    ("limit", "said"),
    [("8M", True), ("20000000", True), ("32M", False), ("1G", False), ("10%", False), ("infinity", False)],
    ids="small bytes enough large share none".split(),
)  # fmt: skip
def test_memory_that_does_not_suffice_for_a_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], limit: str, said: bool
) -> None:
    path = tmp_path / "web.container"
    path.write_text(f"[Container]\nImage=x\n[Service]\nMemoryMax={limit}\n")
    checked(unit_files.made([str(path)])[0])
    assert (f"MemoryMax={limit}: the command that starts" in capfd.readouterr().err) == said
