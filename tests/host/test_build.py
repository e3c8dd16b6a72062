"""`sysbox build`: each RUN a container in a scope, layers, cache, configuration, what a failure leaves.

In the guest: a step's scope and limits on cgroup v2, and the roots of stages on a kernel that does not take
overlayfs's layers as descriptors.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from builds import Builds, clean
from containers import eventually
from lane import SLOWNESS, SYSBOX, Sysbox

from sysbox.base.paths import IMAGES

pytestmark = pytest.mark.usefixtures("image")


@pytest.fixture
def build(sysbox: Sysbox, tmp_path: Path) -> Iterator[Builds]:
    """Builds of a context of its own; their images, and the cache, are removed."""
    yield Builds(sysbox, tmp_path)
    clean(sysbox)
    assert sysbox("gc", check=True).stdout == ""
    assert list(Path(IMAGES, "build").glob("*.json")) == []


def test_system_prune_frees_what_no_image_has(build: Builds, sysbox: Sysbox) -> None:
    build.write("FROM busybox:test\nRUN echo 1 >/one\n")
    build()
    build.write("FROM busybox:test\nRUN echo 2 >/two\n")
    build()  # the first image has no name any more
    assert len(list(Path(IMAGES, "build").glob("*.json"))) == 2
    kept = sysbox("system", "prune", "-f", "--filter", "label=none-such", check=True).stdout
    assert kept == "Total reclaimed space: 0B\n"
    done = sysbox("system", "prune", "-f", check=True).stdout
    assert "Deleted build cache objects:" in done
    assert len(list(Path(IMAGES, "build").glob("*.json"))) == 1
    assert build.run("cat", "/two") == "2\n"


def test_what_each_run_has(build: Builds, tmp_path: Path) -> None:
    """--env is in the image too; the others are of the steps alone."""
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "file").write_text("of the host\n")
    build.write(
        "FROM busybox:test\nRUN cat /beside/file /etc/resolv.conf >/found; id -G >>/found; echo $A >>/found\n"
    )
    flags = ("-v", f"{beside}:/beside:ro", "--dns-option", "ndots:7", "--dns-search", "example.org")
    build(*flags, "--group-add", "4242", "--env", "A=of the build")
    found = build.run("sh", "-c", "cat /found; echo $A; ls /beside || true")
    for one in ("of the host", "ndots:7", "search example.org", "4242"):
        assert one in found
    assert found.count("of the build") == 2
    assert found.endswith("of the build\n"), "no file of the host is in the image"


@pytest.mark.parametrize("flag", ["-o", "--iidfile"])
def test_a_place_that_is_not_there_is_said_before_the_build(build: Builds, flag: str) -> None:
    build.write("FROM busybox:test\nRUN exit 3\n")
    done = build(flag, "/no/such/place", check=False)
    assert "/no/such/place: /no/such is not a directory" in done.stderr
    assert "exit status 3" not in done.stderr


def test_run_copy_env_and_the_rest(build: Builds) -> None:
    build.write(
        """
        FROM busybox:test
        ARG greeting=hello
        ENV WHO=world WHERE="the $greeting place"
        LABEL one=1 two="2 3"
        WORKDIR /srv/app
        COPY file.txt dir ./
        RUN echo "$greeting $WHO" > said && pwd > where && id -u > who
        RUN ["touch", "/made"]
        USER 1000:1001
        EXPOSE 80 53/udp
        VOLUME /data
        STOPSIGNAL SIGINT
        HEALTHCHECK --interval=5s CMD true
        ENTRYPOINT ["/bin/cat"]
        CMD ["/srv/app/said"]
        """,
        file__txt="x",
        dir__inner="y",
    )
    (build.context / "file.txt").write_text("content")
    build("--build-arg", "greeting=hi")
    config = build.config()
    assert config["Env"][-2:] == ["WHO=world", "WHERE=the hi place"]
    assert config["Labels"] == {"one": "1", "two": "2 3"}
    assert (config["User"], config["WorkingDir"]) == ("1000:1001", "/srv/app")
    assert config["ExposedPorts"] == {"53/udp": {}, "80/tcp": {}}
    assert config["Volumes"] == {"/data": {}}
    assert config["StopSignal"] == "SIGINT"
    health = config["Healthcheck"]
    assert (health["Test"], health["Interval"]) == (["CMD-SHELL", "true"], 5_000_000_000)
    assert (config["Entrypoint"], config["Cmd"]) == (["/bin/cat"], ["/srv/app/said"])
    assert build.run() == "hi world\n"
    assert build.run("/srv/app/where", "/srv/app/who", "/srv/app/file.txt", "/srv/app/inner") == (
        "/srv/app\n0\ncontenty"
    )
    # the base, WORKDIR, COPY, and two RUN: no mount point and nothing else has a layer
    assert len(build.layers()) == 5
    said = build.sysbox(
        "history", "--format", "{{.CreatedBy}}", "--no-trunc", "built:1", check=True
    ).stdout
    assert "RUN |1 greeting=hi /bin/sh -c echo" in said
    assert "COPY file.txt dir ./" in said


def test_a_workdir_belongs_to_the_user(build: Builds) -> None:
    """With all directories that it makes, as with BuildKit; root's where nobody has that name."""
    build.write(
        """
        FROM busybox:test
        RUN echo bob:x:1000:1001::/:/bin/sh >>/etc/passwd
        USER bob
        WORKDIR /new/app
        RUN touch x
        USER 7
        WORKDIR number
        USER 8:9
        WORKDIR /other
        USER nobody-knows
        WORKDIR /roots
        USER 0
        WORKDIR /new/app
        """
    )
    build()
    names = ("/new", "/new/app", "/new/app/number", "/other", "/roots")
    found = build.run("stat", "-c", "%u:%g %a", *names)
    assert found.splitlines() == ["1000:1001 755", "1000:1001 755", "7:7 755", "8:9 755", "0:0 755"]


def test_the_history_has_the_values_of_variables(build: Builds) -> None:
    build.write(
        """
        FROM busybox:test
        ARG X=2
        ENV A=1 B="a b"
        LABEL l=$X
        USER $X
        WORKDIR w$X
        COPY --chown=$X file.$X /$A$X/
        VOLUME /v$X
        EXPOSE $X
        CMD echo $X
        """,
        **{"file.2": "x"},
    )
    build()
    said = ("history", "--format", "{{.CreatedBy}}", "--no-trunc", "built:1")
    assert build.sysbox(*said, check=True).stdout.splitlines()[-2::-1] == [
        "ARG X=2", "ENV A=1 B=a b", "LABEL l=2", "USER 2", "WORKDIR /w2",
        "COPY --chown=2 file.2 /12/", "VOLUME /v2", "EXPOSE $X", "CMD echo $X",
    ]  # fmt: skip


def test_a_second_time_all_comes_from_the_cache(build: Builds) -> None:
    build.write(
        "FROM busybox:test\nCOPY a /a\nRUN date +%N > /now\nWORKDIR /w\nRUN cat /now > copy\n",
        a="1",
    )
    build()
    first = build.layers()
    (build.context / "a").touch()  # its time does not count
    done = build()
    assert done.stderr.count("CACHED") + done.stdout.count("CACHED") == 4
    assert build.layers() == first
    (build.context / "a").write_text("2")
    build()
    changed = build.layers()
    assert changed[0] == first[0]
    assert not set(changed[1:]) & set(first[1:-2])
    build("--no-cache")
    assert build.layers()[2] != changed[2]
    assert build.layers()[1] == changed[1]


@pytest.mark.guest("a step's scope and limits on v2")
def test_each_step_is_a_container_in_a_scope(build: Builds) -> None:
    build.write("FROM busybox:test\nRUN sleep 1000\n")
    with subprocess.Popen(
        [SYSBOX, "build", "--memory", "64m", "-t", "built:1", build.context],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as building:
        template = "{{.Names}} {{.Status}}"

        def running() -> str:
            return build.sysbox("ps", "--format", template, check=True).stdout

        eventually(lambda: "build-" in running(), "the step runs")
        name = running().split()[0]
        assert name.startswith("build-")
        assert name.endswith("-stage-0-1")
        seen = build.sysbox("exec", name, "cat", "/proc/self/cgroup", check=True).stdout
        assert seen
        found = json.loads(build.sysbox("inspect", name, check=True).stdout)[0]
        scope = f"docker-{found['Id']}.scope"
        shown = subprocess.run(
            ["systemctl", "show", "-P", "Slice", "-P", "MemoryLimit", "-P", "MemoryMax", scope],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "sysbox-build.slice" in shown
        assert str(64 << 20) in shown
        assert found["HostConfig"]["UsernsMode"] in ("", "auto", "private")
        building.send_signal(signal.SIGINT)
        building.wait(timeout=30 * SLOWNESS)
    assert building.returncode != 0
    assert build.sysbox("ps", "-aq", check=True).stdout == ""


def test_a_failed_step(build: Builds) -> None:
    build.write("FROM busybox:test\n\nRUN echo first; \\\n  echo last words; exit 3\n")
    error = build.fails()
    assert "Containerfile:3:1: RUN: the command failed: exit status 3" in error
    done = build("--keep-failed", check=False)
    assert done.returncode == 1
    assert "last words" in done.stderr + done.stdout
    name = build.sysbox("ps", "-a", "--format", "{{.Names}}", check=True).stdout.strip()
    assert name.startswith("build-")
    assert build.sysbox("logs", name, check=True).stdout == "first\nlast words\n"
    assert build.sysbox("diff", name, check=True).stdout == ""
    build.sysbox("rm", name, check=True)


def test_the_last_line_of_a_failed_step(build: Builds) -> None:
    """What it printed last is shown without an end of line too."""
    build.write("FROM busybox:test\nRUN echo one; printf 'why it fails'; exit 3\n")
    done = build(name="failed:1", check=False)
    assert "one\nwhy it fails\nsysbox: Containerfile:2:1: RUN: the command failed" in done.stderr


def test_an_image_that_is_not_there(build: Builds) -> None:
    """The error says who wants it, after what is probably meant."""
    build.write("FROM busybox:test AS builder\nFROM busybox:test\nCOPY --from=buildr a b\n")
    done = build("--pull=never", check=False)
    assert done.returncode == 1
    warning, error = [line for line in done.stderr.splitlines() if "buildr" in line]
    assert "'buildr' is an image: did you mean the stage 'builder'?" in warning
    assert error.startswith("sysbox: Containerfile:3:1: COPY from buildr: no such image")


def test_triggers_of_an_image(build: Builds) -> None:
    """ONBUILD is kept in an image, and runs first in a build from it; `image inspect` shows it."""
    build.write(
        """
        FROM busybox:test
        SHELL ["/bin/sh", "-ec"]
        ONBUILD COPY a /triggered
        ONBUILD COPY --from=other /etc/passwd /other
        """,
        a="A",
    )
    build(name="built:base")
    config = build.config("built:base")
    assert config["OnBuild"] == ["COPY a /triggered", "COPY --from=other /etc/passwd /other"]
    assert config["Shell"] == ["/bin/sh", "-ec"]
    build.write(
        "FROM busybox:test AS other\nFROM built:base\nRUN test -e /other && cat /triggered > /b\n"
    )
    build()
    assert build.run("cat", "/b") == "A"
    assert build.config()["OnBuild"] is None


@pytest.mark.guest("overlayfs of an older kernel")
def test_only_what_the_target_needs(build: Builds) -> None:
    build.write(
        """
        FROM busybox:test AS tools
        RUN mkdir /out && echo tool > /out/tool && chown 5:6 /out/tool
        FROM busybox:test AS unused
        RUN exit 1
        FROM busybox:test AS app
        RUN echo app > /app
        FROM scratch
        COPY --from=tools /out/ /bin/
        COPY --from=app /app /
        COPY --from=busybox:test /bin/busybox /bin/cat /bin/stat /bin/
        ENTRYPOINT ["/bin/cat"]
        """
    )
    build()
    assert build.run("/bin/tool", "/app") == "tool\napp\n"
    assert (
        build.sysbox(
            "run", "--rm", "--network", "none", "--entrypoint", "/bin/stat", "built:1", "-c", "%u:%g",
            "/bin/tool", check=True,
        ).stdout
        == "5:6\n"
    )  # fmt: skip
    build("--target", "app")
    assert build.run("cat", "/app") == "app\n"
    assert "unused" not in build("--target", "tools").stderr


def test_secrets_are_seen_by_their_step_alone(build: Builds, tmp_path: Path) -> None:
    secret = "q7fz0kd2w8"
    (tmp_path / "token").write_text(secret)
    build.write(
        """
        FROM busybox:test
        RUN --mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN \\
            rev /run/secrets/token > /length && test -n "$TOKEN" && stat -c %a /run/secrets/token
        RUN test ! -e /run/secrets && test -z "$TOKEN"
        RUN --mount=type=secret,id=none echo optional
        """
    )
    (tmp_path / ".containerignore").write_text("token\n")
    done = build("--secret", f"id=token,src={tmp_path}/token")
    assert "400" in done.stdout + done.stderr
    assert build.run("cat", "/length") == secret[::-1]
    found = subprocess.run(
        ["grep", "-rl", secret, "/var/lib/sysbox", "/run/sysbox"], capture_output=True, text=True
    )
    assert found.stdout == ""
    journal = subprocess.run(["journalctl", "-o", "export"], capture_output=True, check=True).stdout
    assert secret.encode() not in journal
    build.write("FROM busybox:test\nRUN --mount=type=secret,id=no,required=true true\n")
    assert "the secret no is not given" in build.fails()


def test_cache_mounts_binds_and_tmpfs(build: Builds) -> None:
    build.write(
        """
        FROM busybox:test AS one
        RUN mkdir /from && echo stage > /from/file
        FROM busybox:test
        RUN --mount=type=cache,target=/cache echo line >> /cache/log
        RUN --mount=type=cache,target=/cache --mount=type=tmpfs,target=/scratch \\
            --mount=type=bind,target=/context --mount=type=bind,from=one,source=/from,target=/one,rw \\
            cp /cache/log /log && echo x > /scratch/x && cat /context/a /one/file > /read && \\
            echo changed > /one/file && ! touch /context/new
        """,
        a="context\n",
    )
    build()
    assert build.run("cat", "/log", "/read") == "line\ncontext\nstage\n"
    names = build.run("ls", "/")
    assert not {"cache", "scratch", "context", "one"} & set(names.split())
    build("--no-cache")
    assert build.run("cat", "/log") == "line\nline\n"


def test_networks_and_rights_of_a_step(build: Builds) -> None:
    build.write("FROM busybox:test\nRUN --network=none ls /sys/class/net > /links\n")
    build()
    assert build.run("cat", "/links") == "lo\n"
    build.write("FROM busybox:test\nRUN --security=insecure true\n")
    assert "--security=insecure: is not allowed" in build.fails()
    build.write("FROM busybox:test\nRUN --network=host true\n")
    assert "--network=host: is not allowed" in build.fails()


def test_here_documents(build: Builds) -> None:
    build.write(
        """
        FROM busybox:test
        ARG name=you
        RUN <<EOF
        echo one > /one
        echo $name >> /one
        EOF
        RUN <<SCRIPT
        #!/bin/cat
        itself
        SCRIPT
        COPY <<PLAIN <<"QUOTED" /etc/docs/
        for $name
        PLAIN
        for $name
        QUOTED
        """.replace("\n        ", "\n")
    )
    done = build()
    assert "itself" in done.stdout + done.stderr
    assert build.run("cat", "/one", "/etc/docs/PLAIN", "/etc/docs/QUOTED") == (
        "one\nyou\nfor you\nfor $name\n"
    )


def test_the_same_digest_twice(build: Builds) -> None:
    build.write(
        "FROM busybox:test\nCOPY a /x/a\nRUN echo b > /x/b && mkdir /new && ln -s a /x/l\n", a="a"
    )
    digests = set()
    for flags in ((), ("--no-cache",)):
        build("--build-arg", "SOURCE_DATE_EPOCH=1000000000", *flags)
        digests.add(build.id())
    assert len(digests) == 1
    assert build.run("stat", "-c", "%Y", "/x/b", "/x", "/new") == "1000000000\n" * 3


def test_a_stage_from_scratch_runs_what_it_has(build: Builds) -> None:
    build.write("FROM scratch\nRUN echo\n")
    assert "the stage is empty" in build.fails()
    build.write(
        """
        FROM scratch
        COPY --from=busybox:test /bin/busybox /bin/sh
        RUN echo alone > /x
        """
    )
    build()
    assert build.run("sh", "-c", "read line < /x; echo $line") == "alone\n"
    build.write('FROM scratch\nENV A=1\nCMD ["x"]\n')
    build()
    assert (build.config()["Env"][-1], build.config()["Cmd"]) == ("A=1", ["x"])


def test_triggers(build: Builds) -> None:
    build.write("FROM busybox:test\nONBUILD RUN touch /triggered\n")
    build(name="built:2")
    assert build.config("built:2")["OnBuild"] == ["RUN touch /triggered"]
    build.write("FROM built:2\nRUN test -e /triggered\n")
    build()
    assert not build.config()["OnBuild"]


ASK = """
import os, socket
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect(os.environ["SSH_AUTH_SOCK"])
    agent.sendall(b"question")
    print(agent.recv(100).decode(), file=open("/answer", "w"))
"""


@pytest.mark.also_enforcing("a step connects to what sysbox listens at")
def test_an_ssh_agent(build: Builds, tmp_path: Path) -> None:
    """An agent answers its own user and the superuser; root in a container is neither."""
    build.write("FROM host\nCOPY ask /\nRUN --mount=type=ssh /usr/bin/python3 /ask\n", ask=ASK)
    asked: list[object] = []
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        agent.listen()

        def answer() -> None:
            client = agent.accept()[0]
            with client:
                asked.append(client.recv(100))
                found = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
                asked.append(struct.unpack("iII", found)[1])
                client.sendall(b"answer")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        build("--ssh", f"default={tmp_path}/agent")
        thread.join(timeout=10)
    assert asked == [b"question", 0]
    assert build.run("cat", "/answer") == "answer\n"


def test_squash(build: Builds) -> None:
    build.write(
        """
        FROM busybox:test
        RUN mkdir /d && echo 1 > /d/one && echo 2 > /d/two && rm /etc/group
        RUN rm /d/one && rm -r /home && mkdir /home && touch /home/new
        """
    )
    build("--squash")
    assert len(build.layers()) == 2
    assert build.run("ls", "/d", "/home") == "/d:\ntwo\n\n/home:\nnew\n"
    assert build.run("sh", "-c", "test -e /etc/group || echo gone") == "gone\n"


def test_kill_at_any_moment(build: Builds) -> None:
    """kill -9 of the command: nothing half-made, and the next build goes on from the cache."""
    build.write("FROM busybox:test\nRUN sleep 1.2 && date +%N > /first\nRUN sleep 1000\n")
    with subprocess.Popen(
        [SYSBOX, "build", "--progress", "plain", "-t", "built:1", build.context],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as building:
        eventually(
            lambda: "-2 " in build.sysbox("ps", "--format", "{{.Names}} ", check=True).stdout,
            "the second step runs",
        )
        building.kill()
    eventually(lambda: build.sysbox("ps", "-aq").stdout == "", "its container is gone")
    assert build.sysbox("image", "exists", "built:1").returncode == 1
    build.write("FROM busybox:test\nRUN sleep 1.2 && date +%N > /first\nRUN true\n")
    assert "CACHED" in build().stdout + build().stderr
