"""Command lines, the declarations that sysbox writes of them, and what systemd and sysbox make of these."""

from __future__ import annotations

from sysbox.cli.parse import hot
from sysbox.cli.request import spec as specbuild
from sysbox.cli.request import words
from sysbox.cli.request.declaration import of_command_line
from sysbox.cli.table.verbs import VERBS
from sysbox.spec import ContainerSpec
from sysbox.units import syntax
from sysbox.units.quadlet import convert, sources, units

# each flag of `run`, by what is tried of it
SAMPLES = {
    name: text.split()
    for name, text in {
        "detach": "--detach",
        "env": "--env=A=1 --env=B= --env=A=2",
        "env-file": "--env-file=/dev/null",
        "health-words": "--health-cmd=CMD_a_b --health-startup-cmd=CMD-SHELL_CMD_x",
        "health-array": '--health-cmd=["CMD","a","b$"] --health-startup-cmd=[_-e_/x_]',
        "image-volume": "--image-volume=tmpfs",
        "mount-podman": "--mount=type=bind,src=/a,dst=/b,rw,relabel=private",
        "env-host": "--env-host",
        "entrypoint": "--entrypoint=/bin/x",
        "no-entrypoint": "--entrypoint=",
        "group-add": "--group-add=7 --group-add=wheel",
        "keep-groups": "--group-add=keep-groups",
        "init": "--init",
        "interactive": "--interactive",
        "oom-score-adj": "--oom-score-adj=-5",
        "stop-signal": "--stop-signal=SIGRTMIN+3",
        "stop-timeout": "--stop-timeout=90s",
        "systemd": "--systemd=always",
        "tty": "--tty",
        "umask": "--umask=77",
        "user": "--user=7:8",
        "user-alone": "--user=www",
        "group-alone": "--user=:8",
        "workdir": "--workdir=/a/%b/$c",
        "annotation": "--annotation=a=1 --annotation=b",
        "attach": "--attach=stdout",
        "cidfile": "--cidfile=/x/id",
        "detach-keys": "--detach-keys=ctrl-a,b",
        "domainname": "--domainname=example.org",
        "health": "--health-cmd=test_-e_/x --health-interval=1m --health-timeout=1500ms --health-retries=9",
        "health-interval": "--health-interval=7s",
        "health-startup": "--health-cmd=x --health-startup-cmd=test_-e_/up --health-startup-interval=3s "
        "--health-startup-retries=4 --health-startup-success=2 --health-startup-timeout=1s",
        "health-startup-interval": "--health-startup-interval=7s",
        "health-startup-retries": "--health-startup-retries=7",
        "health-startup-success": "--health-startup-success=7",
        "health-startup-timeout": "--health-startup-timeout=7s",
        "health-startup-cmd": "--health-startup-cmd=true --health-cmd=x",
        "health-log": "--health-log-destination=local --health-cmd=x",
        "health-max-log-count": "--health-max-log-count=9",
        "health-max-log-size": "--health-max-log-size=99",
        "health-retries": "--health-retries=7",
        "health-timeout": "--health-timeout=7s",
        "health-on-failure": "--health-on-failure=kill --health-cmd=x",
        "health-start": "--health-start-interval=2s --health-start-period=1h --health-cmd=x",
        "health-period": "--health-start-period=1h --health-cmd=x",
        "health-destination": "--health-log-destination=local --health-cmd=x",
        "pod": "--pod=web",
        "no-healthcheck": "--no-healthcheck",
        "hostname": "--hostname=h.example",
        "label": "--label=a=1 --label=b --label=io.containers.autoupdate=registry",
        "label-file": "--label-file=/dev/null",
        "log-driver": "--log-driver=json-file --log-opt=max-size=1m --log-opt=max-file=3 "
        "--log-opt=labels=a,b",
        "log-opt": "--log-opt=rate-limit=9 --log-opt=tag={{.Name}} --log-opt=syslog=false --log-opt=env=A",
        "unlimited-log": "--log-driver=json-file --log-opt=max-size=-1",
        "name": "--name=web",
        "pidfile": "--pidfile=/x/pid",
        "sdnotify": "--sdnotify=conmon",
        "sdnotify-container": "--sdnotify=container",
        "sdnotify-healthy": "--sdnotify=healthy --health-cmd=x",
        "property": "--property=IOWeight=7 --property=MemoryMax=64M",
        "platform": "--platform=linux/arm64",
        "new-pod": "--pod=new:shop --publish=80 --userns=keep-id",
        "pull": "--pull=newer",
        "signed": "--assert-signed",
        "quiet": "--quiet",
        "replace": "--replace --name=web",
        "retry": "--retry=3 --retry-delay=1500ms",
        "retry-delay": "--retry-delay=5",
        "restart": "--restart=on-failure:5",
        "restart-always": "--restart=unless-stopped",
        "rm": "--rm",
        "cgroup-parent": "--cgroup-parent=a-b.slice",
        "sig-proxy": "--sig-proxy=false",
        "slice": "--slice=web",
        "device": "--device=/dev/null --device=/dev/zero:/dev/other:r",
        "device-cgroup-rule": "--device-cgroup-rule=char-pts_rw",
        "mount": "--mount=type=bind,src=/a,dst=/b,ro,bind-propagation=rshared "
        "--mount=type=tmpfs,dst=/t,tmpfs-size=1m",
        "mount-volume": "--mount=type=volume,src=vol,dst=/v,volume-nocopy "
        "--mount=type=volume,dst=/w,readonly",
        "mount-mapped": "--mount=type=bind,src=/a,dst=/b,idmap,chown "
        "--mount=type=bind,src=/c,dst=/d,idmap=false",
        "mount-colon": "--mount=type=bind,src=/a:b,dst=/b:c,bind-nonrecursive --mount=type=tmpfs,dst=/t:t",
        "mount-comma": '--mount=type=bind,"src=/a,b","dst=/q""uote"',
        "read-only": "--read-only",
        "credential": "--credential=a:/a/b:c --credential=b.*",
        "secret": "--secret=a,uid=7,mode=400 --secret=b,type=env,target=B --secret=c,target=/x",
        "shm-size": "--shm-size=1g",
        "tmpfs": "--tmpfs=/t --tmpfs=/u:ro,exec,size=1m,mode=1777,noatime,huge=never",
        "volume": "--volume=/a:/b:ro,z,rslave --volume=vol:/c:nocopy,U --volume=/d --volume=/e:/f:bind,idmap",
        "add-host": "--add-host=a:10.0.0.1 --add-host=b:::1",
        "cap-add": "--cap-add=net_admin --cap-add=ALL",
        "cap-drop": "--cap-drop=CHOWN",
        "cgroupns": "--cgroupns=host",
        "expose": "--expose=80-82 --expose=53/udp",
        "ipc": "--ipc=none",
        "pid": "--pid=container:other",
        "privileged": "--privileged",
        "publish": "--publish=80 --publish=127.0.0.1:8080:80/udp --publish=[::1]:9-10:9-10 "
        "--publish=1.2.3.4::5",
        "publish-range": "--publish=8000-8010:80",
        "publish-all": "--publish-all",
        "security-opt": "--security-opt=no-new-privileges --security-opt=seccomp=/x.json "
        "--security-opt=mask=/proc/x:/y --security-opt=unmask=/proc/* "
        "--security-opt=proc-opts=hidepid=2,gid=7 --security-opt=label=level:s0 "
        "--security-opt=landlock=on",
        "sysctl": "--sysctl=net.ipv4.ip_forward=1 --sysctl=kernel.msgmax=2",
        "time-offset": "--time-offset=boottime=-1h,monotonic=1500ms",
        "timens": "--timens=ns:/proc/1/ns/time",
        "uts": "--uts=host",
        "dns": "--dns=1.1.1.1 --dns=::1",
        "dns-option": "--dns-option=ndots:2",
        "dns-search": "--dns-search=a.example",
        "ip": "--ip=10.0.0.2 --network=back",
        "ip6": "--ip6=fd00::2 --network=back",
        "link": "--link=db:database --link=other",
        "mac-address": "--mac-address=02:00:00:00:00:01",
        "network": "--network=back:ip=10.0.0.2,alias=a,alias=b,interface_name=x0 --network=front",
        "network-host": "--network=host",
        "network-alias": "--network-alias=n --network=back",
        "userns": "--userns=auto:size=1000,uidmapping=0:1:1",
        "keep-id": "--userns=keep-id:uid=7,gid=8",
        "uidmap": "--uidmap=0:100000:1000 --uidmap=1000:300000:5",
        "gidmap": "--gidmap=0:100000:1000 --uidmap=0:5:7",
        "subuidname": "--subuidname=x",
        "subgidname": "--subgidname=y --subuidname=x",
        "cpu-idle": "--cpu-idle",
        "cpu-period": "--cpu-period=5000 --cpu-quota=2500",
        "cpu-quota": "--cpu-quota=2500",
        "cpu-shares": "--cpu-shares=512",
        "cpus": "--cpus=1.25",
        "cpuset-cpus": "--cpuset-cpus=0-1",
        "cpuset-mems": "--cpuset-mems=0",
        "pids-limit": "--pids-limit=-1",
        "ulimit": "--ulimit=nofile=10:20 --ulimit=core=-1",
        "hugetlb": "--hugetlb=2MB=64m",
        "kernel-memory": "--kernel-memory=64m",
        "memory": "--memory=64m",
        "memory-high": "--memory-high=1500000",
        "memory-min": "--memory-min=1m",
        "memory-reservation": "--memory-reservation=32m",
        "memory-swap": "--memory-swap=-1 --memory=1g",
        "memory-swappiness": "--memory-swappiness=0",
        "oom-kill-disable": "--oom-kill-disable",
        "oom-policy": "--oom-policy=kill",
        "blkio-weight": "--blkio-weight=300",
        "blkio-weight-device": "--blkio-weight-device=/dev/sda:300",
        "device-read-bps": "--device-read-bps=/dev/sda:1m",
        "device-read-iops": "--device-read-iops=/dev/sda:100",
        "device-write-bps": "--device-write-bps=/dev/sda:1m",
        "device-write-iops": "--device-write-iops=/dev/sda:100",
        "net-cls": "--net-cls=10:1",
        "network-bandwidth": "--network-bandwidth=up=10mbit,down=1mbps",
        "ip-accounting": "--ip-accounting",
        "ip-allow": "--ip-allow=192.0.2.0/24 --ip-deny=any",
        "ip-deny": "--ip-deny=any",
    }.items()
}  # fmt: skip
SAMPLES = {name: [one.replace("_", " ") if "-cmd" in one or "rule" in one else one for one in sample]
           for name, sample in SAMPLES.items()}  # fmt: skip


def build(*line: str) -> ContainerSpec:
    """The specification of a command line of `run`."""
    return specbuild.build(hot.parse(VERBS["run"], [*line]))


def again(spec: ContainerSpec) -> ContainerSpec:
    """The specification without what a service decides, and what flags may put into another order."""
    return spec.replace(
        attach=(),
        sig_proxy=True,
        remove=False,
        detach=False,
        host_env=(),
        restart=ContainerSpec(image="x").restart,
        slice="system.slice",
        mounts=tuple(sorted(spec.mounts, key=lambda one: one.target)),
        labels=dict(sorted(spec.labels.items())),
    )


def file_of(*line: str) -> str:
    """What `run --unit-file` writes."""
    return of_command_line(hot.parse(VERBS["run"], [*line]))


def words_of(spec: ContainerSpec) -> list[str]:
    """The command line that a specification becomes."""
    flags = [name if value is None else f"{name}={value}" for name, value in words.flags_of(spec)]
    return [*flags, spec.image, *words.command_of(spec)]


def declared(text: str) -> ContainerSpec:
    """The specification of the command that a service runs, made of a declaration of this text."""
    source = sources.parsed(
        "/x/web.container", [("/x/web.container", text.encode("utf-8", "surrogateescape"))]
    )
    service = convert.service_of(source, units.Declared([source]), "/usr/bin/sysbox")
    assert not service.error, service.error
    found = {one.key: one.value for one in syntax.entries(units.text(service, "/usr/bin/sysbox"))}
    line = [_expanded(one) for one in syntax.split(found["ExecStart"], "ExecStart=")]
    assert line[:2] == ["/usr/bin/sysbox", "_unit"]
    # when the service is started is no part of what is asked of the container
    return again(build(*line[line.index("%n") + 1 :]))


def _expanded(word: str) -> str:
    """A word as systemd passes it on; raises ValueError where it would expand something."""
    made, at = [], 0
    if word in ("%n", "--name=systemd-%N"):
        return word
    for sign in "%$":
        while at < len(word):
            if word[at] == sign:
                if word[at + 1 : at + 2] != sign:
                    raise ValueError(f"{word!r}: systemd would expand it")
                at += 1
            made.append(word[at])
            at += 1
        word, made, at = "".join(made), [], 0
    return word
