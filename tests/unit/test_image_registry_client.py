"""The client against Debian's docker-registry: open, with TLS, with passwords, with tokens."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from registryserver import (
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Certificates,
    Registry,
    TokenServer,
    digest_of,
    program,
)

from sysbox.base.errors import (
    AccessDenied,
    FormatError,
    ImageNotFound,
    NotFound,
    SysboxError,
    Unreachable,
)
from sysbox.base.wait import until
from sysbox.image.documents import Descriptor, parse_manifest
from sysbox.image.registry import platform
from sysbox.image.registry.access import Access
from sysbox.image.registry.client import Repository
from sysbox.image.registry.credentials import Chain, Credential, Given
from sysbox.image.registry.endpoint import Endpoint, of_location
from sysbox.image.registry.paced import Patience

PATIENCE = Patience(connect=5, answer=5, finish=10, pause=0.01, attempts=3)
USER = Credential(username="user", password="pass:word")
USERS = {"user": "pass:word"}
BLOB = os.urandom(3 << 20)


@pytest.fixture(scope="module", autouse=True)
def needs_registry(requires: Any) -> None:
    requires(program(), "docker-registry, below .venv/test-services")
    requires.program("openssl")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("plain")) as registry:
        yield registry


@pytest.fixture(autouse=True)
def own_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of this machine counts."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))


def at(registry: Registry, name: str, chain: Chain | None = None) -> Repository:
    return Repository(of_location(f"{registry.host}/{name}", "test"), chain or Chain(), PATIENCE)


def blob_of(data: bytes) -> Descriptor:
    return Descriptor(media_type=OCI_LAYER, digest=digest_of(data), size=len(data))


def file_of(path: Path, data: bytes) -> int:
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def read_all(repository: Repository, descriptor: Descriptor, start: int = 0) -> bytes:
    with repository.blob(descriptor, start) as stream:
        found = b""
        while part := stream.read(100_000):
            found += part
        return found


def test_what_was_pushed_is_pulled(plain: Registry, tmp_path: Path) -> None:
    repository = at(plain, "team/app")
    descriptor = blob_of(BLOB)
    assert not repository.has_blob(descriptor.digest)
    told: list[int] = []
    fd = file_of(tmp_path / "blob", BLOB)
    repository.upload(descriptor, fd, told.append)
    os.close(fd)
    assert sum(told) == len(BLOB)
    assert repository.has_blob(descriptor.digest)
    assert read_all(repository, descriptor) == BLOB
    assert read_all(repository, descriptor, 1 << 20) == BLOB[1 << 20 :]
    assert read_all(repository, descriptor, len(BLOB)) == b""
    assert repository.endpoint.scheme == "http"


def test_one_request_after_the_other(plain: Registry, tmp_path: Path) -> None:
    """Each is sent once, over one connection, also after a HEAD, whose answer has a length and no body.

    The scheme is found out: the error of TLS keeps the frames of the first request, and these its answer.
    """
    place = of_location(f"{plain.host}/team/once", "test")
    repository = Repository(place, Chain(), Patience(attempts=1))
    descriptor = blob_of(b"once")
    fd = file_of(tmp_path / "blob", b"once")
    begin = len(plain.log.read_text())
    assert not repository.has_blob(descriptor.digest)
    repository.upload(descriptor, fd)
    os.close(fd)
    assert repository.has_blob(descriptor.digest)
    assert repository.has_blob(descriptor.digest)
    assert read_all(repository, descriptor) == b"once"
    # the registry writes its log after an answer, and so perhaps that of the test before after this one began
    said: list[str] = []

    def is_logged() -> bool:
        lines = plain.log.read_text()[begin:].splitlines()
        said[:] = [line for line in lines if "/team/once/" in line]
        return " ".join(said).count('"GET /v2/team/once/') == 1

    assert until(is_logged, 30, 0.01), said
    sent = re.findall(r'"([A-Z]+) /v2/team/once/', "\n".join(said))
    assert sent == ["HEAD", "POST", "PUT", "HEAD", "HEAD", "GET"]
    clients = re.findall(r"remoteaddr=.([0-9.:]+)", "\n".join(said))
    assert len(set(clients)) == 1, said


def test_an_empty_blob(plain: Registry, tmp_path: Path) -> None:
    repository = at(plain, "team/empty")
    fd = file_of(tmp_path / "blob", b"")
    repository.upload(blob_of(b""), fd)
    os.close(fd)
    assert read_all(repository, blob_of(b"")) == b""


def test_a_blob_is_mounted_from_another_repository(plain: Registry) -> None:
    plain.put_blob("one/origin", b"of another")
    repository = at(plain, "one/target")
    digest = digest_of(b"of another")
    assert repository.mount(digest, "one/origin")
    assert repository.has_blob(digest)


def test_an_upload_goes_on_where_a_mount_was_refused(plain: Registry, tmp_path: Path) -> None:
    repository = at(plain, "one/refused")
    descriptor = blob_of(b"nowhere yet")
    assert not repository.mount(descriptor.digest, "one/nothing")
    fd = file_of(tmp_path / "blob", b"nowhere yet")
    repository.upload(descriptor, fd)
    os.close(fd)
    assert repository.has_blob(descriptor.digest)


def test_manifests_and_tags(plain: Registry) -> None:
    made = plain.put_image("team/tags", "1", [b"layer"])
    repository = at(plain, "team/tags")
    found = repository.manifest("1")
    assert (found.digest, found.media_type) == (made["digest"], OCI_MANIFEST)
    assert repository.digest("1") == made["digest"]
    assert repository.put_manifest(found.data, found.media_type, "2") == found.digest
    assert repository.manifest(found.digest) == found
    assert sorted(repository.tags()) == ["1", "2"]
    assert parse_manifest(found.data, found.media_type).layers[0].size > 0
    for name in ("none", "sha256:" + "0" * 64):
        with pytest.raises(NotFound, match="not found"):
            repository.manifest(name)
    with pytest.raises(NotFound):
        repository.digest("none")
    with pytest.raises(NotFound):
        list(at(plain, "team/none").tags())


def test_docker_schema_2(plain: Registry) -> None:
    made = plain.put_image("team/docker", "1", [b"layer"], docker=True)
    found = at(plain, "team/docker").manifest("1")
    assert found.media_type == made["mediaType"]
    assert parse_manifest(found.data, found.media_type)


def test_an_index_leads_to_the_manifest_of_a_platform(plain: Registry) -> None:
    arm = {"os": "linux", "architecture": "arm", "variant": "v7"}
    amd = {"os": "linux", "architecture": "amd64"}
    made = [plain.put_image("team/many", "", [b"for"], platform=one) for one in (arm, amd)]
    index = plain.put_index("team/many", "1", made)
    repository = at(plain, "team/many")
    first = repository.manifest("1")
    assert (first.digest, first.media_type) == (index, OCI_INDEX)

    def fetch(descriptor: Descriptor) -> Any:
        return repository.manifest(descriptor.digest)

    for wanted, image in (("linux/arm/v7", made[0]), ("linux/amd64", made[1])):
        assert platform.descend(first, fetch, platform.parse(wanted)).digest == image["digest"]
    with pytest.raises(NotFound, match="not for linux/s390x"):
        platform.descend(first, fetch, platform.parse("linux/s390x"))


def test_more_tags_than_a_page(plain: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sysbox.image.registry.client._PAGE", 3)
    tags = [f"t{number}" for number in range(8)]
    plain.put_image("team/pages", tags[0], [b"layer"])
    repository = at(plain, "team/pages")
    found = repository.manifest(tags[0])
    for tag in tags[1:]:
        repository.put_manifest(found.data, found.media_type, tag)
    assert sorted(repository.tags()) == tags


def test_a_child_goes_on_with_connections_of_its_own(plain: Registry) -> None:
    plain.put_blob("team/fork", BLOB)
    repository = at(plain, "team/fork")
    with repository.blob(blob_of(BLOB)) as stream:
        first = stream.read(1000)
        child = os.fork()
        if not child:
            whole = read_all(repository, blob_of(BLOB)) == BLOB
            os._exit(0 if whole else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        rest = b""
        while part := stream.read(100_000):
            rest += part
    assert first + rest == BLOB


def test_tls(certificates: Certificates, tmp_path: Path) -> None:
    with Registry(tmp_path / "tls", tls=certificates) as registry:
        registry.put_image("team/app", "1", [b"layer"])
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            at(registry, "team/app").manifest("1")
        certificates.trust(tmp_path / "config/containers/certs.d", registry.host)
        repository = at(registry, "team/app")
        assert repository.manifest("1")
        assert repository.endpoint.scheme == "https"


def test_links_and_another_directory(certificates: Certificates, tmp_path: Path) -> None:
    """In certs.d links lead where the administrator keeps the certificates; --cert-dir goes before it."""
    with Registry(tmp_path / "tls", tls=certificates) as registry:
        registry.put_image("team/app", "1", [b"layer"])
        place = of_location(f"{registry.host}/team/app", "test")
        real = certificates.trust(tmp_path / "elsewhere", "host")
        assert Access(certificates=str(real)).repository(place).manifest("1")
        with pytest.raises(FormatError, match="no directory with certificates"):
            Access(certificates=f"{real}/none").repository(place).manifest("1")
        own = tmp_path / "config/containers/certs.d" / registry.host
        own.parent.mkdir(parents=True)
        own.symlink_to(real)
        (real / "ca.crt").rename(real / "one")
        (real / "ca.crt").symlink_to("one")
        assert at(registry, "team/app").manifest("1")
        (real / "one").unlink()
        with pytest.raises(FormatError, match=r"ca\.crt: a link that leads nowhere"):
            at(registry, "team/app").manifest("1")


def test_an_insecure_registry_needs_no_trusted_certificate(
    certificates: Certificates, tmp_path: Path
) -> None:
    with Registry(tmp_path / "tls", tls=certificates) as registry:
        registry.put_image("team/app", "1", [b"layer"])
        endpoint = of_location(f"{registry.host}/team/app", "test", insecure=True)
        assert Repository(endpoint, Chain(), PATIENCE).manifest("1")


def test_a_client_with_a_certificate(certificates: Certificates, tmp_path: Path) -> None:
    certs_d = tmp_path / "config/containers/certs.d"
    with Registry(tmp_path / "tls", tls=certificates, client_ca=certificates.ca) as registry:
        registry.put_image("team/app", "1", [b"layer"])
        directory = certificates.trust(certs_d, registry.host)
        with pytest.raises(Unreachable):
            at(registry, "team/app").manifest("1")
        certificates.trust(certs_d, registry.host, client=True)
        assert at(registry, "team/app").manifest("1")
        (directory / "client.key").unlink()
        with pytest.raises(FormatError, match=r"has no client\.key beside it"):
            at(registry, "team/app").manifest("1")


@pytest.mark.parametrize(
    ("credential", "error"),
    [
        (USER, ""),
        (Credential(), "needs a login"),
        (Credential(username="user", password="wrong"), "does not accept the credentials"),
    ],
)
def test_basic_authorisation(tmp_path: Path, credential: Credential, error: str) -> None:
    with Registry(tmp_path / "basic", htpasswd=USERS) as registry:
        made = registry.put_image("team/app", "1", [b"layer"])
        repository = at(registry, "team/app", Given(credential))
        if error:
            with pytest.raises(AccessDenied, match=error):
                repository.manifest("1")
            with pytest.raises(AccessDenied, match=error):
                repository.check()
        else:
            assert repository.manifest("1").digest == made["digest"]
            repository.check()


@pytest.fixture
def tokens(tmp_path: Path) -> Iterator[TokenServer]:
    refresh = {"identity": "user"}
    with TokenServer(tmp_path / "tokens", USERS, refresh=refresh, public=("public/app",)) as server:
        yield server


@pytest.fixture
def guarded(tmp_path: Path, tokens: TokenServer) -> Iterator[Registry]:
    with Registry(tmp_path / "guarded", tokens=tokens) as registry:
        for name in ("team/app", "public/app"):
            registry.put_image(name, "1", [b"layer"])
        yield registry


def test_token_authorisation(guarded: Registry, tokens: TokenServer, tmp_path: Path) -> None:
    repository = at(guarded, "team/app", Given(USER))
    found = repository.manifest("1")
    assert repository.manifest(found.digest) == found
    layer = parse_manifest(found.data).layers[0]
    read_all(repository, layer)
    assert len(tokens.seen) == 1, "one token serves all"
    assert tokens.seen[0]["fields"]["scope"] == ["repository:team/app:pull"]
    assert tokens.seen[0]["fields"]["service"] == [tokens.service]
    fd = file_of(tmp_path / "blob", b"pushed")
    repository.upload(blob_of(b"pushed"), fd)
    os.close(fd)
    repository.put_manifest(found.data, found.media_type, "2")
    assert len(tokens.seen) == 2
    assert tokens.seen[1]["fields"]["scope"] == ["repository:team/app:pull,push"]
    assert at(guarded, "team/other", Given(USER)).mount(layer.digest, "team/app")
    assert "repository:team/app:pull" in tokens.seen[-1]["fields"]["scope"]


def test_a_public_repository_needs_no_login(guarded: Registry, tokens: TokenServer) -> None:
    assert at(guarded, "public/app").manifest("1")
    assert tokens.seen[-1]["authorization"] == ""
    with pytest.raises(AccessDenied, match="needs a login"):
        at(guarded, "team/app").manifest("1")


def test_an_identity_token(guarded: Registry, tokens: TokenServer) -> None:
    given = Given(Credential(identity_token="identity"))
    assert at(guarded, "team/app", given).manifest("1")
    assert (tokens.seen[-1]["method"], tokens.seen[-1]["authorization"]) == ("POST", "")
    with pytest.raises(AccessDenied, match="does not accept the credentials"):
        at(guarded, "team/app", Given(Credential(identity_token="another"))).manifest("1")


def test_a_token_that_is_too_old_is_renewed(tmp_path: Path) -> None:
    with (
        TokenServer(tmp_path / "tokens", USERS) as tokens,
        Registry(tmp_path / "registry", tokens=tokens) as registry,
    ):
        registry.put_image("team/app", "1", [b"layer"])
        repository = at(registry, "team/app", Given(USER))
        tokens.lifetime = -400  # it is too old when it comes
        with pytest.raises(AccessDenied):
            repository.manifest("1")
        tokens.lifetime = 300
        assert repository.manifest("1")


def test_nobody_listens() -> None:
    endpoint = Endpoint(registry="localhost:1", host="127.0.0.1", port=1, repository="app")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1: no connection: Connection refused"):
        Repository(endpoint, Chain(), PATIENCE).manifest("1")
    # as `run` pulls: while it handles that the image is not here
    try:
        raise ImageNotFound("no such image: app")
    except ImageNotFound:
        with pytest.raises(Unreachable, match=r"no connection: Connection refused"):
            Repository(endpoint, Chain(), PATIENCE).manifest("1")


def test_no_such_host() -> None:
    endpoint = of_location("no-such-host.invalid/app", "test")
    with pytest.raises(SysboxError, match=r"no-such-host\.invalid"):
        Repository(endpoint, Chain(), PATIENCE).manifest("1")


def test_the_support_module_says_what_it_stores(plain: Registry) -> None:
    made = plain.put_image("team/whole", "1", [b"a", b"b"], config={"Cmd": ["true"]})
    status, _, body = plain.request(
        "GET", "/v2/team/whole/manifests/1", headers={"Accept": OCI_MANIFEST}
    )
    assert status == 200
    assert digest_of(body) == made["digest"]
    assert len(json.loads(body)["layers"]) == 2
