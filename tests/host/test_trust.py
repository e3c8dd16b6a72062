"""policy.json and containers: what is refused before anything is made, and what an accepted image passes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lane import Sysbox, run_sysbox

from sysbox.image.store import Store
from sysbox.image.trust import attachments, keys, provenance
from sysbox.image.trust.check import Verdict
from sysbox.image.trust.signatures import SIGSTORE, Signature

REJECT = [{"type": "reject"}]
ACCEPT = [{"type": "insecureAcceptAnything"}]
NAME = "trust.example/app:1"
Rules = Callable[..., None]


class Machine:
    """A policy of the test's own, and sysbox with it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "policy.json"
        self.environment = {"CONTAINERS_POLICY": str(self.path)}

    def rules(self, default: Any, **transports: Any) -> None:
        self.path.write_text(json.dumps({"default": default, "transports": transports}))

    def __call__(self, *words: object, **how: Any) -> subprocess.CompletedProcess[str]:
        return run_sysbox(*words, env=self.environment, **how)

    def refuses(self, why: str, *words: object, status: int = 125) -> None:
        """One line about it, and a hint; nothing is left."""
        before = run_sysbox("ps", "-aq").stdout
        done = self(*words)
        assert done.returncode == status, done.stderr
        first, *rest = done.stderr.splitlines()
        assert why in first
        assert len(rest) <= 1
        assert done.stdout == ""
        assert run_sysbox("ps", "-aq").stdout == before


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def loaded(sysbox: Sysbox, image: str, tmp_path: Path) -> Iterator[Path]:
    """An OCI archive with an image that claims a registry's name; it is not loaded yet."""
    sysbox("commit", sysbox("create", image, "true", check=True).stdout.strip(), NAME, check=True)
    archive = tmp_path / "app.tar"
    sysbox("save", "--format", "oci-archive", "-o", archive, NAME, check=True)
    for container in sysbox("ps", "-aq", "--filter", f"ancestor={image}").stdout.split():
        sysbox("rm", container)
    sysbox("rmi", NAME, check=True)
    yield archive
    sysbox("rmi", "-f", NAME)


def origins(name: str) -> list[dict[str, Any]]:
    done = run_sysbox("image", "inspect", "-f", "{{json .Sysbox.Provenance}}", name, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def test_images_that_were_made_here(machine: Machine, image: str) -> None:
    # other tests may have given it more names, or made it without one: policy.json is asked for each
    (origin,) = (one for one in origins(image) if one["Reference"].endswith(f"/{image}"))
    assert origin["Transport"] == "sysbox"
    machine.rules(REJECT)
    for name in (image, "host"):
        assert machine("run", "--rm", name, "true").returncode == 0
    machine.rules(ACCEPT, sysbox={origin["Reference"]: REJECT})
    machine.refuses("rejects it", "run", "--rm", image, "true")
    machine.refuses("rejects it", "create", image, "true")
    machine.refuses("rejects it", "run", "--dry-run", image, "true")
    assert machine("run", "--rm", "host", "true").returncode == 0
    machine.rules(ACCEPT, sysbox={"": REJECT})
    machine.refuses("rejects it", "run", "--rm", "host", "true")


def test_a_container_that_exists_goes_on(machine: Machine, sysbox: Sysbox, image: str) -> None:
    """The policy is about what is made; a start pulls and chooses nothing."""
    made = sysbox("create", image, "echo", "x", check=True).stdout.strip()
    try:
        machine.rules(ACCEPT, sysbox={"": REJECT})
        assert machine("start", "-a", made, check=True).stdout == "x\n"
    finally:
        sysbox("rm", "-f", made)


def test_a_malformed_policy_refuses_everything(machine: Machine, image: str) -> None:
    for text in ("{", "{}", '{"default": []}', '{"default": [{"type": "reject"}], "default": []}'):
        machine.path.write_text(text)
        machine.refuses("policy.json: ", "run", "--rm", image, "true")
    assert machine("ps").returncode == 0  # what makes no container needs no policy


def test_an_archive(machine: Machine, loaded: Path) -> None:
    machine.rules(REJECT, docker={"trust.example": ACCEPT})
    machine.refuses("rejects it", "load", "-i", loaded, status=1)
    assert run_sysbox("image", "inspect", NAME).returncode == 1
    machine.rules(REJECT, **{"oci-archive": {str(loaded): ACCEPT}})
    assert machine("load", "-i", loaded).returncode == 0
    (origin,) = origins(NAME)
    assert (origin["Transport"], origin["Reference"]) == ("oci-archive", str(loaded))
    assert origin["AcceptedBy"] == "insecureAcceptAnything"
    assert machine("run", "--rm", NAME, "true").returncode == 0
    # stricter now; by its id it is the same image
    machine.rules(REJECT, docker={"trust.example": ACCEPT})
    identity = run_sysbox("images", "-q", NAME, check=True).stdout.strip()
    for name in (NAME, identity):
        machine.refuses("rejects it", "run", "--rm", name, "true")


def test_a_signature_is_verified_at_each_run(
    machine: Machine, loaded: Path, tmp_path: Path, requires: Any
) -> None:
    """Without a registry or a network: by what was kept when it was pulled."""
    openssl = requires.program("openssl")
    for name in ("one", "two"):
        key = f"{tmp_path}/{name}.key"
        curve = ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
        subprocess.run([openssl, "genpkey", *curve, "-out", key], check=True, capture_output=True)
        public = ["pkey", "-in", key, "-pubout", "-out", f"{tmp_path}/{name}.pub"]
        subprocess.run([openssl, *public], check=True)
    run_sysbox("load", "-i", loaded, check=True)
    store = Store()
    image = store.resolve(NAME)
    private = keys.private((tmp_path / "one.key").read_bytes(), b"", "one.key")
    made = attachments.sign(private, NAME, image.manifest, 1)
    signature = Signature(
        kind=SIGSTORE,
        content=made.layer,
        signature=made.annotations[attachments.SIGNATURE],
        where=made.tag,
    )
    verdict = Verdict(by=("sigstoreSigned one.pub",), signatures=(signature,))
    provenance.keep(store, image, provenance.accepted("docker", NAME, image.manifest, verdict))
    first, _ = origins(NAME)
    assert first["AcceptedBy"] == "sigstoreSigned one.pub"
    assert first["Signatures"] == [f"sha256-{image.manifest[7:]}.sig"]

    def wants(name: str) -> None:
        rule = {"type": "sigstoreSigned", "keyPath": f"{tmp_path}/{name}.pub"}
        machine.rules(REJECT, docker={"trust.example": [rule]})

    wants("one")
    assert machine("run", "--rm", NAME, "echo", "x", check=True).stdout == "x\n"
    signed = ("run", "--rm", "--assert-signed", NAME, "echo", "x")
    assert machine(*signed, check=True).stdout == "x\n"
    machine.rules(ACCEPT)
    machine.refuses(f"{NAME}: the policy for 'default' asks for no signature", *signed)
    wants("two")
    machine.refuses("another key has signed it", "run", "--rm", NAME, "true")
    # a tag that another image has now brings no signature with it
    other = run_sysbox("create", "host", "true", check=True).stdout.strip()
    run_sysbox("commit", other, NAME, check=True)
    run_sysbox("rm", other)
    wants("one")
    (origin,) = origins(NAME)
    assert origin["Transport"] == "sysbox"
    assert machine("run", "--rm", image.id, "true").returncode == 0
    run_sysbox("rmi", "-f", image.id)


def test_a_lost_provenance(machine: Machine, loaded: Path) -> None:
    run_sysbox("load", "-i", loaded, check=True)
    store = Store()
    Path(provenance.path_of(store, store.resolve(NAME).id)).unlink()
    assert origins(NAME) == []
    machine.rules(ACCEPT, docker={"other.example": REJECT})
    assert machine("run", "--rm", NAME, "true").returncode == 0
    machine.rules(REJECT)
    machine.refuses("not known where it came from", "run", "--rm", NAME, "true")


def test_show_and_set(machine: Machine) -> None:
    machine("trust", "set", "--type", "reject", "trust.example", check=True)
    machine("image", "trust", "set", "-t", "accept", "trust.example/app", check=True)
    shown = machine("trust", "show", check=True).stdout.splitlines()
    assert [line.split() for line in shown] == [
        ["TRANSPORT", "NAME", "TYPE", "ID", "STORE"],
        ["all", "default", "accept"],
        ["repository", "trust.example", "reject"],
        ["repository", "trust.example/app", "accept"],
    ]
    assert machine("image", "trust", "show", "--raw", check=True).stdout == machine.path.read_text()
    found = machine(
        "trust", "show", "--format", "{{.Name}} {{.Type}}", "trust.example/x", check=True
    )
    assert found.stdout == "trust.example reject\n"
    for words, why in (
        (("set", "a.example"), "needs a --pubkeysfile"),
        (("set", "-t", "accept", "busybox"), "in full"),
        (("set", "-t", "signed", "a.example"), "one of"),
        (("show", "--raw", "a.example"), "takes no REGISTRY"),
    ):
        done = machine("trust", *words)
        assert done.returncode == 1
        assert why in done.stderr
