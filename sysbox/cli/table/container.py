"""The flags of `run`, `create` and `exec`, with docker's meaning."""

from __future__ import annotations

from sysbox.cli.table.options import Option, many, switch, value


def run_options() -> tuple[Option, ...]:
    """Every flag of `sysbox run`."""
    return (
        switch("-d --detach", "Run in the background and print the container's id"),
        switch("--dry-run", "Print the plan and do nothing"),
        value(
            "--sdnotify",
            "MODE",
            "Tell the calling service that it is started: ignore (the default), "
            "conmon (once the command runs), container (when that says so)",
            choices="conmon container healthy ignore",
        ),
        value(
            "--unit-file",
            "FILE",
            "Write a .container that declares it, - for standard output; run nothing",
        ),
        *create_options(),
    )


def create_options() -> tuple[Option, ...]:
    """Every flag of `sysbox create`."""
    return (*_process(), *_identity(), *_storage(), *_isolation(), *_limits())


def exec_options() -> tuple[Option, ...]:
    """Every flag of `sysbox exec`."""
    return (
        switch("-d --detach", "Run in the background"),
        value(
            "--detach-keys", "KEYS", "Keys that detach from the command; ctrl-p,ctrl-q by default"
        ),
        many(
            "-e --env",
            "NAME[=VALUE]",
            "Set an environment variable; NAME alone takes the caller's value",
        ),
        many("--env-file", "FILE", "Read environment variables from a file"),
        switch("-i --interactive", "Keep standard input open"),
        switch("--privileged", "Give the command all capabilities"),
        switch("-t --tty", "Allocate a terminal"),
        value("-u --user", "USER[:GROUP]", "Run as this user"),
        value("-w --workdir", "DIRECTORY", "Run in this directory"),
    )


def update_options() -> tuple[Option, ...]:
    """Every flag of `sysbox update`: the limits of `run`, each of which `unset` removes."""
    return (
        *_limits(),
        many(
            "--device-cgroup-rule", "RULE", "Allow devices of these numbers, from the next start on"
        ),
        many("--property", "KEY=VALUE", "Set a property of the scope; KEY=unset removes it"),
        _restart_option(),
        switch("--forget", "Discard changes made with `systemctl set-property`"),
    )


def limit_options() -> tuple[Option, ...]:
    """The limits, which `build` has too."""
    return _limits()


def _restart_option() -> Option:
    return value(
        "--restart", "POLICY", "When to restart it: no, on-failure[:RETRIES], always, unless-stopped",
        choices="no on-failure always unless-stopped",
    )  # fmt: skip


def _process() -> tuple[Option, ...]:
    return (
        many(
            "-e --env",
            "NAME[=VALUE]",
            "Set an environment variable; NAME alone takes the caller's value",
        ),
        many("--env-file", "FILE", "Read environment variables from a file"),
        switch("--env-host", "Give it the caller's environment, under the image's and that of -e"),
        value("--entrypoint", "COMMAND", 'Replace the image\'s entry point; "" removes it'),
        many(
            "--group-add",
            "GROUP",
            "Add a supplementary group; keep-groups takes those of the caller",
            choices="keep-groups",
        ),
        switch("--init", "Run a small init as PID 1 that reaps processes and forwards signals"),
        switch("-i --interactive", "Keep standard input open"),
        value(
            "--oom-score-adj",
            "NUMBER",
            "Preference to be killed when memory is short, -1000 to 1000",
        ),
        value("--stop-signal", "SIGNAL", "Signal that asks the container to stop"),
        value("--stop-timeout", "SECONDS", "Time from the stop signal to SIGKILL; 10 by default"),
        value(
            "--systemd",
            "MODE",
            "Prepare for systemd as PID 1: auto (if it is the command), always, false",
            choices="auto always false",
        ),
        switch("-t --tty", "Allocate a terminal"),
        value("--umask", "MODE", "Mode bits that new files lack, octal; 022 by default"),
        value("-u --user", "USER[:GROUP]", "Run as this user"),
        value("-w --workdir", "DIRECTORY", "Run in this directory"),
    )


def _identity() -> tuple[Option, ...]:
    return (
        many("--annotation", "KEY=VALUE", "Attach an annotation"),
        many(
            "-a --attach", "STREAM", "Attach to this stream only: stdin, stdout, stderr",
            choices="stdin stdout stderr",
        ),
        value("--cidfile", "FILE", "Write the container's id to a file"),
        value("--detach-keys", "KEYS", "Keys that detach from the container; ctrl-p,ctrl-q by default"),
        value("--domainname", "NAME", "Domain name of the container"),
        *_health(),
        value("-h --hostname", "NAME", "Host name of the container"),
        switch("--assert-signed", "Fail unless policy.json demands a signature of the image, and accepts it"),
        many("-l --label", "KEY[=VALUE]", "Attach a label"),
        many("--label-file", "FILE", "Read labels from a file"),
        value(
            "--log-driver", "DRIVER", "Where the output is stored: journald (the default), json-file, none",
            choices="journald json-file none",
        ),
        many("--log-opt", "KEY=VALUE", "Option of the log driver: rate-limit=, or max-size= of json-file"),
        value("--name", "NAME", "Name of the container"),
        value("--pidfile", "FILE", "Write the PID of the container's first process to a file"),
        many("--property", "KEY=VALUE", "Set a property of the scope (systemd.resource-control(5))"),
        value("--pod", "POD", "Run in a pod; new:NAME makes one that gets the flags about networks"),
        value("--platform", "OS/ARCH[/VARIANT]", "Platform of the image, this machine's by default"),
        value(
            "--pull", "POLICY", "When to pull the image: missing (the default), always, newer, never",
            choices="missing always newer never",
        ),
        switch("-q --quiet", "Show no progress of a pull"),
        switch("--replace", "Remove the container that has this name first, as `rm -f` does"),
        value("--retry", "NUMBER", "Further attempts of a pull that fails; none by default"),
        value("--retry-delay", "DURATION", "Time before each of them; 1s by default, and then doubled"),
        _restart_option(),
        switch("--rm", "Remove the container when it stops"),
        value("--cgroup-parent", "SLICE", "docker's name for --slice; takes the full name of a slice"),
        switch("--sig-proxy", "Pass signals on; on by default, `=false` turns it off", on=True),
        value("--slice", "SLICE", "Put the scope below this slice; system.slice by default"),
    )  # fmt: skip


def _startup_health() -> tuple[Option, ...]:
    return (
        value("--health-startup-cmd", "COMMAND", "Shell command that must succeed before checks begin"),
        value("--health-startup-interval", "DURATION", "Time between two tries of it; 30s by default"),
        value(
            "--health-startup-retries", "NUMBER",
            "Failures of it after which the container is restarted; 0, the default, is no limit",
        ),
        value("--health-startup-success", "NUMBER", "Successes in a row that it takes; 1 by default"),
        value("--health-startup-timeout", "DURATION", "Time after which a try has failed; 30s by default"),
    )  # fmt: skip


def _health() -> tuple[Option, ...]:
    return (
        value("--health-cmd", "COMMAND", "Shell command that succeeds while the container is healthy"),
        value("--health-interval", "DURATION", "Time between two checks; 30s by default"),
        value(
            "--health-on-failure", "ACTION", "Action when it becomes unhealthy: none, kill, restart, stop",
            choices="none kill restart stop",
        ),
        value(
            "--health-log-destination", "PLACE",
            "Where results are: local, which is `inspect`; events_logger and journald are the same",
        ),
        value("--health-max-log-count", "NUMBER", "Results that are kept; 5 by default"),
        value("--health-max-log-size", "BYTES", "Output that is kept of each; 4096 by default"),
        value("--health-retries", "NUMBER", "Consecutive failures that make it unhealthy; 3 by default"),
        value("--health-start-interval", "DURATION", "Check interval in the start period; 5s by default"),
        value(
            "--health-start-period", "DURATION",
            "Grace period in which failures are not counted; 0s by default",
        ),
        *_startup_health(),
        value("--health-timeout", "DURATION", "Time after which a check has failed; 30s by default"),
        switch("--no-healthcheck", "Disable health checks, the image's too"),
    )  # fmt: skip


def _storage() -> tuple[Option, ...]:
    return (
        value(
            "--image-volume",
            "KIND",
            "What each VOLUME of the image becomes: anonymous (the default; also bind), tmpfs, ignore",
            choices="anonymous bind tmpfs ignore",
        ),
        many("--credential", "NAME[:FILE]", "Give it a credential, in $CREDENTIALS_DIRECTORY"),
        many("--device", "HOST[:CONTAINER[:rwm]]", "Give the container access to a device"),
        many(
            "--device-cgroup-rule",
            "RULE",
            "Allow devices by number: 'c 1:3 rwm', 'b 8:* r'",
        ),
        many(
            "--mount",
            "KEY=VALUE[,...]",
            "Mount a file system: type=bind|volume|tmpfs,src=,dst=,ro",
        ),
        many(
            "--secret",
            "SECRET[,KEY=VALUE...]",
            "Give it a secret: type=mount|env, target=, uid=, gid=, mode=",
        ),
        switch("--read-only", "Mount the root file system read-only"),
        value("--shm-size", "SIZE", "Size of /dev/shm; 64m by default"),
        many("--tmpfs", "DIRECTORY[:OPTIONS]", "Mount a tmpfs"),
        many("-v --volume", "[SOURCE:]TARGET[:OPTIONS]", "Bind mount a path, or mount a volume"),
    )


def _isolation() -> tuple[Option, ...]:
    return (
        many("--add-host", "NAME:IP", "Add a line to /etc/hosts"),
        many("--cap-add", "CAPABILITY", "Add a capability, or ALL"),
        many("--cap-drop", "CAPABILITY", "Drop a capability, or ALL"),
        value("--cgroupns", "MODE", "Cgroup namespace: private, host, container:NAME, ns:PATH"),
        many("--expose", "PORT[/PROTOCOL]", "Declare a port, or a range of ports, without publishing it"),
        value("--ipc", "MODE", "IPC namespace: private, host, none (no /dev/shm), container:NAME, ns:PATH"),
        *_networks(),
        value("--pid", "MODE", "PID namespace: private, host, container:NAME, ns:PATH"),
        switch("--privileged", "Give the container all capabilities and all devices"),
        many("-p --publish", "[[IP:]HOST:]PORT[/PROTOCOL]", "Publish a port on the host"),
        switch("-P --publish-all", "Publish every port that the image or --expose declares on a free port"),
        many(
            "--security-opt", "OPTION",
            "no-new-privileges, seccomp=, apparmor=, landlock=, mask=, unmask=, proc-opts=, systempaths="
            ", label=",
            choices="apparmor= label=disable label=filetype: label=level: label=nested label=role: "
            "label=type: label=user: landlock=on mask= no-new-privileges proc-opts= seccomp= "
            "seccomp=record: systempaths=unconfined unmask=",
        ),
        many("--sysctl", "KEY=VALUE", "Set a kernel parameter of the container's namespaces"),
        many(
            "--time-offset", "CLOCK=OFFSET[,...]",
            "Shift the clocks monotonic and boottime from the host's: boottime=-1h",
        ),
        value("--timens", "MODE", "Time namespace: private, host, container:NAME, ns:PATH"),
        *_user_namespace(),
        value("--uts", "MODE", "UTS namespace: private, host, container:NAME, ns:PATH"),
    )  # fmt: skip


def _networks() -> tuple[Option, ...]:
    return (
        many("--dns", "ADDRESS", "DNS server, instead of those of the host"),
        many("--dns-option", "OPTION", "Option of resolv.conf(5), as ndots:2", hidden="--dns-opt"),
        many("--dns-search", "DOMAIN", "Search domain, instead of those of the host; . is none"),
        value("--ip", "ADDRESS", "IPv4 address on the first network"),
        value("--ip6", "ADDRESS", "IPv6 address on the first network"),
        many("--link", "CONTAINER[:ALIAS]", "A name that only this container knows for another one"),
        value("--mac-address", "MAC", "MAC address of the link to the first network"),
        many(
            "--network", "NETWORK[:OPTION=VALUE,...]",
            "Network: a name, with ip=, ip6=, mac=, alias=, interface_name=; or bridge (the default), none, "
            "host, container:NAME, ns:PATH",
            hidden="--net",
        ),
        many("--network-alias", "NAME", "Further name on the first network", hidden="--net-alias"),
    )  # fmt: skip


def _user_namespace() -> tuple[Option, ...]:
    return (
        value(
            "--userns", "MODE",
            "User namespace: auto, host, keep-id, nomap, container:NAME, ns:PATH",
            choices="auto host keep-id nomap",
        ),
        many("--uidmap", "[FLAGS]INSIDE:OUTSIDE[:COUNT]", "Map users of the container to users of the host"),
        many("--gidmap", "[FLAGS]INSIDE:OUTSIDE[:COUNT]", "Map groups; --uidmap alone maps both"),
        value("--subuidname", "NAME", "Map users to those that /etc/subuid gives to NAME"),
        value("--subgidname", "NAME", "Map groups likewise, by /etc/subgid"),
    )  # fmt: skip


def _limits() -> tuple[Option, ...]:
    return (
        *_limits_of_cpu(),
        *_limits_of_memory(),
        *_limits_of_devices(),
        *_limits_of_network(),
    )


def _limits_of_cpu() -> tuple[Option, ...]:
    return (
        switch("--cpu-idle", "Run only when a CPU is otherwise idle", on=None),
        value("--cpu-period", "MICROSECONDS", "Period of the CPU quota, 1000 to 1000000"),
        value("--cpu-quota", "MICROSECONDS", "Limit CPU time per period; -1 is unlimited"),
        value("-c --cpu-shares", "SHARES", "Share of CPU time, 2 to 262144; 1024 by default"),
        value("--cpus", "NUMBER", "Limit CPU time, in CPUs: 1.5"),
        value("--cpuset-cpus", "LIST", "Run only on these CPUs: 0-2,5", hidden="--cpuset"),
        value("--cpuset-mems", "LIST", "Use only these memory nodes"),
        value("--pids-limit", "NUMBER", "Limit the number of processes; -1 is unlimited"),
        many("--ulimit", "NAME=SOFT[:HARD]", "Set a resource limit: nofile, nproc, core, ..."),
    )


def _limits_of_memory() -> tuple[Option, ...]:
    return (
        many("--hugetlb", "SIZE=BYTES", "Limit huge pages of a size: 2MB=64m"),
        value("--kernel-memory", "SIZE", "No effect: the kernel has dropped this limit"),
        value("-m --memory", "SIZE", "Limit memory: 128m, 1.5g"),
        value("--memory-high", "SIZE", "Throttle and reclaim above this much memory (v2)"),
        value("--memory-min", "SIZE", "Memory that is never reclaimed (v2)"),
        value("--memory-reservation", "SIZE", "Memory that is reclaimed last under pressure"),
        value("--memory-swap", "SIZE", "Limit memory plus swap (-1: unlimited; default: twice --memory)"),
        value("--memory-swappiness", "PERCENT", "Tendency to swap, 0 to 100 (v1)"),
        switch("--oom-kill-disable", "Let processes wait for memory instead of killing them (v1)", on=None),
        value(
            "--oom-policy", "POLICY", "Action after an OOM kill: continue, stop, kill",
            choices="continue stop kill",
        ),
    )  # fmt: skip


def _limits_of_devices() -> tuple[Option, ...]:
    return (
        value("--blkio-weight", "WEIGHT", "Share of block I/O, 10 to 1000"),
        many("--blkio-weight-device", "DEVICE:WEIGHT", "Share of one disk, 10 to 1000"),
        many("--device-read-bps", "DEVICE:RATE", "Limit reads from a device, bytes per second"),
        many(
            "--device-read-iops", "DEVICE:RATE", "Limit reads from a device, operations per second"
        ),
        many("--device-write-bps", "DEVICE:RATE", "Limit writes to a device, bytes per second"),
        many(
            "--device-write-iops", "DEVICE:RATE", "Limit writes to a device, operations per second"
        ),
        value(
            "--net-cls",
            "CLASS",
            "Class of the container's packets for tc(8): 10:1 or 0x100001 (v1)",
        ),
    )


def _limits_of_network() -> tuple[Option, ...]:
    return (
        value(
            "--network-bandwidth", "up=RATE,down=RATE",
            "Limit what it sends and receives on its networks: up=10mbit,down=1mbps",
        ),
        switch("--ip-accounting", "Count packets and bytes of its sockets, for stats", on=None),
        many(
            "--ip-allow", "NETWORK", "Allow packets to and from a network despite --ip-deny: 192.0.2.0/24",
            choices="any link-local localhost multicast",
        ),
        many(
            "--ip-deny", "NETWORK", "Drop packets to and from a network; any, and --ip-allow for the rest",
            choices="any link-local localhost multicast",
        ),
    )  # fmt: skip
