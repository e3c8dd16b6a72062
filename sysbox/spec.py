"""ContainerSpec: a container as it was requested, frozen. The command line, unit files and OCI configs
all produce it, and the container's record keeps it on disk. Values are already parsed and in base
units: bytes, microseconds, absolute paths. `parse/common.py` parses single values.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen
from sysbox.linux.userns import IdMap
from sysbox.private import CredentialUse as CredentialUse
from sysbox.private import SecretUse as SecretUse

_MODES = {"", "bridge", "none", "host", "private"}
_USER_MODES = {"", "host", "auto", "keep-id", "nomap", "mapped"}


class Mount(Frozen):
    """One `-v`, `--mount` or `--tmpfs`."""

    kind: str  # bind, volume, tmpfs
    target: str  # absolute path inside the container
    source: str = ""  # host path (bind), volume name (volume; "" is an anonymous one), "" (tmpfs)
    read_only: bool = False
    # rprivate rslave rshared private slave shared, nosuid nodev noexec, size=N mode=N
    options: tuple[str, ...] = ()
    recursive: bool = True  # rbind
    create: bool = False  # `-v` makes a missing source directory, `--mount` does not
    copy_up: bool = True  # a new volume starts with the image's content at the target
    from_image: bool = False  # the image declares this volume, not the user

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
    """One `-p [HOST_IP:][HOST_PORT:]CONTAINER_PORT[/PROTOCOL]`; host_port 0 is any free port."""

    container_port: int
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "tcp"
    host_last: int = 0  # with it, any free port from host_port to this one

    @property
    def is_chosen(self) -> bool:
        """Whether the host's port is known, and not yet to be found at the start."""
        return self.host_port != 0 and self.host_last == 0

    @property
    def host_text(self) -> str:
        """The host's port, or its range, as in `-p`; "" for any."""
        last = f"-{self.host_last}" if self.host_last else ""
        return f"{self.host_port}{last}" if self.host_port else ""

    def wrong(self) -> str:
        if not (0 < self.container_port < 65536 and 0 <= self.host_port < 65536):
            return "container_port, host_port: must be at most 65535"
        if self.host_last and not 0 < self.host_port < self.host_last < 65536:
            return "host_last: must be above host_port, and at most 65535"
        known = self.protocol in ("tcp", "udp", "sctp")
        return "" if known else "protocol: must be tcp, udp or sctp"


class Limits(Frozen):
    """Resource limits as requested, with docker's meanings; None is not requested."""

    cpu_shares: int | None = None  # 2..262144, 1024 is the default weight
    nano_cpus: int | None = None  # --cpus in 10^-9 CPUs
    cpu_quota: int | None = None  # microseconds per period; -1 is unlimited
    cpu_period: int | None = None  # microseconds, 1000..1000000
    cpu_idle: bool | None = None  # only CPU time that no other cgroup wants (CPUWeight=idle)
    cpuset_cpus: str | None = None  # "0-2,5"
    cpuset_mems: str | None = None
    memory: int | None = None  # bytes
    memory_swap: int | None = None  # memory plus swap, bytes; -1 is unlimited
    memory_reservation: int | None = None  # bytes, reclaimed last
    memory_high: int | None = None  # bytes; above, the kernel throttles and reclaims; v2
    memory_min: int | None = None  # bytes, never reclaimed; v2
    memory_swappiness: int | None = None  # 0..100; v1
    oom_kill_disable: bool | None = None  # v1: a process waits for memory instead of being killed
    # continue, stop, kill: what systemd does with the other processes after an OOM kill (OOMPolicy=)
    oom_policy: str | None = None
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
    # with whom it may exchange packets: "192.0.2.0/24", or any, localhost, link-local, multicast
    ip_allow: tuple[str, ...] = ()
    ip_deny: tuple[str, ...] = ()
    ip_accounting: bool | None = None  # its packets and their bytes are counted (IPAccounting=)


RECORD = "record:"


class Security(Frozen):
    """`--privileged`, `--cap-*` and `--security-opt`."""

    privileged: bool = False
    cap_add: tuple[str, ...] = ()  # upper case without CAP_, or ALL
    # capabilities that were default when the container was made and no longer are; it keeps them
    cap_kept: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    # off is docker's default; `--security-opt no-new-privileges` switches it on
    no_new_privileges: bool = False
    seccomp: str = "default"  # default, unconfined, the name of a profile, its path, record:FILE
    mask: tuple[str, ...] = ()  # paths that are masked too
    unmask: tuple[str, ...] = ()  # patterns of paths neither masked nor read-only; "ALL"
    proc_options: tuple[str, ...] = ()  # of the procfs: hidepid=, gid=, subset=pid
    landlock: bool = False  # nothing outside of its root can be opened
    # AppArmor: "" is sysbox's own where the host has it; unconfined, or the name of a loaded profile
    apparmor: str = ""
    # SELinux: disable, nested, or type:T, user:U, role:R, level:L, filetype:T (see security/labels.py)
    label: tuple[str, ...] = ()

    @property
    def recorded(self) -> str:
        """The file for the profile of what the container calls; "" if it is not recorded."""
        return self.seccomp[len(RECORD) :] if self.seccomp.startswith(RECORD) else ""


class Health(Frozen):
    """`--health-*`, or an image's HEALTHCHECK; times in microseconds, -1 is not given."""

    command: tuple[str, ...] = ()  # () is no health check
    disabled: bool = False  # --no-healthcheck, or the image's NONE
    interval: int = -1
    timeout: int = -1
    start_period: int = -1  # in which failures do not count
    start_interval: int = -1
    retries: int = -1
    on_failure: str = "none"  # none, kill, restart, stop
    startup_command: tuple[str, ...] = ()  # --health-startup-cmd: the other check is made after it
    startup_interval: int = 30_000_000
    startup_timeout: int = 30_000_000
    startup_retries: int = 0  # failures after which the container is restarted; 0 is no limit
    startup_successes: int = 1  # that are needed in a row
    kept: int = 5  # results that are kept (--health-max-log-count)
    output: int = 4096  # bytes of the output of each (--health-max-log-size)


class Logging(Frozen):
    """`--log-driver` and `--log-opt`: where the output is kept."""

    driver: str = "journald"  # journald, json-file, none
    max_size: int = 20 << 20  # bytes per file of json-file; 0 is no limit
    max_files: int = 5
    # of journald; -1 is the default of the sysbox version that starts the container
    rate_limit: int = -1  # lines a second; 0 is no limit
    rate_burst: int = -1  # lines at once
    tag: str = ""  # may contain {{.ID}} and the like
    # names of the labels, and of the environment variables, that are stored with each line
    labels: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    syslog: bool = True  # of journald: what is sent to /dev/log in the container is kept too

    def wrong(self) -> str:
        if self.driver not in ("journald", "json-file", "none"):
            return "driver: must be journald, json-file or none"
        fits = 0 < self.max_files < 1 << 31 and 0 <= self.max_size < 1 << 63
        return "" if fits else "max_files, max_size: must be at least 1 and 0"


class RestartPolicy(Frozen):
    """`--restart`: whether systemd starts the container again after its end, and at boot."""

    name: str = "no"  # no, on-failure, always, unless-stopped
    retries: int = 0  # of on-failure; 0 is no limit

    def wrong(self) -> str:
        if self.name not in ("no", "on-failure", "always", "unless-stopped"):
            return "name: must be no, on-failure, always or unless-stopped"
        return "" if 0 <= self.retries < 1 << 63 else "retries: must be at least 0"


class Bridge(Frozen):
    """The settings of the network `bridge` in sysbox.conf(5) when the container was made."""

    name: str = "sysbox0"
    # "" is 10.90.0.0/16, or the next subnet that is free when the container starts
    subnet: str = ""

    def wrong(self) -> str:
        fits = 0 < len(self.name.encode("utf-8", "replace")) < 16 and "/" not in self.name
        return "" if fits else "name: must be that of a link"


class Bandwidth(Frozen):
    """`--network-bandwidth`: of all links of a container together, in bytes per second; 0 is no limit."""

    up: int = 0  # what it sends
    down: int = 0  # what it receives

    def wrong(self) -> str:
        fits = 0 <= self.up < 1 << 32 and 0 <= self.down < 1 << 32
        return "" if fits else "up, down: must be rates below 2^32"


class Endpoint(Frozen):
    """One `--network` that is a network of links: what was asked of the container's end."""

    network: str  # its name
    address: str = ""  # IPv4; "" leaves the choice to the network
    address6: str = ""
    mac: str = ""  # "02:..."
    aliases: tuple[str, ...] = ()  # further names of the container on this network
    interface: str = ""  # inside; "" is eth0, eth1, ...

    def wrong(self) -> str:
        fits = self.network and "/" not in self.network and self.network[0] != "."
        return "" if fits else "network: must be the name of a network"


class Route(Frozen):
    """A route that each container of a network gets."""

    destination: str  # "192.168.0.0/16"
    gateway: str  # an address of the network
    metric: int = 0


class Dns(Frozen):
    """`--dns`, `--dns-search`, `--dns-option`: what /etc/resolv.conf has; () takes the host's."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()  # (".",) is none
    options: tuple[str, ...] = ()


class Namespaces(Frozen):
    """For each kind: "private" (new), "host", "container:ID" (the full id), "ns:PATH"."""

    network: str = "bridge"  # bridge (links to networks), none, host, container:ID, ns:PATH
    pid: str = "private"
    ipc: str = "private"  # also none: private, and no /dev/shm
    uts: str = "private"
    cgroup: str = "private"
    # "": as sysbox.conf or other flags decide; mapped: its maps are given. See security/idmap.py
    user: str = ""
    time: str = "auto"  # see container/clocks.py

    def wrong(self) -> str:
        for kind in ("network", "pid", "ipc", "uts", "cgroup", "time"):
            mode = getattr(self, kind)
            known = mode in _MODES or (kind == "time" and mode == "auto")
            if not known and not mode.startswith(("container:", "ns:")):
                return f"{kind}: no such namespace"
        known = self.user in _USER_MODES or self.user.startswith(("container:", "ns:"))
        return "" if known else "user: no such namespace"


class UserNamespace(Frozen):
    """The options of `--userns`, `--uidmap`, `--gidmap`, `--subuidname` and `--subgidname`."""

    size: int = 0  # how many ids; 0 is the default
    # as given: all of the maps (mapped), or their part that is not chosen by sysbox (auto)
    uids: tuple[IdMap, ...] = ()
    gids: tuple[IdMap, ...] = ()
    # names or numbers: whose entries of /etc/subuid and /etc/subgid are the maps (mapped)
    subuid: str = ""
    subgid: str = ""
    # keep-id: what the caller's ids are inside; -1: the same as outside
    uid: int = -1
    gid: int = -1
    # auto, host: UserNS= of sysbox.conf when the container was made; "" where it is not set
    default: str = ""

    def wrong(self) -> str:
        if self.default not in ("", "auto", "host"):
            return "default: must be auto or host"
        fits = 0 <= self.size < 1 << 32 and min(self.uid, self.gid) >= -1
        fits = fits and max(self.uid, self.gid) < (1 << 32) - 1
        return "" if fits else "size, uid, gid: must be numbers of ids"


class ContainerSpec(Frozen):
    """Everything that one `run` or `create` requests."""

    image: str  # the reference as the user wrote it
    name: str = ""  # "" until the container has claimed one
    command: tuple[str, ...] = ()  # after the image name; () takes the image's
    entrypoint: tuple[str, ...] | None = None  # None takes the image's; () clears it
    # "NAME=VALUE"; --env-file is already read, and a bare NAME has the caller's value
    env: tuple[str, ...] = ()
    host_env: tuple[str, ...] = ()  # --env-host: the caller's; the image's variables come after it
    workdir: str = ""
    user: str = ""  # "name|uid[:group|gid]"
    group_add: tuple[str, ...] = ()
    kept_groups: tuple[int, ...] | None = None  # the caller's, of --group-add keep-groups
    umask: int = 0o022
    hostname: str = ""
    domainname: str = ""  # of the UTS namespace
    interactive: bool = False
    tty: bool = False
    detach: bool = False
    # streams that `run` attaches to: stdin, stdout, stderr; () is the default
    attach: tuple[str, ...] = ()
    sig_proxy: bool = True  # `run` passes its signals on
    remove: bool = False  # --rm
    init: bool = False
    # auto (if the command is systemd), always, false: see container/systemd_mode.py
    systemd: str = "auto"
    mounts: tuple[Mount, ...] = ()
    secrets: tuple[SecretUse, ...] = ()
    image_volumes: str = "volume"  # what an image's VOLUME becomes: volume, tmpfs, ignore
    credentials: tuple[CredentialUse, ...] = ()
    shm_size: int = 64 << 20
    read_only: bool = False
    labels: dict[str, str] = {}  # noqa: RUF012 (the metaclass makes it a default)
    annotations: dict[str, str] = {}  # noqa: RUF012
    cidfile: str = ""
    pidfile: str = ""
    stop_signal: str = ""  # "" takes the image's, else SIGTERM
    stop_timeout: int = 10  # seconds
    restart: RestartPolicy = RestartPolicy()
    # the service of a unit file that declares the container and supervises it; "" is one of its own
    unit: str = ""
    ready: str = ""  # when that service, or the caller's, is started: see run/notify.py
    # its resource settings when the container was made; `properties` begins with them
    unit_settings: tuple[str, ...] = ()
    logging: Logging = Logging()
    health: Health = Health()  # completed from the image when the container is made
    detach_keys: str = ""  # as written; "" is the default of `attach`
    pull: str = "missing"
    signed: bool = False  # policy.json must demand a signature of the image
    devices: tuple[Device, ...] = ()
    ulimits: tuple[Ulimit, ...] = ()
    sysctls: dict[str, str] = {}  # noqa: RUF012
    add_hosts: tuple[str, ...] = ()  # "name:ip"
    dns: Dns = Dns()
    links: tuple[str, ...] = ()  # "ID:ALIAS": a name that only this container knows for another
    ports: tuple[Port, ...] = ()
    exposed: tuple[str, ...] = ()  # "80/tcp": declared, not published
    publish_all: bool = False  # -P: `ports` has all declared ports since the container was made
    namespaces: Namespaces = Namespaces()
    userns: UserNamespace = UserNamespace()
    # clock (monotonic, boottime) -> nanoseconds by which it differs from the host's
    time_offset: dict[str, int] = {}  # noqa: RUF012
    bridge: Bridge = Bridge()  # for containers on the network `bridge`
    # where namespaces.network is bridge: the networks, in order; () is the network `bridge` alone
    networks: tuple[Endpoint, ...] = ()
    bandwidth: Bandwidth = Bandwidth()
    security: Security = Security()
    limits: Limits = Limits()
    oom_score_adj: int = 0  # -1000 to 1000: the higher, the sooner the OOM killer chooses it
    slice: str = "system.slice"
    pod: str = ""  # the name of its pod, or new:NAME until that is made
    properties: tuple[str, ...] = ()  # "KEY=VALUE", checked by units/properties.py

    def wrong(self) -> str:
        if not -1000 <= self.oom_score_adj <= 1000:
            return "oom_score_adj: must be from -1000 to 1000"
        if not 0 <= self.umask <= 0o777:
            return "umask: must be from 0 to 511, 0777 in octal"
        if self.kept_groups and not all(0 <= gid < (1 << 32) - 1 for gid in self.kept_groups):
            return "kept_groups: must be ids of groups"
        if not all(abs(offset) >> 63 == 0 for offset in self.time_offset.values()):
            return "time_offset: out of range"
        if not {"monotonic", "boottime"} >= self.time_offset.keys():
            return "time_offset: must be of monotonic or boottime"
        if not -1 <= self.stop_timeout < 1 << 32:
            return "stop_timeout: must be a number of seconds, or -1"
        if self.networks and self.namespaces.network != "bridge":
            return "networks: must be empty with another mode of the network namespace"
        if not self.slice.endswith(".slice") or "/" in self.slice:
            return "slice: must be the name of a slice"
        return "" if 0 <= self.shm_size < 1 << 63 else "shm_size: must be a number of bytes"
