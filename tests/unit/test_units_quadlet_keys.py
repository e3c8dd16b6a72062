"""Keys of declarations that become more than one flag: volume options, remapped users, protection, limits."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_units_quadlet import command, services, write

from sysbox.units.quadlet import generate, sources

IMAGE = "[Container]\nImage=x\n"


def words(directory: Path, text: str, kind: str = "container") -> str:
    """The command of the service of one file, without its first words."""
    write(directory, **{f"a__{kind}": text})
    suffix = "" if kind == "container" else f"-{kind}"
    return command(services(directory)[f"a{suffix}.service"])


def refusal(directory: Path, text: str, kind: str = "container") -> str:
    write(directory, **{f"a__{kind}": text})
    (one,) = (one for one in services(directory).values() if one.source.name == f"a.{kind}")
    return one.error.removeprefix(f"{directory}/a.{kind}")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("Type=tmpfs\nDevice=tmpfs\nOptions=size=8m,nodev",
         "--opt=type=tmpfs --opt=device=tmpfs --opt=o=size=8m,nodev"),
        ("Type=none\nDevice=/srv\nOptions=bind", "--opt=type=none --opt=device=/srv --opt=o=bind"),
        ("User=7\nGroup=8\nLabel=a=1", "--label=a=1 --opt=o=uid=7,gid=8"),
        ("User=7\nUID=9\nCopy=no\nDriver=local", "--opt=o=uid=9 --opt=nocopy"),
        ("GlobalArgs=--log-level debug\nCopy=yes", ""),
    ],
    ids=["tmpfs", "bind", "owner", "newer-owner", "nothing"],
)  # fmt: skip
def test_options_of_a_volume(tmp_path: Path, text: str, made: str) -> None:
    found = words(tmp_path, f"[Volume]\n{text}\n", "volume")
    assert found == " ".join(f"/usr/bin/sysbox volume create --ignore {made} systemd-a".split())


def test_a_directory_beside_the_file_is_waited_for(tmp_path: Path) -> None:
    write(tmp_path, a__volume="[Volume]\nType=bind\nDevice=./data\n")
    (one,) = services(tmp_path).values()
    assert f"--opt=device={tmp_path}/data" in command(one)
    assert ("RequiresMountsFor", f'"{tmp_path}/data"') in one.unit_keys


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("RemapUsers=keep-id\nRemapUid=7\nRemapGid=8", "--userns=keep-id:uid=7,gid=8"),
        ("RemapUsers=auto\nRemapUidSize=1000\nRemapUid=0:100000:1",
         "--userns=auto:uidmapping=0:100000:1,size=1000"),
        ("RemapUsers=manual\nRemapUid=0:1:9\nRemapGid=0:2:9", "--uidmap=0:1:9 --gidmap=0:2:9"),
        ("SeccompProfile=./s.json\nNoNewPrivileges=yes",
         "--security-opt=no-new-privileges --security-opt=seccomp={}/s.json"),
        ("SeccompProfile=record:rel.json", "--security-opt=seccomp=record:{}/rel.json"),
        ("SeccompProfile=sub/s.json", "--security-opt=seccomp={}/sub/s.json"),
        ("SeccompProfile=word", "--security-opt=seccomp=word"),
        ("SeccompProfile=%h/s.json", "--security-opt=seccomp=%h/s.json"),
        ("Mask=/a\nUnmask=ALL\nAppArmor=my",
         "--security-opt=mask=/a --security-opt=unmask=ALL --security-opt=apparmor=my"),
        ("SecurityLabelDisable=true\nSecurityLabelNested=no\nVolatileTmp=yes",
         "--security-opt=label=disable --tmpfs=/tmp:rw,size=512M,mode=1777"),
        ("SecurityLabelNested=yes\nSecurityLabelType=a_t\nSecurityLabelLevel=s0:c1,c2",
         "--security-opt=label=nested --security-opt=label=type:a_t --security-opt=label=level:s0:c1,c2"),
        ("SecurityLabelFileType=b_t", "--security-opt=label=filetype:b_t"),
        ("EnvironmentHost=yes\nHealthCmd=a\nHealthStartupCmd=b",
         "--health-cmd=a --health-startup-cmd=b --env-host"),
        ("HealthLogDestination=local\nHealthMaxLogCount=9",
         "--health-log-destination=local --health-max-log-count=9"),
    ],
    ids=["keep-id", "auto", "manual", "seccomp", "record", "below", "profile", "specifier", "covers",
         "no-label", "labels",
         "file-type", "startup", "log"],
)  # fmt: skip
def test_keys_of_a_container(tmp_path: Path, text: str, made: str) -> None:
    found = words(tmp_path, f"{IMAGE}{text}\n")
    assert found == f"/usr/bin/sysbox _unit %n --name=systemd-%N {made.format(tmp_path)} x"


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("[Volume]\nDriver=image\nImage=x", "volume", ":2: Driver=: there is no driver 'image'"),
        (f"{IMAGE}RemapUid=7", "container", ":3: RemapUid=: it needs RemapUsers="),
        (f"{IMAGE}RemapUsers=keep-id\nUserNS=auto", "container",
         ":3: RemapUsers=: cannot be set together with UserNS="),
        (f"{IMAGE}RemapUsers=some", "container",
         ":3: RemapUsers=: 'some' is unknown: manual, auto or keep-id"),
        (f"{IMAGE}GlobalArgs=--root=/x", "container", ":3: GlobalArgs=: --root cannot be honoured"),
        (f"{IMAGE}Notify=healthy\n[Service]\nType=oneshot", "container",
         ":3: Notify=: a service of Type=oneshot"),
        (f"{IMAGE}MemoryMaxi=1G", "container", ":3: [Container] has no key MemoryMaxi"),
        ("[Build]\nImageTag=x\nSetWorkingDirectory=unit\nVolume=a.volume:/x", "build",
         ":4: Volume=: a build mounts"),
    ],
    ids=[
        "driver", "remap", "both", "remap-kind", "global", "job", "no-limit",
        "build-volume",
    ],
)  # fmt: skip
def test_what_cannot_be_honoured(tmp_path: Path, text: str, kind: str, said: str) -> None:
    assert refusal(tmp_path, f"{text}\n", kind).startswith(said)


def test_limits_in_the_section_of_the_container_are_the_services(tmp_path: Path) -> None:
    """As if they were in [Service], whose own come later and so count."""
    write(tmp_path, a__container=f"{IMAGE}MemoryMax=1G\nTasksMax=9\n[Service]\nMemoryMax=2G\n")
    (one,) = services(tmp_path).values()
    keys = [pair for pair in one.service_keys if pair[0] in ("MemoryMax", "TasksMax")]
    assert keys == [("MemoryMax", "1G"), ("TasksMax", "9"), ("MemoryMax", "2G")]


def test_the_section_of_the_generator(tmp_path: Path) -> None:
    write(tmp_path, a__container=f"[Quadlet]\nDefaultDependencies=no\n{IMAGE}", b__container=IMAGE)
    found = services(tmp_path)
    assert ("After", "dbus.socket") in found["a.service"].unit_keys
    assert ("After", "network.target dbus.socket") in found["b.service"].unit_keys
    assert refusal(tmp_path, f"{IMAGE}[Quadlet]\nDefault=no\n").startswith(
        ":4: [Quadlet] has no key Default"
    )


def test_what_public_files_have(tmp_path: Path) -> None:
    """Quotes around a value, variables by name alone, blanks after a backslash, a value in podman's words."""
    text = f"""{IMAGE}ContainerName="web"
HealthCmd="hello world"
Environment=A=1 HOME_PAGE
Label=bare
Mount=type=bind,src=/a,dst=/b,relabel=shared,rw=true
Exec=a \\ \n  b
PodmanArgs=--image-volume=ignore
"""
    assert words(tmp_path, text) == (
        '/usr/bin/sysbox _unit %n --name=web "--health-cmd=\\"hello world\\"" --env=A=1 --env=HOME_PAGE'
        " --label=bare --mount=type=bind,src=/a,dst=/b,relabel=shared,rw=true --image-volume=ignore x a b"
    )


def test_a_masked_generator_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "etc", tmp_path / "usr"
    for directory in (first, second):
        directory.mkdir()
    monkeypatch.setattr(generate, "_GENERATORS", (str(first), str(second)))
    assert generate.podmans() == ""
    own, mask = second / "podman-system-generator", first / "podman-system-generator"
    own.write_text("#!/bin/sh\n")
    assert generate.podmans() == "", "systemd would not execute it"
    own.chmod(0o755)
    assert generate.podmans() == str(own)
    mask.symlink_to("/dev/null")
    assert generate.podmans() == ""
    mask.unlink()
    mask.touch()
    assert generate.podmans() == ""


def test_a_job(tmp_path: Path) -> None:
    write(tmp_path, a__container=f"{IMAGE}[Service]\nType=oneshot\nRemainAfterExit=yes\n")
    (one,) = services(tmp_path).values()
    keys = dict(one.service_keys)
    assert (keys["Type"], keys["RemainAfterExit"]) == ("oneshot", "yes")
    assert keys["ExecStartPost"] == keys["ExecStopPost"] == "/usr/bin/sysbox _unit %n"


def test_a_socket_file_beside_a_container(tmp_path: Path) -> None:
    """Its unit is as it is written, and starts the container's service, or the proxy before it."""
    write(
        tmp_path,
        web__container=f"{IMAGE}ServiceName=site\nProxyPort=80\n[Install]\nWantedBy=a.target\n",
        web__socket="[Unit]\nAfter=db.container\n[Socket]\nListenStream=80\nService=web.service\nBacklog=9\n"
        "[Install]\nWantedBy=sockets.target\n",
        db__container=IMAGE,
        **{"db-admin__socket": "[Socket]\nListenStream=/run/x\nService=db.container\n"},
    )
    # of two names for one service the file's own counts
    write(tmp_path, web__socket=(tmp_path / "web.socket").read_text().replace("web.s", "site.s"))
    found = sources.find([str(tmp_path)])
    made = generate.generate(found, "sysbox")
    assert made.errors == ()
    assert sorted(made.files) == [
        "db-admin.socket", "db.service", "site-proxy.service", "site.service", "web.socket",
    ]  # fmt: skip
    web, admin = made.files["web.socket"].splitlines(), made.files["db-admin.socket"].splitlines()
    assert {"After=db.service", "ListenStream=80", "Backlog=9", "Service=site-proxy.service"} <= {
        *web
    }
    assert f"SourcePath={tmp_path}/web.socket" in web
    assert "Service=db.service" in admin
    assert "Requires=db-admin.socket" in made.files["db.service"].splitlines()
    assert "Requires=web.socket" in made.files["site-proxy.service"].splitlines()
    assert set(made.links) == {"a.target.wants/site.service", "sockets.target.wants/web.socket"}


def test_a_socket_file_of_a_template(tmp_path: Path) -> None:
    """An instance with a file of its own has sockets of its own; nobody else's service would ask for them."""
    write(
        tmp_path,
        web__container=IMAGE,
        **{
            "web@__container": f"{IMAGE}[Install]\nWantedBy=a.target\n",
            "web@__socket": "[Socket]\nListenStream=/run/%i\n[Install]\nWantedBy=sockets.target\n",
            "web@7__socket": "[Socket]\nListenStream=7\n",
            "solo@b__container": f"{IMAGE}ProxyPort=80\n",
            "solo@__socket": "[Socket]\nListenStream=80\n",
        },
    )
    for name in ("a", "b"):
        (tmp_path / f"web@{name}.container").symlink_to("web@.container")
    write(tmp_path, **{"web@b__socket": "[Socket]\nListenStream=9\n"})
    made = generate.generate(sources.find([str(tmp_path)]), "sysbox")
    assert made.errors == ()
    names = ["a", "b", "7", ""]
    assert sorted(made.files) == sorted(
        [*(f"web@{one}.socket" for one in names), *(f"web@{one}.service" for one in ("a", "b", ""))]
        + ["web.service", "solo@b.service", "solo-proxy@b.service", "solo@b.socket"]
    )
    for unit, needed in (
        ("web@.service", "web@%i.socket"), ("web@a.service", "web@a.socket"),
        ("web@b.service", "web@b.socket"), ("solo-proxy@b.service", "solo@b.socket"),
    ):  # fmt: skip
        assert f"Requires={needed}" in made.files[unit].splitlines(), unit
        assert made.files[unit].count("Requires=") == 1
    for socket, target, listens in (
        ("web@.socket", "web@%i.service", "/run/%i"), ("web@a.socket", "web@a.service", "/run/%i"),
        ("web@b.socket", "web@b.service", "9"), ("web@7.socket", "web@7.service", "7"),
        ("solo@b.socket", "solo-proxy@b.service", "80"),
    ):  # fmt: skip
        assert {f"Service={target}", f"ListenStream={listens}"} <= {
            *made.files[socket].splitlines()
        }
    wants = [f"a.target.wants/web@{one}.service" for one in ("a", "b")]
    assert sorted(made.links) == [*wants, "sockets.target.wants/web@a.socket"]


@pytest.mark.parametrize(
    ("container", "socket", "said"),
    [
        ("ListenStream=1", "ListenStream=1", "a.container:3: ListenStream=: {}/a.socket has the sockets"),
        ("[Socket]\nBacklog=1", "ListenStream=1", "a.container:4: Backlog=: {}/a.socket has the sockets"),
        ("", "Backlog=1", "a.socket: [Socket] without a socket"),
        ("", "ListenStream=1\nAccept=yes", "a.socket:3: Accept=: one container has all connections"),
        ("", "ListenStream=1\n[Service]\nType=simple", "a.socket:3: there is no section [Service]"),
        ("", "ListenStream=1\nx", "a.socket:3: the line has no '='"),
        ("ProxyPort=1", "ListenDatagram=1", "a.socket:2: ListenDatagram=: with ProxyPort= there are streams"),
        ("IdleStop=1", "ListenStream=1", "a.container:3: IdleStop=: it needs ProxyPort="),
        ("", "ListenStream=1\nService=b.container", "a.socket:3: Service=: there is no b.container"),
        ("", "ListenStream=1\nService=t@.container", "a.socket:3: Service=: t@.container is a template"),
    ],
    ids=["listen", "section", "none", "accept", "service", "line", "datagram", "idle", "stray", "template"],
)  # fmt: skip
def test_socket_files_that_are_refused(
    tmp_path: Path, container: str, socket: str, said: str
) -> None:
    write(tmp_path, a__container=f"{IMAGE}{container}\n", a__socket=f"[Socket]\n{socket}\n")
    write(tmp_path, **{"t@__container": IMAGE})
    made = generate.generate(sources.find([str(tmp_path)]), "sysbox")
    (error,) = made.errors
    assert error.startswith(f"{tmp_path}/{said.format(tmp_path)}"), error
    assert sorted(made.files) == ["a.service", "t@.service"], "a socket that is wrong is none"


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("Restart", "it belongs to [Service]"),
        ("WantedBy", "it belongs to [Install]"),
        ("After", "it belongs to [Unit]"),
        ("Ports", "write PublishPort="),
        ("working_dir", "did you mean WorkingDir?"),
        ("DependsOn", "write Requires= and After= of [Unit]"),
        ("Privileged", "write PodmanArgs=--privileged"),
        ("Volumes", "did you mean Volume?"),
    ],
)
def test_keys_from_habit(tmp_path: Path, key: str, hint: str) -> None:
    assert refusal(tmp_path, f"{IMAGE}{key}=x\n") == f":3: [Container] has no key {key}: {hint}"


def test_what_is_meant_by_a_reference(tmp_path: Path) -> None:
    write(tmp_path, site__volume="[Volume]\n")
    for name, hint in (("sit.volume", ": did you mean site.volume?"), ("site.network", "")):
        key = "Volume" if name.endswith("volume") else "Network"
        text = f"{IMAGE}{key}={name}:/v\n"
        assert refusal(tmp_path, text) == f":3: {key}=: there is no {name}{hint}"


def test_every_word_that_is_meant_is_a_key(tmp_path: Path) -> None:
    from sysbox.units.quadlet import habits, keys, values

    assert (
        refusal(tmp_path, "[Pod]\nPorts=1:1\n", "pod")
        == ":2: [Pod] has no key Ports: write PublishPort="
    )
    known = {one.name for one in keys.CONTAINER}
    for meant in habits._MEANT.values():
        key = meant.partition("=")[0]
        assert key in known or key in habits.OF_SYSTEMD or values.is_resource(key), meant


def test_words_about_system_calls_have_their_keys(tmp_path: Path) -> None:
    for key, meant in {
        "SecurityOpt": "SeccompProfile=, AppArmor=, Mask= or PodmanArgs=--security-opt=",
        "Seccomp": "SeccompProfile=",
        "SystemCallFilter": "SeccompProfile=",
        "AppArmorProfile": "AppArmor=",
        "NoNewPrivs": "NoNewPrivileges=",
        "MaskedPaths": "Mask= for more paths, Unmask=",
        "SystemPaths": "Unmask=ALL",
        "Landlock": "PodmanArgs=--security-opt=landlock=on",
    }.items():
        said = refusal(tmp_path, f"{IMAGE}{key}=x\n")
        assert f"[Container] has no key {key}: write {meant}" in said


def test_a_long_cycle_is_cut_in_the_middle(tmp_path: Path) -> None:
    names = [f"u{number:03}" for number in range(300)]
    for name, after in zip(names, [*names[1:], names[0]], strict=True):
        (tmp_path / f"{name}.container").write_text(f"[Unit]\nAfter={after}.container\n{IMAGE}")
    made = generate.generate(sources.find([str(tmp_path)]), "sysbox")
    said = {one.partition(": ")[2] for one in made.errors}
    assert (len(made.errors), len(said)) == (300, 1)
    (text,) = said
    assert len(text) < 500
    assert "u004.service after u005.service, and 290 more, u295.service after u296.service" in text


def test_units_that_wait_for_each_other(tmp_path: Path) -> None:
    """systemd would start none of them, or leave one out of a boot."""
    write(
        tmp_path,
        a__container=f"[Unit]\nAfter=b.container\n{IMAGE}",
        b__container=f"[Unit]\nRequires=c.container\n{IMAGE}Network=c.container\n",
        c__container=f"[Unit]\nBefore=x.service\nAfter=a.service\n{IMAGE}[Install]\nWantedBy=a.target\n",
        # it waits for those of the cycle, and is in none
        d__container=f"[Unit]\nAfter=a.container d.service\n{IMAGE}",
        e__container=f"[Unit]\nBefore=a.container\n{IMAGE}",
    )
    made = generate.generate(sources.find([str(tmp_path)]), "sysbox")
    assert len(made.errors) == 3
    assert made.errors[0] == (
        f"{tmp_path}/a.container: each waits for the next one: a.service after b.service, b.service after"
        " c.service, c.service after a.service: leave out one After= or Before="
    )
    failing = {name for name, text in made.files.items() if "_fail" in text}
    assert failing == {"a.service", "b.service", "c.service"}
    assert len(made.files) == 5
