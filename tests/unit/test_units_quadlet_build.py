"""`.build` files: the context and the directory of a build, its flags, and what is said of their values."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_units_quadlet import command, services, write

from sysbox.base.errors import FormatError
from sysbox.cli.unit_check import checked
from sysbox.lifecycle import unit_files

BUILD = "[Build]\nImageTag=x\n"
FIRST = "/usr/bin/sysbox build --progress=plain --tag=x"


@pytest.mark.parametrize(
    ("text", "words", "directory"),
    [
        ("SetWorkingDirectory=unit", "{}", "{}"),
        ("SetWorkingDirectory=Unit\nFile=app/Containerfile", "--file=app/Containerfile {}", "{}"),
        ("SetWorkingDirectory=file\nFile=./app/Containerfile", "--file=./app/Containerfile {}/app", "{}/app"),
        ("SetWorkingDirectory=file\nFile=Containerfile", "--file=Containerfile {}", "{}"),
        ("SetWorkingDirectory=./app", "{}/app", "{}"),
        ("SetWorkingDirectory=app\nFile=Containerfile", "--file=Containerfile {}/app", "{}"),
        ("SetWorkingDirectory=/srv/app", "/srv/app", None),
        ("SetWorkingDirectory=https://example.org/app.git", "https://example.org/app.git", None),
        ("File=/srv/app/Containerfile", "--file=/srv/app/Containerfile /srv/app", None),
        ("File=/Containerfile\nSetWorkingDirectory=unit", "--file=/Containerfile /", "{}"),
        ("File=C\n[Service]\nWorkingDirectory=/srv/own", "--file=C /srv/own", "/srv/own"),
        ("SetWorkingDirectory=unit\n[Service]\nWorkingDirectory=-/srv/own", "/srv/own", "-/srv/own"),
    ],
    ids=["unit", "unit-file", "file", "file-here", "below", "word", "path", "url", "whole", "both", "service",
         "service-first"],
)  # fmt: skip
def test_where_a_build_runs(tmp_path: Path, text: str, words: str, directory: str | None) -> None:
    """Relative paths mean what they mean to podman, which runs in that directory."""
    write(tmp_path, a__build=f"{BUILD}{text}\n")
    (one,) = services(tmp_path).values()
    made = words.format(tmp_path).split()
    flags, context = made[:-1], made[-1]
    assert command(one).split() == [*FIRST.split()[:3], *flags, "--tag=x", context]
    own = [value for key, value in one.service_keys if key == "WorkingDirectory"]
    assert own == [directory.format(tmp_path)] if directory else own == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("File=Containerfile", ": [Build] has neither SetWorkingDirectory= nor an absolute File="),
        ("SetWorkingDirectory=file", ":3: SetWorkingDirectory=: there is no File="),
        ("SetWorkingDirectory=unit\nForceRM=perhaps", ":4: ForceRM=: 'perhaps' is not a boolean"),
        ("SetWorkingDirectory=unit\nVariant=v7", ":4: Variant=: needs Arch= too"),
    ],
    ids=["nowhere", "no-file", "boolean", "variant"],
)
def test_a_build_that_cannot_be(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, a__build=f"{BUILD}{text}\n")
    (one,) = services(tmp_path).values()
    assert one.error.removeprefix(f"{tmp_path}/a.build").startswith(said)


@pytest.mark.parametrize("kind", ["build", "image"])
def test_tls_is_off_only_where_a_file_says_so(tmp_path: Path, kind: str) -> None:
    texts = {"build": f"{BUILD}SetWorkingDirectory=/c\n", "image": "[Image]\nImage=x\n"}
    for value, expected in (("no", True), ("yes", False)):
        write(tmp_path, **{f"a__{kind}": f"{texts[kind]}TLSVerify={value}\n"})
        (one,) = services(tmp_path).values()
        assert ("--tls-verify=false" in command(one).split()) is expected


def test_keys_of_a_build(tmp_path: Path) -> None:
    text = """[Build]
ImageTag=x
SetWorkingDirectory=unit
DNSOption=ndots:2
DNSSearch=example.org
Environment=A=1
GroupAdd=7
Volume=./cache:/cache:ro
"""
    write(tmp_path, a__build=text)
    assert command(services(tmp_path)["a-build.service"]) == (
        "/usr/bin/sysbox build --progress=plain --dns-option=ndots:2 --dns-search=example.org --group-add=7"
        f" --tag=x --env=A=1 --volume={tmp_path}/cache:/cache:ro {tmp_path}"
    )


WRONG = {
    "tag": ("ImageTag=Not/Valid", "invalid image reference"),
    "pull": ("Pull=sometimes", "--pull sometimes: unknown policy"),
    "retry": ("Retry=many", "--retry many: "),
    "delay": ("RetryDelay=soon", "--retry-delay soon: "),
    "arch": ("Arch=a/b/c", "platform 'linux/a/b/c': must be"),
    "dns": ("DNS=nowhere", "--dns nowhere: "),
    "option": ("DNSOption=a b", "--dns-option a b: "),
    "group": ("GroupAdd=a:b", "--group-add a:b: "),
    "argument": ("BuildArg==x", "--build-arg =x: not NAME=VALUE"),
    "secret": ("Secret=token", "--secret token: not NAME=VALUE"),
    "secret-key": ("Secret=src=/a", "--secret src=/a: not id=NAME"),
    "annotation": ("Annotation=bare", "--annotation bare: not NAME=VALUE"),
    "environment": ("Environment=A=$$B", "--env A=$$B: a $ is not supported"),
    "network": ("Network=a/b", "network a/b: "),
    "shared": ("Network=container:x", "network container:x: "),
    "volume": ("Volume=/a:/b:rw,nope", "--volume /a:/b:rw,nope: "),
    "named": ("Volume=data:/b", "--volume data:/b: not a directory of the host"),
    "flag": ("PodmanArgs=--format=x", "--format x: unknown form"),
}


@pytest.mark.parametrize("name", WRONG)
def test_values_that_a_build_refuses(tmp_path: Path, name: str) -> None:
    """With file and line, before anything is built."""
    text, said = WRONG[name]
    key = text.partition("=")[0]
    path = tmp_path / "a.build"
    path.write_text(f"{BUILD}SetWorkingDirectory=unit\n{text}\nLabel=a=b\n")
    with pytest.raises(FormatError) as error:
        checked(unit_files.made([str(path)])[0])
    place = f"{path}:4: {key}=: " if name != "flag" else f"{path}: "
    assert error.value.message.startswith(f"{place}{said}")


def test_values_that_a_build_accepts(tmp_path: Path) -> None:
    """Its files need not be there yet, and what a specifier or a variable stands for is not known."""
    path = tmp_path / "a@.build"
    path.write_text(
        "[Build]\nImageTag=localhost/a:%i\nImageTag=b\nSetWorkingDirectory=unit\nFile=none/Containerfile\n"
        "IgnoreFile=none\nAuthFile=/none\nSecret=id=a,src=/none\nBuildArg=A=1 B\nAnnotation=a=b\nArch=arm64\n"
        "Variant=v8\nDNS=9.9.9.9\nDNSOption=ndots:1\nDNSSearch=example.org\nEnvironment=A=1\nForceRM=yes\n"
        "GroupAdd=7\nLabel=c=d\nNetwork=none\nPull=newer\nRetry=2\nRetryDelay=5s\nTarget=t\nTLSVerify=no\n"
        "Volume=./cache:/cache:ro\nPodmanArgs=--squash\n"
    )
    assert checked(unit_files.made([str(path)])[0]).unit == "a-build@.service"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Policy=often", "3: Policy=: --policy often: unknown policy"),
        ("Retry=-1", "3: Retry=: --retry -1: "),
        ("RetryDelay=later", "3: RetryDelay=: --retry-delay later: "),
        ("Arch=a/b/c", "3: Arch=: platform 'linux/a/b/c': "),
    ],
    ids=["policy", "retry", "delay", "arch"],
)
def test_values_that_a_pull_refuses(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.image"
    path.write_text(f"[Image]\nImage=x\n{text}\n")
    with pytest.raises(FormatError) as error:
        checked(unit_files.made([str(path)])[0])
    assert error.value.message.removeprefix(f"{path}:").startswith(said)
