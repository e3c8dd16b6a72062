"""What scripts read of docker is there in sysbox: keys, types, values, templates, filters, exit statuses.

docker's side is kept in tests/docker/api-1.41, and that is compared with the docker that Debian has.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker_peer
import pytest
from containers import Containers
from lane import Sysbox, rootfs, run_sysbox
from lookalike import KINDS, Lookalike, Tree, Trees, load, load_trees, tree

VERBS = (
    "inspect", "inspect-size", "image", "volume", "info", "version", "ps", "images", "volumes", "history",
    "df", "events",
)  # fmt: skip

# keys and types that stay different, by verb and path, and why
DIFFERENT = (
    (
        "inspect.*",
        r"\.ExecIDs.*",
        "a command of `exec` cannot be looked up: there is no daemon to ask",
    ),
    (
        "inspect.*",
        r"\.HostConfig\.(PidsLimit|MemorySwappiness)",
        "the kernel's default is shown too",
    ),
    (
        "inspect.*",
        r"\.HostConfig\.SecurityOpt.*",
        "docker adds label=disable to what shares with the host",
    ),
    ("inspect.*|image", r"\.Config\.Env.*", "what is imported has a PATH"),
    ("image", r"\.RepoDigests.*", "what is imported has a digest"),
    ("info", r"\.RegistryConfig\..*", "there are no registries"),
    ("info", r"\.Warnings.*", "docker was told to leave IPv4 forwarding alone, and warns of it"),
)
# what API 1.41 has, and docker leaves out of its JSON where it is empty; and what is ours
OMITTED = re.compile(
    r"\.Sysbox.*|\.State\.Health|\.SizeRw|\.SizeRootFs|\.OsVersion|\.Variant|\.Status|\.UsageData"
    r"|\.HostConfig\.(Init|Mounts|StorageOpt|Sysctls|Tmpfs)|\.HostConfig\.IDMappings.*"
    r"|\.HostConfig\.Mounts\[\]\.(Consistency|TmpfsOptions|VolumeOptions|BindOptions.*)"
    r"|\.Config\.Healthcheck\.(Timeout|StartPeriod|Retries)"
    r"|\.(Container)?Config\.(ArgsEscaped|ExposedPorts|Healthcheck|MacAddress|NetworkDisabled|Shell"
    r"|StopSignal|StopTimeout)"
    r"|\.(EffectiveCaps|BoundingCaps)(\[\])?|\.Config\.Umask"  # podman's
    r"|\.GraphDriver\.Data\.LowerDir"
    r"|\.(ProductLicense|DefaultAddressPools|SystemStatus)|\.Runtimes\.\*\.runtimeArgs"
    r"|\.Server\.Experimental|\.(status|id|from)"
    # columns of `ps`
    r"|\.(BlockRead|BlockWritten|CPUTime|MemPeak|Pod|PodName|Scope|Slice)"
)
# values of `inspect` that differ by nature, or on purpose
OWN = re.compile(
    r"\.(Id|Created|Image|Driver)|\.\w+Path|\.GraphDriver\..*"
    r"|\.State\.(Pid|StartedAt|FinishedAt|Health\.Log.*)"
    r"|\.HostConfig\.LogConfig\..*"  # journald by default; json-file's bounds in bytes
    r"|\.HostConfig\.(NetworkMode|CgroupnsMode|UsernsMode|Runtime|CgroupParent)"  # what holds, not "default"
    r"|\.HostConfig\.(CapAdd|CapDrop)\[\]"  # CAP_NET_ADMIN, as docker has it from API 1.42 on
    r"|\.HostConfig\.(MaskedPaths|ReadonlyPaths)\[\]"  # more of them
    r"|\.HostConfig\.Tmpfs\..*|\.HostConfig\.CpusetMems"  # with the defaults that were added
    r"|\.Mounts\[\]\.(Name|Source|Mode)"  # docker's Mode has its SELinux default "z"
    r"|\.Config\.Hostname"
    r"|\.NetworkSettings\.(Bridge|SandboxID|SandboxKey)"
    r"|\.NetworkSettings\.(Networks\.\w+\.)?(NetworkID|EndpointID|Gateway|IPAddress|MacAddress)"
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root file system."""
    file = tmp_path_factory.mktemp("lookalike") / "rootfs.tar"
    file.write_bytes(rootfs(Path("/bin/busybox")))
    return file


@pytest.fixture(scope="module")
def ours(archive: Path) -> Iterator[Lookalike]:
    """The containers under sysbox."""

    def command(*words: str) -> tuple[int, str]:
        done = run_sysbox(*words)
        return done.returncode, done.stdout

    look = Lookalike(command, archive)
    try:
        look.make()
        yield look
    finally:
        look.remove()


@pytest.fixture(scope="module")
def shown(ours: Lookalike) -> dict[str, dict[str, Any]]:
    """What sysbox shows, by verb and kind."""
    return ours.objects()


@pytest.mark.parametrize("verb", VERBS)
def test_keys_and_types(verb: str, shown: dict[str, dict[str, Any]]) -> None:
    expected = load_trees(verb)
    found: Trees = {kind: tree(value) for kind, value in shown[verb].items()}
    wrong = [
        f"{kind}{line}"
        for kind in expected
        for line in lacking(verb, expected[kind], found.get(kind, {}))
    ]
    known = {path for one in expected.values() for path in one}
    wrong += [
        f"{kind}{path}: docker does not have it"
        for kind, one in found.items()
        for path in one.keys() - known
        if not OMITTED.fullmatch(path) and not is_different(verb, path)
    ]
    assert not wrong, "\n".join(wrong)


def lacking(verb: str, expected: Tree, found: Tree) -> Iterator[str]:
    """What docker has and sysbox has not, or has otherwise."""
    for path, types in expected.items():
        if found.get(path) != types and not is_different(verb, path):
            yield f"{path}: docker has {types}, sysbox {found.get(path, 'nothing')}"


def is_different(verb: str, path: str) -> bool:
    """Whether it is listed as such."""
    return any(re.fullmatch(of, verb) and re.fullmatch(at, path) for of, at, _ in DIFFERENT)


def test_templates(ours: Lookalike) -> None:
    assert ours.templates() == load("templates")


def test_filters_of_ps(ours: Lookalike) -> None:
    assert ours.filters() == load("filters")


def test_exit_statuses(ours: Lookalike) -> None:
    assert ours.statuses() == load("statuses")


def test_sizes(sysbox: Sysbox, containers: Containers) -> None:
    """What a container has written, by each way of asking: hard links count once, links are not followed."""
    one = containers("--name", "sized")
    image = int(
        sysbox("image", "inspect", "-f", "{{.Size}}", one.inspect("Image"), check=True).stdout
    )
    one.sh(
        "mkdir -p /a/b; head -c 3000000 /dev/zero >/a/b/data; ln /a/b/data /a/other; ln -s / /a/out"
    )
    written = 3_000_000 + len("/")
    assert (
        one("inspect", "-s", "-f", "{{.SizeRw}} {{.SizeRootFs}}")
        == f"{written} {image + written}\n"
    )
    row = sysbox("ps", "-s", "-f", "name=^/sized$", check=True).stdout.splitlines()
    assert row[0].endswith("SIZE")
    assert re.search(r" sized +3MB \(virtual .*MB\)$", row[1])
    shown = sysbox("ps", "--format", "{{.Size}}", "-f", "name=sized", check=True).stdout
    assert shown.startswith("3MB (virtual ")
    assert one.inspect("SizeRw") is None


def test_ports_that_are_only_exposed(sysbox: Sysbox, containers: Containers) -> None:
    base = containers()
    sysbox("commit", "-c", "EXPOSE 99", base.id, "exposing:test", check=True)
    try:
        one = containers("-p", "18081:80", image="exposing:test")
        shown = sysbox("ps", "--format", "{{.Ports}}", "-f", f"id={one.id}", check=True).stdout
        assert shown == "99/tcp, 0.0.0.0:18081->80/tcp\n"
        ports = one.inspect("NetworkSettings.Ports")
        assert ports["99/tcp"] is None
        assert ports["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": "18081"}]
        found = sysbox("ps", "-q", "--no-trunc", "-f", "expose=99", check=True).stdout
        assert found == f"{one.id}\n"
        one("rm", "-f")
    finally:
        sysbox("rmi", "exposing:test", check=True)


def test_the_docker_that_debian_has(
    shown: dict[str, dict[str, Any]], archive: Path, requires: Any
) -> None:
    """What is kept of it holds, and what it shows of each container is what sysbox shows of its own."""
    requires(not docker_peer.missing(), "docker: run tools/setup.sh test")
    with docker_peer.running() as docker:
        look = Lookalike(docker, archive)
        try:
            look.make()
            theirs, templates = look.objects(), look.templates()
        finally:
            look.remove()
    assert templates == load("templates")
    drifted = [
        f"{verb} {kind}{path}"
        for verb in VERBS
        for kind, kept in load_trees(verb).items()
        for path in drift(kept, tree(theirs[verb][kind]))
    ]
    assert not drifted, "kept otherwise: run tools/docker-keys.sh\n" + "\n".join(drifted)
    wrong = [
        f"{kind}{line}"
        for kind in KINDS
        for line in unequal(theirs["inspect"][kind], shown["inspect"][kind])
    ]
    assert not wrong, "\n".join(wrong)


def drift(kept: Tree, found: Tree) -> Iterator[str]:
    """Paths that only one of them has; what is below an empty list or a null is no matter."""
    for path in kept.keys() ^ found.keys():
        above = re.sub(r"(\.[^.\[]*|\[\])$", "", path)
        if above.endswith("[]") or not {kept.get(above), found.get(above)} & {"array", "null"}:
            yield path


def unequal(theirs: Any, mine: Any) -> Iterator[str]:
    """Values of docker's that sysbox has otherwise; in which order a list is does not matter."""
    have = list(leaves(mine))
    for path, value in leaves(theirs):
        if OWN.fullmatch(path) or is_different("inspect", path):
            continue
        if (path, value) in have:
            have.remove((path, value))
        else:
            yield f"{path}: docker has {value}, sysbox {[one for at, one in have if at == path]}"


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Each path, and what is there as JSON, of all that has nothing below it."""
    if isinstance(value, dict) and value:
        for key, one in value.items():
            yield from leaves(one, f"{path}.{key}")
    elif isinstance(value, list) and value:
        for one in value:
            yield from leaves(one, f"{path}[]")
    else:
        yield path, json.dumps(value)
