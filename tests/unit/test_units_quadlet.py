"""Declarations: which files count, what each becomes, and what is said of wrong ones."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sysbox.cli.table.verbs import VERBS, options_of
from sysbox.units.quadlet import convert, generate, keys, sources, units

LAUNCHER = "/usr/bin/sysbox"


def write(directory: Path, **files: str) -> None:
    """Files by name, `__` for a dot."""
    for name, text in files.items():
        path = directory / name.replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def services(directory: Path) -> dict[str, units.Service]:
    found = sources.find([str(directory)])
    declared = units.Declared(found)
    made = [convert.service_of(one, declared, LAUNCHER) for one in found]
    return {one.unit: one for one in made}


def command(service: units.Service) -> str:
    assert not service.error, service.error
    return dict(service.service_keys)["ExecStart"]


def test_a_container_becomes_the_words_of_run(tmp_path: Path) -> None:
    write(tmp_path, web__container="""
[Container]
Image=busybox:1
Exec=httpd -f -h "/srv www"
Environment=A=1 "B=two words"
Environment=A=2
AddCapability=NET_RAW CHOWN
PublishPort=8080:80
User=7
Group=8
""")  # fmt: skip
    assert command(services(tmp_path)["web.service"]) == (
        "/usr/bin/sysbox _unit %n --name=systemd-%N --publish=8080:80 --cap-add=NET_RAW --cap-add=CHOWN"
        ' --env=A=2 "--env=B=two words" --user=7:8 busybox:1 httpd -f -h "/srv www"'
    )


def test_what_a_container_refers_to_comes_first(tmp_path: Path) -> None:
    write(
        tmp_path,
        web__container="[Unit]\nWants=db.container\n[Container]\nImage=base.image\nVolume=data.volume:/d:ro\n"
        "Volume=./conf:/conf\nNetwork=back.network:ip=10.0.0.2\nNetwork=db.container\n",
        db__container="[Container]\nImage=x\nContainerName=database\nServiceName=pg\n",
        base__image="[Image]\nImage=quay.io/a/b:1\n",
        data__volume="[Volume]\nVolumeName=files\n",
        back__network="[Network]\nIPv6=yes\n",
    )
    found = services(tmp_path)
    web = found["web.service"]
    assert "pg.service" in found
    assert command(web).endswith(
        f"--volume=files:/d:ro --volume={tmp_path}/conf:/conf --network=systemd-back:ip=10.0.0.2"
        " --network=container:database quay.io/a/b:1"
    )
    needed = [value for key, value in web.unit_keys if key == "Requires"]
    assert needed == [
        "data-volume.service",
        "back-network.service",
        "pg.service",
        "base-image.service",
    ]
    assert ("Wants", "pg.service") in web.unit_keys
    assert command(found["data-volume.service"]) == "/usr/bin/sysbox volume create --ignore files"
    assert command(found["base-image.service"]) == "/usr/bin/sysbox pull --quiet quay.io/a/b:1"
    assert command(found["back-network.service"]) == (
        "/usr/bin/sysbox network create --ignore --ipv6 systemd-back"
    )


def test_a_build_and_the_container_of_its_image(tmp_path: Path) -> None:
    write(
        tmp_path,
        app__container="[Container]\nImage=app.build\n",
        app__build="[Build]\nImageTag=localhost/app:1\nImageTag=localhost/app\nSetWorkingDirectory=unit\n"
        "BuildArg=A=1 B\nTarget=last\n",
        other__build="[Build]\nImageTag=x\nFile=/srv/x/Containerfile\n",
        wrong__build="[Build]\nImageTag=x\nFile=Containerfile\n",
    )
    found = services(tmp_path)
    assert command(found["app-build.service"]) == (
        "/usr/bin/sysbox build --progress=plain --target=last --tag=localhost/app:1 --tag=localhost/app"
        f" --build-arg=A=1 --build-arg=B {tmp_path}"
    )
    assert command(found["app.service"]).endswith(" localhost/app:1")
    assert ("Requires", "app-build.service") in found["app.service"].unit_keys
    assert command(found["other-build.service"]).endswith(
        "--file=/srv/x/Containerfile --tag=x /srv/x"
    )
    assert "neither SetWorkingDirectory=" in found["wrong-build.service"].error


def test_secrets(tmp_path: Path) -> None:
    text = "Secret=one\nSecret=two,type=env,target=TOKEN three,uid=1\n"
    write(tmp_path, x__container=f"[Container]\nImage=x\n{text}")
    assert "--secret=one --secret=two,type=env,target=TOKEN --secret=three,uid=1" in command(
        services(tmp_path)["x.service"]
    )


def test_drop_ins_of_a_name_a_dash_and_a_kind(tmp_path: Path) -> None:
    text = "[Container]\nLabel={}\n"
    write(
        tmp_path,
        **{
            "web-a__container": "[Container]\nImage=x\n",
            "web-a__container.d/10.conf": text.format("own=1"),
            "web-__container.d/10.conf": text.format("hidden=1"),
            "web-__container.d/20.conf": text.format("dash=1"),
            "container__d/30.conf": text.format("kind=1"),
        },
    )
    words = command(services(tmp_path)["web-a.service"])
    assert "--label=own=1 --label=dash=1 --label=kind=1" in words


def test_the_first_directory_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    write(first, x__container="[Container]\nImage=first\n")
    write(second, x__container="[Container]\nImage=second\n", y__container="[Container]\nImage=y\n")
    found = sources.find([str(first), str(second)])
    assert [one.path for one in found] == [f"{first}/x.container", f"{second}/y.container"]


def test_a_template_and_its_instance(tmp_path: Path) -> None:
    write(tmp_path, **{"c@__container": "[Container]\nImage=x\n"})
    (tmp_path / "c@7.container").symlink_to("c@.container")
    found = services(tmp_path)
    assert set(found) == {"c@.service", "c@7.service"}
    assert "--name=systemd-%p_%i" in command(found["c@7.service"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Container]\nImag=x\n", ":2: [Container] has no key Imag: did you mean Image?"),
        ("[Contaner]\nImage=x\n", ":1: there is no section [Contaner]: did you mean 'Container'?"),
        ("[Unit]\nDescription=x\n", ": it has no section [Container]"),
        ("[Container]\nExec=true\n", ": [Container] has no Image="),
        ("[Container]\nImage=x\nGroup=7\n", ":3: Group=: needs User= too"),
        ("[Container]\nImage=x\nReadOnly=perhaps\n", ":3: ReadOnly=: 'perhaps' is not a boolean: yes or no"),
        ("[Container]\nImage=x\nEnvironment==A\n", ":3: Environment=: '=A' is not NAME=VALUE"),
        ('[Container]\nImage=x\nExec="a\n', ':3: Exec=: a quote " has no end: write it as \\"'),
        ("[Container]\nImage=x\nVolume=d.volume:/d\n", ":3: Volume=: there is no d.volume"),
        ("[Container]\nImage=x\n[Service]\nUser=y\n", ":4: User=: not in [Service]"),
        ("[Container]\nImage=x\n[Service]\nType=simple\n", ":4: Type= must be notify or oneshot"),
        ("[Container]\nImage=x\nServiceName=../x\n", ":3: ServiceName=: '../x' is not the name"),
        ("[Container\nImage=x\n", ":1: the line begins with '[' and does not end in ']'"),
        ("[Container]\nRootfs=/srv\n", ":2: Rootfs=: a container needs an image, not a directory"),
    ],
    ids=[
        "key", "section", "no-section", "no-image", "group", "boolean", "pair", "quote", "reference",
        "service-user", "service-type", "service-name", "header", "rootfs",
    ],
)  # fmt: skip
def test_a_wrong_file_becomes_a_unit_that_says_so(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, x__container=text, good__container="[Container]\nImage=x\n")
    found = services(tmp_path)
    assert found["x.service"].error.startswith(f"{tmp_path}/x.container{said}")
    file = units.text(found["x.service"], LAUNCHER)
    assert "ExecStart=/usr/bin/sysbox _fail " in file
    assert not found["good.service"].error


def test_what_is_no_file_and_what_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "d.container").mkdir()
    (tmp_path / "l.container").symlink_to("nowhere")
    (tmp_path / "m.container").symlink_to("/dev/null")
    (tmp_path / "big.container").write_bytes(b"#" * (sources.MAX_FILE + 1))
    (tmp_path / "junk.container").write_bytes(bytes(range(256)))
    errors = {unit: one.error for unit, one in services(tmp_path).items()}
    assert "is not a regular file" in errors["d.service"]
    assert "No such file or directory" in errors["l.service"]
    assert "it has no section [Container]" in errors["m.service"]
    assert "larger than 1 MiB" in errors["big.service"]
    assert "junk.container:" in errors["junk.service"]


def test_every_flag_of_the_table_is_one_of_the_verb() -> None:
    verbs = {
        "Container": "run",
        "Volume": "volume create",
        "Network": "network create",
        "Image": "pull",
        "Build": "build",
    }
    for section, verb in verbs.items():
        known = {
            name for option in options_of(VERBS[verb]) for name in option.names + option.hidden
        }
        flags = {one.flag for one in keys.SECTIONS[section] if one.flag}
        assert flags <= known, flags - known


def test_the_text_is_the_same_each_time(tmp_path: Path) -> None:
    write(tmp_path, x__container="[Container]\nImage=x\n[Install]\nWantedBy=multi-user.target\n")
    (one,) = services(tmp_path).values()
    text = units.text(one, LAUNCHER, install=True)
    assert text == units.text(one, LAUNCHER, install=True)
    assert text.endswith("[Install]\nWantedBy=multi-user.target\n")
    assert "[Install]" not in units.text(one, LAUNCHER)


def test_links_to_directories_are_followed_once(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    for name in "abcdefgh":
        (below / name).symlink_to("..")
    write(below, x__container="[Container]\nImage=x\n")
    assert [one.path for one in sources.find([str(tmp_path)])] == [f"{below}/x.container"]


def test_what_is_behind_links_comes_last_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_DIRECTORIES", 50)
    top = tmp_path / "top"
    write(top / "z", x__container="[Container]\nImage=x\n")
    write(tmp_path / "other", y__container="[Container]\nImage=x\n")
    (top / "a").symlink_to("/")
    skipped: list[str] = []
    found = sources.find([str(top), str(tmp_path / "other")], skipped)
    assert {"x.container", "y.container"} <= {one.name for one in found}
    assert [line.partition(": ")[2] for line in skipped] == ["not searched, after 50 directories"]
    assert skipped[0].startswith(f"{top}/a/")


def test_directories_may_be_deeper_than_calls_can_be(tmp_path: Path) -> None:
    write(tmp_path, x__container="[Container]\nImage=x\n")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(sys.getrecursionlimit()):
        os.mkdir("a", dir_fd=here)
        below = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    skipped: list[str] = []
    found = sources.find([str(tmp_path)], skipped)
    # shutil.rmtree, which removes old directories of pytest, cannot
    subprocess.run(["rm", "-rf", str(tmp_path / "a")], check=True)
    assert [one.name for one in found] == ["x.container"]
    assert not skipped


def test_more_files_than_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MAX_FILES", 1)
    write(tmp_path, **{f"{name}__container": "[Container]\nImage=x\n" for name in "abc"})
    skipped: list[str] = []
    assert [one.name for one in sources.find([str(tmp_path)], skipped)] == ["a.container"]
    assert skipped == [f"{tmp_path}/{name}.container: not read, after 1 files" for name in "bc"]


def test_beside_is_not_below(tmp_path: Path) -> None:
    write(tmp_path, x__container="[Container]\nImage=x\n", x__container__d="")
    (tmp_path / "x.container.d").unlink()
    write(tmp_path / "x.container.d", a__conf="[Container]\nImage=y\n")
    write(tmp_path / "below", base__image="[Image]\nImage=x\n")
    (one,) = sources.find((), beside=[str(tmp_path)])
    assert one.name == "x.container"
    assert [each.value for each in one.assignments] == ["x", "y"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x", "[Unit]\n\ufeffA=b\n\ufeffC=d\n[Container]\nImage=x\n", ":2: a unit file cannot have this"),
        ("new\nline/x", "[Container]\nImage=x\n", ": a unit file cannot name this path"),
        ("\udcff/x", "[Container]\nImage=x\n", ": a unit file cannot name this path"),
        ("x", '[Container]\nImage=x\n[Install]\nWantedBy=""\n', ":4: WantedBy=: '' is not the name"),
        ("x", f"[Container]\nImage=x\n[Install]\nWantedBy={'t' * 248}\n", ":4: WantedBy=: 'ttt"),
        ("x", f"[Container]\n{'K' * 1000000}=x\n", ":2: [Container] has no key KKK"),
        ("x", "[Container]\nImage=x\nNetwork=x.container\n", ":3: Network=: x.container is this file"),
    ],
    ids=["bom", "path", "path-bytes", "empty-word", "long-target", "long-key", "itself"],
)  # fmt: skip
def test_no_file_costs_the_others_their_units(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    write(tmp_path, good__container="[Container]\nImage=x\n")
    path = tmp_path / f"{name}.container"
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    made = generate.generate(sources.find([str(tmp_path)]), LAUNCHER)
    assert sorted(made.files) == ["good.service", "x.service"]
    assert [line for line in made.errors if line.startswith(f"{path}{said}")]
    out = tmp_path / "out"
    out.mkdir()
    generate.write(made, str(out), str(out))
    assert (out / "good.service").exists()


def test_a_mistake_of_ours_costs_one_unit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, bad__volume="[Volume]\n", good__container="[Container]\nImage=x\n")
    monkeypatch.setitem(convert._MADE, "volume", lambda _: {}["no such key"])
    made = generate.generate(sources.find([str(tmp_path)]), LAUNCHER)
    assert sorted(made.files) == ["bad-volume.service", "good.service"]
    assert "bad.volume: cannot be converted: KeyError('no such key')" in made.errors[0]


def test_an_empty_value_resets_a_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        x__container="[Container]\nImage=x\nContainerName=a\nHostName=b\nReadOnly=yes\nEntrypoint=c\n",
    )
    write(
        tmp_path / "x.container.d",
        a__conf="[Container]\nContainerName=\nHostName=\nReadOnly=\nEntrypoint=\n",
    )
    assert command(services(tmp_path)["x.service"]).endswith(" --name=systemd-%N --entrypoint= x")


def test_a_directory_s_name_has_no_specifiers(tmp_path: Path) -> None:
    write(tmp_path / "100%n$HOME", x__container="[Container]\nImage=x\nVolume=./d:/d\n")
    service = services(tmp_path)["x.service"]
    assert f'"--volume={tmp_path}/100%%n$$HOME/d:/d"' in command(service)
    assert dict(service.unit_keys)["RequiresMountsFor"] == f'"{tmp_path}/100%%n$HOME/d"'


def test_a_file_whose_name_is_none_of_a_unit(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{"a b__container": "[Container]\nImage=x\n", "c__container": "[Container]\nImage=x\n"},
    )
    made = generate.generate(sources.find([str(tmp_path)]), LAUNCHER)
    assert list(made.files) == ["c.service"]
    assert "'a b.service' is not the name of a unit" in made.errors[0]


def test_what_the_generator_writes(tmp_path: Path) -> None:
    write(
        tmp_path / "in",
        **{
            "web__container": "[Container]\nImage=x\n[Install]\nWantedBy=multi-user.target a.target\n"
            "Alias=www.service\n",
            "c@__container": "[Container]\nImage=x\n[Install]\nDefaultInstance=7\nRequiredBy=a.target\n",
            "bad__container": "[Container]\n[Install]\nWantedBy=multi-user.target\n",
            "y__container": "[Container]\nImage=x\nServiceName=same\n",
            "z__container": "[Container]\nImage=x\nServiceName=same\n",
            "up__container": "[Container]\nImage=x\n[Install]\nWantedBy=../../x\n",
        },
    )
    made = generate.generate(sources.find([str(tmp_path / "in")]), LAUNCHER)
    out = tmp_path / "out"
    out.mkdir()
    generate.write(made, str(out), str(out))
    links = {
        str(path.relative_to(out)): str(path.readlink())
        for path in out.rglob("*")
        if path.is_symlink()
    }
    assert links == {
        "multi-user.target.wants/bad.service": "../bad.service",
        "multi-user.target.wants/web.service": "../web.service",
        "a.target.wants/web.service": "../web.service",
        "a.target.requires/c@7.service": "../c@.service",
        "www.service": "web.service",
    }
    assert sorted(path.name for path in out.glob("*.service")) == [
        "bad.service", "c@.service", "same.service", "up.service", "web.service", "www.service",
    ]  # fmt: skip
    said = "\n".join(made.errors)
    assert "bad.container: [Container] has no Image=" in said
    both = f"{tmp_path}/in/y.container and {tmp_path}/in/z.container make one service, same.service"
    assert both in said
    assert (
        f'{LAUNCHER} _fail "{both}: give one a ServiceName="' in (out / "same.service").read_text()
    )
    assert "'../../x' is not the name of a unit" in said


def test_a_pod_and_its_containers_name_each_other(tmp_path: Path) -> None:
    write(
        tmp_path,
        shop__pod="[Pod]\nPublishPort=8080:80\nNetwork=back.network\nVolume=./page:/page:ro\nStopTimeout=3\n"
        "PodmanArgs=--memory=64m\n[Service]\nMemoryMax=1G\n",
        back__network="[Network]\n",
        web__container="[Container]\nImage=x\nPod=shop.pod\n",
        late__container="[Container]\nImage=x\nPod=shop.pod\nStartWithPod=no\n",
        other__container="[Container]\nImage=x\n",
    )
    found = services(tmp_path)
    pod = found["shop-pod.service"]
    assert command(pod) == (
        "/usr/bin/sysbox _pod %n --exit-policy=stop --publish=8080:80"
        f" --volume={tmp_path}/page:/page:ro --network=systemd-back --memory=64m systemd-shop"
    )
    assert (
        dict(pod.service_keys)["ExecStop"]
        == "/usr/bin/sysbox pod stop --ignore --time=3 systemd-shop"
    )
    assert dict(pod.service_keys)["ExecStopPost"].endswith("pod rm --ignore --force systemd-shop")
    assert ("Requires", "back-network.service") in pod.unit_keys
    both = [(key, value) for key, value in pod.unit_keys if key in ("Before", "Wants")]
    assert both == [("Before", "late.service"), ("Before", "web.service"), ("Wants", "web.service")]
    web = found["web.service"]
    assert "--pod=systemd-shop" in command(web)
    assert {("BindsTo", "shop-pod.service"), ("After", "shop-pod.service")} <= {*web.unit_keys}
    assert "shop-pod.service" not in str(found["other.service"].unit_keys)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("web.container", "[Container]\nImage=x\nPod=shop\n", "3: Pod=: 'shop' is not the name"),
        ("web.container", "[Container]\nImage=x\nPod=no.pod\n", "web.container:3: Pod=: there is no no.pod"),
        (
            "web.container", "[Container]\nImage=x\nPod=shop.pod\nPublishPort=80\n",
            "web.container:4: PublishPort=: it belongs to the pod",
        ),
        ("bad.pod", "[Pod]\nExitPolicy=never\n", "bad.pod:2: ExitPolicy=: 'never' is unknown"),
        ("bad.pod", "[Pod]\nStopTimeout=soon\n", "bad.pod:2: StopTimeout=: 'soon' is not a number"),
        ("bad.pod", "[Pod]\nImage=x\n", "bad.pod:2: [Pod] has no key Image"),
        ("bad.pod", "[Pod]\nRemapUsers=some\n", "bad.pod:2: RemapUsers=: 'some' is unknown"),
        ("bad.pod", "[Container]\nImage=x\n", "there is no section [Container]"),
        ("bad@.pod", "[Pod]\n", "a pod cannot be a template"),
    ],
    ids="not-a-file missing of-the-pod policy timeout key remap section template".split(),
)  # fmt: skip
def test_wrong_pods(tmp_path: Path, name: str, text: str, said: str) -> None:
    write(tmp_path, shop__pod="[Pod]\n")
    (tmp_path / name).write_text(text)
    (error,) = [one.error for one in services(tmp_path).values() if one.error]
    assert said in error


def test_a_wrong_container_does_not_break_its_pod(tmp_path: Path) -> None:
    write(tmp_path, shop__pod="[Pod]\n", web__container="[Container]\nPod=shop.pod\nImag=x\n")
    found = services(tmp_path)
    assert "has no key Imag" in found["web.service"].error
    assert not found["shop-pod.service"].error


def test_each_flag_of_a_pod_is_one_of_pod_create() -> None:
    known = {name for option in options_of(VERBS["pod create"]) for name in option.names}
    assert {key.flag for key in keys.POD if key.flag} <= known


@pytest.mark.parametrize(
    ("kind", "text", "waits"),
    [
        ("container", "[Container]\nImage=x\n", False),
        ("container", "[Container]\nImage=x\nPull=always\n", False),
        ("container", "[Container]\nImage=x\n[Quadlet]\nDefaultDependencies=yes\n", True),
        ("image", "[Image]\nImage=x\n", True),
        ("image", "[Image]\nImage=x\nPolicy=missing\n", False),
        ("image", "[Image]\nImage=x\n[Quadlet]\nDefaultDependencies=no\n", False),
        ("build", "[Build]\nImageTag=x\nSetWorkingDirectory=unit\n", True),
        ("volume", "[Volume]\n", False),
    ],
    ids=["container", "pull", "asked", "image", "missing", "refused", "build", "volume"],
)
def test_what_waits_for_the_network(tmp_path: Path, kind: str, text: str, waits: bool) -> None:
    write(tmp_path, **{f"x__{kind}": text})
    (one,) = services(tmp_path).values()
    assert not one.error, one.error
    found = [key for key, value in one.unit_keys if value == "network-online.target"]
    assert found == (["Wants", "After"] if waits else [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Default=yes", "[Quadlet] has no key Default"),
        ("DefaultDependencies=x", "'x' is not a bool"),
    ],
    ids=["key", "value"],
)
def test_what_quadlet_cannot_have(tmp_path: Path, line: str, said: str) -> None:
    write(tmp_path, x__container=f"[Container]\nImage=x\n[Quadlet]\n{line}\n")
    (one,) = services(tmp_path).values()
    assert said in one.error


def test_a_container_with_sockets(tmp_path: Path) -> None:
    write(
        tmp_path,
        web__container="[Container]\nImage=x\nListenStream=80\nListenDatagram=/run/x\n[Socket]\nSocketMode=0600\n"
        "[Install]\nWantedBy=sockets.target\n",
        **{
            "c@__container": "[Container]\nImage=x\nServiceName=y@\nListenStream=127.0.0.1:%i\nProxyPort=80\n"
            "IdleStop=7\n[Install]\nDefaultInstance=81\nWantedBy=sockets.target\n",
        },
    )
    made = generate.generate(sources.find([str(tmp_path)]), LAUNCHER)
    assert sorted(made.files) == [
        "web.service",
        "web.socket",
        "y-proxy@.service",
        "y@.service",
        "y@.socket",
    ]
    assert made.links == {
        "sockets.target.wants/web.socket": "../web.socket",
        "sockets.target.wants/y@81.socket": "../y@.socket",
    }
    assert made.files["web.socket"].partition("[Socket]\n")[2] == (
        "ListenStream=80\nListenDatagram=/run/x\nSocketMode=0600\n"
    )
    assert "\nRequires=web.socket\nAfter=web.socket\n" in made.files["web.service"]
    assert made.files["y@.socket"].partition("[Socket]\n")[2] == (
        "ListenStream=127.0.0.1:%i\nService=y-proxy@%i.service\n"
    )
    proxy = made.files["y-proxy@.service"]
    for line in (
        "BindsTo=y@%i.service", "Requires=y@%i.socket", "After=y@%i.service y@%i.socket",
        "ExecStart=/usr/bin/sysbox _proxy y@%i.service 80 stop 7",
        "ExecStopPost=/usr/bin/sysbox _proxy --idle=stop y@%i.service",
    ):  # fmt: skip
        assert line in proxy.splitlines()
    # it has no sockets itself
    assert "y@%i.socket" not in made.files["y@.service"]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("ProxyPort=80", ":3: ProxyPort=: there is no socket: ListenStream= is one"),
        ("IdleStop=1", ":3: IdleStop=: there is no socket"),
        ("ListenStream=80\nIdleStop=1", ":4: IdleStop=: it needs ProxyPort="),
        ("ListenStream=80\nProxyPort=0", ":4: ProxyPort=: '0' is not a port"),
        ("ListenStream=80\nProxyPort=80\nIdleStop=0", ":5: IdleStop=: '0' is not a number of seconds"),
        ("ListenStream=80\nProxyPort=80\nIdleStop=1min", ":5: IdleStop=: '1min' is not a number"),
        ("ListenStream=80\nProxyPort=80\nIdleStop=1\nIdleFreeze=2", ":6: IdleFreeze=: cannot be set"),
        ("ListenStream=80\nProxyPort=80\nIdleFreeze=2\n[Service]\nWatchdogSec=1", ":5: IdleFreeze=: a"),
        ("ListenStream=80\nProxyPort=80\nNetwork=none", ":4: ProxyPort=: with Network=none the"),
        ("ListenStream=80\nProxyPort=80\nPod=x.pod", ":4: ProxyPort=: with Pod= the address is that of the"),
        ("ListenDatagram=80\nProxyPort=80", ":3: ListenDatagram=: with ProxyPort= there are streams only"),
        ("ListenStream=65536", ":3: ListenStream=: '65536' is not the address of a socket: PORT,"),
        ("ListenStream=web", ":3: ListenStream=: 'web' is not the address"),
        ("ListenStream=80\n[Socket]\nAccept=yes", ":5: Accept=: one container has all connections"),
        ("ListenStream=80\n[Socket]\nService=x.service", ":5: Service=: the socket is this container's"),
        ("[Socket]\nSocketMode=0600", ": [Socket] without a socket: ListenStream= is one"),
    ],
    ids=[
        "proxy-alone", "idle-alone", "idle-without-proxy", "port", "never", "span", "both", "watchdog",
        "none", "pod", "datagrams", "no-port", "word", "accept", "service", "no-listener",
    ],
)  # fmt: skip
def test_sockets_that_are_wrong(tmp_path: Path, lines: str, said: str) -> None:
    write(tmp_path, x__container=f"[Container]\nImage=x\n{lines}\n")
    found = services(tmp_path)
    assert list(found) == ["x.service"]
    assert found["x.service"].error.startswith(f"{tmp_path}/x.container{said}")


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("Environment=URL=postgres://u:p%40s@db", "%4"), ("Exec=date +%Q", "%Q"),
        ("Environment=A=%%40 B=%%%%2 C=%i%%z D=100%", ""), ("Exec=curl -w %{http_code} -o %n", ""),
    ],
    ids="digit letter doubled others".split(),
)  # fmt: skip
def test_what_is_no_specifier(tmp_path: Path, line: str, wrong: str) -> None:
    """systemd refuses a unit with a letter or a digit behind % that stands for nothing."""
    write(tmp_path, web__container=f"[Container]\nImage=x\n{line}\n")
    error = services(tmp_path)["web.service"].error
    place = f"{tmp_path}/web.container:3: {line.partition('=')[0]}="
    assert error == (
        f"{place}: {wrong} is not a specifier: systemd refuses the unit: %% is a % itself"
        if wrong
        else ""
    )


def test_an_environment_file_that_may_be_missing(tmp_path: Path) -> None:
    write(tmp_path, web__container="[Container]\nImage=x\nEnvironmentFile=-/etc/web.env\n")
    error = services(tmp_path)["web.service"].error
    assert error.startswith(
        f"{tmp_path}/web.container:3: EnvironmentFile=: '-/etc/web.env': that it may"
    )
    assert error.endswith("EnvironmentFile= of [Service], with EnvironmentHost=yes here")
