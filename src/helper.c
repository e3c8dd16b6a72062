/* SPDX-License-Identifier: Apache-2.0
 *
 * Runs sysbox for what the monitor is too small to do itself.
 *
 *     --helper LAUNCHER ID     it executes LAUNCHER VERB ID
 *     --drop-ins DIRECTORY     where `systemctl set-property` makes systemd leave files, and `systemctl revert`
 *                              removes them; VERB is _tuned
 *
 * VERB is _oom when the kernel has killed something for lack of memory.
 *
 * The directory is watched by F_NOTIFY of fcntl(2), not by inotify(7): a user can have only 128 instances.
 */
#define _GNU_SOURCE
#include "monitor.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SETTLED = 5 }; /* milliseconds: systemd makes a file, and then renames it */

static struct {
    char *launcher, *id;
} command;

static struct helper {
    char *verb;
    pid_t pid;   /* of the running helper, else 0 */
    int64_t due; /* milliseconds(); 0: not wanted */
    int failed, done;
} helpers[] = {{.verb = "_tuned"}, {.verb = "_oom"}};
enum { TUNED, OOM, HELPERS };

void helper_command(char *launcher, char *id)
{
    command.launcher = launcher;
    command.id = id;
}

enum { WATCHED = 4 };
static struct watched {
    const char *path;
    int fd;
} watched[WATCHED];
static int watching;

static int is_empty(int directory)
{
    char entries[256];
    long length = syscall(SYS_getdents64, directory, entries, sizeof entries);
    return length >= 0 && length <= 48; /* "." and ".." have 24 bytes each */
}

static int is_same(int one, int other)
{
    struct stat a, b;
    return one >= 0 && !fstat(one, &a) && !fstat(other, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Also again: `systemctl revert` removes the directory, and the helper makes it anew. */
static void watch(struct watched *one)
{
    int fd = open(one->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && is_same(one->fd, fd)) {
        close(fd);
        return;
    }
    if (one->fd >= 0)
        close(one->fd);
    one->fd = fd;
    if (fd < 0)
        return;
    /* not in each kernel: there the next command that looks at the container catches up with later changes */
    fcntl(fd, F_NOTIFY, DN_CREATE | DN_RENAME | DN_DELETE | DN_MULTISHOT);
    if (!is_empty(fd))
        helper_changed(); /* set before the watch began */
}

void helper_watch(const char *directory)
{
    if (watching == WATCHED)
        return;
    watched[watching] = (struct watched){directory, -1};
    watch(&watched[watching++]);
}

void helper_changed(void)
{
    helpers[TUNED].due = milliseconds() + SETTLED;
}

void helper_tell_oom(void)
{
    helpers[OOM].due = milliseconds();
}

static void start(struct helper *helper)
{
    sigset_t none;
    sigemptyset(&none);
    helper->due = 0;
    pid_t pid = fork();
    if (pid) {
        helper->pid = pid > 0 ? pid : 0; /* if fork failed: again at the next change */
        helper->failed |= pid < 0;
        return;
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    char *arguments[] = {command.launcher, helper->verb, command.id, NULL}, *environment[] = {NULL};
    execve(command.launcher, arguments, environment);
    _exit(FAILED);
}

static void reap(struct helper *helper, int flags)
{
    int status;
    if (helper->pid <= 0 || waitpid(helper->pid, &status, flags) != helper->pid)
        return;
    helper->pid = 0;
    helper->failed |= status;
    helper->done = 1;
    for (int i = 0; helper == &helpers[TUNED] && i < watching; i++)
        watch(&watched[i]);
}

void helper_reap(void)
{
    for (int i = 0; i < HELPERS; i++)
        reap(&helpers[i], WNOHANG);
}

int helper_told_oom(void)
{
    reap(&helpers[OOM], 0);
    /* not done: the cgroup was removed before its count of kills could be read, and its end alone tells of one */
    return helpers[OOM].done && !helpers[OOM].due && !helpers[OOM].failed;
}

/* Never two of a kind at a time: a change meanwhile is handled by the next one. */
int64_t helper_turn(void)
{
    int64_t next = 0;
    for (struct helper *helper = helpers; command.launcher && helper < helpers + HELPERS; helper++) {
        if (!helper->pid && helper->due && milliseconds() >= helper->due)
            start(helper);
        if (!helper->pid && helper->due && (!next || helper->due < next))
            next = helper->due;
    }
    return next;
}
