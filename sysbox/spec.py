"""What was asked for: the frozen records that the three front doors (command line, unit file, OCI
config) all produce, and that a container's record keeps on disk. Values are already parsed and in base
units: bytes, microseconds, absolute paths. `parse/common.py` does the parsing of single values.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen

_MODES = {"", "bridge", "none", "host", "private"}


class Mount(Frozen):
    """One `-v`, `--mount` or `--tmpfs`."""

    kind: str  # bind, volume, tmpfs
    target: str  # absolute path inside the container
    source: str = ""  # host path (bind), volume name (volume; "" is an anonymous one), "" (tmpfs)
    read_only: bool = False
    options: tuple[
        str, ...
    ] = ()  # rprivate rslave rshared private slave shared, nosuid nodev noexec, size=N mode=N
    recursive: bool = True  # rbind
    create: bool = False  # `-v` makes a missing source directory, `--mount` does not
    copy_up: bool = True  # a new volume takes the image's content at the target
    from_image: bool = False  # a volume that the image asks for, and not the user

    def wrong(self) -> str:
        if self.kind not in ("bind", "volume", "tmpfs"):
            return "kind: must be bind, volume or tmpfs"
        if self.kind == "volume" and ("/" in self.source or self.source in (".", "..")):
            return "source: must be the name of a volume"
        return "" if self.target[:1] == "/" else "target: must be an absolute path"


class Device(Frozen):
    """One `--device HOST[:CONTAINER[:rwm]]`."""

    source: str
    target: str
    access: str = "rwm"


class Ulimit(Frozen):
    """One `--ulimit NAME=SOFT[:HARD]`; -1 is unlimited."""

    name: str  # as in getrlimit(2) without RLIMIT_, lower case: nofile, nproc, core
    soft: int
    hard: int


class Port(Frozen):
    """One `-p [HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]`; host_port 0 is any free one."""

    container_port: int
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "tcp"

    def wrong(self) -> str:
        if not (0 < self.container_port < 65536 and 0 <= self.host_port < 65536):
            return "container_port, host_port: must be at most 65535"
        known = self.protocol in ("tcp", "udp", "sctp")
        return "" if known else "protocol: must be tcp, udp or sctp"


class Limits(Frozen):
    """Resource limits as asked; None is not asked. Docker's meaning throughout."""

    cpu_shares: int | None = None  # 2..262144, 1024 is the default weight
    nano_cpus: int | None = None  # --cpus in 10^-9 CPUs
    cpu_quota: int | None = None  # microseconds per period; -1 is unlimited
    cpu_period: int | None = None  # microseconds, 1000..1000000
    cpu_idle: bool | None = None  # only what nobody else wants (CPUWeight=idle)
    cpuset_cpus: str | None = None  # "0-2,5"
    cpuset_mems: str | None = None
    memory: int | None = None  # bytes
    memory_swap: int | None = None  # memory plus swap, bytes; -1 is unlimited
    memory_reservation: int | None = None  # bytes, reclaimed last
    memory_high: int | None = None  # bytes, beyond which it is slowed down and reclaimed; v2
    memory_min: int | None = None  # bytes, never reclaimed; v2
    memory_swappiness: int | None = None  # 0..100; v1
    oom_kill_disable: bool | None = None  # v1: a process waits for memory instead of being killed
    oom_policy: str | None = None  # continue, stop, kill: what becomes of the rest (OOMPolicy=)
    pids: int | None = None  # -1 is unlimited
    blkio_weight: int | None = None  # 10..1000
    blkio_weight_device: tuple[tuple[str, int], ...] = ()  # (device path, 10..1000)
    device_read_bps: tuple[tuple[str, int], ...] = ()  # (device path, bytes per second)
    device_write_bps: tuple[tuple[str, int], ...] = ()
    device_read_iops: tuple[tuple[str, int], ...] = ()  # (device path, operations per second)
    device_write_iops: tuple[tuple[str, int], ...] = ()
    device_rules: tuple[str, ...] = ()  # "c 1:3 rwm", "b 8:* r"
    net_cls: int | None = None  # class id 0xAAAABBBB of its packets (tc-cgroup(8)); v1
    hugetlb: tuple[tuple[str, int], ...] = ()  # (page size such as "2MB", bytes)


class Security(Frozen):
    """`--privileged`, `--cap-*` and `--security-opt`."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()  # upper case without CAP_, or ALL
    # what the defaults had when it was made, and have no more: kept like they were, not asked
    cap_kept: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = (
        False  # docker's default; `--security-opt no-new-privileges` switches it on
    )
    seccomp: str = "default"  # default, unconfined, or the path of a profile
    unmask: tuple[str, ...] = ()  # paths neither masked nor read-only; "ALL"
    label: tuple[
        str, ...
    ] = ()  # SELinux: disable, type:T, level:L, ... (a later issue applies them)


class Health(Frozen):
    """`--health-*`, or an image's HEALTHCHECK; times in microseconds, -1 is not said."""

    command: tuple[str, ...] = ()  # () is none
    disabled: bool = False  # --no-healthcheck, or the image's NONE
    interval: int = -1
    timeout: int = -1
    start_period: int = -1  # in which failures do not count
    start_interval: int = -1
    retries: int = -1
    on_failure: str = "none"  # none, kill, restart, stop


class Logging(Frozen):
    """`--log-driver` and `--log-opt`: where the output is kept."""

    driver: str = "journald"  # journald, json-file, none
    max_size: int = 20 << 20  # bytes of one file of json-file; 0 is no bound
    max_files: int = 5
    # of journald; -1 is what the version that starts it has as its default
    rate_limit: int = -1  # lines a second; 0 is no limit
    rate_burst: int = -1  # lines at once
    tag: str = ""  # may have {{.ID}} and the like
    labels: tuple[str, ...] = ()  # names of those that stand beside each line
    env: tuple[str, ...] = ()

    def wrong(self) -> str:
        if self.driver not in ("journald", "json-file", "none"):
            return "driver: must be journald, json-file or none"
        fits = 0 < self.max_files < 1 << 31 and 0 <= self.max_size < 1 << 63
        return "" if fits else "max_files, max_size: must be from 1, from 0"


class RestartPolicy(Frozen):
    """`--restart`: whether systemd starts it again when it has ended, and at boot."""

    name: str = "no"  # no, on-failure, always, unless-stopped
    retries: int = 0  # of on-failure; 0 is without end

    def wrong(self) -> str:
        if self.name not in ("no", "on-failure", "always", "unless-stopped"):
            return "name: must be no, on-failure, always or unless-stopped"
        return "" if 0 <= self.retries < 1 << 63 else "retries: must be from 0"


class Bridge(Frozen):
    """The network `bridge`, as sysbox.conf(5) had it when the container was made."""

    name: str = "sysbox0"
    subnet: str = ""  # "10.90.0.0/16"; "": that, or the next one that is free when it starts

    def wrong(self) -> str:
        fits = 0 < len(self.name.encode("utf-8", "replace")) < 16 and "/" not in self.name
        return "" if fits else "name: must be that of a link"


class Namespaces(Frozen):
    """For each kind: "private" (new), "host", "container:ID", "ns:PATH"; ids are resolved to full ones."""

    network: str = "bridge"  # bridge, none, host, container:ID, ns:PATH
    pid: str = "private"
    ipc: str = "private"  # also none: private, and no /dev/shm
    uts: str = "private"
    cgroup: str = "private"
    user: str = "host"  # a later issue turns user and time namespaces on
    time: str = "host"

    def wrong(self) -> str:
        for kind in ("network", "pid", "ipc", "uts", "cgroup"):
            mode = getattr(self, kind)
            if mode not in _MODES and not mode.startswith(("container:", "ns:")):
                return f"{kind}: no such namespace"
        return ""


class ContainerSpec(Frozen):
    """Everything that one `run` or `create` asked for."""

    image: str  # the reference as the user wrote it
    name: str = ""  # "" until claimed; then always set
    command: tuple[str, ...] = ()  # after the image name; () takes the image's
    entrypoint: tuple[str, ...] | None = None  # None takes the image's; () clears it
    env: tuple[
        str, ...
    ] = ()  # "NAME=VALUE", files already read; a bare NAME took the caller's value
    workdir: str = ""
    user: str = ""  # "name|uid[:group|gid]"
    group_add: tuple[str, ...] = ()
    hostname: str = ""
    domainname: str = ""  # of the UTS namespace
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    attach: tuple[
        str, ...
    ] = ()  # stdin, stdout, stderr: what the command is attached to; () is usual
    sig_proxy: bool = True  # the command passes its signals on
    remove: bool = False  # --rm
    init: bool = False
    systemd: str = (
        "auto"  # auto (if that is its command), always, false: see container/systemd_mode.py
    )
    mounts: tuple[Mount, ...] = ()
    shm_size: int = 64 << 20
    read_only: bool = False
    labels: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    annotations: dict[str, str] = {}  # noqa: RUF012
    cidfile: str = ""
    pidfile: str = ""
    stop_signal: str = ""  # "" takes the image's, else SIGTERM
    stop_timeout: int = 10  # seconds
    restart: RestartPolicy = RestartPolicy()
    logging: Logging = Logging()
    health: Health = Health()  # complete once the container is made
    detach_keys: str = ""  # as written; "" is the default, which `attach` knows
    pull: str = "missing"
    devices: tuple[Device, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: dict[str, str] = {}  # noqa: RUF012
    add_hosts: tuple[str, ...] = ()  # "name:ip"
    ports: tuple[Port, ...] = ()
    exposed: tuple[str, ...] = ()  # "80/tcp": declared, and nothing else
    namespaces: Namespaces = Namespaces()
    bridge: Bridge = Bridge()  # of those on the network `bridge`
    security: Security = Security()
    limits: Limits = Limits()
    oom_score_adj: int = 0  # -1000 to 1000: how readily the kernel chooses it when memory is short
    slice: str = "system.slice"
    properties: tuple[str, ...] = ()  # "KEY=VALUE", checked by units/properties.py

    def wrong(self) -> str:
        if not -1000 <= self.oom_score_adj <= 1000:
            return "oom_score_adj: must be from -1000 to 1000"
        if not -1 <= self.stop_timeout < 1 << 32:
            return "stop_timeout: must be a number of seconds, or -1"
        if not self.slice.endswith(".slice") or "/" in self.slice:
            return "slice: must be the name of a slice"
        return "" if 0 <= self.shm_size < 1 << 63 else "shm_size: must be a number of bytes"
