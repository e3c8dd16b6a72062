"""AppArmor: which profile a container gets, and the text of sysbox's own."""

from __future__ import annotations

import hashlib
import re

import pytest

from sysbox.base.errors import SpecError
from sysbox.run import apparmor as loader
from sysbox.security import sysctls
from sysbox.security.apparmor import DEFAULT, OWN, SYSTEMD, AppArmor, decide
from sysbox.security.apparmor_profile import (
    ABIS,
    OWN_SETTINGS,
    about_sockets,
    all_but,
    text,
    without_sockets,
)
from sysbox.spec import Security

HOST = AppArmor(lack="", parser=True, loaded=("mine", "docker-default"))
BARE = HOST.replace(parser=False)


@pytest.mark.parametrize(
    ("security", "here", "mounts", "profile"),
    [
        (Security(), HOST, False, DEFAULT),
        (Security(), HOST, True, SYSTEMD),
        (Security(), BARE, False, ""),
        (Security(), BARE.replace(loaded=(DEFAULT,)), False, DEFAULT),
        (Security(), AppArmor(), False, ""),
        (Security(privileged=True), HOST, False, ""),
        (Security(privileged=True, apparmor="mine"), HOST, False, "mine"),
        (Security(apparmor="unconfined"), HOST, False, ""),
        (Security(apparmor="unconfined"), AppArmor(), False, ""),
        (Security(apparmor="mine"), BARE, True, "mine"),
        (Security(apparmor=DEFAULT), HOST, True, DEFAULT),
    ],
    ids=[
        "default", "systemd", "no-parser", "loaded-by-hand", "no-apparmor", "privileged",
        "privileged-named", "unconfined", "unconfined-nowhere", "named", "default-by-name",
    ],
)  # fmt: skip
def test_the_profile(security: Security, here: AppArmor, mounts: bool, profile: str) -> None:
    assert decide(security, here, mounts=mounts) == profile


@pytest.mark.parametrize(
    ("name", "here", "said", "hint"),
    [
        ("mine", AppArmor(), "AppArmor is not active in this kernel", "or leave out --security-opt"),
        ("mien", HOST, "the kernel has no such profile", "did you mean 'mine'?"),
        ("other", HOST, "the kernel has no such profile", "apparmor_parser -r FILE"),
        (DEFAULT, BARE, "apparmor_parser is not installed", "apt-get install apparmor"),
        ("Unconfined", HOST, "the kernel has no such profile", "did you mean 'unconfined'?"),
        ("none", HOST, "the kernel has no such profile", "did you mean 'unconfined'?"),
        ("Unconfined", AppArmor(), "AppArmor is not active in this kernel", "did you mean 'unconfined'?"),
        ("runtime/default", HOST, "the kernel has no such profile", "sysbox's own is sysbox-default"),
        ("containers-default-0.50.1", HOST, "the kernel has no such profile", "without this option"),
        ("docker-default", AppArmor(lack="", parser=True), "the kernel has no such profile",
         "sysbox's own is sysbox-default"),
        ("localhost/mine", HOST, "the kernel has no such profile", "did you mean 'mine'?"),
        ("'mine'", HOST, "the kernel has no such profile", "did you mean 'mine'?"),
    ],
    ids=[
        "no-apparmor", "near", "unknown", "no-parser", "capital", "none", "capital-nowhere", "kubernetes",
        "podman", "docker", "kubernetes-named", "quoted",
    ],
)  # fmt: skip
def test_a_profile_that_is_not_there(name: str, here: AppArmor, said: str, hint: str) -> None:
    with pytest.raises(SpecError) as raised:
        decide(Security(apparmor=name), here, mounts=False)
    assert raised.value.message == f"--security-opt apparmor={name}: {said}"
    assert hint in raised.value.hint


def matches(pattern: str, path: str) -> bool:
    """Whether AppArmor's pattern is of the path, as far as `all_but` writes patterns: **, [^...], {,...}."""
    return (
        re.fullmatch(pattern.replace("**", ".*").replace("{,", "(|").replace("}", ")"), path)
        is not None
    )


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/t/ab", True), ("/t/ab/x/y", True), ("/t/cd/e", True), ("/t/cd/exf/g", True),
        ("/t/a", False), ("/t/abc", False), ("/t/ac/b", False), ("/t/x", False), ("/t/cd", False),
        ("/t/cd/f", False), ("/t/ab-c/d", False), ("/t/c/e", False), ("/tab", None),
    ],
)  # fmt: skip
def test_all_but_some(path: str, kept: bool | None) -> None:
    found = [one for one in all_but("/t", ("ab", "cd/e*")) if matches(one, path)]
    assert bool(found) is (kept is False)


def denied(profile: str, path: str) -> bool:
    """Whether a rule of the profile denies writing to a file."""
    rules = re.findall(r"deny (/\S+) \w*w\w*,", profile)
    return any(matches(one, path) for one in rules)


@pytest.mark.parametrize(
    "path",
    """/proc/sysrq-trigger /proc/acpi/wakeup /proc/bus/pci/00/1f.0 /proc/irq/7/smp_affinity /proc/fs/ext4/x
       /proc/dynamic_debug/control /proc/scsi/scsi /proc/mtrr /proc/kcore /proc/timer_list /proc/sysvipc/sem
       /proc/sys/vm/overcommit_memory /proc/sys/kernel/core_pattern /proc/sys/kernel/modprobe
       /proc/sys/kernel/sysrq /proc/sys/fs/file-max /proc/sys/user/max_user_namespaces
       /sys/kernel/uevent_helper /sys/firmware/efi/vars/x /sys/fs/bpf/x /sys/devices/virtual/powercap/x
       /sys/class/net/eth0/mtu /sys/kernel/security/apparmor/.remove""".split(),
)  # fmt: skip
def test_kernel_files_are_not_written(path: str) -> None:
    assert denied(text(DEFAULT, "3.0"), path)


def test_what_is_a_containers_own_can_be_written() -> None:
    """What `--sysctl` may set too: the file mounted over it is read-only, unless the user uncovers it."""
    names = (
        *sysctls.IPC,
        *sysctls.UTS,
        f"{sysctls.IPC_PREFIX}queues_max",
        f"{sysctls.NET_PREFIX}core.somaxconn",
    )
    settings = [f"/proc/sys/{name.replace('.', '/')}" for name in names]
    for path in (
        *settings, "/proc/1/oom_score_adj", "/proc/4711/task/4711/attr/exec", "/proc/pressure/cpu",
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/x/memory.limit_in_bytes", "/etc/passwd",
        "/proc-of-mine",
    ):  # fmt: skip
        assert not denied(text(DEFAULT, "3.0"), path), path
    assert len(OWN_SETTINGS) < len(settings)


@pytest.mark.parametrize("name", OWN)
def test_a_profile_names_itself_alone(name: str) -> None:
    """Signals and ptrace reach processes of the same profile, and signals come from without."""
    profile = text(name, "3.0")
    assert profile.startswith(
        f"abi <abi/3.0>,\nprofile {name} flags=(attach_disconnected, mediate_deleted) {{\n"
    )
    peers = re.findall(r"^  (\w+) \(([^)]*)\) peer=(\S+),$", profile, re.MULTILINE)
    assert {one for one in peers if one[2] != name} == {("signal", "receive", "unconfined")}
    assert {one[0] for one in peers} == {"signal", "ptrace"}
    rules = [line.strip() for line in profile.splitlines()]
    mounts = {"mount,", "remount,", "umount,", "pivot_root,"}
    assert mounts & set(rules) == (mounts if name == SYSTEMD else set())
    assert f"include if exists <local/{name}>" in rules
    assert not any("change_profile" in rule for rule in rules)


def test_rules_that_older_parsers_do_not_know() -> None:
    new = {"userns,", "mqueue,", "io_uring,"}
    for abi, there in (("4.0", new), ("3.0", set()), ("", set())):
        rules = {line.strip() for line in text(DEFAULT, abi).splitlines()}
        assert new & rules == there
        assert text(DEFAULT, abi).startswith("abi") is bool(abi)


def test_a_description_without_sockets() -> None:
    """All groups about the network go, whatever is in them, and nothing else."""
    whole = """query {label {perms {allow deny audit quiet
}
}
}
network_v8 {af_inet {yes
}
af_mask {unspec unix inet
}
}
network {af_unix {yes
}
}
dbus {mask {acquire send receive network
}
}
namespaces {profile {yes
}
pivot_root {no
}
}
"""
    begin, end = whole.index("network_v8"), whole.index("dbus")
    kept = without_sockets(whole)
    assert kept.split() == (whole[:begin] + whole[end:]).split()
    assert without_sockets(kept).split() == kept.split()
    assert text(DEFAULT, "3.0", "/run/x").split("\n", 1) == [
        'abi "/run/x",', text(DEFAULT, "3.0").split("\n", 1)[1]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "about"),
    [
        ("", False),
        ("# no network for these\ndeny /srv/** w,\n", False),
        ("deny /etc/network/** r,", False),
        ("deny network inet dgram,", True),
        ("/x r, audit deny network,", True),
        ("deny unix(create) type=stream,", True),
        ("audit deny all,", True),
        ("#include <abstractions/base>", True),
        ("  include if exists <local/more>", True),
    ],
    ids=["none", "comment", "path", "network", "second", "unix", "all", "old-include", "include"],
)
def test_rules_about_sockets(rules: str, about: bool) -> None:
    assert about_sockets(rules) is about


def test_another_text_has_another_version() -> None:
    """Else a host that has the older text in its kernel keeps it until it boots: raise VERSION."""
    texts = "".join(text(name, abi, "/file") for name in OWN for abi in ABIS)
    texts += "".join(text(name, abi) for name in OWN for abi in (*ABIS, ""))
    digests = {2: "f8fcbef658a376a9"}
    assert digests[loader.VERSION] == hashlib.sha256(texts.encode()).hexdigest()[:16]
