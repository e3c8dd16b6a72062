"""The keys of declared units, by section: the reader, `unit check` and the manual are driven by this table.

Names, kinds and meanings are those of podman-systemd.unit(5), so that files written for it work unchanged.
"""

from __future__ import annotations

from sysbox.base.frozen import Frozen

# how the assignments of a key are read
ONE = "one"  # the last one is the value
ALL = "all"  # each is a value; an empty one discards those before it
WORDS = "words"  # each is a list of words, quoted as in systemd.syntax(7); empty as in ALL
PAIRS = "pairs"  # as WORDS; each word is NAME=VALUE or NAME, and the last one of a name counts
BOOL = "bool"  # the last one, as in systemd.syntax(7)
ON = "on"  # likewise, of a flag that is on by default


class Key(Frozen):
    """One key of one section."""

    name: str
    kind: str = ONE
    flag: str = ""  # the flag of the verb that each value becomes; "" where a function of convert.py reads it
    refused: str = ""  # why a unit that sets it cannot run
    ignored: str = ""  # why it changes nothing


def _flags(kind: str, text: str) -> tuple[Key, ...]:
    """Keys that become one flag: lines of NAME --flag."""
    pairs = (line.split() for line in text.strip().splitlines())
    return tuple(Key(name=name, kind=kind, flag=flag) for name, flag in pairs)


def _read(kind: str, names: str) -> tuple[Key, ...]:
    """Keys that functions read."""
    return tuple(Key(name=name, kind=kind) for name in names.split())


def _refused(reason: str, names: str, kind: str = ONE) -> tuple[Key, ...]:
    return tuple(Key(name=name, kind=kind, refused=reason) for name in names.split())


def _ignored(reason: str, names: str, kind: str = ONE) -> tuple[Key, ...]:
    return tuple(Key(name=name, kind=kind, ignored=reason) for name in names.split())


_EVERY = (
    *_read(ONE, "ServiceName"),
    *_read(WORDS, "PodmanArgs"),
    *_read(WORDS, "GlobalArgs"),
    *_ignored("podman's own configuration does not apply", "ContainersConfModule", WORDS),
)

CONTAINER = (
    *_EVERY,
    *_flags(ONE, """
        ContainerName --name
        Entrypoint --entrypoint
        HealthCmd --health-cmd
        HealthInterval --health-interval
        HealthLogDestination --health-log-destination
        HealthMaxLogCount --health-max-log-count
        HealthMaxLogSize --health-max-log-size
        HealthOnFailure --health-on-failure
        HealthRetries --health-retries
        HealthStartPeriod --health-start-period
        HealthStartupCmd --health-startup-cmd
        HealthStartupInterval --health-startup-interval
        HealthStartupRetries --health-startup-retries
        HealthStartupSuccess --health-startup-success
        HealthStartupTimeout --health-startup-timeout
        HealthTimeout --health-timeout
        HostName --hostname
        IP --ip
        IP6 --ip6
        LogDriver --log-driver
        Memory --memory
        PidsLimit --pids-limit
        Pull --pull
        Retry --retry
        RetryDelay --retry-delay
        ShmSize --shm-size
        StopSignal --stop-signal
        StopTimeout --stop-timeout
        SubGIDMap --subgidname
        SubUIDMap --subuidname
        UserNS --userns
        WorkingDir --workdir
    """),
    *_flags(ALL, """
        AddHost --add-host
        DNS --dns
        DNSOption --dns-option
        DNSSearch --dns-search
        ExposeHostPort --expose
        GIDMap --gidmap
        GroupAdd --group-add
        NetworkAlias --network-alias
        PublishPort --publish
        Tmpfs --tmpfs
        UIDMap --uidmap
        Ulimit --ulimit
    """),
    *_flags(WORDS, """
        AddCapability --cap-add
        DropCapability --cap-drop
        LogOpt --log-opt
        Secret --secret
        Sysctl --sysctl
    """),
    *_flags(PAIRS, """
        Annotation --annotation
        Environment --env
        Label --label
    """),
    *_flags(BOOL, """
        AssertImageSigned --assert-signed
        EnvironmentHost --env-host
        ReadOnly --read-only
        RunInit --init
    """),
    *_read(ONE, """
        AutoUpdate CgroupsMode Exec Group Image Notify Pod ReloadCmd ReloadSignal Rootfs
        Timezone User
    """),
    *_read(ALL, "ListenDatagram ListenSequentialPacket ListenStream Mount Network Volume"),
    *_read(ONE, "IdleFreeze IdleStop ProxyPort"),
    *_read(WORDS, "AddDevice EnvironmentFile"),
    *_read(BOOL, "HttpProxy ReadOnlyTmpfs StartWithPod VolatileTmp"),
    *_read(ONE, """
        AppArmor SeccompProfile SecurityLabelFileType SecurityLabelLevel SecurityLabelType
    """),
    *_read(WORDS, "Mask Unmask"),
    *_read(BOOL, "NoNewPrivileges SecurityLabelDisable SecurityLabelNested"),
    *_read(ONE, "RemapUidSize RemapUsers"),
    *_read(ALL, "RemapGid RemapUid"),
)  # fmt: skip
VOLUME = (
    *_EVERY,
    *_read(ONE, "Device Driver GID Group Image Options Type UID User VolumeName"),
    *_read(BOOL, "Copy"),
    *_flags(PAIRS, "Label --label"),
)  # fmt: skip
NETWORK = (
    *_EVERY,
    *_flags(ONE, """
        Driver --driver
        IPAMDriver --ipam-driver
        InterfaceName --interface-name
    """),
    *_flags(ALL, """
        DNS --dns
        Gateway --gateway
        IPRange --ip-range
        Options --opt
        Subnet --subnet
    """),
    *_flags(PAIRS, "Label --label"),
    *_flags(BOOL, """
        DisableDNS --disable-dns
        Internal --internal
        IPv6 --ipv6
    """),
    *_read(ONE, "NetworkName"),
    *_read(BOOL, "NetworkDeleteOnStop"),
)  # fmt: skip
IMAGE = (
    *_EVERY,
    *_flags(ONE, """
        Arch --arch
        AuthFile --authfile
        CertDir --cert-dir
        Creds --creds
        OS --os
        Policy --policy
        Retry --retry
        Variant --variant
    """),
    *_flags(BOOL, "AllTags --all-tags"),
    *_flags(ON, "TLSVerify --tls-verify"),
    *_read(ONE, "Image ImageTag"),
    *_ignored("each try waits longer than the last", "RetryDelay"),
    *_refused("encrypted images are not supported", "DecryptionKey"),
)  # fmt: skip
BUILD = (
    *_EVERY,
    *_flags(ONE, """
        AuthFile --authfile
        File --file
        IgnoreFile --ignorefile
        Pull --pull
        Retry --retry
        Target --target
    """),
    *_flags(ALL, """
        DNS --dns
        DNSOption --dns-option
        DNSSearch --dns-search
        GroupAdd --group-add
        ImageTag --tag
    """),
    *_flags(WORDS, """
        BuildArg --build-arg
        Secret --secret
    """),
    *_flags(PAIRS, """
        Annotation --annotation
        Environment --env
        Label --label
    """),
    *_flags(ON, "TLSVerify --tls-verify"),
    *_read(ONE, "Arch SetWorkingDirectory Variant"),
    *_read(ALL, "Network Volume"),
    *_ignored("the container of each step is removed", "ForceRM", BOOL),
    *_ignored("each try waits longer than the last", "RetryDelay"),
)  # fmt: skip
POD = (
    *_EVERY,
    *_flags(ONE, """
        HostName --hostname
        IP --ip
        IP6 --ip6
        ShmSize --shm-size
        SubGIDMap --subgidname
        SubUIDMap --subuidname
        UserNS --userns
    """),
    *_flags(ALL, """
        AddHost --add-host
        DNS --dns
        DNSOption --dns-option
        DNSSearch --dns-search
        GIDMap --gidmap
        NetworkAlias --network-alias
        PublishPort --publish
        UIDMap --uidmap
    """),
    *_flags(PAIRS, "Label --label"),
    *_read(ONE, "ExitPolicy PodName RemapUidSize RemapUsers StopTimeout"),
    *_read(ALL, "Network RemapGid RemapUid Volume"),
)  # fmt: skip
# of every file
QUADLET = _read(BOOL, "DefaultDependencies")
SECTIONS = {
    "Container": CONTAINER,
    "Volume": VOLUME,
    "Network": NETWORK,
    "Image": IMAGE,
    "Build": BUILD,
    "Pod": POD,
}
