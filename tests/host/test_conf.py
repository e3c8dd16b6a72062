"""sysbox.conf: what it says holds for containers that are made from then on, and for no other."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from containers import Container, Containers, eventually
from lane import Sysbox

from sysbox.base import paths

BRIDGE = "br-conf"
WHOLE = f"""\
[Network]
Bridge={BRIDGE}
Subnet=10.77.0.0/24
[Log]
Driver=json-file
[Container]
# more than a shell needs
PidsLimit=\\
    50
"""
Configure = Callable[[str], None]


@pytest.fixture
def configure() -> Iterator[Configure]:
    """`configure(TEXT)` is what an administrator does with a drop-in; "" takes it away."""
    directory = Path(paths.CONFIGURATION[1], "sysbox.conf.d")
    made = [one for one in (directory.parent, directory) if not one.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "test.conf"

    def write(text: str) -> None:
        file.write_text(text, encoding="utf-8")

    yield write
    file.unlink(missing_ok=True)
    for one in reversed(made):
        one.rmdir()
    subprocess.run(["ip", "link", "delete", BRIDGE], check=False, capture_output=True)


def settings(one: Container) -> tuple[object, ...]:
    """What is configured, as a running container has it."""
    address = str(one.inspect("NetworkSettings.IPAddress"))
    return (
        one.inspect("NetworkSettings.Bridge"),
        one.inspect("NetworkSettings.Gateway"),
        address.rsplit(".", 2)[0],
        one.inspect("HostConfig.LogConfig.Type"),
        one.inspect("HostConfig.PidsLimit") == 50,
    )


DEFAULT = ("sysbox0", "10.90.0.1", "10.90", "journald", False)
CHOSEN = (BRIDGE, "10.77.0.1", "10.77", "json-file", True)


def test_it_takes_effect_and_stays_with_the_container(
    sysbox: Sysbox, containers: Containers, configure: Configure
) -> None:
    before, waiting = containers(), containers(verb=("create",))
    assert settings(before) == DEFAULT

    configure(WHOLE)
    script = ("sh", "-c", "echo said; wget -qO /dev/null http://10.77.0.1:9/ 2>&1; sleep 1000")
    after = containers(command=script)
    assert settings(after) == CHOSEN
    assert after.limit("pids", "pids.max") == "50"
    bridge = json.loads(
        subprocess.run(
            ["ip", "-j", "address", "show", "dev", BRIDGE],
            capture_output=True, text=True, check=True,
        ).stdout
    )  # fmt: skip
    assert [(one["local"], one["prefixlen"]) for one in bridge[0]["addr_info"]] == [
        ("10.77.0.1", 24)
    ]
    assert "default via 10.77.0.1 dev eth0" in after.sh("ip route")
    # answered, if only by a refusal: there is a way to the host
    eventually(lambda: "refused" in after("logs"), "it got an answer")
    assert after("logs").splitlines()[0] == "said"

    # those that were there are as they were, also when they are started anew
    assert settings(before) == DEFAULT
    for one in (before, waiting):
        one("restart", "-t", "0")
        assert settings(one) == DEFAULT
    # and the new one when the file is gone
    configure("")
    after("restart", "-t", "0")
    assert settings(after) == CHOSEN
    assert settings(containers()) == DEFAULT


def test_flags_go_before_and_a_dry_run_shows_it(sysbox: Sysbox, configure: Configure) -> None:
    configure(WHOLE)
    shown = sysbox("run", "--dry-run", "host", "true", check=True).stdout.splitlines()
    assert {"  TasksMax=50", "log json-file"} <= set(shown)
    assert [one for one in shown if one.startswith(f"network {BRIDGE} 10.77.0.0/24 via 10.77.0.1")]
    flags = ("--pids-limit", "60", "--log-driver", "none", "--network", "none")
    shown = sysbox("run", "--dry-run", *flags, "host", "true", check=True).stdout.splitlines()
    assert {"  TasksMax=60", "log none", "network none"} <= set(shown)
    info = json.loads(sysbox("info", "--format", "{{json .}}", check=True).stdout)
    assert info["LoggingDriver"] == "json-file"
    assert info["Sysbox"]["Configuration"]["Network"] == {
        "Bridge": BRIDGE,
        "Subnet": "10.77.0.0/24",
        "Firewall": "auto",
        "Ports": "open",
    }


def test_the_rate_of_the_log_is_kept(containers: Containers, configure: Configure) -> None:
    configure("[Log]\nRateLimit=11\nRateBurst=12\n")
    one = containers()
    configure("[Log]\nRateLimit=99\n")
    assert one.inspect("HostConfig.LogConfig.Config") == {"rate-limit": "11", "rate-burst": "12"}


def test_a_broken_file_says_so(sysbox: Sysbox, image: str, configure: Configure) -> None:
    configure("[Network]\n\nBrigde=br0\n")
    line = f"{paths.CONFIGURATION[1]}/sysbox.conf.d/test.conf:3: Brigde=: [Network] has no such key"
    for verb in ("run", "create"):
        done = sysbox(verb, image, "true")
        assert (done.returncode, done.stdout) == (125, "")
        assert done.stderr == f"sysbox: {line}\nsysbox: did you mean Bridge?\n"
    told = sysbox("doctor", "--format", "{{.Area}} {{.State}} {{.Detail}}")
    assert told.returncode == 1
    assert f"conf missing {line}" in told.stdout.splitlines()
    # what is there already is not held up
    assert sysbox("ps", "-a", "-q").returncode == 0


def test_a_subnet_that_is_taken_is_not_replaced(
    sysbox: Sysbox, image: str, containers: Containers, configure: Configure
) -> None:
    # tools/test-host.sh: the network of the uplink
    configure(f"[Network]\nBridge={BRIDGE}\nSubnet=192.0.2.0/24\n")
    done = sysbox("run", "--rm", image, "true")
    assert done.returncode == 125
    assert f"network {BRIDGE}: its subnet 192.0.2.0/24 overlaps the route" in done.stderr
    told = sysbox("doctor", "--format", "{{.Name}} {{.State}} {{.Detail}}").stdout
    assert "Network.Subnet no 192.0.2.0/24 overlaps the route" in told
    assert not Path(f"/sys/class/net/{BRIDGE}").exists()

    # nor does a bridge get a second one while it has the first
    configure("")
    containers()
    configure("[Network]\nSubnet=10.77.0.0/24\n")
    done = sysbox("run", "--rm", image, "true")
    assert done.returncode == 125
    assert "network sysbox0: the bridge has the address 10.90.0.1/16" in done.stderr
    assert "another Bridge=" in done.stderr
