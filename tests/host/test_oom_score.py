"""--oom-score-adj, and --cgroup-parent as docker with systemd's cgroups has it."""

from __future__ import annotations

import subprocess

import pytest
from containers import Containers
from lane import SYSBOX, Sysbox

FILE = "/proc/self/oom_score_adj"


def test_of_all_its_processes(containers: Containers, sysbox: Sysbox, image: str) -> None:
    """Of its first process from its first moment, and of what `exec` starts; 0 whatever the caller has."""
    one = containers("--oom-score-adj", "321", "--cgroup-parent", "web.slice")
    with open(f"/proc/{one.pid}/oom_score_adj", encoding="ascii") as file:
        assert file.read() == "321\n"
    assert one.exec("cat", FILE) == "321"
    assert one.inspect("HostConfig.OomScoreAdj") == 321
    assert one.inspect("HostConfig.CgroupParent") == "web.slice"
    done = sysbox("run", "--rm", "--oom-score-adj=-321", image, "cat", FILE)
    if subprocess.run(["sh", "-c", f"echo -321 >{FILE}"], check=False).returncode:
        assert (done.returncode, "CAP_SYS_RESOURCE" in done.stderr) == (125, True), done.stderr
    else:
        assert done.stdout == "-321\n"
    caller = f"echo 500 >{FILE}; exec {SYSBOX} run --rm --network none {image} cat {FILE}"
    plain = subprocess.run(["sh", "-c", caller], capture_output=True, text=True, check=True)
    assert plain.stdout == "0\n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--oom-score-adj", "1001"), "from -1000 to 1000"),
        (("--oom-score-adj", "x"), "not a whole number"),
        (("--cgroup-parent", "/web"), "a name such as web.slice"),
        (("--cgroup-parent", "web"), "a name such as web.slice"),
        (("--cgroup-parent", "a--b.slice"), "--cgroup-parent"),
        (("--cgroup-parent", "a.slice", "--slice", "b"), "give one of them"),
    ],
)
def test_bad_input(sysbox: Sysbox, image: str, flags: tuple[str, ...], words: str) -> None:
    done = sysbox("run", "--rm", *flags, image, "true")
    assert (done.returncode, words in done.stderr) == (125, True), done.stderr
