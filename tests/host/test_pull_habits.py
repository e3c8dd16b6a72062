"""What administrators type from habit with docker and podman: short names, platforms, podman's flags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from lane import Sysbox, rootfs
from registryserver import Registry, program
from test_pull import fails, layer

pytestmark = pytest.mark.skipif(program() is None, reason="docker-registry is not unpacked")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("habits"), htpasswd={"carol": "secret"}) as one:
        tree = rootfs(Path("/bin/busybox"))
        own = one.put_image("habit/web", "1", [tree, layer(which=b"own")])
        other = one.put_image(
            "habit/web",
            "other",
            [tree, layer(which=b"other")],
            platform={"os": "linux", "architecture": "riscv64"},
        )
        one.put_index("habit/web", "both", [own, other])
        yield one


@pytest.fixture
def words(
    registry: Registry, tmp_path: Path, sysbox: Sysbox, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The registry is the search registry, and its password is known."""
    (tmp_path / "registries.conf").write_text(
        f'unqualified-search-registries = ["{registry.host}"]\n'
    )
    monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(tmp_path / "registries.conf"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    sysbox("login", "-u", "carol", "--password-stdin", registry.host, input="secret", check=True)
    yield registry.host
    for name in ("1", "other", "both", "copy"):
        sysbox("rmi", "-f", f"{registry.host}/habit/web:{name}")


def test_a_short_name_means_the_same_to_every_verb(sysbox: Sysbox, words: str) -> None:
    run = ("run", "--rm", "-q", "habit/web:1", "cat", "/which")
    assert sysbox("image", "exists", "habit/web:1").returncode == 1
    assert sysbox(*run, check=True).stdout == "own"
    assert sysbox("run", "--pull", "never", *run[1:], check=True).stdout == "own"
    assert sysbox("run", "--pull", "newer", *run[1:], check=True).stdout == "own"
    assert sysbox("run", "--pull", "always", *run[1:], check=True).stdout == "own"
    assert sysbox("image", "exists", "habit/web:1").returncode == 0
    sysbox("history", "habit/web:1", check=True)
    for name in ("habit/web:1", "habit/web", f"{words}/habit/web"):
        assert sysbox("images", "--format", "{{.Tag}}", name, check=True).stdout == "1\n"
    assert sysbox("images", "-q", "habit/web:2", check=True).stdout == ""
    pushed = sysbox("push", "habit/web:1", check=True)
    assert f"Pushing {words}/habit/web:1" in pushed.stderr
    assert f"Untagged: {words}/habit/web:1" in sysbox("rmi", "habit/web:1", check=True).stdout


def test_a_platform_for_a_container(sysbox: Sysbox, words: str) -> None:
    name = f"{words}/habit/web:both"
    made = sysbox("create", "-q", "--platform", "linux/riscv64", name, "true", check=True).stdout
    sysbox("rm", made.strip(), check=True)
    shown = ("image", "inspect", "--format", "{{.Architecture}}", name)
    assert sysbox(*shown, check=True).stdout == "riscv64\n"
    wrong = ("run", "--rm", "--pull", "never", "--platform", "linux/s390x", name, "true")
    assert "it is for linux/riscv64" in fails(sysbox, *wrong, status=125)
    missing = ("run", "--rm", "--platform", "linux/s390x", name, "true")
    assert f"{name} is not for linux/s390x" in fails(sysbox, *missing, status=125)
    # without --platform an image that is here is taken, as with docker; `pull` fetches this machine's
    sysbox("pull", "-q", name, check=True)
    assert sysbox("run", "--rm", name, "cat", "/which", check=True).stdout == "own"


def test_podmans_flags(sysbox: Sysbox, words: str) -> None:
    name = f"{words}/habit/web:both"
    assert "no such image" in fails(sysbox, "pull", "--policy", "never", name)
    other = sysbox("pull", "-q", "--arch", "riscv64", f"docker://{name}", check=True).stdout
    kept = sysbox("pull", "--policy", "missing", name, check=True)
    assert (kept.stdout, kept.stderr) == (other, "")
    assert "riscv64" in sysbox("manifest", "inspect", f"docker://{name}", check=True).stdout
    assert f"'{name}' may be meant" in fails(sysbox, "pull", f"https://{name}")
    assert "mutually exclusive" in fails(
        sysbox, "pull", "--arch", "arm64", "--platform", "linux/arm64", name
    )
    nobody = {"REGISTRY_AUTH_FILE": "/nowhere/auth.json"}
    assert sysbox("pull", name, env=nobody).returncode == 1
    assert sysbox("pull", "--creds", "carol:wrong", name, env=nobody).returncode == 1
    own = sysbox("pull", "-q", "--creds", "carol:secret", name, env=nobody, check=True).stdout
    assert own != other
    copy = (name, f"docker://{words}/habit/web:copy")
    done = sysbox("push", "--creds", "carol:secret", *copy, env=nobody, check=True)
    assert re.match("copy: digest: sha256:", done.stdout)
    assert "USER:PASSWORD" in fails(sysbox, "pull", "--creds", "carol", name)
    assert "an id is not a name" in fails(sysbox, "push", own.strip()[7:19])


def test_a_wrong_password(sysbox: Sysbox, words: str) -> None:
    done = sysbox("login", "-u", "carol", "--password-stdin", words, input="wrong")
    assert done.returncode == 1
    assert "check the user name and the password" in done.stderr
