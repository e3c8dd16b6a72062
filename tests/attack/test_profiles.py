"""A seccomp profile that refuses what sysbox itself does under it: the start ends, and leaves nothing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from containers import Container, Containers, commands, eventually, systemctl
from lane import SLOWNESS, SYSBOX, Sysbox

ALLOW = "SCMP_ACT_ALLOW"
SHOWN = "the seccomp profile refuses what sysbox does between loading it and the command"
# what a static program and its start need
NEEDED = (
    "prctl setgroups setresgid setresuid capset capget poll write execve exit_group clone setsid"
).split()
AS_ROOT = tuple(one for one in NEEDED if one != "capset")


def profile(directory: Path, default: str, errno: int | None = None, allowed: object = ()) -> str:
    path = directory / "profile.json"
    content: dict[str, object] = {"defaultAction": default}
    if errno is not None:
        content["defaultErrnoRet"] = errno
    if allowed:
        content["syscalls"] = [{"names": list(allowed), "action": ALLOW}]  # type: ignore[call-overload]
    path.write_text(json.dumps(content), encoding="ascii")
    return f"seccomp={path}"


def bounded(*words: str) -> subprocess.CompletedProcess[str]:
    """A command of sysbox that hangs no test: it is killed, which fails the test."""
    return subprocess.run(
        [SYSBOX, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=30 * SLOWNESS,
    )  # fmt: skip


def nothing_is_left(sysbox: Sysbox, *others: Container) -> None:
    """Of a container named refused: no process, record, scope."""
    assert not [line for line in commands() if "--name refused" in line]
    assert "refused" not in sysbox("ps", "-a", "--format", "{{.Names}}", check=True).stdout.split()
    listing = ("list-units", "--plain", "--no-legend", "--state=active", "docker-*.scope")

    def scopes() -> set[str]:
        return {line.split()[0] for line in systemctl(*listing).splitlines()}

    # a start that has failed waits a second at most until systemd has noticed the end of its scope
    eventually(lambda: scopes() == {one.scope for one in others}, "no scope of its own")


@pytest.mark.parametrize(
    ("default", "errno", "allowed"),
    [
        ("SCMP_ACT_ERRNO", 1, ("exit_group", "exit")),
        ("SCMP_ACT_ERRNO", 1, ()),
        ("SCMP_ACT_ERRNO", 1, ("write",)),  # it can say why, and cannot end
        ("SCMP_ACT_ERRNO", 4, ()),  # EINTR: Python tries again
        ("SCMP_ACT_ERRNO", 4, NEEDED[:6]),
        ("SCMP_ACT_ERRNO", 0, ("exit_group",)),  # success, and nothing is done
        ("SCMP_ACT_ERRNO", 0, tuple(one for one in NEEDED if one != "setresuid")),
        ("SCMP_ACT_ERRNO", 0, AS_ROOT),
        ("SCMP_ACT_TRACE", None, ()),
        ("SCMP_ACT_TRAP", None, ()),
        ("SCMP_ACT_KILL", None, ()),
        ("SCMP_ACT_KILL_PROCESS", None, NEEDED[:-4]),
    ],
)
def test_a_start_ends(
    sysbox: Sysbox, image: str, tmp_path: Path, default: str, errno: int | None, allowed: object
) -> None:
    user = "1000:1000" if allowed != AS_ROOT else "0:0"  # who has capabilities to lose by capset(2)
    asked = profile(tmp_path, default, errno, allowed)
    flags = ("--rm", "--network", "none", "--name", "refused", "-u", user)
    for more in ((), ("-d",), ("--security-opt", "no-new-privileges"))[: 3 if errno == 1 else 1]:
        done = bounded("run", *more, *flags, "--security-opt", asked, image, "true")
        assert (done.returncode, done.stderr.count("\n")) == (125, 2), done.stderr
        assert SHOWN in done.stderr or "no-new-privileges" in more
        nothing_is_left(sysbox)


def test_so_does_what_is_born_beside_another(
    sysbox: Sysbox, containers: Containers, image: str, tmp_path: Path
) -> None:
    """`--pid container:X`, and `exec` with the profile of a container that runs."""
    one = containers("--network", "none")
    flags = ("--rm", "--network", "none", "--name", "refused", "--pid", f"container:{one.id}")
    for allowed in (NEEDED[:-2], NEEDED[:-1], ("exit_group", "clone")):
        asked = profile(tmp_path, "SCMP_ACT_ERRNO", 4, allowed)
        done = bounded("run", *flags, "--security-opt", asked, image, "true")
        assert done.returncode == 125, done.stderr
        nothing_is_left(sysbox, one)
    path = profile(tmp_path, ALLOW)
    other = containers("--network", "none", "--security-opt", path)
    for errno, allowed in ((4, ()), (4, NEEDED[:-2]), (1, NEEDED[:-1])):
        profile(tmp_path, "SCMP_ACT_ERRNO", errno, allowed)
        for more in ((), ("-d",)):
            done = bounded("exec", *more, other.id, "sleep", "7155")
            assert done.returncode == 125, done.stderr
    assert not [line for line in commands() if "7155" in line]
    assert other.inspect("State.Running")
