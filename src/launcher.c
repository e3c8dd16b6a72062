/* SPDX-License-Identifier: Apache-2.0
 *
 * sysbox, the command on PATH: finds the interpreter and the package, then executes
 *
 *     python3.N -I -S -X utf8 .../sysbox/_main.cpython-3N.pyc LAUNCHER ARGUMENT...
 *
 * isolated (-I: no PYTHON* variable, no current directory on the path), without `site` (-S: its .pth files
 * cost more than a whole `sysbox ps`). LAUNCHER is this program's own absolute path: units that sysbox
 * makes run it again.
 *
 * The interpreter is executed through a read-only bind mount that is attached nowhere. sysbox runs for a
 * moment inside a container's namespaces, where a hostile process may reach /proc/PID/exe; through this mount
 * it cannot open the host's interpreter for writing, then or later (CVE-2019-5736). A caller without the
 * privilege to make the mount has no privilege to protect either, so a plain execve will do.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* From linux/mount.h, which a libc other than glibc does not find. */
#define OPEN_TREE_CLONE 1
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#define MOUNT_ATTR_RDONLY 1
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

/* As in base/paths.py. systemd runs `_cleanup` without the variables that name others. */
#define STATE "/var/lib/sysbox"
#define RUN "/run/sysbox"

enum { FAILED = 125, OPTIONS = 7, FILES = 64, REMOVAL = 5 /* seconds that a removal is waited for */ };

extern char **environ;

static _Noreturn void fail(const char *what, const char *where)
{
    const char *parts[] = {"sysbox: ", what, where, ": ", strerror(errno), "\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0)
            break;
    _exit(FAILED);
}

/* Concatenate three strings into a PATH_MAX buffer; 0 if they do not fit. */
static int join(char *result, const char *first, const char *second, const char *third)
{
    size_t length[] = {strlen(first), strlen(second), strlen(third)};
    if (length[0] + length[1] + length[2] >= PATH_MAX)
        return 0;
    memcpy(result, first, length[0]);
    memcpy(result + length[0], second, length[1]);
    memcpy(result + length[0] + length[1], third, length[2] + 1);
    return 1;
}

/* This program's path, symbolic links resolved; without /proc the path that was given to execve(2). */
static void find_self(char *path)
{
    ssize_t length = readlink("/proc/self/exe", path, PATH_MAX - 1);
    if (length > 0 && length < PATH_MAX - 1) {
        path[length] = '\0';
        return;
    }
    const char *name = (const char *)(uintptr_t)getauxval(AT_EXECFN);
    if (!name || !realpath(name, path))
        fail("cannot find its own path", "");
}

/* The interpreter beside this program (a virtual environment, /usr/bin), that of the build, or /usr/bin/python3. */
static void find_python(const char *directory, char *python)
{
    char candidate[PATH_MAX];
    if (join(candidate, directory, "/python3", "") && realpath(candidate, python) && access(python, X_OK) == 0)
        return;
    if (realpath(PYTHON, python) && access(python, X_OK) == 0)
        return;
    if (!realpath("/usr/bin/python3", python))
        fail("no interpreter: neither beside this program nor ", PYTHON);
}

/* The package below this program's prefix, for the interpreter's version; else where the build put it. */
static void find_package(const char *directory, const char *version, char *path)
{
    static const char *const libraries[] = {"/../lib/", "/../lib64/"};
    static const char *const tails[] = {"/site-packages/sysbox", "/dist-packages/sysbox"};
    char prefix[PATH_MAX], candidate[PATH_MAX];
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            if (join(prefix, directory, libraries[i], version) && join(candidate, prefix, tails[j], "") &&
                realpath(candidate, path))
                return;
    if (join(candidate, directory, "/../lib/python3/dist-packages/sysbox", "") && realpath(candidate, path))
        return;
    if (!realpath(PACKAGE, path))
        fail("the package is not below this program's prefix, nor at ", PACKAGE);
}

/* The package's first file: compiled by a CPython of this version (python3.11), else its source. */
static void find_main(const char *package, const char *version, char *path)
{
    static const char name[] = "python3.";
    if (strncmp(version, name, sizeof name - 1) == 0) {
        char compiled[PATH_MAX];
        if (join(compiled, package, "/_main.cpython-3", version + sizeof name - 1) && join(path, compiled, ".pyc", "") &&
            access(path, R_OK) == 0)
            return;
    }
    if (!join(path, package, "/_main.py", "") || access(path, R_OK))
        fail("cannot read the package's first file in ", package);
}

static void interrupt(int signal)
{
    (void)signal;
}

/* Whether a command has removed this container by force: it holds the lock meanwhile (lifecycle/remove.py), records the
 * end and releases everything itself, and the container's service has nothing to clean up. An interpreter that finds that
 * out would take longer than the removal. */
static int was_removed(const char *id)
{
    char path[PATH_MAX];
    if (!join(path, RUN "/containers/", id, "/removal"))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return 0;
    struct sigaction action = {.sa_handler = interrupt}; /* without SA_RESTART: it ends the wait */
    sigaction(SIGALRM, &action, NULL);
    alarm(REMOVAL);
    int locked = flock(fd, LOCK_SH);
    alarm(0);
    close(fd);
    return locked == 0 && join(path, STATE "/containers/", id, "") && access(path, F_OK) != 0 && errno == ENOENT;
}

/* Whether systemd will move a process of this command into a cgroup. */
static int starts_container(int argc, char **argv)
{
    static const char *const verbs[] = {"run", "start", "_supervise"};
    int at = argc > 1 && strcmp(argv[1], "container") == 0 ? 2 : 1;
    for (size_t i = 0; at < argc && i < sizeof verbs / sizeof *verbs; i++)
        if (strcmp(argv[at], verbs[i]) == 0)
            return 1;
    return 0;
}

/* The file that moves a process into this one's cgroup: systemd's hierarchy, else the unified one; 0 without either. */
static int find_cgroup(char *path)
{
    static char text[8192];
    int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    if (length <= 0)
        return 0;
    text[length] = '\0';
    char *end, *found = strstr(text, ":name=systemd:/"), *unified = strstr(text, "0::/");
    if (found)
        found += sizeof ":name=systemd:" - 1;
    else if (unified == text || (unified && unified[-1] == '\n'))
        unified += sizeof "0::" - 1;
    const char *own = found ? found : unified;
    if (!own || !(end = strchr(own, '\n')) || strncmp(own, "/..", 3) == 0)
        return 0;
    *end = '\0';
    return join(path, found ? "/sys/fs/cgroup/systemd" : "/sys/fs/cgroup", own, "/cgroup.procs");
}

/* Have the kernel prepare for systemd's move of a process to another cgroup while the interpreter starts: the first move
 * in a while waits for an RCU grace period, 10 ms and more, with a lock that the start needs (linux/cgroup.py). A
 * grandchild "moves" itself to where it is; this process must have no child that it does not know. */
static void expect_move(void)
{
    static char path[PATH_MAX];
    int status;
    if (!find_cgroup(path))
        return;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0 && write(fd, "0", 1) < 0)
            _exit(1); /* the move is slower then */
        _exit(0);
    }
    close(fd);
    if (child > 0)
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
}

static void execute_read_only(const char *python, char **argv)
{
    struct {
        uint64_t set, clear, propagation, userns_fd;
    } attributes = {.set = MOUNT_ATTR_RDONLY};
    long fd = syscall(SYS_open_tree, AT_FDCWD, python, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (fd < 0)
        return;
    if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0)
        syscall(SYS_execveat, fd, "", argv, environ, AT_EMPTY_PATH);
    close((int)fd);
}

int main(int argc, char **argv)
{
    /* Before anything else: the first file to be opened would get the number of a closed standard stream, and become
     * a container's input. open(2) returns the lowest free number, so the streams are filled in order. */
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
        if (fcntl(stream, F_GETFD) < 0 && open("/dev/null", O_RDWR) != stream)
            _exit(FAILED);

    /* The interpreter aborts its start if one of them is a directory. Replace that by the null device, opened in the
     * wrong direction: reading or writing it fails, as with a directory. */
    for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++) {
        struct stat status;
        if (fstat(stream, &status) == 0 && S_ISDIR(status.st_mode)) {
            int none = open("/dev/null", (stream == STDIN_FILENO ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
            if (none < 0 || dup2(none, stream) != stream)
                _exit(FAILED);
        }
    }

    /* If the caller ignores SIGCHLD, the kernel reaps our children and their status is lost (wait(2), NOTES). */
    signal(SIGCHLD, SIG_DFL);

    /* With fewer descriptors a start fails half-way, and so does its undoing. */
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < FILES) {
        errno = EMFILE;
        fail("fewer than 64 files may be open, raise `ulimit -n`", "");
    }

    if (argc == 3 && strcmp(argv[1], "_cleanup") == 0 && was_removed(argv[2]))
        return 0;
    if (starts_container(argc, argv))
        expect_move();

    static char self[PATH_MAX], directory[PATH_MAX], python[PATH_MAX], package[PATH_MAX], file[PATH_MAX];
    find_self(self);
    strcpy(directory, self);
    *strrchr(directory, '/') = '\0';
    find_python(directory, python);
    const char *version = strrchr(python, '/') + 1; /* python3.11 */
    find_package(directory, version, package);
    find_main(package, version, file);

    char **command = calloc((size_t)argc + OPTIONS + 1, sizeof *command);
    if (!command)
        fail("out of memory", "");
    char *options[OPTIONS] = {python, "-I", "-S", "-X", "utf8", file, self};
    memcpy(command, options, sizeof options);
    if (argc > 1)
        memcpy(command + OPTIONS, argv + 1, ((size_t)argc - 1) * sizeof *command);

    execute_read_only(python, command);
    execve(python, command, environ);
    fail("cannot execute ", python);
}
