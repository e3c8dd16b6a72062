"""Debian's docker-registry for tests, on loopback: plain or with TLS, open, with passwords or with tokens.

    with Registry(tmp_path, tls=certificates, htpasswd={"user": "password"}) as registry:
        registry.host              # "127.0.0.1:PORT"
        registry.put_image("team/app", "1", [layer_tar_bytes])

It is unpacked below .venv/test-services by tools/setup.sh; nothing is installed or enabled.
"""

from __future__ import annotations

import base64
import ctypes
import gzip
import hashlib
import http.client
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from unpacked import UNPACKED as UNPACKED

LOOPBACK = "127.0.0.1"
START = 30.0  # seconds
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"


def program() -> Path | None:
    """The registry's program, None where it is not there."""
    found = shutil.which("docker-registry", path=f"{UNPACKED / 'usr/bin'}:/usr/bin")
    return Path(found) if found else None


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def free_port() -> int:
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        return int(one.getsockname()[1])


class Certificates:
    """An authority, and certificates that it has signed: a server's for loopback, and a client's."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.ca, self._ca_key = directory / "ca.crt", directory / "ca.key"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "30", "-subj", "/CN=authority of the tests", "-keyout", self._ca_key, "-out", self.ca,
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        )  # fmt: skip
        self.server = self.sign("server", f"IP:{LOOPBACK},IP:::1,DNS:localhost")
        self.client = self.sign("client", "DNS:client")

    def sign(self, name: str, names: str) -> tuple[Path, Path]:
        """(certificate, key) for alternative names."""
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "30", "-subj", f"/CN={name}", "-keyout", key, "-out", certificate,
            "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE",
            "-CA", self.ca, "-CAkey", self._ca_key,
        )  # fmt: skip
        return certificate, key

    def trust(self, certs_d: Path, host: str, *, client: bool = False) -> Path:
        """Make the directory of a host in a certs.d; returns it."""
        directory = certs_d / host
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.ca, directory / "ca.crt")
        if client:
            shutil.copy(self.client[0], directory / "client.cert")
            shutil.copy(self.client[1], directory / "client.key")
        return directory

    @staticmethod
    def _openssl(*words: str | Path) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True)


def bcrypt(password: str) -> str:
    """A password as an htpasswd file has it, by crypt(3)."""
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    salt = base64.b64encode(secrets.token_bytes(16)).decode().replace("+", ".").rstrip("=")
    found: bytes = crypt(password.encode(), f"$2y$05${salt[:21]}.".encode())
    return found.decode()


class Registry:
    """One docker-registry; a context manager.

    `htpasswd` has basic authorisation, `tokens` (a TokenServer) token authorisation. `client_ca` makes it
    want a client's certificate. `extra` are further lines of its configuration.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tls: Certificates | None = None,
        client_ca: Path | None = None,
        htpasswd: dict[str, str] | None = None,
        tokens: TokenServer | None = None,
        extra: str = "",
        port: int = 0,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_port()
        self.host = f"{LOOPBACK}:{self.port}"
        self.scheme = "https" if tls else "http"
        self._tls = tls
        self._client = tls.client if tls and client_ca else None
        self._authorization = ""
        self._tokens = tokens
        self.storage = directory / "storage"
        self.log = directory / "registry.log"
        lines = [
            "version: 0.1",
            "log: {level: info}",
            f"storage: {{filesystem: {{rootdirectory: {self.storage}}}, delete: {{enabled: true}}}}",
            "http:",
            f"  addr: {self.host}",
            f"  secret: {secrets.token_hex(16)}",
        ]
        if tls:
            lines += ["  tls:", f"    certificate: {tls.server[0]}", f"    key: {tls.server[1]}"]
            lines += [f"    clientcas: [{client_ca}]"] if client_ca else []
        if htpasswd:
            users = directory / "htpasswd"
            users.write_text("".join(f"{one}:{bcrypt(word)}\n" for one, word in htpasswd.items()))
            lines += [f"auth: {{htpasswd: {{realm: tests, path: {users}}}}}"]
            user, word = next(iter(htpasswd.items()))
            self._authorization = basic(user, word)
        if tokens:
            lines += [
                "auth:",
                "  token:",
                f"    realm: {tokens.realm}",
                f"    service: {tokens.service}",
                f"    issuer: {tokens.issuer}",
                f"    rootcertbundle: {tokens.certificate}",
            ]
        self._config = directory / "config.yml"
        self._config.write_text("\n".join([*lines, extra, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        path = program()
        assert path, "docker-registry is not there: tools/setup.sh test unpacks it"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [path, "serve", self._config],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                # a variable REGISTRY_KEY, as REGISTRY_AUTH_FILE is one, would go before its configuration
                env={"PATH": os.environ["PATH"]},
            )
        deadline = time.monotonic() + START
        while True:
            try:
                socket.create_connection((LOOPBACK, self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, self.log.read_text()
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.stop()

    def request(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body) of a request that is authorised."""
        connection: http.client.HTTPConnection
        if self._tls:
            context = ssl.create_default_context(cafile=str(self._tls.ca))
            if self._client:
                context.load_cert_chain(*self._client)
            connection = http.client.HTTPSConnection(LOOPBACK, self.port, context=context)
        else:
            connection = http.client.HTTPConnection(LOOPBACK, self.port)
        given = dict(headers or {})
        if self._tokens:
            name = re.split("/(?:blobs|manifests|tags)/", target.removeprefix("/v2/"))[0]
            given["Authorization"] = f"Bearer {self._tokens.sign(f'repository:{name}:pull,push')}"
        elif self._authorization:
            given["Authorization"] = self._authorization
        try:
            connection.request(method, target, body, given)
            answer = connection.getresponse()
            data = answer.read()
            return answer.status, {key.lower(): value for key, value in answer.getheaders()}, data
        finally:
            connection.close()

    def put_blob(self, repository: str, data: bytes) -> dict[str, Any]:
        """Store a blob; returns its descriptor without mediaType."""
        digest = digest_of(data)
        status, headers, body = self.request("POST", f"/v2/{repository}/blobs/uploads/")
        assert status == 202, (status, body)
        location = urlsplit(headers["location"])
        target = f"{location.path}?{location.query}&digest={digest}"
        octets = {"Content-Type": "application/octet-stream"}
        status, _, body = self.request("PUT", target, data, octets)
        assert status == 201, (status, body)
        return {"digest": digest, "size": len(data)}

    def put_manifest(
        self, repository: str, reference: str, document: dict[str, Any] | bytes, kind: str
    ) -> str:
        """Store a manifest or index under a tag or digest; returns its digest."""
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        reference = reference or digest_of(data)
        status, _, body = self.request(
            "PUT", f"/v2/{repository}/manifests/{reference}", data, {"Content-Type": kind}
        )
        assert status == 201, (status, body)
        return digest_of(data)

    def put_image(
        self,
        repository: str,
        tag: str,
        layers: Sequence[bytes],
        *,
        config: dict[str, Any] | None = None,
        docker: bool = False,
        compress: bool = True,
        platform: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Store an image of tar archives; returns the descriptor of its manifest, with its platform."""
        where = platform or {"os": "linux", "architecture": architecture()}
        document = {
            **where,
            "created": "2024-01-01T00:00:00Z",
            "config": config or {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
        kinds = (DOCKER_MANIFEST, DOCKER_CONFIG, DOCKER_LAYER) if docker else (
            OCI_MANIFEST, OCI_CONFIG, OCI_LAYER
        )  # fmt: skip
        suffix = (".gzip" if docker else "+gzip") if compress else ""
        sent = [gzip.compress(layer, 1, mtime=0) if compress else layer for layer in layers]
        manifest = {
            "schemaVersion": 2,
            "mediaType": kinds[0],
            "config": {
                "mediaType": kinds[1],
                **self.put_blob(repository, json.dumps(document).encode()),
            },
            "layers": [
                {"mediaType": kinds[2] + suffix, **self.put_blob(repository, one)} for one in sent
            ],
        }
        data = json.dumps(manifest).encode()
        digest = self.put_manifest(repository, tag, data, kinds[0])
        return {"mediaType": kinds[0], "digest": digest, "size": len(data), "platform": where}

    def put_index(self, repository: str, tag: str, manifests: Sequence[dict[str, Any]]) -> str:
        """Store an index of descriptors that `put_image` has returned; returns its digest."""
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(manifests)}
        return self.put_manifest(repository, tag, document, OCI_INDEX)


def architecture() -> str:
    """This machine's, in Go's words."""
    machine = os.uname().machine
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


def basic(user: str, password: str) -> str:
    """The header of basic authorisation."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class TokenServer:
    """A server of tokens that docker-registry accepts (RS256, with its certificate in x5c).

    GET takes basic authorisation, POST a refresh token; without either there are tokens to
    pull from `public`.
    `seen` has what each request brought: method, query or form, and its Authorization.
    """

    service = "registry of the tests"
    issuer = "tokens of the tests"

    def __init__(
        self,
        directory: Path,
        users: dict[str, str],
        *,
        refresh: dict[str, str] | None = None,
        public: tuple[str, ...] = (),
        tls: Certificates | None = None,
        lifetime: int = 300,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._key = directory / "token.key"
        self.certificate = directory / "token.crt"
        subprocess.run(
            [
                "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30",
                "-subj", "/CN=tokens", "-keyout", self._key, "-out", self.certificate,
            ],
            check=True, capture_output=True,
        )  # fmt: skip
        self.users, self.refresh, self.public = users, refresh or {}, public
        self.lifetime = lifetime
        self.seen: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer((LOOPBACK, 0), self._handler())
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls.server)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.host = f"{LOOPBACK}:{self._server.server_port}"
        self.realm = f"{'https' if tls else 'http'}://{self.host}/token"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sign(self, *scopes: str) -> str:
        """A token for scopes."""
        now = int(time.time())
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        body = self.certificate.read_text().split("-----")[2].split()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(body)]}
        claims = {
            "iss": self.issuer, "sub": "", "aud": self.service, "nbf": now - 10, "iat": now,
            "exp": now + self.lifetime, "jti": secrets.token_hex(8), "access": access,
        }  # fmt: skip
        text = ".".join(_url64(json.dumps(part).encode()) for part in (header, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key],
            input=text.encode(), capture_output=True, check=True,
        ).stdout  # fmt: skip
        return f"{text}.{_url64(signature)}"

    def _granted(self, user: str, scopes: list[str]) -> list[str]:
        found = []
        for scope in scopes:
            name = scope.partition(":")[2].rpartition(":")[0]
            if user:
                found.append(scope)
            elif name in self.public:
                found.append(f"repository:{name}:pull")
        return found

    def _answer(self, method: str, query: str, form: str, given: str) -> tuple[int, dict[str, Any]]:
        fields = parse_qs(form or query)
        self.seen.append({"method": method, "fields": fields, "authorization": given})
        user = ""
        if method == "POST":
            user = self.refresh.get(fields.get("refresh_token", [""])[0], "")
            if not user:
                return 401, {"errors": [{"code": "UNAUTHORIZED"}]}
        elif given:
            user = next((u for u, word in self.users.items() if basic(u, word) == given), "")
            if not user:
                return 401, {"errors": [{"code": "UNAUTHORIZED"}]}
        scopes = [one for scope in fields.get("scope", []) for one in scope.split(" ")]
        token = self.sign(*self._granted(user, scopes))
        key = "access_token" if method == "POST" else "token"
        return 200, {key: token, "expires_in": self.lifetime}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                form = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                given = self.headers.get("Authorization", "")
                query = urlsplit(self.path).query
                status, document = tokens._answer(self.command, query, form, given)
                data = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def running(directory: Path, **options: Any) -> Iterator[Registry]:
    """A registry that is up."""
    with Registry(directory, **options) as registry:
        yield registry
