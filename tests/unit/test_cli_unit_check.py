"""`sysbox unit check`: what the flags of a declaration are worth, and the line that an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.base.errors import FormatError
from sysbox.cli.unit_check import checked
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
        ("ContainerName=web%i/x", "3: ContainerName=: --name web1/x: "),
        ("Sysctl=a=1 b", "3: Sysctl=: --sysctl b: "),
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
        "c.image": "[Image]\nImage=quay.io/a/b:%i",
        "d.build": "[Build]\nImageTag=x\nSetWorkingDirectory=unit\nFile=./Containerfile",
        "e.pod": "[Pod]\nNetwork=a.network\nPublishPort=80:80",
    }.items():
        (tmp_path / name).write_text(f"{text}\n")
    made = unit_files.made([str(tmp_path)])
    assert [checked(one).unit for one in made] == [
        "a-network.service", "b-volume.service", "c-image.service", "d-build.service", "e-pod.service",
    ]  # fmt: skip
