"""Declarations of command lines and of specifications: what is read back is what was asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from written import SAMPLES, again, build, declared, file_of, words_of

from sysbox.base.errors import SpecError
from sysbox.cli.request import words
from sysbox.cli.table.verbs import VERBS, options_of
from sysbox.spec import ContainerSpec, Health, Namespaces
from sysbox.units.quadlet import writer

# what a start decides, or sysbox.conf, or the image
DECIDED = {
    "detach", "attach", "sig_proxy", "unit", "ready", "unit_settings", "bridge", "kept_groups", "image",
    "command", "host_env",
}  # fmt: skip


def test_every_flag_has_a_sample() -> None:
    flags = {option.names[-1] for option in options_of(VERBS["run"])}
    sampled = {word.partition("=")[0] for sample in SAMPLES.values() for word in sample}
    assert flags - sampled - {"--unit-file", "--dry-run"} == set()


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_flag_is_read_back(sample: list[str]) -> None:
    line = [*sample, "--name=web", "img", "sh", "-c", "echo $HOME 100% \"a\"; x='1'"]
    assert declared(file_of(*line)) == again(build(*line))
    flags = words_of(build(*line))
    assert again(build(*flags)) == again(build(*line))


def test_every_field_of_a_specification_becomes_a_flag() -> None:
    """All samples together differ from the default in each field that a flag can set."""
    set_ = set()
    default = build("img")
    for sample in SAMPLES.values():
        spec = build(*sample, "img")
        set_ |= {
            one for one in ContainerSpec._fields if getattr(spec, one) != getattr(default, one)
        }
    assert {*ContainerSpec._fields} - set_ - DECIDED == set()


def test_the_file_has_the_keys_of_quadlet() -> None:
    text = file_of(
        *"-d --name web -p 8080:80 -e A=1 --user 7:8 --memory 64m --cpus 1.5 --restart always".split(),
        *"-v data:/d --network back:ip=10.0.0.2 --read-only --slice web --rm=false img:1".split(),
        "echo", "100% $HOME",
    )  # fmt: skip
    assert text.splitlines() == [
        "# sysbox wrote this of a command line of `sysbox run`",
        "[Container]",
        "Image=img:1",
        "ContainerName=web",
        "Environment=A=1",
        "User=7",
        "Group=8",
        "ReadOnly=yes",
        "ReadOnlyTmpfs=no",
        "Volume=data:/d",
        "Network=back:ip=10.0.0.2",
        "PublishPort=8080:80",
        "Memory=64m",
        "PodmanArgs=--cpus=1.5",
        'Exec=echo "100%% $$HOME"',
        "",
        "[Service]",
        "Restart=always",
        "RestartSec=5s",
        "Slice=web.slice",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]


@pytest.mark.parametrize(
    "text",
    ["a\nb", " a", "a ", "a\\", "", "\udcff", "\ufeff", "#", "\t", "a\rb", "é", '"', "'", "\x01", ";", "%n"],
    ids=[
        "newline", "space-before", "space-after", "backslash", "empty", "byte", "bom", "hash", "tab",
        "return", "letter", "quote", "apostrophe", "control", "semicolon", "specifier",
    ],
)  # fmt: skip
def test_values_that_need_quotes(text: str) -> None:
    line = [
        "--name=web", f"--env=A={text}", f"--entrypoint={text}", f"--label=l={text}",
        f"--volume=/x{text}:/y", f"--health-cmd=x{text}", f"--annotation={text}x=", f"--log-opt=tag=x{text}",
        f"--volume=/z:/w{text}w", "img", text, f"a{text}b", ";", "",
    ]  # fmt: skip
    assert declared(file_of(*line)) == again(build(*line))
    assert again(build(*words_of(build(*line)))) == again(build(*line))


def test_what_is_relative_to_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OWN", "mine $x")
    (tmp_path / "env").write_text("A=1\n")
    (tmp_path / "bare").write_text("OWN\nA=2\n")
    (tmp_path / "p.json").touch()
    text = file_of(
        "--env-file=env", "--env=OWN", "--env=NOT_THERE", "-v=./d:/d", "--security-opt=seccomp=p.json",
        "--mount=type=bind,src=m,dst=/m,ro", "--cidfile=id", "img",
    )  # fmt: skip
    for line in (
        f"EnvironmentFile={tmp_path}/env",
        'Environment="OWN=mine $$x"',
        f"Volume={tmp_path}/d:/d",
        f"Mount=type=bind,src={tmp_path}/m,dst=/m,readonly",
        f"SeccompProfile={tmp_path}/p.json",
        f"PodmanArgs=--cidfile={tmp_path}/id",
    ):
        assert line in text.splitlines()
    assert "NOT_THERE" not in text
    both = file_of("--env-file=env", "--env-file=bare", "--env-file=env", "--env=B=3", "img")
    assert "EnvironmentFile" not in both
    found = [one for one in both.splitlines() if one.startswith("Environment=")]
    assert found == ["Environment=A=1", 'Environment="OWN=mine $$x"', "Environment=B=3"]


def test_names_that_would_be_references() -> None:
    line = [
        "-v=x.volume:/d", "--network=y.network", "--mount=type=volume,src=z.volume,dst=/z", "a.build",
    ]  # fmt: skip
    text = file_of("--name=web", *line)
    assert "Image=a.build:latest" in text
    assert "PodmanArgs=--volume=x.volume:/d" in text
    found = declared(text)
    assert [one.source for one in found.mounts] == ["x.volume", "z.volume"]
    assert [one.network for one in found.networks] == ["y.network"]
    with pytest.raises(SpecError, match="takes a name that ends so for a file"):
        file_of("img:1.build")


def test_what_no_file_can_say() -> None:
    with pytest.raises(SpecError, match="may have 1 MiB"):
        file_of("img", "x" * (1 << 20))


def test_a_file_refers_to_those_beside_it() -> None:
    spec = build(
        *"--name=web -v=data:/d -v=other:/o --network=back:alias=a --network=front img".split()
    )
    flags = words.flags_of(spec)
    text = writer.container(
        flags, "img", (), comment="x", declared=("data.volume", "back.network", "front.network")
    )
    lines = text.splitlines()
    assert "Volume=data.volume:/d" in lines
    assert "Volume=other:/o" in lines
    assert "Network=back.network:alias=a" in lines
    assert "Network=front.network" in lines
    joined = writer.container(
        [("--network", "container:db")], "img", (), comment="x", declared=("db.container",)
    )
    assert "Network=db.container" in joined.splitlines()


def test_a_health_check_of_the_image_is_left_out() -> None:
    image = Health(command=("/bin/check", "it's"), interval=5_000_000)
    spec = build("img")
    from sysbox.container.health import merge

    merged = spec.replace(health=merge(Health(), image))
    assert words.flags_of(merged, image=image) == []
    slower = merged.replace(health=merged.health.replace(interval=7_500_000))
    assert words.flags_of(slower, image=image) == [("--health-interval", "7500ms")]
    gone = dict(words.flags_of(merged))
    assert gone["--health-cmd"] == '["CMD","/bin/check","it\'s"]'
    assert gone["--health-interval"] == "5s"


def test_what_a_container_has_of_its_pod_is_left_to_the_pod() -> None:
    modes = {kind: f"ns:/run/sysbox/pods/shop/{kind}" for kind in ("network", "ipc", "uts", "user")}
    spec = ContainerSpec(
        image="x", pod="shop", slice="sysbox-pod-shop.slice", namespaces=Namespaces(**modes)
    )
    assert words.flags_of(spec) == [("--pod", "shop")]


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("container", "Notify=yes"),
        ("healthy", "Notify=healthy"),
        ("conmon", "PodmanArgs=--sdnotify=conmon"),
    ],
)
def test_when_its_service_is_started(mode: str, line: str) -> None:
    assert line in file_of(f"--sdnotify={mode}", "img").splitlines()
    spec = build("img").replace(ready=mode)
    text = writer.container(words.flags_of(spec), "img", (), comment="x")
    assert line in text.splitlines()
