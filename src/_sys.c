/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox.linux._sys: the system calls that CPython lacks, one function each and no policy.
 *
 * Every call is made by number, so that neither the C library's version nor its wrappers (which may
 * fall back to something else) matter. Each function raises OSError with the kernel's errno. Paths are
 * str (surrogateescape) or bytes, without NUL. The interpreter's lock is kept: nothing here blocks for
 * long, and Python has one thread here.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/landlock.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define BYTES(object) ((object) ? PyBytes_AsString(object) : NULL)

/* "O&" converter: a path, or None for NULL. */
static int optional_path(PyObject *object, void *result)
{
    if (object == Py_None) {
        *(PyObject **)result = NULL;
        return 1;
    }
    return PyUnicode_FSConverter(object, result);
}

static PyObject *none_or_error(long status)
{
    if (status < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

static PyObject *int_or_error(long status)
{
    if (status < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLong(status);
}

/* Processes and namespaces */

static PyObject *sys_clone3(PyObject *module, PyObject *arguments)
{
    unsigned long long flags;
    int cgroup_fd = -1, pidfd = -1;
    if (!PyArg_ParseTuple(arguments, "K|i", &flags, &cgroup_fd))
        return NULL;
    if (flags & (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_VFORK)) {
        errno = EINVAL; /* the child returns into the interpreter: it needs memory of its own */
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    struct clone_args how = {
        .flags = flags | CLONE_PIDFD,
        .pidfd = (uint64_t)(uintptr_t)&pidfd,
        /* a sibling has its parent's signal: with CLONE_PARENT clone3(2) allows none here */
        .exit_signal = flags & CLONE_PARENT ? 0 : SIGCHLD,
    };
    if (cgroup_fd >= 0) {
        how.flags |= CLONE_INTO_CGROUP;
        how.cgroup = (uint64_t)cgroup_fd;
    }
    PyOS_BeforeFork();
    long pid = syscall(SYS_clone3, &how, sizeof how);
    if (pid == 0) {
        PyOS_AfterFork_Child();
        return Py_BuildValue("(ii)", 0, -1);
    }
    int error = errno;
    PyOS_AfterFork_Parent();
    errno = error;
    if (pid < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("(li)", pid, pidfd);
}

/* clone(2), which refuses the same flags; the child keeps the parent's stack, as after fork(2). */
static PyObject *sys_clone(PyObject *module, PyObject *arguments)
{
    unsigned long flags;
    if (!PyArg_ParseTuple(arguments, "k", &flags))
        return NULL;
    if (flags & (CLONE_VM | CLONE_THREAD | CLONE_SIGHAND | CLONE_VFORK | CSIGNAL)) {
        errno = EINVAL;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    unsigned long how = flags & CLONE_PARENT ? flags : flags | SIGCHLD;
    PyOS_BeforeFork();
#ifdef __s390x__
    long pid = syscall(SYS_clone, NULL, how, NULL, NULL, NULL);
#else
    long pid = syscall(SYS_clone, how, NULL, NULL, NULL, NULL);
#endif
    if (pid == 0) {
        PyOS_AfterFork_Child();
        return PyLong_FromLong(0);
    }
    int error = errno;
    PyOS_AfterFork_Parent();
    errno = error;
    return int_or_error(pid);
}

static PyObject *sys_unshare(PyObject *module, PyObject *arguments)
{
    unsigned long flags;
    if (!PyArg_ParseTuple(arguments, "k", &flags))
        return NULL;
    return none_or_error(syscall(SYS_unshare, flags));
}

static PyObject *sys_setns(PyObject *module, PyObject *arguments)
{
    int fd, kind;
    if (!PyArg_ParseTuple(arguments, "ii", &fd, &kind))
        return NULL;
    return none_or_error(syscall(SYS_setns, fd, kind));
}

static PyObject *sys_sethostname(PyObject *module, PyObject *arguments)
{
    const char *name;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(arguments, "s#", &name, &length))
        return NULL;
    return none_or_error(syscall(SYS_sethostname, name, length));
}

static PyObject *sys_setdomainname(PyObject *module, PyObject *arguments)
{
    const char *name;
    Py_ssize_t length;
    if (!PyArg_ParseTuple(arguments, "s#", &name, &length))
        return NULL;
    return none_or_error(syscall(SYS_setdomainname, name, length));
}

static PyObject *sys_close_range(PyObject *module, PyObject *arguments)
{
    unsigned int first, last, flags;
    if (!PyArg_ParseTuple(arguments, "III", &first, &last, &flags))
        return NULL;
    return none_or_error(syscall(SYS_close_range, first, last, flags));
}

/* prlimit(2); -1 is RLIM64_INFINITY, given and returned; None only reads. */
static PyObject *sys_prlimit(PyObject *module, PyObject *arguments)
{
    int pid, resource;
    PyObject *limits;
    uint64_t given[2], old[2];
    if (!PyArg_ParseTuple(arguments, "iiO", &pid, &resource, &limits))
        return NULL;
    if (limits != Py_None) {
        long long soft, hard;
        if (!PyArg_ParseTuple(limits, "LL", &soft, &hard))
            return NULL;
        given[0] = (uint64_t)soft;
        given[1] = (uint64_t)hard;
    }
    if (syscall(SYS_prlimit64, pid, resource, limits == Py_None ? NULL : given, old) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return Py_BuildValue("(LL)", (long long)old[0], (long long)old[1]);
}

/* Mounts */

static PyObject *sys_mount(PyObject *module, PyObject *arguments)
{
    PyObject *source = NULL, *target = NULL, *fstype = NULL, *data = NULL, *result = NULL;
    unsigned long flags;
    if (PyArg_ParseTuple(arguments, "O&O&O&kO&", optional_path, &source, PyUnicode_FSConverter, &target,
                         optional_path, &fstype, &flags, optional_path, &data))
        result = none_or_error(
            syscall(SYS_mount, BYTES(source), BYTES(target), BYTES(fstype), flags, BYTES(data)));
    Py_XDECREF(source);
    Py_XDECREF(target);
    Py_XDECREF(fstype);
    Py_XDECREF(data);
    return result;
}

static PyObject *sys_umount2(PyObject *module, PyObject *arguments)
{
    PyObject *target;
    int flags;
    if (!PyArg_ParseTuple(arguments, "O&i", PyUnicode_FSConverter, &target, &flags))
        return NULL;
    PyObject *result = none_or_error(syscall(SYS_umount2, BYTES(target), flags));
    Py_DECREF(target);
    return result;
}

static PyObject *sys_pivot_root(PyObject *module, PyObject *arguments)
{
    PyObject *root = NULL, *old = NULL, *result = NULL;
    if (PyArg_ParseTuple(arguments, "O&O&", PyUnicode_FSConverter, &root, PyUnicode_FSConverter, &old))
        result = none_or_error(syscall(SYS_pivot_root, BYTES(root), BYTES(old)));
    Py_XDECREF(root);
    Py_XDECREF(old);
    return result;
}

static PyObject *sys_open_tree(PyObject *module, PyObject *arguments)
{
    int dirfd;
    unsigned int flags;
    PyObject *path;
    if (!PyArg_ParseTuple(arguments, "iO&I", &dirfd, PyUnicode_FSConverter, &path, &flags))
        return NULL;
    PyObject *result = int_or_error(syscall(SYS_open_tree, dirfd, BYTES(path), flags));
    Py_DECREF(path);
    return result;
}

static PyObject *sys_move_mount(PyObject *module, PyObject *arguments)
{
    int from_fd, to_fd;
    unsigned int flags;
    PyObject *from = NULL, *to = NULL, *result = NULL;
    if (PyArg_ParseTuple(arguments, "iO&iO&I", &from_fd, PyUnicode_FSConverter, &from, &to_fd,
                         PyUnicode_FSConverter, &to, &flags))
        result = none_or_error(syscall(SYS_move_mount, from_fd, BYTES(from), to_fd, BYTES(to), flags));
    Py_XDECREF(from);
    Py_XDECREF(to);
    return result;
}

static PyObject *sys_fsopen(PyObject *module, PyObject *arguments)
{
    const char *name;
    unsigned int flags;
    if (!PyArg_ParseTuple(arguments, "sI", &name, &flags))
        return NULL;
    return int_or_error(syscall(SYS_fsopen, name, flags));
}

static PyObject *sys_fsconfig(PyObject *module, PyObject *arguments)
{
    int fd, aux;
    unsigned int command;
    PyObject *key = NULL, *value = NULL, *result = NULL;
    if (PyArg_ParseTuple(arguments, "iIO&O&i", &fd, &command, optional_path, &key, optional_path, &value,
                         &aux))
        result = none_or_error(syscall(SYS_fsconfig, fd, command, BYTES(key), BYTES(value), aux));
    Py_XDECREF(key);
    Py_XDECREF(value);
    return result;
}

static PyObject *sys_fsmount(PyObject *module, PyObject *arguments)
{
    int fd;
    unsigned int flags, attributes;
    if (!PyArg_ParseTuple(arguments, "iII", &fd, &flags, &attributes))
        return NULL;
    return int_or_error(syscall(SYS_fsmount, fd, flags, attributes));
}

static PyObject *sys_mount_setattr(PyObject *module, PyObject *arguments)
{
    int dirfd, userns_fd;
    unsigned int flags;
    unsigned long long set, clear, propagation;
    PyObject *path;
    if (!PyArg_ParseTuple(arguments, "iO&IKKKi", &dirfd, PyUnicode_FSConverter, &path, &flags, &set, &clear,
                          &propagation, &userns_fd))
        return NULL;
    struct mount_attr attributes = {
        .attr_set = set,
        .attr_clr = clear,
        .propagation = propagation,
        .userns_fd = userns_fd < 0 ? 0 : (uint64_t)userns_fd,
    };
    PyObject *result = none_or_error(
        syscall(SYS_mount_setattr, dirfd, BYTES(path), flags, &attributes, sizeof attributes));
    Py_DECREF(path);
    return result;
}

static PyObject *sys_openat2(PyObject *module, PyObject *arguments)
{
    int dirfd;
    unsigned long long flags, mode, resolve;
    PyObject *path;
    if (!PyArg_ParseTuple(arguments, "iO&KKK", &dirfd, PyUnicode_FSConverter, &path, &flags, &mode, &resolve))
        return NULL;
    struct open_how how = {.flags = flags, .mode = mode, .resolve = resolve};
    PyObject *result = int_or_error(syscall(SYS_openat2, dirfd, BYTES(path), &how, sizeof how));
    Py_DECREF(path);
    return result;
}

static PyObject *sys_fstatfs_type(PyObject *module, PyObject *arguments)
{
    int fd;
    struct statfs information;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    if (fstatfs(fd, &information) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyLong_FromLongLong((long long)information.f_type);
}

static PyObject *sys_file_handle(PyObject *module, PyObject *arguments)
{
    int fd, mount;
    union {
        struct file_handle head;
        char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
    } handle = {.head.handle_bytes = MAX_HANDLE_SZ};
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    if (syscall(SYS_name_to_handle_at, fd, "", &handle, &mount, AT_EMPTY_PATH) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    return PyBytes_FromStringAndSize((char *)handle.head.f_handle, (Py_ssize_t)handle.head.handle_bytes);
}

static PyObject *sys_birth_time(PyObject *module, PyObject *arguments)
{
    int fd;
    struct statx found;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BTIME, &found) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    if (!(found.stx_mask & STATX_BTIME))
        return PyLong_FromLong(0);
    return PyLong_FromLongLong(found.stx_btime.tv_sec * 1000000000LL + found.stx_btime.tv_nsec);
}

/* Privileges */

static PyObject *sys_capget(PyObject *module, PyObject *Py_UNUSED(arguments))
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
#define WIDE(field) ((unsigned long long)data[1].field << 32 | data[0].field)
    return Py_BuildValue("(KKK)", WIDE(effective), WIDE(permitted), WIDE(inheritable));
#undef WIDE
}

static PyObject *sys_capset(PyObject *module, PyObject *arguments)
{
    unsigned long long effective, permitted, inheritable;
    if (!PyArg_ParseTuple(arguments, "KKK", &effective, &permitted, &inheritable))
        return NULL;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };
    return none_or_error(syscall(SYS_capset, &header, data));
}

static PyObject *sys_prctl(PyObject *module, PyObject *arguments)
{
    int option;
    unsigned long a2 = 0, a3 = 0, a4 = 0, a5 = 0;
    if (!PyArg_ParseTuple(arguments, "i|kkkk", &option, &a2, &a3, &a4, &a5))
        return NULL;
    return int_or_error(syscall(SYS_prctl, option, a2, a3, a4, a5));
}

static PyObject *sys_seccomp_load(PyObject *module, PyObject *arguments)
{
    unsigned int flags;
    const char *program;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "Iy#", &flags, &program, &size))
        return NULL;
    const Py_ssize_t unit = (Py_ssize_t)sizeof(struct sock_filter);
    if (size == 0 || size % unit != 0 || size / unit > BPF_MAXINSNS) {
        PyErr_SetString(PyExc_ValueError, "not an array of struct sock_filter");
        return NULL;
    }
    struct sock_fprog filter = {
        .len = (unsigned short)(size / unit),
        .filter = (struct sock_filter *)(uintptr_t)program,
    };
    return int_or_error(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter));
}

static PyObject *sys_pidfd_getfd(PyObject *module, PyObject *arguments)
{
    int pidfd, fd;
    if (!PyArg_ParseTuple(arguments, "ii", &pidfd, &fd))
        return NULL;
    return int_or_error(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
}

/* The attributes may have fields that this kernel or its header lacks: their size says how many there are. */
static PyObject *sys_landlock_create_ruleset(PyObject *module, PyObject *arguments)
{
    const char *attributes;
    Py_ssize_t size;
    unsigned int flags;
    if (!PyArg_ParseTuple(arguments, "z#I", &attributes, &size, &flags))
        return NULL;
    return int_or_error(syscall(SYS_landlock_create_ruleset, attributes, attributes ? (size_t)size : 0, flags));
}

static PyObject *sys_landlock_add_path(PyObject *module, PyObject *arguments)
{
    int ruleset, path;
    unsigned long long access;
    if (!PyArg_ParseTuple(arguments, "iiK", &ruleset, &path, &access))
        return NULL;
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = path};
    return none_or_error(syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
}

static PyObject *sys_landlock_restrict_self(PyObject *module, PyObject *arguments)
{
    int ruleset;
    unsigned int flags;
    if (!PyArg_ParseTuple(arguments, "iI", &ruleset, &flags))
        return NULL;
    return none_or_error(syscall(SYS_landlock_restrict_self, ruleset, flags));
}

/* The program is attached to nothing. */
static PyObject *sys_bpf_prog_load(PyObject *module, PyObject *arguments)
{
    unsigned int type;
    const char *program, *license;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "Iy#s", &type, &program, &size, &license))
        return NULL;
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes); /* the kernel takes a longer union than it knows if the rest is zero */
    attributes.prog_type = type;
    attributes.insn_cnt = (uint32_t)((size_t)size / sizeof(struct bpf_insn));
    attributes.insns = (uint64_t)(uintptr_t)program;
    attributes.license = (uint64_t)(uintptr_t)license;
    return int_or_error(syscall(SYS_bpf, BPF_PROG_LOAD, &attributes, sizeof attributes));
}

/* bpf(2): how many programs of one type a cgroup has; its ancestors' are not counted. */
static PyObject *sys_bpf_prog_count(PyObject *module, PyObject *arguments)
{
    int fd;
    unsigned int type;
    if (!PyArg_ParseTuple(arguments, "iI", &fd, &type))
        return NULL;
    union bpf_attr attributes;
    memset(&attributes, 0, sizeof attributes);
    attributes.query.target_fd = (uint32_t)fd;
    attributes.query.attach_type = type;
    long status = syscall(SYS_bpf, BPF_PROG_QUERY, &attributes, sizeof attributes);
    return int_or_error(status < 0 ? status : (long)attributes.query.prog_cnt);
}

static PyObject *sys_syncfs(PyObject *module, PyObject *arguments)
{
    int fd;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    return none_or_error(syscall(SYS_syncfs, fd));
}

/* RENAME_EXCHANGE of linux/fs.h: each file takes the place of the other one, at once. */
static PyObject *sys_exchange(PyObject *module, PyObject *arguments)
{
    PyObject *path, *other;
    if (!PyArg_ParseTuple(arguments, "O&O&", PyUnicode_FSConverter, &path, PyUnicode_FSConverter, &other))
        return NULL;
    const unsigned exchange = 1 << 1;
    PyObject *result =
        none_or_error(syscall(SYS_renameat2, AT_FDCWD, BYTES(path), AT_FDCWD, BYTES(other), exchange));
    Py_DECREF(path);
    Py_DECREF(other);
    return result;
}

/* CPython's own passes no value in, which names the table that is asked for. */
static PyObject *sys_getsockopt(PyObject *module, PyObject *arguments)
{
    int fd, level, option;
    const char *given;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "iiiy#", &fd, &level, &option, &given, &size))
        return NULL;
    PyObject *value = PyBytes_FromStringAndSize(given, size);
    if (!value)
        return NULL;
    unsigned int length = (unsigned int)size;
    if (syscall(SYS_getsockopt, fd, level, option, PyBytes_AsString(value), &length) < 0) {
        Py_DecRef(value);
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return value;
}

/* For a process under a container's seccomp filter */

/* One write(2): Python's own retries for as long as a filter returns EINTR. */
static PyObject *sys_write(PyObject *module, PyObject *arguments)
{
    int fd;
    const char *data;
    Py_ssize_t size;
    if (!PyArg_ParseTuple(arguments, "iy#", &fd, &data, &size))
        return NULL;
    return int_or_error(syscall(SYS_write, fd, data, size));
}

/* One read(2) of one byte, which is thrown away. */
static PyObject *sys_await_byte(PyObject *module, PyObject *arguments)
{
    int fd;
    char byte;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    return int_or_error(syscall(SYS_read, fd, &byte, sizeof byte));
}

/* Set every signal to its default action, and block none: one call of Python's for each would take ten times as
   long. */
static PyObject *sys_default_signals(PyObject *module, PyObject *Py_UNUSED(arguments))
{
    /* struct sigaction of the kernel: in all of its layouts zeros are SIG_DFL without flags */
    static const uint64_t action[4];
    const uint64_t none = 0;
    for (int number = 1; number <= 64; number++)
        syscall(SYS_rt_sigaction, number, action, NULL, sizeof none); /* SIGKILL and SIGSTOP stay: EINVAL */
    return none_or_error(syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, sizeof none));
}

/* End this process, whatever its filter refuses: the last step needs no system call, and an unhandled fault ends
   even the first process of a pid namespace. */
static PyObject *sys_leave(PyObject *module, PyObject *arguments)
{
    int status;
    if (!PyArg_ParseTuple(arguments, "i", &status))
        status = 1;
    syscall(SYS_exit_group, status);
    syscall(SYS_exit, status);
    for (;;)
        __builtin_trap();
}

/* A thread that the C library does not know, and that does not use the C library: it holds none of its locks, so
   this process can fork meanwhile, and it leaves `errno` (that of the thread that made it) alone. It makes two
   system calls. */

#if defined __x86_64__ || defined __aarch64__
static long bare_call(long number, long first, long second, long third)
{
#ifdef __x86_64__
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(first), "S"(second), "d"(third)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number, x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second, x2 __asm__("x2") = third;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
    return x0;
#endif
}

static int write_zero(void *descriptor)
{
    long fd = (long)(intptr_t)descriptor;
    bare_call(SYS_write, fd, (long)(intptr_t)"0", 1);
    bare_call(SYS_close, fd, 0, 0);
    return 0;
}

/* Start that thread; whether it was started. Twice in a process: there are two such stacks. */
static int go_aside(int fd)
{
    static char stacks[2][1 << 14] __attribute__((aligned(16)));
    static size_t taken;
    uint64_t all = ~(uint64_t)0, before;
    if (taken == sizeof stacks / sizeof *stacks)
        return 0;
    char *stack = stacks[taken++];
    /* all signals blocked: no handler may run on its small stack */
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before, sizeof all);
    int status = clone(write_zero, stack + sizeof *stacks,
                       CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM,
                       (void *)(intptr_t)fd);
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof before);
    return status > 0;
}
#else
static int go_aside(int fd)
{
    return 0;
}
#endif

/* Write "0" into a file whose write(2) takes long in the kernel, without waiting, and close the descriptor. If the
   thread cannot be started, only close it. */
static PyObject *sys_write_aside(PyObject *module, PyObject *arguments)
{
    int fd;
    if (!PyArg_ParseTuple(arguments, "i", &fd))
        return NULL;
    if (!go_aside(fd))
        syscall(SYS_close, fd);
    Py_RETURN_NONE;
}

/* inotify(7) */

static PyObject *sys_inotify_init1(PyObject *module, PyObject *arguments)
{
    int flags;
    if (!PyArg_ParseTuple(arguments, "i", &flags))
        return NULL;
    return int_or_error(syscall(SYS_inotify_init1, flags));
}

static PyObject *sys_inotify_add_watch(PyObject *module, PyObject *arguments)
{
    int fd;
    PyObject *path;
    unsigned int mask;
    if (!PyArg_ParseTuple(arguments, "iO&I", &fd, PyUnicode_FSConverter, &path, &mask))
        return NULL;
    long watch = syscall(SYS_inotify_add_watch, fd, BYTES(path), mask);
    int error = errno;
    Py_DECREF(path);
    errno = error;
    return int_or_error(watch);
}

static PyObject *sys_keyctl_join_session(PyObject *module, PyObject *arguments)
{
    const char *name;
    if (!PyArg_ParseTuple(arguments, "z", &name))
        return NULL;
    return int_or_error(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name));
}

static PyMethodDef methods[] = {
    {"clone3", sys_clone3, METH_VARARGS, "clone3(flags, cgroup_fd=-1) -> (pid, pidfd); the child gets (0, -1)"},
    {"clone", sys_clone, METH_VARARGS, "clone(flags) -> pid; the child gets 0"},
    {"unshare", sys_unshare, METH_VARARGS, "unshare(flags)"},
    {"setns", sys_setns, METH_VARARGS, "setns(fd, nstype)"},
    {"sethostname", sys_sethostname, METH_VARARGS, "sethostname(name)"},
    {"setdomainname", sys_setdomainname, METH_VARARGS, "setdomainname(name)"},
    {"close_range", sys_close_range, METH_VARARGS, "close_range(first, last, flags)"},
    {"prlimit", sys_prlimit, METH_VARARGS, "prlimit(pid, resource, (soft, hard) or None) -> (soft, hard) as before"},
    {"mount", sys_mount, METH_VARARGS, "mount(source, target, fstype, flags, data)"},
    {"umount2", sys_umount2, METH_VARARGS, "umount2(target, flags)"},
    {"pivot_root", sys_pivot_root, METH_VARARGS, "pivot_root(new_root, put_old)"},
    {"open_tree", sys_open_tree, METH_VARARGS, "open_tree(dirfd, path, flags) -> fd"},
    {"move_mount", sys_move_mount, METH_VARARGS, "move_mount(from_fd, from_path, to_fd, to_path, flags)"},
    {"fsopen", sys_fsopen, METH_VARARGS, "fsopen(name, flags) -> fd"},
    {"fsconfig", sys_fsconfig, METH_VARARGS, "fsconfig(fd, command, key, value, aux)"},
    {"fsmount", sys_fsmount, METH_VARARGS, "fsmount(fd, flags, attributes) -> fd"},
    {"mount_setattr", sys_mount_setattr, METH_VARARGS,
     "mount_setattr(dirfd, path, flags, attr_set, attr_clr, propagation, userns_fd)"},
    {"openat2", sys_openat2, METH_VARARGS, "openat2(dirfd, path, flags, mode, resolve) -> fd"},
    {"fstatfs_type", sys_fstatfs_type, METH_VARARGS, "fstatfs_type(fd) -> magic number of the file system"},
    {"file_handle", sys_file_handle, METH_VARARGS, "file_handle(fd) -> the handle of name_to_handle_at(2)"},
    {"birth_time", sys_birth_time, METH_VARARGS, "birth_time(fd) -> nanoseconds since 1970, 0 is unknown"},
    {"capget", sys_capget, METH_NOARGS, "capget() -> (effective, permitted, inheritable)"},
    {"capset", sys_capset, METH_VARARGS, "capset(effective, permitted, inheritable)"},
    {"prctl", sys_prctl, METH_VARARGS, "prctl(option, a2=0, a3=0, a4=0, a5=0) -> int"},
    {"seccomp_load", sys_seccomp_load, METH_VARARGS, "seccomp_load(flags, program) -> fd of the listener, if there is one"},
    {"pidfd_getfd", sys_pidfd_getfd, METH_VARARGS, "pidfd_getfd(pidfd, fd) -> our own fd of it, close-on-exec"},
    {"landlock_create_ruleset", sys_landlock_create_ruleset, METH_VARARGS,
     "landlock_create_ruleset(attributes or None, flags) -> fd, or what a flag asks for"},
    {"landlock_add_path", sys_landlock_add_path, METH_VARARGS,
     "landlock_add_path(ruleset, fd, access): allow it on and below the path of fd"},
    {"landlock_restrict_self", sys_landlock_restrict_self, METH_VARARGS, "landlock_restrict_self(ruleset, flags)"},
    {"bpf_prog_load", sys_bpf_prog_load, METH_VARARGS, "bpf_prog_load(type, instructions, license) -> fd"},
    {"bpf_prog_count", sys_bpf_prog_count, METH_VARARGS, "bpf_prog_count(cgroup_fd, attach_type) -> number of programs"},
    {"syncfs", sys_syncfs, METH_VARARGS, "syncfs(fd)"},
    {"exchange", sys_exchange, METH_VARARGS, "exchange(path, other): each file gets the name of the other one"},
    {"getsockopt", sys_getsockopt, METH_VARARGS, "getsockopt(fd, level, option, value) -> value, of the same size"},
    {"write", sys_write, METH_VARARGS, "write(fd, data) -> count"},
    {"await_byte", sys_await_byte, METH_VARARGS, "await_byte(fd) -> 1, or 0 at the end"},
    {"write_aside", sys_write_aside, METH_VARARGS, "write_aside(fd): write 0 to it and close it, by a thread of its own"},
    {"default_signals", sys_default_signals, METH_NOARGS, "default_signals(): every action, and the mask"},
    {"leave", sys_leave, METH_VARARGS, "leave(status): end this process; never returns"},
    {"inotify_init1", sys_inotify_init1, METH_VARARGS, "inotify_init1(flags) -> fd"},
    {"inotify_add_watch", sys_inotify_add_watch, METH_VARARGS, "inotify_add_watch(fd, path, mask) -> watch"},
    {"keyctl_join_session", sys_keyctl_join_session, METH_VARARGS, "keyctl_join_session(name) -> serial"},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_sys",
    .m_doc = "The system calls that CPython lacks; each raises OSError.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__sys(void)
{
    return PyModuleDef_Init(&definition);
}
