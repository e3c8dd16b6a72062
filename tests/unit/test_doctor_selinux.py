"""What `doctor` says of the labels of sysbox's files; the attribute is one like others without SELinux."""

from __future__ import annotations

import os
from pathlib import Path

import hostfacts
import pytest
from forked import needs_root

from sysbox.base import paths
from sysbox.cli.doctor import selinux as doctor
from sysbox.fs import policy_contexts

# by path, as file_contexts(5) has them: the last that fits counts
POLICY = """#!/bin/sh
shift
for path; do
    case $path in
    */left) echo "<<none>>" ;;
    */layers*) echo system_u:object_r:LAYERS:s0 ;;
    *) echo system_u:object_r:container_var_lib_t:s0 ;;
    esac
done
"""


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with right labels, and a policy that tells them."""
    needs_root()
    top = tmp_path / "state"
    (top / "images/layers/one/bin").mkdir(parents=True)
    (top / "images/layers/one/left").touch()
    monkeypatch.setattr(paths, "STATE", str(top))
    monkeypatch.setattr(paths, "IMAGES", str(top / "images"))
    monkeypatch.setattr(doctor, "_LAYERS", str(top / "images/layers"))
    monkeypatch.setattr(policy_contexts, "CONTAINERS", str(tmp_path / "none"))
    monkeypatch.setattr(policy_contexts, "DIRECTORY", str(tmp_path))
    program = tmp_path / "matchpathcon"
    program.write_text(POLICY.replace("LAYERS", "container_ro_file_t"), encoding="ascii")
    program.chmod(0o755)
    monkeypatch.setattr(doctor, "_PROGRAM", str(program))
    for path in (top, *top.rglob("*")):
        label(path, "container_ro_file_t" if "layers" in str(path) else "container_var_lib_t")
    return top


def label(path: Path, kind: str) -> None:
    os.setxattr(path, "security.selinux", f"system_u:object_r:{kind}:s0".encode() + b"\0")


def said() -> tuple[str, str, str]:
    (check,) = doctor.stored(hostfacts.facts().replace(selinux=True))
    return check.state, check.detail, check.advice


def test_right_labels(store: Path) -> None:
    """Another user or level than the policy's is no fault; what it leaves alone may have any label."""
    label(store / "images/layers/one/left", "etc_t")
    os.setxattr(store, "security.selinux", b"unconfined_u:object_r:container_var_lib_t:s0:c1")
    assert said() == ("yes", str(store), "")
    assert doctor.stored(hostfacts.facts()) == []


def test_a_store_from_before_selinux(store: Path) -> None:
    for path in (store, *store.rglob("*")):
        label(path, "unlabeled_t")
    assert said() == (
        "no",
        f"{store} is unlabeled_t, not container_var_lib_t, and 4 more",
        f"restorecon -R {store}",
    )


def test_a_layer_without_labels(store: Path) -> None:
    label(store / "images/layers/one/bin", "unlabeled_t")
    bad = f"{store}/images/layers/one/bin is unlabeled_t, not container_ro_file_t"
    assert said() == ("no", bad, f"restorecon -R {store}")


def test_without_the_module_nothing_is_to_be_relabelled(store: Path) -> None:
    """The policy would take the labels that layers have got from sysbox itself."""
    program = Path(doctor._PROGRAM)
    program.write_text(POLICY.replace("LAYERS", "var_lib_t"), encoding="ascii")
    assert said() == ("no", "the policy does not know sysbox's files", "make install-selinux")


def test_who_cannot_tell(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(doctor._PROGRAM).write_text("#!/bin/sh\nexit 3\n", encoding="ascii")
    assert said()[:2] == ("no", f"{doctor._PROGRAM} failed with status 3")
    monkeypatch.setattr(doctor, "_PROGRAM", str(tmp_path / "none"))
    assert "is not installed" in said()[1]
    assert store.is_dir()
