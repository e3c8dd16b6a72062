"""`make install-selinux` says in one line what it lacks, and changes nothing then."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools/install-selinux.sh"
# in a mount namespace of its own: /etc is empty
NO_POLICY = "set -e; mount -t tmpfs none /etc; mkdir /etc/selinux\n"
NO_MODULE = (
    NO_POLICY
    + """
mkdir /etc/selinux/made /etc/selinux/made/policy
echo SELINUXTYPE=made >/etc/selinux/config
echo container_runtime_exec_t >/etc/selinux/made/policy/policy.33
[ ! -d /usr/share/selinux ] || mount -t tmpfs none /usr/share/selinux
"""
)
# semodule(8) that has no module of sysbox, and notes what it is asked for
SEMODULE = '#!/bin/sh\n[ "$*" = "--store made -l" ] || echo "semodule $*" >&2\n'


@pytest.mark.root
@pytest.mark.parametrize(
    ("policy", "verb", "prefix", "message"),
    [
        pytest.param(NO_POLICY, "install", "/opt", "has no SELinux policy", id="no-policy"),
        pytest.param(NO_MODULE, "install", "/opt", "install selinux-policy-dev", id="no-headers"),
        pytest.param(NO_MODULE, "uninstall", "/opt", '"made" has no module of', id="no-module"),
        pytest.param(NO_MODULE, "install", "opt", "an absolute path", id="relative"),
        pytest.param(NO_MODULE, "remove", "/opt", "usage: tools/install-selinux", id="usage"),
    ],
)
def test_what_is_missing(tmp_path: Path, policy: str, verb: str, prefix: str, message: str) -> None:
    (tmp_path / "semodule").write_text(SEMODULE)
    (tmp_path / "semodule").chmod(0o755)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{policy}exec {TOOL} {verb}"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "PREFIX": prefix},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
