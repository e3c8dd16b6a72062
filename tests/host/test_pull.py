"""Images from registries: pull, push and run, with the real docker-registry on loopback."""

from __future__ import annotations

import io
import json
import os
import re
import select
import signal
import socket
import subprocess
import tarfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from containers import eventually, popen
from lane import SYSBOX, Sysbox
from registryserver import UNPACKED, Certificates, Registry, digest_of, program

IMAGES = Path("/var/lib/sysbox/images")
POLICY = Path("/etc/containers/policy.json")

pytestmark = [
    pytest.mark.skipif(program() is None, reason="docker-registry is not unpacked"),
    pytest.mark.usefixtures("no_pulled_images"),
]


def layer(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def fails(sysbox: Sysbox, *words: str, status: int = 1) -> str:
    """The one line of a failure."""
    done = sysbox(*words)
    assert done.returncode == status, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("sysbox: ")]
    assert 1 <= len(lines) <= 2, done.stderr
    return lines[0]


def blobs_fetched(registry: Registry, digest: str) -> int:
    """How often a blob was sent."""
    log = registry.log.read_text(errors="replace")
    wanted = rf'"GET /v2/[^ ]*/blobs/{digest} HTTP/1.1" (200|206)'
    return len(re.findall(wanted, log))


def test_there_and_back(sysbox: Sysbox, registry: Registry, base: bytes, tmp_path: Path) -> None:
    """From an archive to the registry, and from there to a running container."""
    (tmp_path / "rootfs.tar").write_bytes(base)
    name = f"{registry.host}/team/web:1"
    made = sysbox("import", tmp_path / "rootfs.tar", name, check=True).stdout
    pushed = sysbox("push", name, check=True)
    digest = re.fullmatch(r"1: digest: (sha256:[0-9a-f]{64}) size: \d+\n", pushed.stdout)
    assert digest, pushed.stdout
    assert "exists" in sysbox("push", name, check=True).stderr
    sysbox("rmi", "-f", name, check=True)
    ran = sysbox("run", "--rm", name, "echo", "hello", check=True)
    assert ran.stdout == "hello\n"
    assert ran.stderr.startswith(f"Pulling {name}\n")
    again = sysbox("pull", name, check=True)
    assert again.stdout == made
    assert "Image is up to date" in again.stderr
    assert "fetching" not in again.stderr
    # the manifest and the layer are byte for byte what was pushed
    by_digest = f"{registry.host}/team/web@{digest[1]}"
    assert sysbox("pull", "-q", by_digest, check=True).stdout == made
    shown = json.loads(sysbox("image", "inspect", by_digest, check=True).stdout)[0]
    assert by_digest in shown["RepoDigests"]
    assert sysbox("run", "--rm", "--pull", "never", by_digest, "true").returncode == 0


NGINX_CONF = """daemon off; error_log /dev/stderr; pid /run/nginx.pid;
events {} http { access_log off; server { listen 80; root /srv; } }
"""


def nginx_tree() -> bytes:
    """A root file system with Debian's nginx, unpacked for the tests, and the libraries that it needs."""
    libraries = UNPACKED / "usr/lib/x86_64-linux-gnu"
    nginx = UNPACKED / "usr/sbin/nginx"
    listed = subprocess.run(
        ["ldd", nginx],
        env={"LD_LIBRARY_PATH": str(libraries)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as archive:
        archive.add(nginx, "usr/sbin/nginx")
        for path in re.findall(r"(/\S+) \(0x", listed):
            archive.add(path, path)
        for name in ("run", "tmp", "var/lib/nginx", "var/log/nginx"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        users = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\n"
        for name, data in {
            "etc/passwd": users,
            "etc/group": b"root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
            "etc/nginx/nginx.conf": ("user www-data; " + NGINX_CONF).encode(),
            "srv/index.html": b"a page from the registry\n",
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def test_a_web_server_from_the_registry(sysbox: Sysbox, registry: Registry, tmp_path: Path) -> None:
    """Made here, pushed, removed here, and run by its name alone."""
    if not (UNPACKED / "usr/sbin/nginx").exists():
        pytest.skip("nginx is not unpacked")
    name = f"{registry.host}/nginx"
    (tmp_path / "nginx.tar").write_bytes(nginx_tree())
    change = 'CMD ["/usr/sbin/nginx", "-c", "/etc/nginx/nginx.conf"]'
    sysbox("import", "-c", change, tmp_path / "nginx.tar", name, check=True)
    sysbox("push", name, check=True)
    sysbox("rmi", "-f", name, check=True)
    container = sysbox("run", "-d", "-p", "8080:80", name, check=True).stdout.strip()
    try:
        assert page("http://127.0.0.1:8080/") == "a page from the registry\n"
    finally:
        sysbox("rm", "-f", container, check=True)


def page(url: str) -> str:
    """What a web server sends, once it does."""
    deadline = time.monotonic() + 15
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                text: str = answer.read().decode()
                return text
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_run_pulls_by_its_policy(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    name = f"{registry.host}/policy/web:1"
    registry.put_image("policy/web", "1", [base, layer(version=b"1")])
    assert "no such image" in fails(
        sysbox, "run", "--rm", "--pull", "never", name, "true", status=125
    )
    words = ("run", "--rm", "-q", name, "cat", "/version")
    assert sysbox(*words, check=True).stdout == "1"
    registry.put_image("policy/web", "1", [base, layer(version=b"2")])
    assert sysbox(*words, check=True).stdout == "1"
    newer = sysbox("run", "--rm", "--pull", "newer", name, "cat", "/version", check=True)
    assert newer.stdout == "2"
    same = sysbox("run", "--rm", "--pull", "newer", "-q", name, "cat", "/version", check=True)
    assert (same.stdout, same.stderr) == ("2", "")
    registry.put_image("policy/web", "1", [base, layer(version=b"3")])
    always = sysbox("create", "--pull", "always", "-q", name, "cat", "/version", check=True)
    assert sysbox("start", "-a", always.stdout.strip(), check=True).stdout == "3"
    sysbox("rm", always.stdout.strip(), check=True)


def test_a_registry_that_is_gone(sysbox: Sysbox, base: bytes, tmp_path: Path) -> None:
    """`newer` is content with the image that is here, `always` is not."""
    with Registry(tmp_path / "gone") as registry:
        name = f"{registry.host}/gone/web:1"
        registry.put_image("gone/web", "1", [base])
        sysbox("pull", name, check=True)
    kept = sysbox("run", "--rm", "--pull", "newer", name, "echo", "here", check=True)
    assert (kept.stdout, "was not asked" in kept.stderr) == ("here\n", True)
    said = fails(sysbox, "run", "--rm", "--pull", "always", name, "true", status=125)
    assert f"image {name}: " in said
    assert said.count(name) == 1


def test_platforms(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    name = f"{registry.host}/many/app:1"
    other = "arm64" if os.uname().machine == "x86_64" else "amd64"
    here = registry.put_image("many/app", "here", [base, layer(which=b"own")])
    there = registry.put_image(
        "many/app",
        "there",
        [layer(which=b"other")],
        platform={"os": "linux", "architecture": other},
    )
    digest = registry.put_index("many/app", "1", [there, here])
    assert sysbox("run", "--rm", "-q", name, "cat", "/which", check=True).stdout == "own"
    # the index's own digest names the image too
    words = ("run", "--rm", "--pull", "never", f"{registry.host}/many/app@{digest}", "true")
    sysbox(*words, check=True)
    sysbox("pull", "--platform", f"linux/{other}", name, check=True)
    shown = json.loads(sysbox("image", "inspect", name, check=True).stdout)[0]
    assert shown["Architecture"] == other
    assert "not for linux/riscv64" in fails(sysbox, "pull", "--platform", "linux/riscv64", name)
    single = f"{registry.host}/many/app:there"
    assert "is for linux" in fails(sysbox, "pull", "--platform", "linux/riscv64", single)
    sysbox("pull", "-a", "-q", f"{registry.host}/many/app", check=True)


def test_what_is_sent_and_what_is_not(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    """A layer that a tag has already is not fetched again; one of another repository is mounted."""
    big = layer(big=os.urandom(1 << 20))
    registry.put_image("parts/a", "1", [base, big])
    sysbox("pull", f"{registry.host}/parts/a:1", check=True)
    registry.put_image("parts/a", "2", [base, big, layer(small=b"x")])
    steps = sysbox("pull", f"{registry.host}/parts/a:2", check=True).stderr
    assert (steps.count(": exists"), steps.count(": fetching")) == (2, 1), steps
    target = f"{registry.host}/parts/b:1"
    pushed = sysbox("push", f"{registry.host}/parts/a:2", target, check=True)
    assert (pushed.stderr.count("mounted"), pushed.stderr.count("pushing")) == (4, 0), pushed.stderr
    assert sysbox("images", "-q", target, check=True).stdout == ""


def test_ten_pulls_at_once_are_one_download(
    sysbox: Sysbox, registry: Registry, base: bytes
) -> None:
    name = f"{registry.host}/crowd/app:1"
    big = layer(big=os.urandom(8 << 20))
    registry.put_image("crowd/app", "1", [base, big], compress=False)
    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda _: sysbox("pull", "-q", name, timeout=120), range(10)))
    assert {one.returncode for one in done} == {0}, [one.stderr for one in done]
    assert len({one.stdout for one in done}) == 1
    assert blobs_fetched(registry, digest_of(big)) == 1


def test_killed_at_any_moment(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    """The store is as before, and the next pull goes on from what is there."""
    name = f"{registry.host}/killed/app:1"
    registry.put_image(
        "killed/app", "1", [base, *(layer(one=os.urandom(3 << 20)) for _ in range(3))]
    )
    before = sorted(os.listdir(IMAGES / "layers"))
    for delay in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6):
        command = subprocess.Popen(
            [SYSBOX, "pull", name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay)
        command.send_signal(signal.SIGKILL)
        command.wait()
        if sysbox("images", "-q", name, check=True).stdout:
            break
        sysbox("gc", check=True)
        assert sorted(os.listdir(IMAGES / "layers")) == before
    sysbox("run", "--rm", name, "true", check=True)


def test_wrong_content(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    """What the registry sends is not what the manifest says: nothing is stored, one line says so."""
    bad = layer(bad=os.urandom(1 << 16))
    registry.put_image("wrong/app", "1", [base, bad], compress=False)
    digest = digest_of(bad)
    path = registry.storage / f"docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    before = sorted(os.listdir(IMAGES / "layers"))
    path.write_bytes(bad[:-1] + bytes([bad[-1] ^ 1]))
    message = fails(sysbox, "pull", f"{registry.host}/wrong/app:1")
    assert digest[7:19] in message
    path.write_bytes(bad[:-512])
    fails(sysbox, "pull", f"{registry.host}/wrong/app:1")
    assert sorted(os.listdir(IMAGES / "layers")) == before
    path.write_bytes(bad)
    sysbox("pull", f"{registry.host}/wrong/app:1", check=True)


def test_a_blob_of_another_layer(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    """Layer and blob are both in the store, but the one is not the content of the other."""
    one, other = layer(which=b"one"), layer(which=b"other")
    first = registry.put_image("mixed/app", "1", [base, one], compress=False)
    registry.put_image("mixed/app", "2", [base, other], compress=False)
    for tag in ("1", "2"):
        sysbox("pull", f"{registry.host}/mixed/app:{tag}", check=True)
    path = f"/v2/mixed/app/manifests/{first['digest']}"
    _, _, data = registry.request("GET", path, b"", {"Accept": first["mediaType"]})
    manifest = json.loads(data)
    manifest["layers"][1].update(digest=digest_of(other), size=len(other))
    mixed = json.dumps(manifest).encode()
    registry.put_manifest("mixed/app", "3", mixed, manifest["mediaType"])
    message = fails(sysbox, "pull", f"{registry.host}/mixed/app:3")
    assert digest_of(one) in message
    assert sysbox("images", "-q", f"{registry.host}/mixed/app:3", check=True).stdout == ""


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ("pull REGISTRY/none/such:1", 1, "none/such:1"),
        ("pull REGISTRY/Upper:1", 1, "must be lower case"),
        ("pull 127.0.0.1:1/a:1", 1, "127.0.0.1:1"),
        ("pull host", 1, "the built-in image"),
        ("pull -a REGISTRY/none/such:1", 1, "a tag or digest is given"),
        ("pull -a REGISTRY/none/such", 1, "none/such"),
        ("pull --platform a/b/c/d REGISTRY/none/such", 1, "must be OS/ARCH"),
        ("run --rm REGISTRY/none/such:1 true", 125, "none/such:1"),
        ("push REGISTRY/none/such:1", 1, "no such image"),
        ("push host REGISTRY/none/such:1", 1, "machine's own /usr"),
        ("push -a REGISTRY/none/such", 1, "no image here is called that"),
        ("push --sign-passphrase-file /etc/hostname host", 1, "no --sign-by-sigstore-private-key"),
    ],
)
def test_mistakes(sysbox: Sysbox, registry: Registry, words: str, status: int, says: str) -> None:
    message = fails(sysbox, *words.replace("REGISTRY", registry.host).split(), status=status)
    assert says in message


def test_credentials_and_tls(sysbox: Sysbox, base: bytes, tmp_path: Path) -> None:
    """Passwords over TLS, with the registry's own authority in certs.d, and tokens."""
    certificates = Certificates(tmp_path / "tls")
    authfile = str(tmp_path / "auth.json")
    with Registry(tmp_path / "one", tls=certificates, htpasswd={"carol": "secret"}) as one:
        one.put_image("private/app", "1", [base])
        name = f"{one.host}/private/app:1"
        assert "certificate" in fails(sysbox, "pull", name)
        directory = Path("/etc/containers/certs.d")
        place = certificates.trust(directory, one.host)
        try:
            assert "sysbox login" in sysbox("pull", name).stderr
            login = ("login", "-u", "carol", "--password-stdin", "--authfile", authfile, one.host)
            assert sysbox(*login, input="wrong").returncode == 1
            sysbox(*login, input="secret", check=True)
            sysbox("pull", "--authfile", authfile, name, check=True)
            ran = ("run", "--rm", "--pull", "always", "-q", name, "true")
            sysbox(*ran, check=True, env={"REGISTRY_AUTH_FILE": authfile})
            sysbox("push", "--authfile", authfile, name, f"{one.host}/private/b:2", check=True)
        finally:
            subprocess.run(["rm", "-r", place if place.is_dir() else place.parent], check=True)


def test_an_image_must_be_signed(
    sysbox: Sysbox, registry: Registry, base: bytes, tmp_path: Path
) -> None:
    """policy.json wants signatures: an unsigned image is refused, a signed one runs, also afterwards."""
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    subprocess.run(
        ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key],
        check=True, capture_output=True,
    )  # fmt: skip
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    registry.put_image("signed/app", "1", [base])
    name = f"{registry.host}/signed/app:1"
    registries = Path("/etc/containers/registries.d")
    registries.mkdir(parents=True, exist_ok=True)
    attachments = registries / "tests.yaml"
    attachments.write_text(f"docker:\n  {registry.host}:\n    use-sigstore-attachments: true\n")
    before = POLICY.read_bytes() if POLICY.exists() else b""
    words = ("trust", "set", "-t", "sigstoreSigned", "-f", str(public), f"{registry.host}/signed")
    try:
        sysbox("trust", "set", "-t", "accept", "default", check=True)
        sysbox(*words, check=True)
        assert "no sigstore signature" in fails(sysbox, "pull", name)
        assert sysbox("images", "-q", name, check=True).stdout == ""
        sysbox("trust", "set", "-t", "accept", f"{registry.host}/signed", check=True)
        sysbox("pull", name, check=True)
        sysbox(*words, check=True)
        # pulled when nothing had to be signed
        assert "signature" in fails(sysbox, "run", "--rm", name, "true", status=125)
        sysbox("push", "--sign-by-sigstore-private-key", key, name, check=True)
        sysbox("run", "--rm", "--pull", "always", name, "true", check=True)
        shown = json.loads(sysbox("image", "inspect", name, check=True).stdout)[0]
        assert "sigstoreSigned" in json.dumps(shown["Sysbox"])
    finally:
        POLICY.unlink(missing_ok=True)
        if before:
            POLICY.write_bytes(before)
        attachments.unlink()


def test_on_a_terminal_and_in_a_service(
    sysbox: Sysbox, registry: Registry, base: bytes, tmp_path: Path
) -> None:
    name = f"{registry.host}/shown/app:1"
    registry.put_image("shown/app", "1", [base, layer(big=os.urandom(4 << 20))])
    master, slave = os.openpty()
    address = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(address))
        notify.settimeout(10)
        with popen(
            "pull",
            name,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "NOTIFY_SOCKET": str(address)},
        ) as one:
            os.close(slave)
            shown = b""
            while select.select([master], [], [], 30)[0]:
                try:
                    shown += os.read(master, 4096)
                except OSError:
                    break
            assert one.wait(30) == 0
        message = notify.recv(4096).decode()
        last = message
        notify.setblocking(False)
        while select.select([notify], [], [], 0)[0]:
            last = notify.recv(4096).decode()
    os.close(master)
    assert "STATUS=Pulling" in message
    assert "EXTEND_TIMEOUT_USEC=" in message
    assert last == "STATUS=\n"
    text = shown.decode()
    assert "\x1b[2A" in text, text
    assert text.count("done") >= 2


def test_events(sysbox: Sysbox, registry: Registry, base: bytes) -> None:
    name = f"{registry.host}/events/app:1"
    registry.put_image("events/app", "1", [base])
    since = f"{time.time():.6f}"
    sysbox("pull", name, check=True)
    sysbox("push", name, f"{registry.host}/events/app:2", check=True)
    words = (
        "events",
        "--since",
        since,
        "--until",
        "0s",
        "--format",
        "json",
        "--filter",
        "type=image",
    )

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in sysbox(*words, check=True).stdout.splitlines()]

    # journald reads them when it gets to it
    eventually(lambda: "push" in [one["Action"] for one in told()], "the last event")
    found = told()
    assert [(one["Action"], one["Actor"]["Attributes"]["name"]) for one in found] == [
        ("pull", name), ("push", f"{registry.host}/events/app:2"),
    ]  # fmt: skip
