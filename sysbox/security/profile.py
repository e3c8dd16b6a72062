"""The default seccomp profile, and the records that every profile is made of.

An allowlist of system calls by topic. A call that needs a capability is allowed if the container holds it.
Listed calls that are refused fail with EPERM. A call that is not listed is newer than the list and fails
with ENOSYS, so that a C library falls back to the older call. clone3 without CAP_SYS_ADMIN fails with ENOSYS
too, since no filter can see its flags. The structure is moby's; seccomp_rule_add(3) and the OCI runtime
specification (config-linux, "Seccomp") define the terms.

This module is imported only to compile a filter.
"""

from __future__ import annotations

import errno

from sysbox.base.frozen import Frozen

ALLOW = "SCMP_ACT_ALLOW"
ERRNO = "SCMP_ACT_ERRNO"
NOTIFY = "SCMP_ACT_NOTIFY"
EQ = "SCMP_CMP_EQ"
MASKED_EQ = "SCMP_CMP_MASKED_EQ"


class Condition(Frozen):
    """One comparison of one argument; MASKED_EQ means (argument & value) == value_two."""

    index: int  # 0..5
    value: int
    value_two: int = 0
    op: str = EQ


class Rule(Frozen):
    """One action for some system calls; it applies where the container's capabilities and the CPU match."""

    names: tuple[str, ...]
    action: str = ALLOW
    errno: int | None = None
    args: tuple[Condition, ...] = ()
    if_caps: tuple[str, ...] = ()  # the container holds all of these; without CAP_
    unless_caps: tuple[str, ...] = ()  # the container holds none of these
    if_arches: tuple[str, ...] = ()  # Go's names: amd64, arm64, s390x, ...
    unless_arches: tuple[str, ...] = ()


class Guard(Frozen):
    """Values of a 32-bit argument that are refused before any rule applies.

    The kernel uses the lower half of the register, but libseccomp compares all of it: a program could evade
    a rule by setting the upper half (CVE-2019-7303, CVE-2023-1523).
    """

    name: str
    index: int = 0
    values: tuple[int, ...] = ()  # () refuses the call with any arguments
    errno: int = errno.EPERM
    unless_caps: tuple[str, ...] = ()


class Profile(Frozen):
    """A seccomp profile; bpf.py compiles it to a filter."""

    default_action: str
    default_errno: int | None = None
    sub_architectures: dict[str, tuple[str, ...]] | None = None  # None is bpf.ARCHITECTURES
    rules: tuple[Rule, ...] = ()
    guards: tuple[Guard, ...] = ()
    flags: int = 0  # of seccomp(2): SECCOMP_FILTER_FLAG_*
    # the socket of who answers calls whose action is NOTIFY, and what it is told; "" is nobody
    listener: str = ""
    metadata: str = ""


_FILES = """
    _llseek access cachestat chmod chown chown32 close copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchmod fchmodat fchmodat2 fchown
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr
    fstat fstat64 fstatat64 fsync ftruncate ftruncate64 futimesat getxattr getxattrat io_cancel
    io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit lchown
    lchown32 lgetxattr listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat
    lstat64 name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64
    pwritev pwritev2 read readahead readv removexattr removexattrat sendfile sendfile64 setxattr
    setxattrat splice stat stat64 statx sync sync_file_range syncfs tee truncate truncate64
    utime utimensat utimensat_time64 utimes vmsplice write writev
"""

_DIRECTORIES = """
    chdir fchdir fstatfs fstatfs64 getcwd getdents getdents64 link linkat listmount mkdir
    mkdirat mknod mknodat readdir readlink readlinkat rename renameat renameat2 rmdir statfs
    statfs64 statmount symlink symlinkat unlink unlinkat
"""

_MEMORY = """
    brk madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall mmap
    mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
    pkey_mprotect process_madvise process_mrelease remap_file_pages
"""

_PROCESSES = """
    close_range execve execveat exit exit_group fork get_thread_area getpgid getpgrp getpid
    getppid getrandom getrlimit getrusage getsid gettid landlock_add_rule
    landlock_create_ruleset landlock_restrict_self pidfd_open prctl prlimit64 process_vm_readv
    process_vm_writev ptrace seccomp set_thread_area set_tid_address setpgid setrlimit setsid
    sysinfo ugetrlimit umask uname vfork wait4 waitid waitpid
"""

_IDENTITY = """
    capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid setresgid32
    setresuid setresuid32 setreuid setreuid32 setuid setuid32
"""

_SIGNALS = """
    kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sigaction sigaltstack signal signalfd signalfd4 sigpending sigprocmask
    sigreturn sigsuspend tgkill tkill
"""

_TIME = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep
    setitimer time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64
    timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64 times
"""

_POLLING = """
    _newselect epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd
    eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll
    ppoll ppoll_time64 pselect6 pselect6_time64 select
"""

_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair
"""

_IPC = """
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list ipc
    membarrier mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64
    mq_timedsend mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd pipe pipe2 semctl
    semget semop semtimedop semtimedop_time64 set_robust_list shmat shmctl shmdt shmget
"""

_SCHEDULING = """
    getcpu getpriority ioprio_get ioprio_set rseq sched_get_priority_max sched_get_priority_min
    sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield setpriority
"""

_REFUSED = """
    _sysctl add_key afs_syscall bdflush create_module epoll_ctl_old epoll_wait_old
    get_kernel_syms getpmsg io_uring_enter io_uring_register io_uring_setup kexec_file_load
    kexec_load keyctl migrate_pages move_pages nfsservctl nice oldfstat oldlstat oldolduname
    oldstat olduname pciconfig_iobase pciconfig_read pciconfig_write putpmsg request_key
    security sgetmask socketcall ssetmask swapcontext swapoff swapon sysfs tuxcall uselib
    userfaultfd ustat vm86 vm86old vserver
"""

# calls that a container may make if it holds one of the capabilities; without it EPERM
_BY_CAPABILITY = (
    (("DAC_READ_SEARCH",), "open_by_handle_at"),
    (
        ("SYS_ADMIN",),
        """fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
        move_mount open_tree open_tree_attr pivot_root quotactl quotactl_fd setdomainname
        sethostname setns umount umount2 unshare""",
    ),
    (("SYS_ADMIN", "BPF"), "bpf"),
    (("SYS_ADMIN", "PERFMON"), "perf_event_open"),
    (("SYS_ADMIN", "SYSLOG"), "syslog"),
    (("SYS_BOOT",), "reboot"),
    (("SYS_CHROOT",), "chroot"),
    (("SYS_MODULE",), "delete_module finit_module init_module query_module"),
    (("SYS_NICE",), "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (("SYS_PACCT",), "acct"),
    (("SYS_PTRACE",), "kcmp pidfd_getfd"),
    (("SYS_RAWIO",), "ioperm iopl"),
    (("SYS_TIME",), "clock_settime clock_settime64 settimeofday stime"),
    (("SYS_TTY_CONFIG",), "vhangup"),
)

# what makes and changes mounts by descriptors, about which AppArmor is not asked, but for move_mount(2) since
# Linux 6.8
_MOUNTS_BY_DESCRIPTOR = """
    fsconfig fsmount fsopen fspick mount_setattr move_mount open_tree open_tree_attr
"""

_BY_ARCHITECTURE = (
    (("amd64",), "arch_prctl modify_ldt uretprobe"),
    (("386",), "modify_ldt"),
    (("arm", "arm64"), "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls"),
    (("arm", "arm64", "ppc64le"), "sync_file_range2"),
    (("riscv64",), "riscv_flush_icache riscv_hwprobe"),
    (("s390x",), "s390_guarded_storage s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr"),
    (("s390x",), "s390_sthyi"),
)

# personality(2): Linux, Linux 32-bit, each with UNAME26, and the query
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

# without CLONE_NEWTIME: in clone(2) its bit is part of the exit signal
_CLONE_NAMESPACES = (
    0x00020000,  # CLONE_NEWNS
    0x02000000,  # CLONE_NEWCGROUP
    0x04000000,  # CLONE_NEWUTS
    0x08000000,  # CLONE_NEWIPC
    0x10000000,  # CLONE_NEWUSER
    0x20000000,  # CLONE_NEWPID
    0x40000000,  # CLONE_NEWNET
)

_AF_ALG = 38  # page-cache writes from unprivileged code (CVE-2026-31431)
_AF_VSOCK = 40  # reaches the hypervisor's host, bypassing network namespaces
_TIOCSTI = 0x5412  # types into the terminal of the user who ran sysbox (CVE-2016-10124)
_TIOCLINUX = 0x541C  # pastes into a virtual console (CVE-2023-1523)

GUARDS = (
    # 32-bit programs reach socket(2) by it, with the family behind a pointer; they also have the direct call
    Guard(name="socketcall"),
    Guard(name="socket", index=0, values=(_AF_ALG, _AF_VSOCK)),
    Guard(name="ioctl", index=1, values=(_TIOCSTI, _TIOCLINUX), unless_caps=("SYS_ADMIN",)),
)


def default() -> Profile:
    """The profile of a container without `--security-opt seccomp=`."""
    allowed = " ".join(
        (_FILES, _DIRECTORIES, _MEMORY, _PROCESSES, _IDENTITY, _SIGNALS)
        + (_TIME, _POLLING, _SOCKETS, _IPC, _SCHEDULING, "ioctl socket")
    )
    rules = [Rule(names=tuple(allowed.split())), _refusal(_REFUSED)]
    for caps, names in _BY_CAPABILITY:
        rules += [Rule(names=tuple(names.split()), if_caps=(cap,)) for cap in caps]
        rules.append(_refusal(names).replace(unless_caps=caps))
    for arches, names in _BY_ARCHITECTURE:
        rules.append(Rule(names=tuple(names.split()), if_arches=arches))
    for value in _PERSONALITIES:
        rules.append(Rule(names=("personality",), args=(Condition(index=0, value=value),)))
    return Profile(
        default_action=ERRNO,
        default_errno=errno.ENOSYS,
        rules=(*rules, *_clone_rules()),
        guards=GUARDS,
    )


def without_mounts() -> Profile:
    """The default profile for a container whose AppArmor profile denies mounts.

    That profile's rules are about paths: below a mount that has none, a detached one, or at another path,
    /proc/sysrq-trigger and /proc/kcore would be files like any other.
    """
    refused = tuple(Guard(name=name) for name in _MOUNTS_BY_DESCRIPTOR.split())
    return default().replace(guards=(*GUARDS, *refused))


def _refusal(names: str) -> Rule:
    return Rule(names=tuple(names.split()), action=ERRNO, errno=errno.EPERM)


def _clone_rules() -> list[Rule]:
    """clone(2) without new namespaces; s390x takes the flags as its second argument."""
    rules = [Rule(names=("clone", "clone3"), if_caps=("SYS_ADMIN",))]
    every = sum(_CLONE_NAMESPACES)
    for index, only, but in ((0, (), ("s390x",)), (1, ("s390x",), ())):
        threads = Rule(
            names=("clone",),
            args=(Condition(index=index, value=every, value_two=0, op=MASKED_EQ),),
            unless_caps=("SYS_ADMIN",),
            if_arches=only,
            unless_arches=but,
        )
        rules.append(threads)
        # a call matches either the rule above or some of these, so their order does not matter
        for flag in _CLONE_NAMESPACES:
            one = Condition(index=index, value=flag, value_two=flag, op=MASKED_EQ)
            rules.append(threads.replace(args=(one,), action=ERRNO, errno=errno.EPERM))
    return rules
