"""Which file says what the labels of containers are."""

from __future__ import annotations

from pathlib import Path

import pytest

from sysbox.fs import policy_contexts
from sysbox.security.labels import Contexts

PROCESS = "system_u:system_r:{}_t:s0"
TEXT = f'process = "{PROCESS}"\n'


def test_the_first_of_the_files_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """container-selinux's; that of the policy which is configured; none."""
    packaged = tmp_path / "contexts"
    monkeypatch.setattr(policy_contexts, "CONTAINERS", str(packaged))
    monkeypatch.setattr(policy_contexts, "DIRECTORY", str(tmp_path))
    assert policy_contexts.read() == Contexts()
    of_policy = tmp_path / "mine/contexts/lxc_contexts"
    of_policy.parent.mkdir(parents=True)
    of_policy.write_text(TEXT.format("policy"))
    config = tmp_path / "config"
    for line in ("# SELINUXTYPE=mine", "SELINUXTYPE=other", "SELINUXTYPE=../mine", "SELINUXTYPE="):
        config.write_text(f"SELINUX=enforcing\n{line}\n")
        assert policy_contexts.read() == Contexts(), line
    config.write_text("SELINUX=enforcing\nSELINUXTYPE = mine\n")
    assert policy_contexts.read() == Contexts(process=PROCESS.format("policy"))
    packaged.write_text(TEXT.format("packaged"))
    assert policy_contexts.read() == Contexts(process=PROCESS.format("packaged"))
