"""What only a boot shows: what starts with the host, and what a shutdown and a power cut leave.

One guest for all: containers are declared and run, the guest is rebooted and looked at, then its power is cut
and it is looked at again. The tests stand in that order.
"""

from __future__ import annotations

import pytest
from guest import Guest

# /srv is a disk of its own, which a shutdown unmounts; that it takes a second to stop shows the order
PAYLOAD = """#!/bin/sh
trap 'sleep 1; echo "$1 stopped" >>/log/$1; echo "bye from $1"; exit 0' TERM
echo "$1 started" >>/log/$1
busybox httpd -p 80 -h /data
while :; do sleep 0.2; done
"""
CONTAINER = """
[Container]
Image=host
Network=back.network
Volume=data.volume:/data
Volume=/srv/log:/log:U
Volume=/srv/payload:/payload:ro
"""
SLEEP = "Image=host\nExec=sleep infinity\nStopTimeout=1"
INSTALL = "[Install]\nWantedBy=multi-user.target\n"
FILES = {
    "/srv/payload": PAYLOAD,
    "/etc/sysbox/units/data.volume": "[Volume]\n",
    "/etc/sysbox/units/back.network": "[Network]\nSubnet=10.77.0.0/24\n",
    "/etc/sysbox/units/web.container": "[Unit]\nAfter=first.container\n"
    f"{CONTAINER}PublishPort=8080:80\nExec=/payload web\n"
    f"[Service]\nRestart=always\nTasksMax=40\n{INSTALL}",
    "/etc/sysbox/units/first.container": f"[Container]\n{SLEEP}\n{INSTALL}",
    "/etc/sysbox/units/broken.container": f"[Container]\nImag=x\n{SLEEP}\n{INSTALL}",
    "/root/db.container": "[Unit]\nRequires=first.container\nAfter=first.container\n"
    f"{CONTAINER}Exec=/payload db\n{INSTALL}",
    "/root/off.container": f"[Container]\n{SLEEP}\n{INSTALL}",
    "/root/late.container": f"[Container]\n{SLEEP}\n{INSTALL}",
}
DISK = """set -e
mkfs.ext4 -q /dev/vdb
echo '/dev/vdb /srv ext4 rw 0 0' >>/etc/fstab
systemctl daemon-reload
systemctl start srv.mount
mkdir -p /srv/log /etc/sysbox/units
"""
# -x: the output says how far it is
FUNCTIONS = """set -ex
run() { sysbox run -d --stop-timeout 1 "$@" host sleep infinity >/dev/null; }
unit_of() { echo $1$(sysbox inspect -f '{{.Id}}' $2).$3; }
"""
RUN = f"""{FUNCTIONS}
chmod 755 /srv/payload
sysbox unit install /root/db.container /root/off.container
systemctl daemon-reload
systemctl enable -q db.service
systemctl start web.service db.service
systemctl set-property web.service TasksMax=33
run --name always --restart always -p 8081:80
run --name joined --restart always --network container:always
run --name stopped --restart unless-stopped
run --name failing --restart on-failure
run --name disabled --restart always
run --name once
run --name gone --rm -v /anonymous
systemctl set-property $(unit_of docker- always scope) TasksMax=44
systemctl disable -q $(unit_of sysbox- disabled service)
sysbox stop stopped >/dev/null
sysbox exec systemd-web sh -c 'echo kept >/data/index.html'
"""
# what is made is to be there after a power cut as soon as its command has returned: the last line has the
# file system write what it knows of new files, but not what is in them, unless that was asked for
LATE = f"""{FUNCTIONS}
sysbox start once
run --name never
run --name gone --rm -v /anonymous
systemctl set-property $(unit_of docker- always scope) TasksMax=45
sysbox unit install /root/late.container
systemctl enable -q late.service
run --name late --restart always
sysbox network create late
while :; do sysbox run --rm host true; done >/dev/null 2>&1 &
until pgrep -f 'run --rm host true' >/dev/null; do sleep 0.1; done
touch /root/mark
sync /root/mark
"""
# each "== NAME", and then ids of containers
LEFT = """ids() { grep -ohE '[0-9a-f]{64}' "$@" || true; }
echo '== gc'; sysbox gc
echo '== running'; sysbox ps -q --no-trunc
echo '== known'; sysbox ps -aq --no-trunc
echo '== joined'; sysbox ps -q --no-trunc --filter name=joined
echo '== runs'; ls /run/sysbox/containers
echo '== leases'; ids /run/sysbox/network/leases /run/sysbox/network/*/leases
echo '== scopes'; systemctl list-units --plain --no-legend --full 'docker-*.scope' | ids
echo '== records'; ls /var/lib/sysbox/containers
echo '== names'; ls -l /var/lib/sysbox/names | ids
echo '== volumes'; ls /var/lib/sysbox/volumes
"""
STATES = {
    **dict.fromkeys(("systemd-web", "systemd-db", "systemd-first", "always", "joined"), "running"),
    **dict.fromkeys(("stopped", "failing", "disabled", "once"), "exited"),
}


@pytest.fixture(scope="module")
def declared(guest: Guest) -> Guest:
    """Everything runs."""
    files = (f"cat >{path} <<'END'\n{text}END\n" for path, text in FILES.items())
    guest(DISK + "".join(files) + RUN)
    return guest


@pytest.fixture(scope="module")
def rebooted(declared: Guest) -> Guest:
    declared.reboot()
    return declared


@pytest.fixture(scope="module")
def crashed(rebooted: Guest) -> Guest:
    """The power was cut while everything ran and containers were being started."""
    rebooted(LATE)
    rebooted.cut_power()
    return rebooted


def patiently(command: str) -> str:
    """A script that tries it until it succeeds: a service is up before its payload has done anything."""
    return f"for turn in $(seq 100); do {command} && break; sleep 0.2; done"


def fetched(guest: Guest, address: str, *inside: str) -> str:
    """What a web server answers, once it listens: to the guest, or to what `inside` has it asked by."""
    return guest(patiently(" ".join((*inside, "busybox wget -qO-", address, "2>/dev/null"))))


def states(guest: Guest) -> dict[str, str]:
    """The state of each container, by its name."""
    lines = guest("sysbox ps -a --format '{{.Names}} {{.State}}'").splitlines()
    return dict(line.split() for line in lines)


def journal_of(guest: Guest, *matches: str) -> list[str]:
    return guest(f"journalctl -o cat --no-pager {' '.join(matches)}").splitlines()


def moment(guest: Guest, what: str, service: str) -> int:
    """A time stamp of a service, in microseconds since the boot."""
    return int(guest(f"systemctl show --value -p {what}TimestampMonotonic {service}.service"))


def tasks(guest: Guest, name: str) -> list[str]:
    """The limit of a container's tasks: of systemd, of the kernel."""
    return guest(
        f"scope=docker-$(sysbox inspect -f '{{{{.Id}}}}' {name}).scope\n"
        "systemctl show --value -p TasksMax $scope\ncat /sys/fs/cgroup/system.slice/$scope/pids.max"
    ).split()


def check_nothing_is_stale(guest: Guest) -> None:
    """All that is kept belongs to the containers that are there, and all of a run to those that run."""
    found = dict[str, set[str]]()
    for part in guest(LEFT).split("== ")[1:]:
        what, *lines = part.split()
        found[what] = {one[-64:] for one in lines}
    assert found["gc"] == set()
    assert found["volumes"] == {"systemd-data"}
    assert found["runs"] == found["scopes"] == found["running"]
    assert found["records"] == found["names"] == found["known"]
    # it has the address of the one that it joins
    assert found["leases"] == found["running"] - found["joined"]


def test_what_starts_at_boot(rebooted: Guest) -> None:
    assert states(rebooted) == STATES


def test_containers_were_stopped_gracefully_and_before_the_disks(rebooted: Guest) -> None:
    for name in ("web", "db"):
        spoken = patiently(f'[ "$(wc -l </srv/log/{name})" -ge 3 ]')
        told = rebooted(f"{spoken}; cat /srv/log/{name}").split("\n")
        assert told == [f"{name} started", f"{name} stopped", f"{name} started"]
        said = journal_of(rebooted, "-b -1", f"CONTAINER_NAME=systemd-{name}")
        anyhow = "journalctl -b -1 -o verbose -g '^bye from' --no-pager; journalctl -b -1 -n 80 --no-pager"
        assert f"bye from {name}" in said, rebooted(f"{anyhow} || true")
    said = journal_of(rebooted, "-b -1", "-u web.service", "-u db.service", "-u first.service")
    assert not [line for line in said if "Failed with" in line]
    lost = "sysbox inspect -f '{{.State.Error}}' once failing disabled"
    assert rebooted(lost).split() == []


def test_the_volume_the_network_and_the_ports_are_there(rebooted: Guest) -> None:
    assert fetched(rebooted, "http://127.0.0.1:8080/") == "kept"
    assert fetched(rebooted, "http://systemd-web/", "sysbox exec systemd-db") == "kept"


def test_what_was_set_holds(rebooted: Guest) -> None:
    """On the service, whose limit is the scope's; on the scope of a container that is kept."""
    assert tasks(rebooted, "systemd-web") == ["33", "33"]
    assert tasks(rebooted, "always") == ["44", "44"]


def test_each_starts_after_what_it_needs(rebooted: Guest) -> None:
    first = min(moment(rebooted, "InactiveExit", name) for name in ("web", "db"))
    for needed in ("data-volume", "back-network", "first"):
        assert 0 < moment(rebooted, "ActiveEnter", needed) < first


def test_a_broken_file_fails_and_delays_nothing(rebooted: Guest) -> None:
    failed = rebooted("systemctl --failed --plain --no-legend").split("\n")
    assert [line.split()[0] for line in failed] == ["broken.service"]
    said = journal_of(rebooted, "-b -u broken.service")
    where = "/etc/sysbox/units/broken.container:2"
    assert any(
        f"{where}: [Container] has no key Imag: did you mean Image?" in line for line in said
    )
    assert (
        rebooted("systemctl is-active multi-user.target; systemctl list-jobs --no-legend")
        == "active"
    )


def test_the_journal_has_what_the_generator_said_at_boot(rebooted: Guest) -> None:
    """The generator ran before journald."""
    said = {*journal_of(rebooted, "-b -t sysbox-generator")}
    where = "/etc/sysbox/units/broken.container:2"
    assert said == {f"{where}: [Container] has no key Imag: did you mean Image?"}


def test_nothing_is_stale_after_a_shutdown(rebooted: Guest) -> None:
    check_nothing_is_stale(rebooted)


def test_what_starts_after_a_power_cut(crashed: Guest) -> None:
    late = dict.fromkeys(("systemd-late", "late"), "running")
    assert states(crashed) == {**STATES, **late, "never": "exited"}


def test_an_end_that_nobody_saw_is_recorded(crashed: Guest) -> None:
    """Not as that of an earlier run."""
    for name in ("once", "never"):
        said = crashed(f"sysbox inspect -f '{{{{.State.ExitCode}}}} {{{{.State.Error}}}}' {name}")
        assert said == "137 nobody saw how it ended: the host stopped, or /run was lost"


def test_what_was_set_holds_after_a_power_cut(crashed: Guest) -> None:
    assert tasks(crashed, "systemd-web") == ["33", "33"]
    assert tasks(crashed, "always") == ["45", "45"]
    assert crashed("sysbox network ls --format '{{.Name}}' | sort").split() == [
        "bridge",
        "host",
        "late",
        "none",
        "systemd-back",
    ]
    assert fetched(crashed, "http://127.0.0.1:8080/") == "kept"


def test_nothing_is_stale_after_a_power_cut(crashed: Guest) -> None:
    check_nothing_is_stale(crashed)
