"""`--security-opt apparmor=` wherever the tests run: what is not there is an error, never silence."""

from __future__ import annotations

import json

import pytest
from lane import Sysbox

from sysbox.host import probe


@pytest.mark.parametrize("verb", ["run", "create"])
def test_a_profile_that_is_not_there(sysbox: Sysbox, image: str, verb: str) -> None:
    """One line and what to do, before anything is made; a dry run says the same."""
    why = (
        "the kernel has no such profile"
        if probe().apparmor
        else "AppArmor is not active in this kernel"
    )
    asked = ("--name", "never", "--security-opt", "apparmor=not-there", image, "true")
    for words in ((verb, *asked), ("run", "--dry-run", *asked)):
        done = sysbox(*words)
        assert done.returncode in (1, 125)
        first, hint = done.stderr.splitlines()
        assert first == f"sysbox: --security-opt apparmor=not-there: {why}"
        assert hint
    assert sysbox("ps", "-aq", "--filter", "name=never", check=True).stdout == ""


def test_none_is_always_possible(sysbox: Sysbox, image: str) -> None:
    asked = ("run", "--rm", "--security-opt", "apparmor=unconfined", image, "sh", "-c")
    current = "cat /proc/self/attr/apparmor/current 2>/dev/null || echo unconfined"
    assert sysbox(*asked, current, check=True).stdout.strip() == "unconfined"


def test_doctor_says_what_holds(sysbox: Sysbox) -> None:
    facts = probe()
    rows = [json.loads(line) for line in sysbox("doctor", "--format", "json").stdout.splitlines()]
    found = {row["Name"]: row for row in rows if row["Area"] == "security"}
    if not facts.apparmor:
        assert (found["AppArmor"]["State"], found["AppArmor"]["Detail"]) == ("no", "not active")
    last = found["profile or label"]
    assert (last["State"] == "yes") == (facts.selinux or facts.apparmor)
    if last["State"] == "no":
        assert last["Detail"].startswith("neither SELinux nor AppArmor: namespaces")
